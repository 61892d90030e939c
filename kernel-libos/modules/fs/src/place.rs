//! Working directory and root, and reading symbolic links.

use libos_core::abi::general as linux;
use libos_core::file::RawFd;
use libos_core::user::{UserPtr, UserSlice, UserStr};
use libos_core::vfs::permission::{self, Want};
use libos_core::vfs::{self, PathRef, context};
use libos_core::{Errno, Result, Task};

pub fn sys_readlink(task: &Task, path: UserStr, buf: UserPtr<u8>, size: i32) -> Result<usize> {
    sys_readlinkat(task, linux::AT_FDCWD, path, buf, size)
}

pub fn sys_readlinkat(task: &Task, dir_fd: RawFd, path: UserStr, buf: UserPtr<u8>, size: i32) -> Result<usize> {
    let size = usize::try_from(size).ok().filter(|size| *size > 0).ok_or(Errno::EINVAL)?;
    let path = path.read_path()?;
    let place = if path.is_empty() && dir_fd != linux::AT_FDCWD {
        // An empty path reads the link that an O_PATH descriptor holds (readlinkat(2)).
        let place = context::start_of(task, dir_fd, &path)?;
        if !place.inode().attributes()?.is_symlink() {
            return Err(Errno::ENOENT);
        }
        place
    } else {
        vfs::lookup_at(task, dir_fd, &path, false)?
    };
    if !place.inode().attributes()?.is_symlink() {
        return Err(Errno::EINVAL);
    }
    let text = place.inode().link_text()?;
    let count = text.len().min(size);
    UserSlice::from_parts(buf, count)?.write_from(&text[..count])?;
    Ok(count)
}

pub fn sys_getcwd(task: &Task, buf: UserPtr<u8>, size: usize) -> Result<usize> {
    let fs = task.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let mut path = vfs::path_from(&fs.root(), &cwd);
    path.push(0);
    if path.len() > size {
        return Err(Errno::ERANGE);
    }
    UserSlice::from_parts(buf, path.len())?.write_from(&path)?;
    Ok(path.len())
}

/// Checks that a place is a directory that may be searched.
fn check_dir(task: &Task, place: &PathRef) -> Result<()> {
    let attributes = place.inode().attributes()?;
    if !attributes.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    permission::check(&task.creds(), attributes, Want::EXEC)
}

pub fn sys_chdir(task: &Task, path: UserStr) -> Result<usize> {
    let place = vfs::lookup(task, &path.read_path()?)?;
    check_dir(task, &place)?;
    replace(&task.fs().cwd, place);
    Ok(0)
}

pub fn sys_fchdir(task: &Task, fd: RawFd) -> Result<usize> {
    let place = task.files().get(fd)?.path.clone().ok_or(Errno::ENOTDIR)?;
    check_dir(task, &place)?;
    replace(&task.fs().cwd, place);
    Ok(0)
}

pub fn sys_chroot(task: &Task, path: UserStr) -> Result<usize> {
    let place = vfs::lookup(task, &path.read_path()?)?;
    check_dir(task, &place)?;
    task.require(linux::CAP_SYS_CHROOT)?;
    replace(&task.fs().root, place);
    Ok(0)
}

/// Puts a place there; the old one is dropped after the lock is released.
fn replace(slot: &libos_core::sync::SpinLock<PathRef>, place: PathRef) {
    let old = core::mem::replace(&mut *slot.lock(), place);
    drop(old);
}
