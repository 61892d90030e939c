//! The text that answers are compared in: one line per value of the configuration and per path that is not as in the base.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;

use serde_json::Value;
use sha2::{Digest, Sha256};
use ukc_rootfs::{Content, Healthcheck, ImageConfig, Kind, NodeId, Tree};

/// Contents up to here are shown instead of their hash.
const SHOWN_BYTES: u64 = 100;

/// Returns the lines of a tree, those aside that the base has as well; paths of the base that are gone have a `gone` line.
///
/// # Errors
/// A file that cannot be read.
pub fn tree(tree: &Tree, base: &Tree) -> Result<Vec<String>, String> {
    let (new, old) = (lines(tree)?, lines(base)?);
    let mut out: Vec<String> = new.iter().filter(|(path, line)| old.get(*path) != Some(line)).map(|(_, line)| line.clone()).collect();
    let mut last: Option<&Vec<u8>> = None;
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        // What was in a removed directory goes with it.
        if !last.is_some_and(|dir| path.starts_with(dir) && path.get(dir.len()) == Some(&b'/')) {
            out.push(format!("gone {}", path.escape_ascii()));
            last = Some(path);
        }
    }
    Ok(out)
}

fn lines(tree: &Tree) -> Result<BTreeMap<Vec<u8>, String>, String> {
    let mut paths: Vec<(Vec<u8>, NodeId)> = vec![];
    tree.walk(&mut |path, id| paths.push((path.to_vec(), id)));
    let mut out = BTreeMap::new();
    for (path, id) in paths {
        let node = tree.node(id);
        let (letter, rest) = match &node.kind {
            Kind::Dir(_) => ('d', String::new()),
            Kind::File(content) => ('-', format!(" {}", shown(content).map_err(|e| format!("{}: {e}", path.escape_ascii()))?)),
            Kind::Symlink(target) => ('l', format!(" -> {}", target.escape_ascii())),
            Kind::CharDevice(major, minor) => ('c', format!(" {major}:{minor}")),
            Kind::BlockDevice(major, minor) => ('b', format!(" {major}:{minor}")),
            Kind::Fifo => ('p', String::new()),
        };
        let mut line = format!("{letter}{:04o} {}:{} {}{rest}", node.meta.mode, node.meta.uid, node.meta.gid, path.escape_ascii());
        for (name, value) in &node.meta.xattrs {
            let _ = write!(line, " {}={}", name.escape_ascii(), value.escape_ascii());
        }
        out.insert(path, line);
    }
    Ok(out)
}

fn shown(content: &Content) -> std::io::Result<String> {
    if content.len_bytes() <= SHOWN_BYTES {
        return Ok(format!("\"{}\"", content.read_all()?.escape_ascii()));
    }
    let (mut hash, mut reader, mut buffer) = (Sha256::new(), content.open()?, vec![0; 1 << 16]);
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            len => hash.update(&buffer[..len]),
        }
    }
    let hash: String = hash.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect();
    Ok(format!("{} bytes, {hash}", content.len_bytes()))
}

/// Returns the lines of our configuration.
pub fn config(config: &ImageConfig) -> Vec<String> {
    let mut out: Vec<String> = config.env.iter().map(|(n, v)| format!("Env {:?}", format!("{n}={v}"))).collect();
    list(&mut out, "Entrypoint", config.entrypoint.as_deref().unwrap_or_default());
    list(&mut out, "Cmd", config.cmd.as_deref().unwrap_or_default());
    list(&mut out, "Shell", config.shell.as_deref().unwrap_or_default());
    list(&mut out, "OnBuild", &config.on_build);
    value(&mut out, "User", &config.user);
    value(&mut out, "WorkingDir", &config.working_dir);
    value(&mut out, "StopSignal", config.stop_signal.as_deref().unwrap_or_default());
    out.extend(config.labels.iter().map(|(n, v)| format!("Label {:?}", format!("{n}={v}"))));
    out.extend(config.exposed_ports.iter().map(|p| format!("ExposedPort {p:?}")));
    out.extend(config.volumes.iter().map(|p| format!("Volume {p:?}")));
    if let Some(Healthcheck { test, interval, timeout, start_period, retries, .. }) = &config.healthcheck {
        let nanos = [interval, timeout, start_period].map(|d| d.as_nanos());
        out.push(format!("Healthcheck {test:?} {} {} {} {retries}", nanos[0], nanos[1], nanos[2]));
    }
    out
}

/// Returns the lines of Docker's form of a configuration.
pub fn docker_config(config: &Value) -> Vec<String> {
    let strings = |name: &str| -> Vec<String> {
        config[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
    let mut out: Vec<String> = strings("Env").iter().map(|v| format!("Env {v:?}")).collect();
    for name in ["Entrypoint", "Cmd", "Shell", "OnBuild"] {
        list(&mut out, name, &strings(name));
    }
    for name in ["User", "WorkingDir", "StopSignal"] {
        value(&mut out, name, &text(name));
    }
    let keys = |name: &str| config[name].as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    for name in keys("Labels").iter().filter(|n| !n.starts_with("io.buildah.")) {
        out.push(format!("Label {:?}", format!("{name}={}", config["Labels"][name].as_str().unwrap_or_default())));
    }
    out.extend(keys("ExposedPorts").iter().map(|p| format!("ExposedPort {p:?}")));
    out.extend(keys("Volumes").iter().map(|p| format!("Volume {p:?}")));
    let check = &config["Healthcheck"];
    if check.is_object() {
        let test: Vec<&str> = check["Test"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let number = |name: &str| check[name].as_u64().unwrap_or(0);
        let (interval, timeout, start) = (number("Interval"), number("Timeout"), number("StartPeriod"));
        out.push(format!("Healthcheck {test:?} {interval} {timeout} {start} {}", number("Retries")));
    }
    out
}

fn list(out: &mut Vec<String>, name: &str, words: &[String]) {
    if !words.is_empty() {
        out.push(format!("{name} {words:?}"));
    }
}

fn value(out: &mut Vec<String>, name: &str, value: &str) {
    if !value.is_empty() {
        out.push(format!("{name} {value:?}"));
    }
}
