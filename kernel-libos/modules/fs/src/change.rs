//! Changes of the tree of names: mkdir(2), unlink(2), rename(2), link(2), symlink(2).

use libos_core::abi::general as linux;
use libos_core::dispatch::FromArg;
use libos_core::file::RawFd;
use libos_core::user::UserStr;
use libos_core::vfs::{self, RenameFlags, context, ops};
use libos_core::{Errno, Result, Task};

const CWD: RawFd = linux::AT_FDCWD;

pub fn sys_mkdir(task: &Task, path: UserStr, mode: u32) -> Result<usize> {
    sys_mkdirat(task, CWD, path, mode)
}

pub fn sys_mkdirat(task: &Task, dir_fd: RawFd, path: UserStr, mode: u32) -> Result<usize> {
    // Of the special bits mkdir(2) takes the sticky one only.
    ops::create(task, dir_fd, &path.read_path()?, linux::S_IFDIR | mode & 0o1777, 0, b"").map(|_| 0)
}

pub fn sys_rmdir(task: &Task, path: UserStr) -> Result<usize> {
    ops::rmdir(task, CWD, &path.read_path()?).map(|()| 0)
}

pub fn sys_unlink(task: &Task, path: UserStr) -> Result<usize> {
    ops::unlink(task, CWD, &path.read_path()?).map(|()| 0)
}

pub fn sys_unlinkat(task: &Task, dir_fd: RawFd, path: UserStr, flags: u32) -> Result<usize> {
    let path = match flags & !linux::AT_REMOVEDIR {
        0 => path.read_path()?,
        _ => return Err(Errno::EINVAL),
    };
    if flags != 0 { ops::rmdir(task, dir_fd, &path) } else { ops::unlink(task, dir_fd, &path) }.map(|()| 0)
}

/// Flags of renameat2(2), which rejects unknown ones and contradictions.
pub struct Flags(RenameFlags);

impl FromArg for Flags {
    fn from_arg(raw: u64) -> Result<Self> {
        let flags = RenameFlags::from_bits(raw as u32).ok_or(Errno::EINVAL)?;
        let is_odd = flags.contains(RenameFlags::EXCHANGE) && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT);
        if is_odd { Err(Errno::EINVAL) } else { Ok(Flags(flags)) }
    }
}

pub fn sys_rename(task: &Task, old: UserStr, new: UserStr) -> Result<usize> {
    sys_renameat(task, CWD, old, CWD, new)
}

pub fn sys_renameat(task: &Task, old_fd: RawFd, old: UserStr, new_fd: RawFd, new: UserStr) -> Result<usize> {
    sys_renameat2(task, old_fd, old, new_fd, new, Flags(RenameFlags::empty()))
}

pub fn sys_renameat2(task: &Task, old_fd: RawFd, old: UserStr, new_fd: RawFd, new: UserStr, flags: Flags) -> Result<usize> {
    ops::rename(task, old_fd, &old.read_path()?, new_fd, &new.read_path()?, flags.0).map(|()| 0)
}

pub fn sys_link(task: &Task, old: UserStr, new: UserStr) -> Result<usize> {
    sys_linkat(task, CWD, old, CWD, new, 0)
}

pub fn sys_linkat(task: &Task, old_fd: RawFd, old: UserStr, new_fd: RawFd, new: UserStr, flags: u32) -> Result<usize> {
    if flags & !(linux::AT_SYMLINK_FOLLOW | linux::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let old = old.read_path()?;
    let place = if old.is_empty() && flags & linux::AT_EMPTY_PATH != 0 {
        task.require(linux::CAP_DAC_READ_SEARCH).map_err(|_| Errno::ENOENT)?;
        context::start_of(task, old_fd, &old)?
    } else {
        vfs::lookup_at(task, old_fd, &old, flags & linux::AT_SYMLINK_FOLLOW != 0)?
    };
    ops::link(task, &place, new_fd, &new.read_path()?).map(|()| 0)
}

pub fn sys_symlink(task: &Task, target: UserStr, path: UserStr) -> Result<usize> {
    sys_symlinkat(task, target, CWD, path)
}

pub fn sys_symlinkat(task: &Task, target: UserStr, dir_fd: RawFd, path: UserStr) -> Result<usize> {
    let target = target.read_path()?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    ops::create(task, dir_fd, &path.read_path()?, linux::S_IFLNK | 0o777, 0, &target).map(|_| 0)
}
