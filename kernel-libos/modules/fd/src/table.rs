//! Closing and duplicating descriptors.

use alloc::sync::Arc;

use bitflags::bitflags;
use libos_core::dispatch::FromArg;
use libos_core::file::{OpenFlags, RawFd};
use libos_core::task::Resource;
use libos_core::{Errno, Result, Task};

pub fn sys_close(task: &Task, fd: RawFd) -> Result<usize> {
    let file = task.files().remove(fd)?;
    drop(file);
    Ok(0)
}

bitflags! {
    /// Flags of close_range(2); the exported headers of `linux-raw-sys` lack them (<linux/close_range.h>).
    #[derive(Clone, Copy)]
    pub struct CloseRangeFlags: u32 {
        const UNSHARE = 1 << 1;
        const CLOEXEC = 1 << 2;
    }
}

impl FromArg for CloseRangeFlags {
    fn from_arg(raw: u64) -> Result<Self> {
        CloseRangeFlags::from_bits(raw as u32).ok_or(Errno::EINVAL)
    }
}

pub fn sys_close_range(task: &Task, first: u32, last: u32, flags: CloseRangeFlags) -> Result<usize> {
    if first > last {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloseRangeFlags::UNSHARE) {
        task.set_files(Arc::new(task.files().duplicate()));
    }
    let files = task.files();
    let range = first as i64..=last as i64;
    for fd in files.descriptors().into_iter().filter(|fd| range.contains(&i64::from(*fd))) {
        // Another thread may have closed it meanwhile.
        if flags.contains(CloseRangeFlags::CLOEXEC) {
            let _ = files.set_close_on_exec(fd, true);
        } else {
            drop(files.remove(fd));
        }
    }
    Ok(0)
}

pub fn sys_dup(task: &Task, fd: RawFd) -> Result<usize> {
    task.install(task.files().get(fd)?, false)
}

pub fn sys_dup2(task: &Task, old: RawFd, new: RawFd) -> Result<usize> {
    if old == new {
        task.files().get(old)?;
        return Ok(new as usize);
    }
    replace(task, old, new, false)
}

pub fn sys_dup3(task: &Task, old: RawFd, new: RawFd, flags: u32) -> Result<usize> {
    if flags & !OpenFlags::CLOEXEC.bits() != 0 || old == new {
        return Err(Errno::EINVAL);
    }
    replace(task, old, new, flags != 0)
}

fn replace(task: &Task, old: RawFd, new: RawFd, close_on_exec: bool) -> Result<usize> {
    let files = task.files();
    let file = files.get(old)?;
    let replaced = files.replace(new, file, close_on_exec, task.limit(Resource::NoFile))?;
    drop(replaced);
    Ok(new as usize)
}
