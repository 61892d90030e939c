//! Pipes: pipe(2), FIFOs (fifo(7)), splice(2), tee(2) and vmsplice(2).
//!
//! A pipe is a byte ring shared by its ends. Writes up to `PIPE_BUF` bytes are atomic (pipe(7), "PIPE_BUF"). The ring is behind a sleeping lock, because
//! bytes move straight between it and user memory; how full it is and who has it open are atomics beside it, which waiters look at.
//!
//! Differences from Linux: `O_DIRECT` packet mode is refused with `EINVAL`; a pipe's room is counted in bytes, not in pages.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod end;
mod node;
mod ring;
mod splice;

use alloc::sync::Arc;

use libos_core::file::{OpenFile, OpenFlags, RawFd};
use libos_core::user::UserPtr;
use libos_core::vfs::registry;
use libos_core::{Errno, Result, Task};

use end::{Pipe, PipeEnd};

libos_core::module! {
    name: pipe,
    needs: [fd, ramfs],
    init: init,
    syscalls: {
        pipe => sys_pipe,
        pipe2 => sys_pipe2: partial "O_DIRECT is refused",
        splice => splice::sys_splice,
        tee => splice::sys_tee,
        vmsplice => splice::sys_vmsplice,
        mknod => node::sys_mknod,
        mknodat => node::sys_mknodat,
    },
}

fn init() {
    registry::set_fifo(end::open_fifo);
}

fn sys_pipe(task: &Task, fds: UserPtr<[RawFd; 2]>) -> Result<usize> {
    sys_pipe2(task, fds, 0)
}

fn sys_pipe2(task: &Task, fds: UserPtr<[RawFd; 2]>, flags: u32) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let close_on_exec = flags.contains(OpenFlags::CLOEXEC);
    let status = flags & OpenFlags::NONBLOCK;
    let pipe = Pipe::new();
    let read_end = OpenFile::new(Arc::new(PipeEnd::open(pipe.clone(), true, false)), status, None);
    let write_end = OpenFile::new(Arc::new(PipeEnd::open(pipe, false, true)), status | OpenFlags::WRONLY, None);
    let read_fd = task.install(read_end, close_on_exec)? as RawFd;
    let result = task.install(write_end, close_on_exec).and_then(|write_fd| {
        let write_fd = write_fd as RawFd;
        fds.write([read_fd, write_fd]).inspect_err(|_| drop(task.files().remove(write_fd)))
    });
    if let Err(errno) = result {
        drop(task.files().remove(read_fd));
        return Err(errno);
    }
    Ok(0)
}
