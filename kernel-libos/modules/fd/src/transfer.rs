//! sendfile(2) and copy_file_range(2): from file to file without a round through the program.

use alloc::vec;

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags, RawFd};
use libos_core::io::{IoDst, IoSrc};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::iov::MAX_COUNT;

/// Bytes moved per step: large enough that the cost per step does not show, small enough for the heap.
const STEP: usize = 32 * 1024;

/// Moves up to `count` bytes from `input` at `from` to what `write` does with them; returns how many were written. An error after some progress is
/// progress.
fn pump(input: &OpenFile, from: u64, count: usize, mut write: impl FnMut(&mut IoSrc<'_>) -> Result<usize>) -> Result<usize> {
    let mut buffer = vec![0; STEP.min(count)];
    let mut done = 0;
    while done < count {
        let want = buffer.len().min(count - done);
        let step = input.ops.read_at(input, &mut IoDst::kernel(&mut buffer[..want]), from + done as u64).and_then(|got| {
            if got == 0 {
                return Ok((0, 0));
            }
            write(&mut IoSrc::kernel(&buffer[..got])).map(|put| (got, put))
        });
        match step {
            Ok((got, put)) => {
                done += put;
                if got == 0 || put < got {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

pub fn sys_sendfile(task: &Task, out_fd: RawFd, in_fd: RawFd, offset: UserPtr<i64>, count: usize) -> Result<usize> {
    let input = crate::usable(task, in_fd)?;
    let output = crate::usable(task, out_fd)?;
    if !input.flags().can_read() || !output.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let explicit = offset.non_null().map(UserPtr::read).transpose()?;
    if !input.ops.is_seekable() {
        return Err(if explicit.is_some() { Errno::ESPIPE } else { Errno::EINVAL });
    }
    if input.stat()?.mode & linux::S_IFMT == linux::S_IFDIR || output.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let from = match explicit {
        Some(at) => u64::try_from(at).map_err(|_| Errno::EINVAL)?,
        None => *input.offset.lock(),
    };
    let moved = pump(&input, from, count.min(MAX_COUNT), |src| output.write(src))?;
    let after = from + moved as u64;
    match explicit {
        Some(_) => offset.write(after as i64)?,
        None => *input.offset.lock() = after,
    }
    Ok(moved)
}

pub fn sys_copy_file_range(
    task: &Task,
    in_fd: RawFd,
    in_offset: UserPtr<i64>,
    out_fd: RawFd,
    out_offset: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    let input = crate::usable(task, in_fd)?;
    let output = crate::usable(task, out_fd)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    for file in [&input, &output] {
        match file.stat()?.mode & linux::S_IFMT {
            linux::S_IFREG => {}
            linux::S_IFDIR => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    if !input.flags().can_read() || !output.flags().can_write() || output.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF);
    }
    let start = |file: &OpenFile, explicit: UserPtr<i64>| -> Result<u64> {
        match explicit.non_null() {
            Some(at) => u64::try_from(at.read()?).map_err(|_| Errno::EINVAL),
            None => Ok(*file.offset.lock()),
        }
    };
    let (from, to) = (start(&input, in_offset)?, start(&output, out_offset)?);
    let len = len.min(MAX_COUNT);
    let is_same = input.inode().zip(output.inode()).is_some_and(|(a, b)| alloc::sync::Arc::ptr_eq(&a, &b));
    if is_same && from < to.saturating_add(len as u64) && to < from.saturating_add(len as u64) {
        return Err(Errno::EINVAL);
    }
    let mut written = 0;
    let moved = pump(&input, from, len, |src| {
        let put = output.ops.write_at(&output, src, to + written)?;
        written += put as u64;
        Ok(put)
    })?;
    for (file, explicit, at) in [(&input, in_offset, from), (&output, out_offset, to)] {
        let after = at + moved as u64;
        match explicit.non_null() {
            Some(explicit) => explicit.write(after as i64)?,
            None => *file.offset.lock() = after,
        }
    }
    Ok(moved)
}
