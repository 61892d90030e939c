//! ioctl(2): the requests that every file understands; the rest is the file's own.

use libos_core::abi::{general as linux, ioctl};
use libos_core::file::{OpenFlags, RawFd};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

pub fn sys_ioctl(task: &Task, fd: RawFd, request: u32, arg: usize) -> Result<usize> {
    let file = crate::usable(task, fd)?;
    let set = |flag: OpenFlags| -> Result<usize> {
        let is_on = UserPtr::<i32>::new(arg).read()? != 0;
        let mut flags = file.flags();
        flags.set(flag, is_on);
        file.set_flags(flags);
        Ok(0)
    };
    match request {
        ioctl::FIOCLEX => task.files().set_close_on_exec(fd, true).map(|()| 0),
        ioctl::FIONCLEX => task.files().set_close_on_exec(fd, false).map(|()| 0),
        ioctl::FIONBIO => set(OpenFlags::NONBLOCK),
        ioctl::FIOASYNC => set(OpenFlags::ASYNC),
        ioctl::FIONREAD | ioctl::FIGETBSZ | ioctl::FIOQSIZE => {
            let stat = file.stat()?;
            let is_regular = stat.mode & linux::S_IFMT == linux::S_IFREG;
            match request {
                ioctl::FIONREAD if is_regular => {
                    let left = (stat.size as i64).saturating_sub(*file.offset.lock() as i64);
                    UserPtr::<i32>::new(arg).write(left as i32)?;
                    Ok(0)
                }
                ioctl::FIGETBSZ if file.path.is_some() => UserPtr::<u32>::new(arg).write(stat.block_bytes).map(|()| 0),
                ioctl::FIOQSIZE if is_regular || stat.mode & linux::S_IFMT == linux::S_IFDIR => {
                    UserPtr::<u64>::new(arg).write(stat.size).map(|()| 0)
                }
                _ => file.ops.ioctl(&file, request, arg),
            }
        }
        _ => match file.ops.ioctl(&file, request, arg) {
            // What drivers in Linux answer for "not mine" inside the kernel.
            Err(Errno::ENOSYS) => Err(Errno::ENOTTY),
            result => result,
        },
    }
}
