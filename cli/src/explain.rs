//! `ukc explain IMAGE [TOPIC]`: why an image has what it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use ukc_driver::Explanation;
use ukc_driver::image_json::{GuestKind, Image};

use crate::args::{ExplainArgs, ExplainFormat};
use crate::image_commands::find_image;
use crate::report::{self, Failure};
use crate::{table, units};

/// Runs the command.
pub fn command(args: &ExplainArgs) -> Result<u8, Failure> {
    let (image, dir) = find_image(&args.image)?;
    let (text, json) = match (&args.topic, args.size, args.guest) {
        (_, true, _) => sizes(&image, &dir)?,
        (_, _, true) => guest(&image),
        (None, ..) => summary(&image),
        (Some(topic), ..) => {
            let explanation = explanation(&dir, &args.image)?;
            match topic.split_once(':') {
                Some(("syscall", name)) => syscall(&explanation, name)?,
                Some(("module", name)) => module(&explanation, &image, name)?,
                Some(("file", path)) => file(&explanation, path)?,
                _ => return Err(Failure::usage(format!("`{topic}` is no topic; topics are syscall:NAME, module:NAME and file:PATH"))),
            }
        }
    };
    let out = match args.format {
        ExplainFormat::Text => text,
        ExplainFormat::Json => report::json(&json)?,
    };
    report::output(&out).map(|()| 0)
}

fn explanation(dir: &Path, name: &str) -> Result<Explanation, Failure> {
    let path: PathBuf = dir.join("analysis.json");
    let bytes =
        std::fs::read(&path).map_err(|e| Failure::new(format!("`{name}` does not say why it is as it is: `{}`: {e}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(|e| Failure::new(format!("cannot read `{}`: {e}", path.display())))
}

fn guest_name(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Unikernel => "libos",
        GuestKind::Linux => "linux",
    }
}

fn guest(image: &Image) -> (String, Value) {
    let name = guest_name(image.guest.kind);
    let reasons: String = image.guest.reasons.iter().map(|r| format!("  {r}\n")).collect();
    (format!("guest {name}\n{reasons}"), json!({"guest": name, "reasons": image.guest.reasons}))
}

fn summary(image: &Image) -> (String, Value) {
    let mut text = guest(image).0;
    text += &format!(
        "kernel {} in {} modules, {} system calls\n\n",
        units::size(image.kernel.len_bytes),
        image.modules.len(),
        image.syscalls.len()
    );
    let rows: Vec<Vec<String>> = image.modules.iter().map(|m| vec![m.name.clone(), units::shortened(&m.reasons.join("; "), 100)]).collect();
    text += &table::aligned(&rows);
    (text, json!({"guest": guest(image).1, "modules": image.modules, "syscalls": image.syscalls, "kernel": image.kernel}))
}

/// A call: who makes it, by which way, and who answers.
fn syscall(explanation: &Explanation, name: &str) -> Result<(String, Value), Failure> {
    let (facts, plan) = (&explanation.facts, &explanation.plan);
    let handler = plan.handlers.iter().find(|h| h.name == name);
    let call = facts.syscalls.values().find(|c| c.name == name);
    if call.is_none() && handler.is_none() {
        return Err(Failure::new(format!("nothing that can run in this image makes the system call `{name}`")));
    }
    let answer = match handler {
        Some(h) if h.note.is_empty() => format!("{name}: answered by the module {} ({})", h.module, h.state.word()),
        Some(h) => format!("{name}: answered by the module {} ({}: {})", h.module, h.state.word(), h.note),
        None => format!("{name}: answers ENOSYS, no module has it"),
    };
    let mut text = answer + "\n";
    let chains: Vec<Vec<String>> = call.iter().flat_map(|c| &c.sites).map(|site| explanation.chain(site)).collect();
    for chain in &chains {
        text += "\n";
        for (depth, step) in chain.iter().enumerate() {
            text += &format!("{}{step}\n", "  ".repeat(depth));
        }
    }
    if chains.is_empty()
        && let Some(handler) = handler
    {
        text += &format!("  {}\n", handler.evidence);
    }
    let state = handler.map_or("none", |h| h.state.word());
    Ok((
        text,
        json!({"syscall": name, "state": state, "module": handler.map(|h| &h.module), "note": handler.map(|h| &h.note), "chains": chains}),
    ))
}

/// A module: why it is linked, and what it answers here.
fn module(explanation: &Explanation, image: &Image, name: &str) -> Result<(String, Value), Failure> {
    let Some(module) = image.modules.iter().find(|m| m.name == name) else {
        return Err(Failure::new(format!("the kernel of this image does not have the module `{name}`")));
    };
    let calls: Vec<&str> = explanation.plan.handlers.iter().filter(|h| h.module == name).map(|h| h.name.as_str()).collect();
    let mut text = format!("{name}\n");
    module.reasons.iter().for_each(|reason| text += &format!("  {reason}\n"));
    if !calls.is_empty() {
        text += &format!("answers {}\n", calls.join(", "));
    }
    Ok((text, json!({"module": name, "reasons": module.reasons, "syscalls": calls})))
}

/// A file: what brought it in, and the calls that its code makes.
fn file(explanation: &Explanation, path: &str) -> Result<(String, Value), Failure> {
    let facts = &explanation.facts;
    let Some(object) = facts.objects.iter().position(|o| o.path == path || o.path.rsplit('/').next() == Some(path)) else {
        return Err(Failure::new(format!("`{path}` is not among the programs and libraries that can run in this image")));
    };
    let origins = explanation.origins(object);
    let calls: Vec<&str> =
        facts.syscalls.values().filter(|c| c.sites.iter().any(|s| s.object == object)).map(|c| c.name.as_str()).collect();
    let mut text: String = origins.iter().enumerate().map(|(depth, step)| format!("{}{step}\n", "  ".repeat(depth))).collect();
    text += &format!("makes {}\n", if calls.is_empty() { "no system call itself".to_owned() } else { calls.join(", ") });
    Ok((text, json!({"file": facts.objects[object].path, "because": origins, "syscalls": calls})))
}

/// The kernel's bytes by the crate that they come from, out of the linker's map.
fn sizes(image: &Image, dir: &Path) -> Result<(String, Value), Failure> {
    let path = dir.join("kernel.map");
    let map = std::fs::read_to_string(&path).map_err(|e| Failure::new(format!("cannot read `{}`: {e}", path.display())))?;
    let mut by_crate: BTreeMap<String, u64> = BTreeMap::new();
    for line in map.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(len), Some(section)) = (words.next(), words.next(), words.next()) else { continue };
        let is_entry = address.len() == 16 && address.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(len) = len.parse::<u64>().ok().filter(|_| is_entry) {
            *by_crate.entry(owner(section).unwrap_or("other").to_owned()).or_default() += len;
        }
    }
    let mut all: Vec<(String, u64)> = by_crate.into_iter().collect();
    all.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    let rows: Vec<Vec<String>> = all.iter().map(|(name, len)| vec![len.to_string(), name.clone()]).collect();
    let text = format!("kernel file {} bytes; in memory, by crate:\n{}", image.kernel.len_bytes, table::aligned(&rows));
    let list: Vec<Value> = all.iter().map(|(name, len)| json!({"crate": name, "bytes": len})).collect();
    Ok((text, json!({"kernel_bytes": image.kernel.len_bytes, "crates": list})))
}

/// Returns the first crate in a section's mangled name: `.text._ZN10libos_core4task…` and the v0 form `…Cs1a2b_5alloc…` hold lengths before names.
fn owner(section: &str) -> Option<&str> {
    let at = section.find("_ZN").map(|at| at + 3).or_else(|| {
        let hash = section.find("Cs")?;
        Some(hash + section[hash..].find('_')? + 1)
    })?;
    let digits = section[at..].bytes().take_while(u8::is_ascii_digit).count();
    let len: usize = section[at..at + digits].parse().ok()?;
    let name = section.get(at + digits..at + digits + len)?;
    // `_$LT$core..slice..Iter$LT$T$GT$…`: the type's crate.
    let name = name.trim_start_matches("_$LT$").split(['.', '$']).find(|word| !word.is_empty() && *word != "_")?;
    Some(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn crates_are_read_from_mangled_names() {
        for (section, expected) in [
            (".text._ZN10libos_core4task5sched8schedule17h4e8aE", Some("libos_core")),
            (".text.unlikely._RNvNtCslNYArtu3iFV_5alloc7raw_vec12handle_error", Some("alloc")),
            (".text._ZN63_$LT$A$u20$as$u20$core..slice..cmp..SlicePartialEq$LT$B$GT$$GT$5equal17h0E", Some("A")),
            (".text.memcpy", None),
            (".text._ZN9", None),
        ] {
            assert_eq!(super::owner(section), expected, "{section}");
        }
    }
}
