//! From the objects of the closure to system calls with evidence: summaries in parallel, wrappers across objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;
use ukc_elf::Elf;

use crate::cache::{self, Cache};
use crate::facts::{Facts, Object, Place, Reason, Syscall};
use crate::files::ElfFile;
use crate::object::{self, Summary, Unknown};
use crate::reach;

/// An object of the closure, not yet summarised.
pub struct Member {
    /// Path for reading.
    pub path: String,
    /// Why it is there.
    pub reason: Reason,
    /// The file.
    pub file: Arc<ElfFile>,
}

/// How many rounds of wrappers exported by one object and called by another are followed.
const MAX_ROUNDS: usize = 4;

/// Summarises all members and adds objects, calls and features to `facts`.
pub fn compose(members: &[Member], cache: Option<&dyn Cache>, facts: &mut Facts) {
    let hashes: Vec<blake3::Hash> = members.par_iter().map(|m| blake3::hash(&m.file.bytes)).collect();
    let summarise = |i: usize, wrappers: &[(String, u8)]| -> Summary {
        cache::summary(cache, &cache::key(&hashes[i], wrappers), || {
            // The closure holds only files that parse.
            object::summarize(&members[i].file.bytes, wrappers).unwrap_or_default()
        })
    };
    let mut summaries: Vec<Summary> = (0..members.len()).into_par_iter().map(|i| summarise(i, &[])).collect();
    let mut known: BTreeSet<(String, u8)> = BTreeSet::from([("syscall".to_owned(), 7)]);
    for _ in 0..MAX_ROUNDS {
        let new: Vec<(String, u8)> = summaries
            .iter()
            .flat_map(|s| &s.wrappers)
            .flat_map(|w| w.names.iter().map(|n| (n.clone(), w.param)))
            .filter(|w| !known.contains(w))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if new.is_empty() {
            break;
        }
        known.extend(new);
        let all: Vec<(String, u8)> = known.iter().filter(|w| w.0 != "syscall").cloned().collect();
        let again: Vec<(usize, Summary)> = (0..members.len())
            .into_par_iter()
            .filter_map(|i| {
                let wanted = imported(&members[i].file, &all);
                (!wanted.is_empty()).then(|| (i, summarise(i, &wanted)))
            })
            .collect();
        for (i, summary) in again {
            let graph = summaries[i].graph.take();
            summaries[i] = Summary { graph, ..summary };
        }
    }

    let reached = reach::search(members, &summaries);
    let is_reached = |object: usize, offset: u64| reached.is_reached(&summaries, object, offset);
    for (i, (member, summary)) in members.iter().zip(&summaries).enumerate() {
        facts.objects.push(Object {
            path: member.path.clone(),
            reason: member.reason.clone(),
            hash: hashes[i].to_hex().to_string(),
            code_bytes: summary.code_bytes,
        });
        for site in summary.sites.iter().filter(|site| is_reached(i, site.offset)) {
            for &nr in &site.numbers {
                let call = facts.syscalls.entry(nr).or_insert_with(|| Syscall { name: name(nr), sites: vec![] });
                call.sites.push(Place { object: i, offset: site.offset, function: site.function.clone(), note: site.via.clone() });
            }
        }
        let place = |u: &Unknown| Place { object: i, offset: u.offset, function: u.function.clone(), note: Some(u.reason.clone()) };
        facts.unknown.extend(summary.unknown.iter().filter(|u| is_reached(i, u.offset)).map(place));
        facts.dropped.extend(summary.dropped.iter().map(place));
        facts.features.legacy_entries.extend(summary.legacy.iter().filter(|u| is_reached(i, u.offset)).map(place));
    }
    features(members, &summaries, facts);
}

/// Returns those of `wrappers` that the object imports.
fn imported(file: &ElfFile, wrappers: &[(String, u8)]) -> Vec<(String, u8)> {
    let names = imports(&file.bytes);
    wrappers.iter().filter(|(n, _)| names.contains(&n.as_bytes())).cloned().collect()
}

/// Returns the names that an object imports.
pub fn imports(bytes: &[u8]) -> Vec<&[u8]> {
    let Ok(elf) = Elf::parse(bytes) else { return Vec::new() };
    let Ok(Some(dynamic)) = elf.dynamic() else { return Vec::new() };
    elf.dynamic_symbols(&dynamic).iter().filter(|s| !s.is_defined && !s.name.is_empty()).map(|s| s.name).collect()
}

fn name(nr: u32) -> String {
    libos_abi::syscall::name(nr as usize).map_or_else(|| format!("syscall_{nr}"), str::to_owned)
}

fn features(members: &[Member], summaries: &[Summary], facts: &mut Facts) {
    let socket = libos_abi::syscall::number("socket").unwrap_or(usize::MAX) as u32;
    let clone = ["clone", "clone3"].map(|n| libos_abi::syscall::number(n).unwrap_or(usize::MAX) as u32);
    let f = &mut facts.features;
    let mut runtimes: BTreeMap<&str, ()> = BTreeMap::new();
    for (m, s) in members.iter().zip(summaries) {
        let file = &m.file;
        match file.soname.as_deref() {
            Some(b"libc.so.6") => drop(runtimes.insert("glibc", ())),
            Some(n) if n.starts_with(b"libc.musl") || n == b"libc.so" => drop(runtimes.insert("musl", ())),
            _ => {}
        }
        if matches!(m.reason, Reason::Loader(_)) && file.soname.is_none() {
            // musl's loader is its C library, and Debian's build gives it no soname.
            runtimes.insert("musl", ());
        }
        if file.is_go {
            runtimes.insert("go", ());
        }
        if file.is_program && file.interpreter.is_none() && file.needed.is_empty() {
            runtimes.insert("static", ());
        }
        let makes = |nr: u32| s.sites.iter().any(|site| site.numbers.contains(&nr));
        let is_libc = file.is_libc() || matches!(m.reason, Reason::Loader(_));
        let is_static = file.needed.is_empty() && file.is_program;
        if file.has_writable_code {
            f.writable_code.push(m.path.clone());
        }
        if file.wants_executable_stack {
            f.executable_stack.push(m.path.clone());
        }
        if !is_libc && (file.starts_threads || is_static && clone.iter().any(|&c| makes(c))) {
            f.threads.push(m.path.clone());
        }
        if !is_libc && (file.uses_network || makes(socket)) {
            f.network.push(m.path.clone());
        }
    }
    f.runtimes = runtimes.into_keys().map(str::to_owned).collect();
}
