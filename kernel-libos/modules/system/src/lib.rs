//! What programs ask about the system and about themselves: uname(2), sysinfo(2), getrandom(2), limits, prctl(2), arch_prctl(2), scheduling parameters.
//!
//! | file | what it is for |
//! |---|---|
//! | `info` | uname(2), sysinfo(2), getrandom(2), getcpu(2), host name, and calls that only a whole machine's owner may make |
//! | `limits` | getrlimit(2), prlimit(2) |
//! | `prctl` | prctl(2), arch_prctl(2), personality(2) |
//! | `sched` | sched_*(2), nice values |
//!
//! Differences from Linux: scheduling policies and priorities are kept and change nothing; restartable sequences (rseq(2)) are `ENOSYS`, which C libraries expect.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod info;
mod limits;
mod prctl;
mod sched;

libos_core::module! {
    name: system,
    needs: [],
    syscalls: {
        uname => info::sys_uname,
        sysinfo => info::sys_sysinfo,
        getrandom => info::sys_getrandom,
        getcpu => info::sys_getcpu,
        sethostname => info::sys_sethostname,
        setdomainname => info::sys_sethostname,
        syslog => info::sys_syslog: partial "always EPERM",
        reboot => info::sys_reboot,
        getrlimit => limits::sys_getrlimit,
        setrlimit => limits::sys_setrlimit,
        prlimit64 => limits::sys_prlimit64,
        prctl => prctl::sys_prctl: partial "seccomp filters, speculation control and core scheduling are EINVAL",
        arch_prctl => prctl::sys_arch_prctl: partial "CPUID faulting is ENODEV",
        personality => prctl::sys_personality,
        rseq => prctl::sys_rseq: stub "ENOSYS",
        sched_yield => sched::sys_sched_yield,
        sched_getaffinity => sched::sys_sched_getaffinity,
        sched_setaffinity => sched::sys_sched_setaffinity,
        sched_getscheduler => sched::sys_sched_getscheduler,
        sched_setscheduler => sched::sys_sched_setscheduler: partial "kept, without effect",
        sched_getparam => sched::sys_sched_getparam,
        sched_setparam => sched::sys_sched_setparam: partial "kept, without effect",
        sched_getattr => sched::sys_sched_getattr,
        sched_setattr => sched::sys_sched_setattr: partial "kept, without effect",
        sched_get_priority_max => sched::sys_sched_get_priority_max,
        sched_get_priority_min => sched::sys_sched_get_priority_min,
        sched_rr_get_interval => sched::sys_sched_rr_get_interval,
        getpriority => sched::sys_getpriority,
        setpriority => sched::sys_setpriority,
        ioprio_get => sched::sys_ioprio_get,
        ioprio_set => sched::sys_ioprio_set: partial "without effect",
    },
}
