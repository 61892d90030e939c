//! splice(2), tee(2), vmsplice(2): between pipes and files. Bytes are copied once inside the kernel; no page changes hands.

use alloc::vec;

use libos_core::file::{OpenFile, OpenFlags, RawFd};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

use crate::end::PipeEnd;

/// `SPLICE_F_MOVE`, `_NONBLOCK`, `_MORE`, `_GIFT` (splice(2); <linux/splice.h>); all but the second are hints.
const NONBLOCK: u32 = 2;
const KNOWN: u32 = 1 | NONBLOCK | 4 | 8;

/// Bytes read at once from a file into a pipe.
const STEP: usize = 16 * 1024;

fn find(task: &Task, fd: RawFd) -> Result<alloc::sync::Arc<OpenFile>> {
    let file = task.files().get(fd)?;
    if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(file) }
}

fn is_pipe(file: &OpenFile) -> bool {
    file.ops.pipe_capacity(None).is_ok()
}

fn check_ready(file: &OpenFile, events: PollEvents, flags: u32) -> Result<()> {
    // Errors and ends count as ready: the transfer itself reports them.
    let wanted = events | PollEvents::ERR | PollEvents::HUP;
    let is_blocked = flags & NONBLOCK != 0 && !file.ops.poll(file, &mut PollTable::query()).intersects(wanted);
    if is_blocked { Err(Errno::EAGAIN) } else { Ok(()) }
}

pub fn sys_splice(
    task: &Task,
    in_fd: RawFd,
    in_offset: UserPtr<i64>,
    out_fd: RawFd,
    out_offset: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let (input, output) = (find(task, in_fd)?, find(task, out_fd)?);
    if !input.flags().can_read() || !output.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let (from_pipe, to_pipe) = (is_pipe(&input), is_pipe(&output));
    if (from_pipe && !in_offset.is_null()) || (to_pipe && !out_offset.is_null()) {
        return Err(Errno::ESPIPE);
    }
    if !from_pipe && !to_pipe || output.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    if from_pipe && to_pipe && alloc::sync::Arc::ptr_eq(&input.ops, &output.ops) {
        return Err(Errno::EINVAL);
    }
    let explicit = |file: &OpenFile, offset: UserPtr<i64>| -> Result<Option<u64>> {
        let Some(offset) = offset.non_null() else { return Ok(None) };
        if !file.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        u64::try_from(offset.read()?).map(Some).map_err(|_| Errno::EINVAL)
    };
    let (in_at, out_at) = (explicit(&input, in_offset)?, explicit(&output, out_offset)?);
    let mut put_at = out_at;
    let mut put = |bytes: &[u8]| -> Result<usize> {
        let src = &mut IoSrc::kernel(bytes);
        match &mut put_at {
            Some(at) => {
                let count = output.ops.write_at(&output, src, *at)?;
                *at += count as u64;
                Ok(count)
            }
            None => output.write(src),
        }
    };
    let moved = if from_pipe {
        check_ready(&input, PollEvents::IN, flags)?;
        if to_pipe {
            check_ready(&output, PollEvents::OUT, flags)?;
        }
        input.ops.drain(&input, len, true, &mut put)?
    } else {
        check_ready(&output, PollEvents::OUT, flags)?;
        let mut want = len.min(STEP);
        if flags & NONBLOCK != 0 || output.is_nonblocking() {
            // What the pipe would not take must not be read: nothing can give it back.
            want = want.min(output.ops.as_any().downcast_ref::<PipeEnd>().map_or(want, PipeEnd::room));
            if want == 0 {
                return Err(Errno::EAGAIN);
            }
        }
        let mut buffer = vec![0; want];
        let dst = &mut IoDst::kernel(&mut buffer);
        let got = match in_at {
            Some(at) => input.ops.read_at(&input, dst, at)?,
            None => input.read(dst)?,
        };
        // The pipe's end is open for writing and was ready; what it does not take now it takes when it has room.
        let mut done = 0;
        while done < got {
            match put(&buffer[done..got]) {
                Ok(count) => done += count,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        done
    };
    if let Some(at) = in_at {
        in_offset.write((at + moved as u64) as i64)?;
    }
    if let Some(at) = out_at {
        out_offset.write((at + moved as u64) as i64)?;
    }
    Ok(moved)
}

pub fn sys_tee(task: &Task, in_fd: RawFd, out_fd: RawFd, len: usize, flags: u32) -> Result<usize> {
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let (input, output) = (find(task, in_fd)?, find(task, out_fd)?);
    if !input.flags().can_read() || !output.flags().can_write() {
        return Err(Errno::EBADF);
    }
    if !is_pipe(&input) || !is_pipe(&output) || alloc::sync::Arc::ptr_eq(&input.ops, &output.ops) {
        return Err(Errno::EINVAL);
    }
    check_ready(&input, PollEvents::IN, flags)?;
    check_ready(&output, PollEvents::OUT, flags)?;
    input.ops.drain(&input, len, false, &mut |bytes| output.write(&mut IoSrc::kernel(bytes)))
}

/// Pieces of memory in one call at most (`IOV_MAX`).
const IOV_MAX: usize = 1024;

pub fn sys_vmsplice(task: &Task, fd: RawFd, iov: UserPtr<[usize; 2]>, count: usize, flags: u32) -> Result<usize> {
    if flags & !KNOWN != 0 || count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let file = find(task, fd)?;
    if !is_pipe(&file) {
        return Err(Errno::EBADF);
    }
    let mut slices = alloc::vec::Vec::new();
    slices.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for i in 0..count {
        let [addr, len] = iov.index(i).read()?;
        slices.push(UserSlice::from_parts(UserPtr::new(addr), len)?);
    }
    if file.flags().can_write() {
        check_ready(&file, PollEvents::OUT, flags)?;
        file.write(&mut IoSrc::user_vec(&slices))
    } else {
        check_ready(&file, PollEvents::IN, flags)?;
        file.read(&mut IoDst::user_vec(&slices))
    }
}
