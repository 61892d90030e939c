//! Attributes: chmod(2), chown(2), utimensat(2), truncate(2), umask(2).

use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::file::RawFd;
use libos_core::task::{Credentials, Resource, signal};
use libos_core::user::{UserPtr, UserStr};
use libos_core::vfs::inode::{Attributes, Inode, SetAttributes};
use libos_core::vfs::open::check_place;
use libos_core::vfs::permission::{self, Want};
use libos_core::vfs::{self, PathRef};
use libos_core::{Errno, Result, Task};

const CWD: RawFd = linux::AT_FDCWD;

/// What a descriptor refers to, for the calls that change its attributes: the inode, and its place when it has one.
fn of_fd(task: &Task, fd: RawFd) -> Result<(alloc::sync::Arc<dyn Inode>, Option<PathRef>)> {
    let file = task.files().get(fd)?;
    if file.flags().contains(libos_core::file::OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    // Files without an inode (sockets, epoll) have attributes that nobody can change.
    Ok((file.inode().ok_or(Errno::EPERM)?, file.path.clone()))
}

fn check_mount(place: Option<&PathRef>) -> Result<()> {
    place.map_or(Ok(()), |place| place.mount.check_writable())
}

/// Whoever watches the file or its directory hears of it.
fn tell(place: Option<&PathRef>, event: u32) {
    if let Some(place) = place {
        vfs::notify::place(place, event);
    }
}

fn chmod(task: &Task, inode: &dyn Inode, place: Option<&PathRef>, mode: u32) -> Result<usize> {
    check_mount(place)?;
    let creds = task.creds();
    let attributes = inode.attributes()?;
    if !permission::is_owner(&creds, attributes) {
        return Err(Errno::EPERM);
    }
    if attributes.is_symlink() {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut mode = mode & 0o7777;
    // Nobody gives a program to a group that he is not in (chmod(2)).
    if !creds.in_group(attributes.gid) && !creds.has_capability(linux::CAP_FSETID) {
        mode &= !linux::S_ISGID;
    }
    inode.set_attributes(&SetAttributes { mode: Some(mode), ..SetAttributes::default() })?;
    tell(place, linux::IN_ATTRIB);
    Ok(0)
}

pub fn sys_chmod(task: &Task, path: UserStr, mode: u32) -> Result<usize> {
    sys_fchmodat(task, CWD, path, mode)
}

pub fn sys_fchmod(task: &Task, fd: RawFd, mode: u32) -> Result<usize> {
    let (inode, place) = of_fd(task, fd)?;
    chmod(task, &*inode, place.as_ref(), mode)
}

pub fn sys_fchmodat(task: &Task, dir_fd: RawFd, path: UserStr, mode: u32) -> Result<usize> {
    sys_fchmodat2(task, dir_fd, path, mode, 0)
}

pub fn sys_fchmodat2(task: &Task, dir_fd: RawFd, path: UserStr, mode: u32, flags: u32) -> Result<usize> {
    let place = crate::at(task, dir_fd, path, flags, linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH)?;
    chmod(task, &**place.inode(), Some(&place), mode)
}

/// Checks and makes a change of owner and group; `u32::MAX` leaves one as it is (chown(2)).
fn chown(task: &Task, inode: &dyn Inode, place: Option<&PathRef>, uid: u32, gid: u32) -> Result<usize> {
    check_mount(place)?;
    let creds = task.creds();
    let attributes = inode.attributes()?;
    let uid = (uid != u32::MAX).then_some(uid);
    let gid = (gid != u32::MAX).then_some(gid);
    if !creds.has_capability(linux::CAP_CHOWN) && !may_chown(&creds, attributes, uid, gid) {
        return Err(Errno::EPERM);
    }
    let mut change = SetAttributes { uid, gid, ..SetAttributes::default() };
    if !attributes.is_dir() && !attributes.is_symlink() {
        // The set-user-ID bit goes, and the set-group-ID bit unless it means mandatory locking (no group execute permission).
        let mut mode = attributes.mode & 0o7777 & !linux::S_ISUID;
        if mode & 0o010 != 0 {
            mode &= !linux::S_ISGID;
        }
        change.mode = Some(mode);
    }
    inode.set_attributes(&change)?;
    tell(place, linux::IN_ATTRIB);
    Ok(0)
}

fn may_chown(creds: &Credentials, attributes: Attributes, uid: Option<u32>, gid: Option<u32>) -> bool {
    let keeps_owner = uid.is_none_or(|uid| uid == attributes.uid);
    let gid_is_own = gid.is_none_or(|gid| gid == attributes.gid || creds.in_group(gid));
    let is_owner = creds.fsuid == attributes.uid;
    (uid.is_none() && gid.is_none()) || (is_owner && keeps_owner && gid_is_own)
}

pub fn sys_chown(task: &Task, path: UserStr, uid: u32, gid: u32) -> Result<usize> {
    sys_fchownat(task, CWD, path, uid, gid, 0)
}

pub fn sys_lchown(task: &Task, path: UserStr, uid: u32, gid: u32) -> Result<usize> {
    sys_fchownat(task, CWD, path, uid, gid, linux::AT_SYMLINK_NOFOLLOW)
}

pub fn sys_fchown(task: &Task, fd: RawFd, uid: u32, gid: u32) -> Result<usize> {
    let (inode, place) = of_fd(task, fd)?;
    chown(task, &*inode, place.as_ref(), uid, gid)
}

pub fn sys_fchownat(task: &Task, dir_fd: RawFd, path: UserStr, uid: u32, gid: u32, flags: u32) -> Result<usize> {
    let place = crate::at(task, dir_fd, path, flags, linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH)?;
    chown(task, &**place.inode(), Some(&place), uid, gid)
}

/// A time to set.
#[derive(Clone, Copy)]
enum Time {
    Now,
    Keep,
    At(i64, u32),
}

fn set_times(task: &Task, inode: &dyn Inode, place: Option<&PathRef>, atime: Time, mtime: Time) -> Result<usize> {
    if matches!((atime, mtime), (Time::Keep, Time::Keep)) {
        return Ok(0);
    }
    check_mount(place)?;
    let creds = task.creds();
    let attributes = inode.attributes()?;
    if !permission::is_owner(&creds, attributes) {
        // Whoever may write may also set both times to now (utimensat(2), "Permissions requirements").
        if !matches!((atime, mtime), (Time::Now, Time::Now)) {
            return Err(Errno::EPERM);
        }
        permission::check(&creds, attributes, Want::WRITE)?;
    }
    let now = libos_core::time::realtime_ns();
    let now = ((now / 1_000_000_000) as i64, (now % 1_000_000_000) as u32);
    let resolve = |time: Time| match time {
        Time::Now => Some(now),
        Time::Keep => None,
        Time::At(seconds, nanoseconds) => Some((seconds, nanoseconds)),
    };
    inode.set_attributes(&SetAttributes { atime: resolve(atime), mtime: resolve(mtime), ..SetAttributes::default() })?;
    tell(place, linux::IN_ATTRIB);
    Ok(0)
}

pub fn sys_utimensat(task: &Task, dir_fd: RawFd, path: UserStr, times: UserPtr<[[i64; 2]; 2]>, flags: u32) -> Result<usize> {
    let (atime, mtime) = match times.non_null() {
        None => (Time::Now, Time::Now),
        Some(times) => {
            let [atime, mtime] = times.read()?;
            let decode = |[seconds, nanoseconds]: [i64; 2]| match nanoseconds {
                n if n == i64::from(linux::UTIME_NOW) => Ok(Time::Now),
                n if n == i64::from(linux::UTIME_OMIT) => Ok(Time::Keep),
                0..=999_999_999 => Ok(Time::At(seconds, nanoseconds as u32)),
                _ => Err(Errno::EINVAL),
            };
            (decode(atime)?, decode(mtime)?)
        }
    };
    if path.is_null() {
        // futimens(3)
        if flags != 0 || dir_fd == CWD {
            return Err(if dir_fd == CWD { Errno::EFAULT } else { Errno::EINVAL });
        }
        let (inode, place) = of_fd(task, dir_fd)?;
        return set_times(task, &*inode, place.as_ref(), atime, mtime);
    }
    let place = crate::at(task, dir_fd, path, flags, linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH)?;
    set_times(task, &**place.inode(), Some(&place), atime, mtime)
}

pub fn sys_utimes(task: &Task, path: UserStr, times: UserPtr<[[i64; 2]; 2]>) -> Result<usize> {
    sys_futimesat(task, CWD, path, times)
}

pub fn sys_futimesat(task: &Task, dir_fd: RawFd, path: UserStr, times: UserPtr<[[i64; 2]; 2]>) -> Result<usize> {
    let (atime, mtime) = match times.non_null() {
        None => (Time::Now, Time::Now),
        Some(times) => {
            let [atime, mtime] = times.read()?;
            let decode = |[seconds, micros]: [i64; 2]| match micros {
                0..=999_999 => Ok(Time::At(seconds, micros as u32 * 1000)),
                _ => Err(Errno::EINVAL),
            };
            (decode(atime)?, decode(mtime)?)
        }
    };
    let place = crate::at(task, dir_fd, path, 0, 0)?;
    set_times(task, &**place.inode(), Some(&place), atime, mtime)
}

pub fn sys_utime(task: &Task, path: UserStr, times: UserPtr<[i64; 2]>) -> Result<usize> {
    let (atime, mtime) = match times.non_null() {
        None => (Time::Now, Time::Now),
        Some(times) => {
            let [atime, mtime] = times.read()?;
            (Time::At(atime, 0), Time::At(mtime, 0))
        }
    };
    let place = crate::at(task, CWD, path, 0, 0)?;
    set_times(task, &**place.inode(), Some(&place), atime, mtime)
}

pub fn sys_umask(task: &Task, mask: u32) -> Result<usize> {
    Ok(task.fs().umask.swap(mask & 0o777, Ordering::Relaxed) as usize)
}

pub fn sys_truncate(task: &Task, path: UserStr, len: i64) -> Result<usize> {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let place = vfs::lookup(task, &path.read_path()?)?;
    let attributes = place.inode().attributes()?;
    if attributes.is_dir() {
        return Err(Errno::EISDIR);
    }
    if !attributes.is_regular() {
        return Err(Errno::EINVAL);
    }
    check_place(&task.creds(), &place, attributes, Want::WRITE)?;
    if len > task.limit(Resource::FileSize) {
        signal::send_to_current(linux::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    place.inode().truncate(len)?;
    tell(Some(&place), linux::IN_MODIFY);
    Ok(0)
}
