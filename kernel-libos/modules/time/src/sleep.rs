//! nanosleep(2) and clock_nanosleep(2).

use alloc::boxed::Box;

use libos_core::abi::general as linux;
use libos_core::task::wait::wait_in;
use libos_core::time::{Timespec, monotonic_ns};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::clock::Clock;

pub fn sys_nanosleep(task: &Task, wanted: UserPtr<Timespec>, left: UserPtr<Timespec>) -> Result<usize> {
    let duration = wanted.read()?.to_ns()?;
    until(task, Clock::Monotonic, monotonic_ns().saturating_add(duration), Some(left))
}

pub fn sys_clock_nanosleep(task: &Task, id: i32, flags: u32, wanted: UserPtr<Timespec>, left: UserPtr<Timespec>) -> Result<usize> {
    let clock = Clock::from_id(task, id)?;
    // A thread cannot sleep until it has used CPU time.
    if matches!(clock, Clock::Thread(_)) {
        return Err(Errno::EINVAL);
    }
    let wanted = wanted.read()?.to_ns()?;
    if flags & linux::TIMER_ABSTIME != 0 {
        return until(task, clock, wanted, None);
    }
    // How long is the same by either clock, and setting the wall clock must not change it.
    let clock = if clock.is_cpu() { clock } else { Clock::Monotonic };
    let deadline = clock.now_ns().saturating_add(wanted);
    until(task, clock, deadline, Some(left))
}

/// Sleeps until the clock shows `deadline`. `left` is where a relative sleep stores what remains when a signal ends it.
fn until(task: &Task, clock: Clock, deadline: u64, left: Option<UserPtr<Timespec>>) -> Result<usize> {
    loop {
        let now = clock.now_ns();
        if now >= deadline {
            return Ok(0);
        }
        match wait_in(&[], Some(clock.earliest_ns(deadline)), true, || None::<()>) {
            Ok(_) => {}
            Err(_) => {
                let Some(left) = left else { return Err(Errno::ERESTARTNOHAND) };
                let remaining = deadline.saturating_sub(clock.now_ns());
                if remaining == 0 {
                    return Ok(0);
                }
                left.write_if_not_null(Timespec::from_ns(remaining))?;
                let again = move |task: &Task| until(task, clock, deadline, Some(left));
                return Err(task.signals.set_restart(Box::new(again)));
            }
        }
    }
}
