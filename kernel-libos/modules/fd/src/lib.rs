//! Descriptors: read(2), write(2), lseek(2), close(2), dup(2), fcntl(2), ioctl(2), sendfile(2), fsync(2) and their relatives.
//!
//! Arguments → a file description → its `FileOps`. What a file is, is its own business; here are the rules that hold for all of them.
//!
//! | file | what it is for |
//! |---|---|
//! | `rw`, `iov` | reading and writing, also scattered and at offsets |
//! | `table` | close, dup and their relatives |
//! | `control` | fcntl, flock |
//! | `ioctl` | the requests that every file understands |
//! | `space` | size, allocation, durability |
//! | `transfer` | sendfile, copy_file_range |
//!
//! Differences from Linux: `F_NOTIFY` and leases are refused; `O_ASYNC` is remembered, but only the files that say so send SIGIO.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod control;
mod ioctl;
mod iov;
mod rw;
mod space;
mod table;
mod transfer;

use alloc::sync::Arc;

use libos_core::file::{OpenFile, OpenFlags, RawFd};
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: fd,
    needs: [],
    syscalls: {
        read => rw::sys_read,
        write => rw::sys_write,
        readv => rw::sys_readv,
        writev => rw::sys_writev,
        pread64 => rw::sys_pread64,
        pwrite64 => rw::sys_pwrite64,
        preadv => rw::sys_preadv,
        pwritev => rw::sys_pwritev,
        preadv2 => rw::sys_preadv2,
        pwritev2 => rw::sys_pwritev2,
        lseek => rw::sys_lseek,
        close => table::sys_close,
        close_range => table::sys_close_range,
        dup => table::sys_dup,
        dup2 => table::sys_dup2,
        dup3 => table::sys_dup3,
        fcntl => control::sys_fcntl: partial "leases and F_NOTIFY are refused",
        flock => control::sys_flock,
        ioctl => ioctl::sys_ioctl,
        fsync => space::sys_fsync,
        fdatasync => space::sys_fdatasync,
        sync => space::sys_sync,
        syncfs => space::sys_syncfs,
        sync_file_range => space::sys_sync_file_range,
        fadvise64 => space::sys_fadvise64,
        readahead => space::sys_readahead,
        fallocate => space::sys_fallocate,
        ftruncate => space::sys_ftruncate,
        sendfile => transfer::sys_sendfile,
        copy_file_range => transfer::sys_copy_file_range,
    },
}

/// The description behind a descriptor that was opened for use, not only as a path.
///
/// # Errors
/// `EBADF`, also for `O_PATH` descriptors (open(2), "O_PATH").
fn usable(task: &Task, fd: RawFd) -> Result<Arc<OpenFile>> {
    let file = task.files().get(fd)?;
    if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(file) }
}
