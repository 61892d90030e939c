//! mknod(2): the call that makes FIFOs (and other nodes). It is here so that whoever can make a FIFO can open it.

use libos_core::abi::general as linux;
use libos_core::file::RawFd;
use libos_core::user::UserStr;
use libos_core::vfs::ops;
use libos_core::{Errno, Result, Task};

pub fn sys_mknod(task: &Task, path: UserStr, mode: u32, dev: u32) -> Result<usize> {
    sys_mknodat(task, linux::AT_FDCWD, path, mode, dev)
}

pub fn sys_mknodat(task: &Task, dir_fd: RawFd, path: UserStr, mode: u32, dev: u32) -> Result<usize> {
    let kind = match mode & linux::S_IFMT {
        0 => linux::S_IFREG,
        kind @ (linux::S_IFREG | linux::S_IFIFO | linux::S_IFSOCK | linux::S_IFCHR | linux::S_IFBLK) => kind,
        linux::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let is_device = matches!(kind, linux::S_IFCHR | linux::S_IFBLK);
    // The call's 32-bit device number has the layout of `new_encode_dev`, which is the low half of ours.
    let rdev = if is_device { u64::from(dev) } else { 0 };
    ops::create(task, dir_fd, &path.read_path()?, kind | mode & 0o7777, rdev, b"").map(|_| 0)
}
