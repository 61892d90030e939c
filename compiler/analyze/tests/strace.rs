//! No program makes a call that the analysis does not find: the static set against `strace -f`, on programs of this machine.
//!
//! Needs strace and whatever of the programs is installed; what is not there is passed over.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::{file, host, host_tree, starts};
use ukc_analyze::{Options, analyze};
use ukc_rootfs::Tree;

/// Runs `argv` under strace; returns the names of its calls.
fn traced(argv: &[String], log: &Path) -> Option<BTreeSet<String>> {
    let log = log.to_str()?;
    let status = Command::new("strace").args(["-f", "-qq", "-o", log]).args(argv).output().ok()?.status;
    // strace ends as the program does, or with a message of its own when it cannot trace here.
    let text = std::fs::read(log).ok().map(|b| String::from_utf8_lossy(&b).into_owned())?;
    if text.is_empty() || status.code().is_none() {
        return None;
    }
    let name = |line: &str| {
        let line = line.split_once(' ').map_or(line, |(pid, rest)| if pid.parse::<u32>().is_ok() { rest.trim_start() } else { line });
        let name = line.strip_prefix("<... ").map_or_else(|| line.split('(').next(), |r| r.split(' ').next())?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        is_name.then(|| name.to_owned())
    };
    // The first execve is strace's own; restart_syscall is the kernel's, after a signal.
    Some(text.lines().skip(1).filter_map(name).filter(|n| n != "restart_syscall").collect())
}

fn compile(dir: &Path, name: &str, command: &[&str], source: (&str, &str)) -> Option<String> {
    let (input, output) = (dir.join(source.0), dir.join(name));
    std::fs::write(&input, source.1).ok()?;
    let done = Command::new(command[0])
        .args(&command[1..])
        .arg("-o")
        .arg(&output)
        .arg(&input)
        .env("GOCACHE", dir.join("go-cache"))
        .output()
        .ok()?;
    done.status.success().then(|| output.to_string_lossy().into_owned())
}

#[test]
fn no_call_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = host_tree();
    let c = "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n";
    // Starting the Go tool chain takes longer than everything else; GO_HELLO names a program that is already there.
    let mut runs: Vec<Vec<String>> = [
        "/bin/true",
        "/bin/ls -l /etc",
        "/bin/busybox ls -l /etc",
        "/usr/bin/python3.11 -c print(1)",
        "/usr/sbin/nginx -v",
        "/usr/bin/redis-server --version",
        "/usr/bin/sqlite3 :memory: select(1)",
    ]
    .iter()
    .map(|r| r.split(' ').map(str::to_owned).collect())
    .collect();
    runs.extend(compile(dir.path(), "static", &["gcc", "-O2", "-static"], ("static.c", c)).map(|p| vec![p]));
    runs.extend(compile(dir.path(), "musl", &["musl-gcc", "-O2", "-static"], ("musl.c", c)).map(|p| vec![p]));
    runs.extend(std::env::var("GO_HELLO").ok().map(|p| vec![p]));
    host(&mut tree, dir.path().to_str().unwrap());
    if let Ok(go) = std::env::var("GO_HELLO") {
        host(&mut tree, Path::new(&go).parent().unwrap().to_str().unwrap());
    }

    let mut report = String::new();
    let mut failures = Vec::new();
    for argv in runs.iter().filter(|a| Path::new(&a[0]).exists()) {
        let Some(seen) = traced(argv, &dir.path().join("log")) else { continue };
        // Only the program's name: arguments that name directories or programs must not widen the set here.
        let config = starts(&[&argv[0]]);
        // busybox is a shell, with which everything in PATH counts: here that is itself.
        let mut alone = Tree::new();
        let tree = if argv[0].ends_with("busybox") {
            file(&mut alone, &argv[0], 0o755, std::fs::read(&argv[0]).unwrap());
            &alone
        } else {
            &tree
        };
        let facts = analyze(tree, &config, &Options::default()).unwrap_or_else(|e| panic!("{argv:?}: {e:?}"));
        let found: BTreeSet<&str> = facts.syscalls.values().map(|c| c.name.as_str()).collect();
        let missed: Vec<&String> = seen.iter().filter(|n| !found.contains(n.as_str())).collect();
        let name = Path::new(&argv[0]).file_name().unwrap().to_string_lossy().into_owned();
        report += &format!(
            "{name}: {} objects, {} static, {} traced, {} missed, {} unknown sites\n",
            facts.objects.len(),
            found.len(),
            seen.len(),
            missed.len(),
            facts.unknown.len()
        );
        if !missed.is_empty() || !facts.unknown.is_empty() {
            failures.push(format!("{name}: missed {missed:?}, unknown {:?}", facts.unknown));
        }
    }
    eprint!("{report}");
    assert!(failures.is_empty(), "{failures:#?}");
}
