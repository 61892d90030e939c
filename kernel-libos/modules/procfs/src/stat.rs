//! stat, statm, status and limits of a process.

use core::sync::atomic::Ordering;

use libos_core::mm::PAGE_SIZE;
use libos_core::task::signal::{self, SigSet};
use libos_core::task::{Resource, Task};

use crate::system::TICK_NS;
use crate::text::Text;

/// The letter of the state, and its word in status.
fn state(task: &Task) -> (char, &'static str) {
    match task.sched.state().letter() {
        b'S' => ('S', "sleeping"),
        b'D' => ('D', "disk sleep"),
        b'T' => ('T', "stopped"),
        b'Z' => ('Z', "zombie"),
        _ => ('R', "running"),
    }
}

pub fn stat(task: &Task, text: &mut Text) {
    let process = &task.process;
    let (user, system) = process.cpu_time_ns();
    let (child_user, child_system) = process.children_time_ns();
    let usage = task.mm_opt().map_or_else(Default::default, |mm| mm.usage());
    let program = task.mm_opt().map_or_else(Default::default, |mm| mm.program());
    let nice = i32::from(task.sched.nice());
    text.part(format_args!("{} (", task.tid()));
    text.bytes(&task.name_bytes());
    text.part(format_args!(
        ") {} {} {} {} 0 -1 4194304 {} 0 0 0 ",
        state(task).0,
        process.parent(),
        process.group(),
        process.session(),
        process.times.minor_faults.load(Ordering::Relaxed),
    ));
    let ticks = |ns: u64| ns / TICK_NS;
    text.part(format_args!("{} {} {} {} ", ticks(user), ticks(system), ticks(child_user), ticks(child_system)));
    text.part(format_args!("{} {nice} {} 0 {} ", 20 + nice, process.thread_count(), ticks(process.start_ns)));
    text.part(format_args!("{} {} {} ", usage.total, usage.resident / PAGE_SIZE, process.limit(Resource::Rss)));
    // Start and end of the code, start of the stack, stack and instruction pointer: hidden, as for strangers on Linux.
    text.part(format_args!("1 1 0 0 0 "));
    let (ignored, caught) = dispositions(task);
    // The old 31-signal masks.
    let low = |set: SigSet| set.0 & 0x7fff_ffff;
    let pending = task.signals.pending_set();
    text.part(format_args!("{} {} {} {} ", low(pending), low(task.signals.blocked()), low(ignored), low(caught)));
    text.part(format_args!("0 0 0 {} 0 0 0 0 0 0 ", process.exit_signal.load(Ordering::Relaxed)));
    text.line(format_args!("0 0 0 {} {} {} {} 0", program.args.start, program.args.end, program.env.start, program.env.end));
}

/// Signals that are ignored, and those that have a handler.
fn dispositions(task: &Task) -> (SigSet, SigSet) {
    let handlers = task.process.handlers();
    let (mut ignored, mut caught) = (0, 0);
    for signo in 1..=64 {
        let action = handlers.get(signo);
        // SIG_IGN is 1.
        if action.is_handler() {
            caught |= 1 << (signo - 1);
        } else if action.to_words()[0] == 1 {
            ignored |= 1 << (signo - 1);
        }
    }
    (SigSet(ignored), SigSet(caught))
}

pub fn statm(task: &Task, text: &mut Text) {
    let usage = task.mm_opt().map_or_else(Default::default, |mm| mm.usage());
    let pages = |bytes: usize| bytes / PAGE_SIZE;
    text.line(format_args!(
        "{} {} 0 {} 0 {} 0",
        pages(usage.total),
        pages(usage.resident),
        pages(usage.text),
        pages(usage.data + usage.stack)
    ));
}

pub fn status(task: &Task, text: &mut Text) {
    let process = &task.process;
    let creds = task.creds();
    text.part(format_args!("Name:\t"));
    text.escaped(&task.name_bytes(), b"\n\\");
    let (letter, word) = state(task);
    text.line(format_args!("\nUmask:\t{:04o}", task.fs_opt().map_or(0, |fs| fs.umask.load(Ordering::Relaxed))));
    text.line(format_args!("State:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{}", process.pid, task.tid()));
    text.line(format_args!("PPid:\t{}\nTracerPid:\t0", process.parent()));
    text.line(format_args!("Uid:\t{}\t{}\t{}\t{}", creds.uid, creds.euid, creds.suid, creds.fsuid));
    text.line(format_args!("Gid:\t{}\t{}\t{}\t{}", creds.gid, creds.egid, creds.sgid, creds.fsgid));
    // The table of descriptors grows by 64.
    let files = task.files().descriptors().last().map_or(0, |last| *last as usize + 1);
    text.part(format_args!("FDSize:\t{}\nGroups:\t", files.next_multiple_of(64).max(64)));
    for group in &creds.groups {
        text.part(format_args!("{group} "));
    }
    text.line(format_args!("\nNStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}", process.pid, task.tid(), process.group()));
    text.line(format_args!("NSsid:\t{}", process.session()));
    if let Some(mm) = task.mm_opt() {
        let usage = mm.usage();
        for (name, bytes) in [
            ("VmPeak", usage.total),
            ("VmSize", usage.total),
            ("VmLck", usage.locked),
            ("VmPin", 0),
            ("VmHWM", usage.resident),
            ("VmRSS", usage.resident),
            ("RssAnon", usage.resident),
            ("RssFile", 0),
            ("RssShmem", 0),
            ("VmData", usage.data),
            ("VmStk", usage.stack),
            ("VmExe", usage.text),
            ("VmLib", 0),
            ("VmPTE", 0),
            ("VmSwap", 0),
        ] {
            text.line(format_args!("{name}:\t{:>8} kB", bytes / 1024));
        }
    }
    let (ignored, caught) = dispositions(task);
    text.line(format_args!("CoreDumping:\t0\nTHP_enabled:\t0\nThreads:\t{}", process.thread_count()));
    text.line(format_args!("SigQ:\t0/{}", process.limit(Resource::SigPending)));
    let shared = signal::all_pending(task).minus(task.signals.pending_set());
    for (name, set) in [
        ("SigPnd", task.signals.pending_set()),
        ("ShdPnd", shared),
        ("SigBlk", task.signals.blocked()),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ] {
        text.line(format_args!("{name}:\t{:016x}", set.0));
    }
    for (name, set) in [
        ("CapInh", creds.inheritable),
        ("CapPrm", creds.permitted),
        ("CapEff", creds.effective),
        ("CapBnd", creds.bounding),
        ("CapAmb", creds.ambient),
    ] {
        text.line(format_args!("{name}:\t{set:016x}"));
    }
    text.line(format_args!("NoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0", u8::from(creds.no_new_privs)));
    text.line(format_args!("Cpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t0"));
    text.line(format_args!("voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0"));
}

/// Names, resources and units, in the order of the file.
const LIMITS: [(&str, Resource, &str); 16] = [
    ("Max cpu time", Resource::Cpu, "seconds"),
    ("Max file size", Resource::FileSize, "bytes"),
    ("Max data size", Resource::Data, "bytes"),
    ("Max stack size", Resource::Stack, "bytes"),
    ("Max core file size", Resource::Core, "bytes"),
    ("Max resident set", Resource::Rss, "bytes"),
    ("Max processes", Resource::NProc, "processes"),
    ("Max open files", Resource::NoFile, "files"),
    ("Max locked memory", Resource::MemLock, "bytes"),
    ("Max address space", Resource::As, "bytes"),
    ("Max file locks", Resource::Locks, "locks"),
    ("Max pending signals", Resource::SigPending, "signals"),
    ("Max msgqueue size", Resource::MsgQueue, "bytes"),
    ("Max nice priority", Resource::Nice, ""),
    ("Max realtime priority", Resource::RtPrio, ""),
    ("Max realtime timeout", Resource::RtTime, "us"),
];

pub fn limits(task: &Task, text: &mut Text) {
    text.line(format_args!("{:<25} {:<20} {:<20} {:<10}", "Limit", "Soft Limit", "Hard Limit", "Units"));
    for (name, resource, unit) in LIMITS {
        let limit = task.process.limits(resource);
        text.part(format_args!("{name:<25} "));
        for value in [limit.soft, limit.hard] {
            if value == u64::MAX {
                text.part(format_args!("{:<20} ", "unlimited"));
            } else {
                text.part(format_args!("{value:<20} "));
            }
        }
        text.line(format_args!("{unit:<10}"));
    }
}
