//! open(2), openat2(2).

use libos_core::abi::general as linux;
use libos_core::file::{OpenFlags, RawFd};
use libos_core::user::{UserPtr, UserSlice, UserStr};
use libos_core::vfs::walk::Resolve;
use libos_core::vfs::{self, OpenHow};
use libos_core::{Errno, Result, Task};

/// Flags that a description from a path on a 64-bit machine always shows (`force_o_largefile` in Linux).
const ALWAYS: OpenFlags = OpenFlags::LARGEFILE;

/// All flags that open(2) knows; it ignores others.
const KNOWN: OpenFlags = OpenFlags::all();

pub fn sys_open(task: &Task, path: UserStr, flags: u32, mode: u32) -> Result<usize> {
    sys_openat(task, linux::AT_FDCWD, path, flags, mode)
}

pub fn sys_creat(task: &Task, path: UserStr, mode: u32) -> Result<usize> {
    sys_openat(task, linux::AT_FDCWD, path, linux::O_CREAT | linux::O_WRONLY | linux::O_TRUNC, mode)
}

pub fn sys_openat(task: &Task, dir_fd: RawFd, path: UserStr, flags: u32, mode: u32) -> Result<usize> {
    let mut flags = OpenFlags::from_bits_retain(flags) & KNOWN;
    // O_TMPFILE shares a bit with O_DIRECTORY; without the rest of it, it is only that.
    let path_flags = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    if flags.contains(OpenFlags::PATH) {
        flags &= path_flags;
    }
    open(task, dir_fd, path, OpenHow { flags, mode: mode & 0o7777, resolve: Resolve::empty() })
}

/// Bytes of `struct open_how` version 0, and the most that a later version may have.
const HOW_SIZE: usize = 24;
const HOW_MAX: usize = 4096;

pub fn sys_openat2(task: &Task, dir_fd: RawFd, path: UserStr, how: UserPtr<[u64; 3]>, size: usize) -> Result<usize> {
    if size < HOW_SIZE {
        return Err(Errno::EINVAL);
    }
    if size > HOW_MAX {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, resolve] = how.read()?;
    // Fields that we do not know must be zero (openat2(2), "Extensibility").
    let rest = UserSlice::<u8>::from_parts(how.field(HOW_SIZE), size - HOW_SIZE)?;
    if rest.read_vec()?.iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    let flags = u32::try_from(flags).ok().and_then(OpenFlags::from_bits).ok_or(Errno::EINVAL)?;
    let resolve = Resolve::from_bits(resolve).ok_or(Errno::EINVAL)?;
    let creates = flags.intersects(OpenFlags::CREAT) || flags.contains(OpenFlags::TMPFILE);
    let path_flags = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    let is_odd = (mode != 0 && !creates)
        || mode & !0o7777 != 0
        || (flags.contains(OpenFlags::PATH) && !path_flags.contains(flags))
        || resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT);
    if is_odd {
        return Err(Errno::EINVAL);
    }
    open(task, dir_fd, path, OpenHow { flags, mode: mode as u32, resolve })
}

fn open(task: &Task, dir_fd: RawFd, path: UserStr, how: OpenHow) -> Result<usize> {
    let path = path.read_path()?;
    let file = vfs::open_at(task, dir_fd, &path, how)?;
    if !how.flags.contains(OpenFlags::PATH) {
        file.set_flags(file.flags() | ALWAYS);
    }
    task.install(file, how.flags.contains(OpenFlags::CLOEXEC))
}
