//! The choice of guest: what the libOS should not run, and why.
//!
//! The first rule that applies decides; the last two say how sure the verdict for the libOS is.
//!
//! To add a rule: a function from facts and plan to a sentence, and its place in [`choose`].

use serde::{Deserialize, Serialize};
use ukc_analyze::{Facts, Place, Syscall};

use crate::plan::Plan;

/// A verdict with its reasons, in sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the program should run on.
    pub guest: Recommended,
    /// Why.
    pub reasons: Vec<String>,
}

/// What a program should run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recommended {
    /// The library OS.
    Libos,
    /// A Linux kernel.
    Linux,
}

/// Services of a kernel to its administrator. A libOS for one application has nothing to administer.
const PRIVILEGED: &[&str] = &[
    "pivot_root",
    "unshare",
    "setns",
    "init_module",
    "finit_module",
    "delete_module",
    "bpf",
    "perf_event_open",
    "ptrace",
    "kexec_load",
    "kexec_file_load",
    "userfaultfd",
    "fanotify_init",
    "fanotify_mark",
    "keyctl",
];

/// Calls whose absence programs are written to cope with: each is younger than the kernels its callers still support, or asks for what a kernel may not
/// be built with, so that ENOSYS makes them take another way (the man pages' ERRORS and VERSIONS).
const OPTIONAL: &[&str] = &[
    "_sysctl",
    "add_key",
    "bpf",
    "cachestat",
    "fanotify_init",
    "fanotify_mark",
    "get_mempolicy",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "keyctl",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "map_shadow_stack",
    "mbind",
    "memfd_secret",
    "migrate_pages",
    "move_pages",
    "perf_event_open",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "process_madvise",
    "process_mrelease",
    "quotactl",
    "quotactl_fd",
    "request_key",
    "seccomp",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "userfaultfd",
];

/// Decides.
pub fn choose(facts: &Facts, plan: &Plan) -> Verdict {
    let required = |name: &str| !OPTIONAL.contains(&name);
    let privileged: Vec<String> = facts
        .syscalls
        .values()
        .filter(|call| PRIVILEGED.contains(&call.name.as_str()) && required(&call.name))
        .filter_map(|call| Some((call, of_program(facts, call)?)))
        .map(|(call, site)| format!("it asks for a service to administrators, {}: {}", call.name, facts.place(site)))
        .collect();
    if !privileged.is_empty() {
        return linux(privileged);
    }
    let missing: Vec<String> = plan
        .missing
        .iter()
        .filter(|m| required(&m.name))
        .filter_map(|m| Some((m, of_program(facts, facts.syscalls.get(&m.nr)?)?)))
        .map(|(m, site)| format!("the libOS does not have {}: {}", m.name, facts.place(site)))
        .collect();
    if !missing.is_empty() {
        return linux(missing);
    }
    let assumed: Vec<&str> = plan.missing.iter().filter(|m| required(&m.name)).map(|m| m.name.as_str()).collect();
    let mut reasons = match assumed.is_empty() {
        true => vec!["the libOS has every system call that its programs and libraries contain".to_owned()],
        false => {
            vec![format!("only libraries contain what the libOS does not have, and are assumed not to use it: {}", assumed.join(", "))]
        }
    };
    if let Some(place) = facts.features.legacy_entries.first() {
        reasons.push(format!("bytes that look like a 32-bit system call are taken for data: {}", facts.place(place)));
    }
    if let Some(place) = facts.unknown.first() {
        reasons.push(format!("the number of a call is not known, so every call that the libOS has counts: {}", facts.place(place)));
    }
    Verdict { guest: Recommended::Libos, reasons }
}

/// Returns a place where the program itself makes the call. Libraries offer calls to whoever wants them; a program that holds one is made for it. In a
/// static program the C library's own cannot be told from the program's, so none counts.
fn of_program<'f>(facts: &Facts, call: &'f Syscall) -> Option<&'f Place> {
    call.sites.iter().find(|site| site.object == 0 && facts.objects.len() > 1)
}

fn linux(reasons: Vec<String>) -> Verdict {
    Verdict { guest: Recommended::Linux, reasons }
}
