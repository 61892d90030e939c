//! mlock(2) and its relatives.

use libos_core::abi::general as linux;
use libos_core::mm::{Limits, VmaFlags};
use libos_core::{Errno, Result, Task};

pub(crate) fn sys_mlock(task: &Task, addr: usize, len: usize) -> Result<usize> {
    sys_mlock2(task, addr, len, 0)
}

pub(crate) fn sys_mlock2(task: &Task, addr: usize, len: usize, flags: u32) -> Result<usize> {
    if flags & !linux::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    let lock = locked(flags & linux::MLOCK_ONFAULT != 0);
    task.mm().set_locked(addr, len, Some(lock), &Limits::of(task)).map(|()| 0)
}

pub(crate) fn sys_munlock(task: &Task, addr: usize, len: usize) -> Result<usize> {
    task.mm().set_locked(addr, len, None, &Limits::of(task)).map(|()| 0)
}

pub(crate) fn sys_mlockall(task: &Task, flags: u32) -> Result<usize> {
    let (current, future, on_fault) = decode_all(flags)?;
    let lock = locked(on_fault);
    task.mm().set_all_locked(current.then_some(lock), if future { lock } else { VmaFlags::empty() }, &Limits::of(task)).map(|()| 0)
}

pub(crate) fn sys_munlockall(task: &Task) -> Result<usize> {
    task.mm().set_all_locked(None, VmaFlags::empty(), &Limits::NONE).map(|()| 0)
}

fn locked(on_fault: bool) -> VmaFlags {
    if on_fault { VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT } else { VmaFlags::LOCKED }
}

/// Current, future, on fault; the last alone means nothing (mlockall(2), EINVAL).
fn decode_all(flags: u32) -> Result<(bool, bool, bool)> {
    const KNOWN: u32 = linux::MCL_CURRENT | linux::MCL_FUTURE | linux::MCL_ONFAULT;
    if flags & !KNOWN != 0 || flags & (linux::MCL_CURRENT | linux::MCL_FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    Ok((flags & linux::MCL_CURRENT != 0, flags & linux::MCL_FUTURE != 0, flags & linux::MCL_ONFAULT != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mlockall_flags() {
        assert_eq!(decode_all(1), Ok((true, false, false)));
        assert_eq!(decode_all(6), Ok((false, true, true)));
        for flags in [0, 4, 8, 9] {
            assert_eq!(decode_all(flags), Err(Errno::EINVAL), "{flags}");
        }
    }
}
