//! access(2), faccessat2(2).

use libos_core::abi::general as linux;
use libos_core::file::RawFd;
use libos_core::user::UserStr;
use libos_core::vfs::open::check_place;
use libos_core::vfs::permission::{self, Want};
use libos_core::vfs::{self, context};
use libos_core::{Errno, Result, Task};

pub fn sys_access(task: &Task, path: UserStr, mode: u32) -> Result<usize> {
    sys_faccessat2(task, linux::AT_FDCWD, path, mode, 0)
}

pub fn sys_faccessat(task: &Task, dir_fd: RawFd, path: UserStr, mode: u32) -> Result<usize> {
    sys_faccessat2(task, dir_fd, path, mode, 0)
}

pub fn sys_faccessat2(task: &Task, dir_fd: RawFd, path: UserStr, mode: u32, flags: u32) -> Result<usize> {
    let want = Want::from_bits(mode).ok_or(Errno::EINVAL)?;
    if flags & !(linux::AT_EACCESS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let creds = task.creds();
    // The real ids count, unless AT_EACCESS asks for the effective ones. Mostly they are the same.
    let is_same = creds.fsuid == creds.uid && creds.fsgid == creds.gid;
    let real;
    let creds = if flags & linux::AT_EACCESS != 0 || is_same {
        &*creds
    } else {
        real = permission::real_credentials(&creds);
        &real
    };
    let path = path.read_path()?;
    let place = if path.is_empty() && flags & linux::AT_EMPTY_PATH != 0 {
        context::start_of(task, dir_fd, &path)?
    } else {
        vfs::context::lookup_with(task, creds, dir_fd, &path, flags & linux::AT_SYMLINK_NOFOLLOW == 0)?
    };
    let attributes = place.inode().attributes()?;
    if want.is_empty() {
        return Ok(0);
    }
    check_place(creds, &place, attributes, want)?;
    Ok(0)
}
