//! times(2) and getrusage(2).

use core::sync::atomic::Ordering;

use libos_core::task::process::rusage_words;
use libos_core::time::monotonic_ns;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

/// Nanoseconds of a clock tick of times(2): 100 per second.
const TICK_NS: u64 = 10_000_000;

pub fn sys_times(task: &Task, out: UserPtr<[u64; 4]>) -> Result<usize> {
    let (user, system) = task.process.cpu_time_ns();
    let (children_user, children_system) = task.process.children_time_ns();
    out.write_if_not_null([user, system, children_user, children_system].map(|ns| ns / TICK_NS))?;
    Ok((monotonic_ns() / TICK_NS) as usize)
}

pub fn sys_getrusage(task: &Task, who: i32, out: UserPtr<[u64; 18]>) -> Result<usize> {
    const RUSAGE_SELF: i32 = 0;
    const RUSAGE_CHILDREN: i32 = -1;
    const RUSAGE_THREAD: i32 = 1;
    let process = &task.process;
    let voluntary = task.sched.voluntary_switches.load(Ordering::Relaxed);
    let involuntary = task.sched.involuntary_switches.load(Ordering::Relaxed);
    // The peak is not kept; what is resident now stands for it.
    let peak_kib = || (task.mm().usage().resident / 1024) as u64;
    let words = match who {
        RUSAGE_SELF => {
            let (user, system) = process.cpu_time_ns();
            rusage_words(user, system, peak_kib(), 0, voluntary, involuntary)
        }
        RUSAGE_CHILDREN => {
            let (user, system) = process.children_time_ns();
            rusage_words(user, system, 0, 0, 0, 0)
        }
        RUSAGE_THREAD => {
            let run = task.sched.run_ns();
            let system = task.sched.system_ns().min(run);
            rusage_words(run - system, system, peak_kib(), 0, voluntary, involuntary)
        }
        _ => return Err(Errno::EINVAL),
    };
    out.write(words)?;
    Ok(0)
}
