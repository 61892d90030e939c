//! Reading and writing.

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags, RawFd};
use libos_core::io::{IoDst, IoSrc};
use libos_core::task::{Resource, signal};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::vfs::notify;
use libos_core::{Errno, Result, Task};

use crate::iov::{Iov, MAX_COUNT};

fn buffer(addr: UserPtr<u8>, count: usize) -> Result<UserSlice<u8>> {
    UserSlice::from_parts(addr, count.min(MAX_COUNT))
}

pub fn sys_read(task: &Task, fd: RawFd, buf: UserPtr<u8>, count: usize) -> Result<usize> {
    let file = task.files().get(fd)?;
    file.read(&mut IoDst::user(buffer(buf, count)?))
}

pub fn sys_write(task: &Task, fd: RawFd, buf: UserPtr<u8>, count: usize) -> Result<usize> {
    let file = task.files().get(fd)?;
    write(task, &file, &mut IoSrc::user(buffer(buf, count)?))
}

pub fn sys_readv(task: &Task, fd: RawFd, iov: UserPtr<[usize; 2]>, count: usize) -> Result<usize> {
    let file = task.files().get(fd)?;
    let iov = Iov::read(iov, count)?;
    file.read(&mut IoDst::user_vec(iov.slices()))
}

pub fn sys_writev(task: &Task, fd: RawFd, iov: UserPtr<[usize; 2]>, count: usize) -> Result<usize> {
    let file = task.files().get(fd)?;
    let iov = Iov::read(iov, count)?;
    write(task, &file, &mut IoSrc::user_vec(iov.slices()))
}

/// Writes at the description's offset, within `RLIMIT_FSIZE`.
fn write(task: &Task, file: &OpenFile, src: &mut IoSrc<'_>) -> Result<usize> {
    if limit_applies(task, file) {
        if !file.flags().can_write() {
            return Err(Errno::EBADF);
        }
        let offset = if file.flags().contains(OpenFlags::APPEND) { file.stat()?.size } else { *file.offset.lock() };
        within_limit(task, offset, src)?;
    }
    file.write(src)
}

fn limit_applies(task: &Task, file: &OpenFile) -> bool {
    task.limit(Resource::FileSize) != u64::MAX && file.ops.is_seekable()
}

/// Cuts a write at `RLIMIT_FSIZE`, or refuses it with `EFBIG` and SIGXFSZ when it begins there (setrlimit(2)).
fn within_limit(task: &Task, offset: u64, src: &mut IoSrc<'_>) -> Result<()> {
    let limit = task.limit(Resource::FileSize);
    if src.remaining() == 0 {
        return Ok(());
    }
    if offset >= limit {
        signal::send_to_current(linux::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    src.limit(usize::try_from(limit - offset).unwrap_or(usize::MAX));
    Ok(())
}

/// Reads at an offset without moving the description's.
///
/// # Errors
/// `EBADF`, `ESPIPE`, `EINVAL` for a negative offset; the file's.
fn read_at(file: &OpenFile, dst: &mut IoDst<'_>, offset: i64) -> Result<usize> {
    let offset = check_offset(file, offset)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    let result = file.ops.read_at(file, dst, offset);
    notify::moved(file, linux::IN_ACCESS, &result);
    result
}

fn write_at(task: &Task, file: &OpenFile, src: &mut IoSrc<'_>, offset: i64) -> Result<usize> {
    let offset = check_offset(file, offset)?;
    if !file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    if limit_applies(task, file) {
        within_limit(task, offset, src)?;
    }
    let result = file.ops.write_at(file, src, offset);
    notify::moved(file, linux::IN_MODIFY, &result);
    result
}

fn check_offset(file: &OpenFile, offset: i64) -> Result<u64> {
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if file.ops.is_seekable() { Ok(offset) } else { Err(Errno::ESPIPE) }
}

pub fn sys_pread64(task: &Task, fd: RawFd, buf: UserPtr<u8>, count: usize, offset: i64) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files().get(fd)?;
    read_at(&file, &mut IoDst::user(buffer(buf, count)?), offset)
}

pub fn sys_pwrite64(task: &Task, fd: RawFd, buf: UserPtr<u8>, count: usize, offset: i64) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files().get(fd)?;
    write_at(task, &file, &mut IoSrc::user(buffer(buf, count)?), offset)
}

// The offset comes in two halves for the sake of 32-bit machines; on 64-bit ones the first holds it all (readv(2), "C library/kernel differences").

pub fn sys_preadv(task: &Task, fd: RawFd, iov: UserPtr<[usize; 2]>, count: usize, offset: i64, _high: u64) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files().get(fd)?;
    let iov = Iov::read(iov, count)?;
    read_at(&file, &mut IoDst::user_vec(iov.slices()), offset)
}

pub fn sys_pwritev(task: &Task, fd: RawFd, iov: UserPtr<[usize; 2]>, count: usize, offset: i64, _high: u64) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files().get(fd)?;
    let iov = Iov::read(iov, count)?;
    write_at(task, &file, &mut IoSrc::user_vec(iov.slices()), offset)
}

/// The `RWF_` flags that are hints here: nothing is ever late, and all writes to memory are done when they return.
const HINTS: u32 = linux::RWF_HIPRI | linux::RWF_DSYNC | linux::RWF_SYNC;

pub fn sys_preadv2(task: &Task, fd: RawFd, iov: UserPtr<[usize; 2]>, count: usize, offset: i64, _high: u64, flags: u32) -> Result<usize> {
    if flags & !HINTS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if offset == -1 { sys_readv(task, fd, iov, count) } else { sys_preadv(task, fd, iov, count, offset, 0) }
}

pub fn sys_pwritev2(task: &Task, fd: RawFd, iov: UserPtr<[usize; 2]>, count: usize, offset: i64, _high: u64, flags: u32) -> Result<usize> {
    if flags & !(HINTS | linux::RWF_APPEND) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & linux::RWF_APPEND != 0 {
        let file = task.files().get(fd)?;
        let end = file.stat()?.size as i64;
        let iov = Iov::read(iov, count)?;
        let written = write_at(task, &file, &mut IoSrc::user_vec(iov.slices()), end)?;
        if offset == -1 {
            *file.offset.lock() = end as u64 + written as u64;
        }
        return Ok(written);
    }
    if offset == -1 { sys_writev(task, fd, iov, count) } else { sys_pwritev(task, fd, iov, count, offset, 0) }
}

pub fn sys_lseek(task: &Task, fd: RawFd, offset: i64, whence: u32) -> Result<usize> {
    let file = crate::usable(task, fd)?;
    file.ops.seek(&file, offset, whence).map(|position| position as usize)
}
