//! Waiting for signals: sigsuspend(2), sigtimedwait(2), pause(2).

use libos_core::task::signal::{self, SigSet};
use libos_core::task::wait::wait_in;
use libos_core::time::{Timespec, monotonic_ns};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::action::check_size;

/// Sleeps until a handler is to run.
fn wait_for_handler() -> Result<usize> {
    match wait_in(&[], None, true, || None::<usize>) {
        Ok(_) => Ok(0),
        Err(_) => Err(Errno::ERESTARTNOHAND),
    }
}

pub fn sys_pause(_task: &Task) -> Result<usize> {
    wait_for_handler()
}

pub fn sys_rt_sigsuspend(task: &Task, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    check_size(size)?;
    let mask = SigSet(mask.read()?);
    signal::with_mask(task, Some(mask), wait_for_handler)
}

pub fn sys_rt_sigtimedwait(
    task: &Task,
    wanted: UserPtr<u64>,
    info: UserPtr<[u64; 16]>,
    timeout: UserPtr<Timespec>,
    size: usize,
) -> Result<usize> {
    check_size(size)?;
    let wanted = SigSet(wanted.read()?).minus(SigSet::UNBLOCKABLE);
    let deadline = match timeout.non_null() {
        Some(timeout) => Some(monotonic_ns().saturating_add(timeout.read()?.to_ns()?)),
        None => None,
    };
    signal::set_awaited(task, wanted);
    let result = wait_in(&[], deadline, true, || signal::take_pending(task, wanted));
    signal::set_awaited(task, SigSet::EMPTY);
    // What arrived for the wait and was not taken must not look like something to deliver.
    signal::set_blocked(task, task.signals.blocked());
    match result {
        Ok(Some(taken)) => {
            info.write_if_not_null(taken.to_user())?;
            Ok(taken.signo as usize)
        }
        Ok(None) => Err(Errno::EAGAIN),
        Err(_) => Err(Errno::EINTR),
    }
}
