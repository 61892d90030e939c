//! fcntl(2) and flock(2).

use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags, RawFd};
use libos_core::task::Resource;
use libos_core::user::UserPtr;
use libos_core::vfs::locks::{self, Family, Lock, Owner};
use libos_core::{Errno, Result, Task};

/// Flags that `F_SETFL` changes; others are ignored (fcntl(2)).
const CHANGEABLE: OpenFlags =
    OpenFlags::APPEND.union(OpenFlags::ASYNC).union(OpenFlags::DIRECT).union(OpenFlags::NOATIME).union(OpenFlags::NONBLOCK);

pub fn sys_fcntl(task: &Task, fd: RawFd, command: u32, arg: usize) -> Result<usize> {
    let files = task.files();
    let file = files.get(fd)?;
    let is_path = file.flags().contains(OpenFlags::PATH);
    match command {
        linux::F_DUPFD | linux::F_DUPFD_CLOEXEC => {
            let min = RawFd::try_from(arg).map_err(|_| Errno::EINVAL)?;
            let close_on_exec = command == linux::F_DUPFD_CLOEXEC;
            return files.insert(file, close_on_exec, min, task.limit(Resource::NoFile)).map(|fd| fd as usize);
        }
        linux::F_GETFD => return Ok(usize::from(files.close_on_exec(fd)?)),
        linux::F_SETFD => {
            files.set_close_on_exec(fd, arg as u32 & linux::FD_CLOEXEC != 0)?;
            return Ok(0);
        }
        linux::F_GETFL => return Ok(file.flags().bits() as usize),
        _ if is_path => return Err(Errno::EBADF),
        _ => {}
    }
    match command {
        linux::F_SETFL => {
            let wanted = OpenFlags::from_bits_retain(arg as u32) & CHANGEABLE;
            file.set_flags((file.flags() - CHANGEABLE) | wanted);
            Ok(0)
        }
        linux::F_GETLK => get_lock(task, &file, arg, Owner::table(&files)),
        linux::F_SETLK | linux::F_SETLKW => set_lock(&file, arg, Owner::table(&files), task.process.pid, command == linux::F_SETLKW),
        linux::F_OFD_GETLK => get_lock(task, &file, arg, Owner::description(&file)),
        linux::F_OFD_SETLK | linux::F_OFD_SETLKW => set_lock(&file, arg, Owner::description(&file), -1, command == linux::F_OFD_SETLKW),
        linux::F_SETOWN => {
            file.owner.store(arg as i32, Ordering::Relaxed);
            Ok(0)
        }
        linux::F_GETOWN => Ok(file.owner.load(Ordering::Relaxed) as isize as usize),
        linux::F_SETOWN_EX => set_owner(&file, UserPtr::new(arg)),
        linux::F_GETOWN_EX => get_owner(&file, UserPtr::new(arg)),
        linux::F_SETSIG => {
            // 64 is the highest signal number.
            if arg > 64 {
                return Err(Errno::EINVAL);
            }
            file.signal.store(arg as u32, Ordering::Relaxed);
            Ok(0)
        }
        linux::F_GETSIG => Ok(file.signal.load(Ordering::Relaxed) as usize),
        linux::F_SETPIPE_SZ => file.ops.pipe_capacity(Some(arg)),
        linux::F_GETPIPE_SZ => file.ops.pipe_capacity(None),
        linux::F_ADD_SEALS => add_seals(&file, arg as u32),
        linux::F_GET_SEALS => {
            let inode = file.inode().ok_or(Errno::EINVAL)?;
            inode.seals().map(|seals| seals.load(Ordering::Relaxed) as usize).ok_or(Errno::EINVAL)
        }
        // No events: ends the notification that there never was (fcntl(2), "F_NOTIFY").
        linux::F_NOTIFY if arg as u32 & !linux::DN_MULTISHOT == 0 => Ok(0),
        // Nobody holds a lease here.
        linux::F_GETLEASE => Ok(linux::F_UNLCK as usize),
        // Hints about the lifetime of data: there are none.
        linux::F_GET_RW_HINT | linux::F_GET_FILE_RW_HINT => UserPtr::<u64>::new(arg).write(0).map(|()| 0),
        linux::F_SET_RW_HINT | linux::F_SET_FILE_RW_HINT => UserPtr::<u64>::new(arg).read().map(|_| 0),
        _ => Err(Errno::EINVAL),
    }
}

// `struct f_owner_ex` is two ints: kind and id. A group is kept as a negative number, as `F_SETOWN` has it; a thread is kept as a process.

fn set_owner(file: &OpenFile, arg: UserPtr<[i32; 2]>) -> Result<usize> {
    let [kind, id] = arg.read()?;
    let owner = match kind as u32 {
        linux::F_OWNER_TID | linux::F_OWNER_PID => id,
        linux::F_OWNER_PGRP => -id,
        _ => return Err(Errno::EINVAL),
    };
    file.owner.store(owner, Ordering::Relaxed);
    Ok(0)
}

fn get_owner(file: &OpenFile, arg: UserPtr<[i32; 2]>) -> Result<usize> {
    let owner = file.owner.load(Ordering::Relaxed);
    let kind = if owner < 0 { linux::F_OWNER_PGRP } else { linux::F_OWNER_PID };
    arg.write([kind as i32, owner.abs()])?;
    Ok(0)
}

fn add_seals(file: &OpenFile, new: u32) -> Result<usize> {
    let known = linux::F_SEAL_SEAL | linux::F_SEAL_SHRINK | linux::F_SEAL_GROW | linux::F_SEAL_WRITE | linux::F_SEAL_FUTURE_WRITE;
    let inode = file.inode().ok_or(Errno::EINVAL)?;
    let seals = inode.seals().ok_or(Errno::EINVAL)?;
    if !file.flags().can_write() {
        return Err(Errno::EPERM);
    }
    if new & !known != 0 {
        return Err(Errno::EINVAL);
    }
    if seals.load(Ordering::Relaxed) & linux::F_SEAL_SEAL != 0 {
        return Err(Errno::EPERM);
    }
    seals.fetch_or(new, Ordering::Relaxed);
    Ok(0)
}

/// `struct flock` on x86-64: type and whence (16 bits each), 4 bytes of padding, start, length, pid, padding.
#[derive(Clone, Copy)]
struct Flock {
    kind: u16,
    whence: u16,
    start: i64,
    len: i64,
    pid: i32,
}

impl Flock {
    fn read(addr: usize) -> Result<Flock> {
        let [head, start, len, pid] = UserPtr::<[u64; 4]>::new(addr).read()?;
        Ok(Flock { kind: head as u16, whence: (head >> 16) as u16, start: start as i64, len: len as i64, pid: pid as i32 })
    }

    fn write(self, addr: usize) -> Result<()> {
        let head = u64::from(self.kind) | u64::from(self.whence) << 16;
        UserPtr::<[u64; 4]>::new(addr).write([head, self.start as u64, self.len as u64, u64::from(self.pid as u32)])
    }

    /// The half-open range in bytes from the start of the file (fcntl(2), "Advisory record locking").
    fn range(self, file: &OpenFile) -> Result<(u64, u64)> {
        let base = match u32::from(self.whence) {
            linux::SEEK_SET => 0,
            linux::SEEK_CUR => *file.offset.lock() as i64,
            linux::SEEK_END => file.stat()?.size as i64,
            _ => return Err(Errno::EINVAL),
        };
        let at = base.checked_add(self.start).ok_or(Errno::EOVERFLOW)?;
        // A negative length means the bytes before the start.
        let (from, to) = if self.len < 0 {
            (at.checked_add(self.len).ok_or(Errno::EINVAL)?, at)
        } else if self.len == 0 {
            (at, i64::MAX)
        } else {
            (at, at.checked_add(self.len - 1).ok_or(Errno::EOVERFLOW)?.saturating_add(1))
        };
        if from < 0 || to < from {
            return Err(Errno::EINVAL);
        }
        let end = if to == i64::MAX { u64::MAX } else { to as u64 };
        Ok((from as u64, end))
    }
}

fn get_lock(task: &Task, file: &OpenFile, addr: usize, owner: Owner) -> Result<usize> {
    let mut flock = Flock::read(addr)?;
    if matches!(owner, Owner::Description(_)) && flock.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let is_write = match u32::from(flock.kind) {
        linux::F_RDLCK => false,
        linux::F_WRLCK => true,
        _ => return Err(Errno::EINVAL),
    };
    let (start, end) = flock.range(file)?;
    let wanted = Lock { owner, pid: task.process.pid, is_write, start, end };
    match locks::conflict(file, Family::Record, &wanted)? {
        None => flock.kind = linux::F_UNLCK as u16,
        Some(lock) => {
            let len = if lock.end == u64::MAX { 0 } else { (lock.end - lock.start) as i64 };
            let kind = if lock.is_write { linux::F_WRLCK } else { linux::F_RDLCK };
            flock = Flock { kind: kind as u16, whence: linux::SEEK_SET as u16, start: lock.start as i64, len, pid: lock.pid };
        }
    }
    flock.write(addr)?;
    Ok(0)
}

fn set_lock(file: &OpenFile, addr: usize, owner: Owner, pid: i32, wait: bool) -> Result<usize> {
    let flock = Flock::read(addr)?;
    if matches!(owner, Owner::Description(_)) && flock.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let (start, end) = flock.range(file)?;
    let is_write = match u32::from(flock.kind) {
        linux::F_UNLCK => return locks::unlock(file, Family::Record, owner, start, end).map(|()| 0),
        linux::F_RDLCK if file.flags().can_read() => false,
        linux::F_WRLCK if file.flags().can_write() => true,
        linux::F_RDLCK | linux::F_WRLCK => return Err(Errno::EBADF),
        _ => return Err(Errno::EINVAL),
    };
    locks::lock(file, Family::Record, Lock { owner, pid, is_write, start, end }, wait)?;
    Ok(0)
}

pub fn sys_flock(task: &Task, fd: RawFd, operation: u32) -> Result<usize> {
    let file = crate::usable(task, fd)?;
    let owner = Owner::description(&file);
    let waits = operation & linux::LOCK_NB == 0;
    let is_write = match operation & !linux::LOCK_NB {
        linux::LOCK_UN => return locks::unlock(&file, Family::Whole, owner, 0, u64::MAX).map(|()| 0),
        linux::LOCK_SH => false,
        linux::LOCK_EX => true,
        _ => return Err(Errno::EINVAL),
    };
    let lock = Lock { owner, pid: task.process.pid, is_write, start: 0, end: u64::MAX };
    locks::lock(&file, Family::Whole, lock, waits)?;
    Ok(0)
}
