//! Size, allocation and durability: ftruncate(2), fallocate(2), fsync(2) and their relatives.

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, RawFd};
use libos_core::task::{Resource, signal};
use libos_core::{Errno, Result, Task, vfs};

pub fn sys_fsync(task: &Task, fd: RawFd) -> Result<usize> {
    crate::usable(task, fd)?.ops.sync(false).map(|()| 0)
}

pub fn sys_fdatasync(task: &Task, fd: RawFd) -> Result<usize> {
    crate::usable(task, fd)?.ops.sync(true).map(|()| 0)
}

pub fn sys_sync(_task: &Task) -> Result<usize> {
    for mount in vfs::mount::mounts() {
        // sync(2) has no errors.
        let _ = mount.fs.sync();
    }
    Ok(0)
}

pub fn sys_syncfs(task: &Task, fd: RawFd) -> Result<usize> {
    match &crate::usable(task, fd)?.path {
        Some(place) => place.mount.fs.sync().map(|()| 0),
        None => Ok(0),
    }
}

fn kind(file: &OpenFile) -> Result<u32> {
    Ok(file.stat()?.mode & linux::S_IFMT)
}

pub fn sys_sync_file_range(task: &Task, fd: RawFd, offset: i64, len: i64, flags: u32) -> Result<usize> {
    let file = crate::usable(task, fd)?;
    let known = linux::SYNC_FILE_RANGE_WAIT_BEFORE | linux::SYNC_FILE_RANGE_WRITE | linux::SYNC_FILE_RANGE_WAIT_AFTER;
    if flags & !known != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    if !matches!(kind(&file)?, linux::S_IFREG | linux::S_IFBLK | linux::S_IFDIR | linux::S_IFLNK) {
        return Err(Errno::ESPIPE);
    }
    file.ops.sync(true).map(|()| 0)
}

pub fn sys_fadvise64(task: &Task, fd: RawFd, _offset: i64, len: i64, advice: u32) -> Result<usize> {
    let file = crate::usable(task, fd)?;
    if kind(&file)? == linux::S_IFIFO {
        return Err(Errno::ESPIPE);
    }
    // POSIX_FADV_NORMAL to POSIX_FADV_NOREUSE are 0 to 5; all are only advice.
    if len < 0 || advice > linux::POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

pub fn sys_readahead(task: &Task, fd: RawFd, _offset: i64, _count: usize) -> Result<usize> {
    let file = crate::usable(task, fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    if kind(&file)? == linux::S_IFREG { Ok(0) } else { Err(Errno::EINVAL) }
}

/// Modes of fallocate(2) that exist; a file system may support fewer.
const MODES: u32 = linux::FALLOC_FL_KEEP_SIZE
    | linux::FALLOC_FL_PUNCH_HOLE
    | linux::FALLOC_FL_COLLAPSE_RANGE
    | linux::FALLOC_FL_ZERO_RANGE
    | linux::FALLOC_FL_INSERT_RANGE
    | linux::FALLOC_FL_UNSHARE_RANGE;

pub fn sys_fallocate(task: &Task, fd: RawFd, mode: u32, offset: i64, len: i64) -> Result<usize> {
    let file = crate::usable(task, fd)?;
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    let punches_and_zeroes = linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_ZERO_RANGE;
    let is_odd = mode & !MODES != 0
        || mode & punches_and_zeroes == punches_and_zeroes
        || mode & (linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE) == linux::FALLOC_FL_PUNCH_HOLE;
    if is_odd {
        return Err(Errno::EOPNOTSUPP);
    }
    if !file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    match kind(&file)? {
        linux::S_IFREG => {}
        linux::S_IFIFO => return Err(Errno::ESPIPE),
        linux::S_IFDIR => return Err(Errno::EISDIR),
        _ => return Err(Errno::ENODEV),
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    if mode & linux::FALLOC_FL_KEEP_SIZE == 0 {
        check_limit(task, end as u64)?;
    }
    file.ops.allocate(mode, offset as u64, len as u64).map(|()| 0)
}

pub fn sys_ftruncate(task: &Task, fd: RawFd, len: i64) -> Result<usize> {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = crate::usable(task, fd)?;
    if !file.flags().can_write() || kind(&file)? != linux::S_IFREG {
        return Err(Errno::EINVAL);
    }
    check_limit(task, len)?;
    file.ops.truncate(len)?;
    if let Some(place) = &file.path {
        vfs::notify::place(place, linux::IN_MODIFY);
    }
    Ok(0)
}

/// `RLIMIT_FSIZE` for a new size: `EFBIG` and SIGXFSZ beyond it.
fn check_limit(task: &Task, size: u64) -> Result<()> {
    if size > task.limit(Resource::FileSize) {
        signal::send_to_current(linux::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}
