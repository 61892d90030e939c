//! Extended attributes (xattr(7)).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::file::RawFd;
use libos_core::user::{UserPtr, UserSlice, UserStr};
use libos_core::vfs::inode::Inode;
use libos_core::vfs::permission::{self, Want};
use libos_core::vfs::{self, PathRef};
use libos_core::{Errno, Result, Task};

/// Longest name and value (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX` in <linux/limits.h>).
const NAME_MAX: usize = 255;
const SIZE_MAX: usize = 65536;
/// Both flags of setxattr(2), which are no contradiction to Linux.
const BOTH: u32 = linux::XATTR_CREATE | linux::XATTR_REPLACE;

/// What a call works on.
struct Target {
    inode: Arc<dyn Inode>,
    place: Option<PathRef>,
}

fn by_path(task: &Task, path: UserStr, follow: bool) -> Result<Target> {
    let place = vfs::lookup_at(task, linux::AT_FDCWD, &path.read_path()?, follow)?;
    Ok(Target { inode: place.inode().clone(), place: Some(place) })
}

fn by_fd(task: &Task, fd: RawFd) -> Result<Target> {
    let file = task.files().get(fd)?;
    if file.flags().contains(libos_core::file::OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    Ok(Target { inode: file.inode().ok_or(Errno::EOPNOTSUPP)?, place: file.path.clone() })
}

fn name(name: UserStr) -> Result<Vec<u8>> {
    let name = name.read(NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// Who may read or change an attribute, by its namespace (xattr(7)).
fn check(task: &Task, target: &Target, name: &[u8], want: Want) -> Result<()> {
    let creds = task.creds();
    let attributes = target.inode.attributes()?;
    let writes = want.contains(Want::WRITE);
    if writes && let Some(place) = &target.place {
        place.mount.check_writable()?;
    }
    let has_dot = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
    if has_dot(b"user.") {
        // Only files and directories have them.
        if !attributes.is_regular() && !attributes.is_dir() {
            return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
        }
        return permission::check(&creds, attributes, want);
    }
    if has_dot(b"trusted.") {
        if !creds.has_capability(linux::CAP_SYS_ADMIN) {
            return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
        }
        return Ok(());
    }
    if has_dot(b"security.") {
        let capability = if name == b"security.capability" { linux::CAP_SETFCAP } else { linux::CAP_SYS_ADMIN };
        return if writes && !creds.has_capability(capability) { Err(Errno::EPERM) } else { Ok(()) };
    }
    if has_dot(b"system.posix_acl_") {
        return if writes && !permission::is_owner(&creds, attributes) { Err(Errno::EPERM) } else { Ok(()) };
    }
    // A namespace without a name in it.
    let is_bare = [&b"user."[..], b"trusted.", b"security."].contains(&name);
    Err(if is_bare { Errno::EINVAL } else { Errno::EOPNOTSUPP })
}

fn set(task: &Task, target: &Target, attribute: UserStr, value: UserPtr<u8>, size: usize, flags: u32) -> Result<usize> {
    let must_exist = match flags {
        0 => None,
        linux::XATTR_CREATE => Some(false),
        linux::XATTR_REPLACE => Some(true),
        BOTH => Some(false),
        _ => return Err(Errno::EINVAL),
    };
    let name = name(attribute)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size];
    UserSlice::from_parts(value, size)?.read_to(&mut bytes)?;
    check(task, target, &name, Want::WRITE)?;
    // Never succeeds: what exists cannot be created, what does not cannot be replaced.
    if flags == BOTH && target.inode.xattr(&name).is_err() {
        return Err(Errno::ENODATA);
    }
    target.inode.set_xattr(&name, Some(&bytes), must_exist)?;
    Ok(0)
}

/// Copies out as getxattr(2) and listxattr(2) do: size 0 asks for the length.
fn put(out: UserPtr<u8>, size: usize, bytes: &[u8]) -> Result<usize> {
    if size != 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE);
        }
        UserSlice::from_parts(out, bytes.len())?.write_from(bytes)?;
    }
    Ok(bytes.len())
}

fn get(task: &Task, target: &Target, attribute: UserStr, out: UserPtr<u8>, size: usize) -> Result<usize> {
    let name = name(attribute)?;
    check(task, target, &name, Want::READ)?;
    put(out, size, &target.inode.xattr(&name)?)
}

fn list(task: &Task, target: &Target, out: UserPtr<u8>, size: usize) -> Result<usize> {
    let mut names = target.inode.xattr_names()?;
    if !task.creds().has_capability(linux::CAP_SYS_ADMIN) {
        // Others do not see that there are trusted attributes.
        let visible = names.split_inclusive(|&b| b == 0).filter(|name| !name.starts_with(b"trusted."));
        names = visible.flatten().copied().collect();
    }
    put(out, size, &names)
}

fn remove(task: &Task, target: &Target, attribute: UserStr) -> Result<usize> {
    let name = name(attribute)?;
    check(task, target, &name, Want::WRITE)?;
    target.inode.set_xattr(&name, None, Some(true))?;
    Ok(0)
}

pub fn sys_setxattr(task: &Task, path: UserStr, name: UserStr, value: UserPtr<u8>, size: usize, flags: u32) -> Result<usize> {
    set(task, &by_path(task, path, true)?, name, value, size, flags)
}

pub fn sys_lsetxattr(task: &Task, path: UserStr, name: UserStr, value: UserPtr<u8>, size: usize, flags: u32) -> Result<usize> {
    set(task, &by_path(task, path, false)?, name, value, size, flags)
}

pub fn sys_fsetxattr(task: &Task, fd: RawFd, name: UserStr, value: UserPtr<u8>, size: usize, flags: u32) -> Result<usize> {
    set(task, &by_fd(task, fd)?, name, value, size, flags)
}

pub fn sys_getxattr(task: &Task, path: UserStr, name: UserStr, value: UserPtr<u8>, size: usize) -> Result<usize> {
    get(task, &by_path(task, path, true)?, name, value, size)
}

pub fn sys_lgetxattr(task: &Task, path: UserStr, name: UserStr, value: UserPtr<u8>, size: usize) -> Result<usize> {
    get(task, &by_path(task, path, false)?, name, value, size)
}

pub fn sys_fgetxattr(task: &Task, fd: RawFd, name: UserStr, value: UserPtr<u8>, size: usize) -> Result<usize> {
    get(task, &by_fd(task, fd)?, name, value, size)
}

pub fn sys_listxattr(task: &Task, path: UserStr, out: UserPtr<u8>, size: usize) -> Result<usize> {
    list(task, &by_path(task, path, true)?, out, size)
}

pub fn sys_llistxattr(task: &Task, path: UserStr, out: UserPtr<u8>, size: usize) -> Result<usize> {
    list(task, &by_path(task, path, false)?, out, size)
}

pub fn sys_flistxattr(task: &Task, fd: RawFd, out: UserPtr<u8>, size: usize) -> Result<usize> {
    list(task, &by_fd(task, fd)?, out, size)
}

pub fn sys_removexattr(task: &Task, path: UserStr, name: UserStr) -> Result<usize> {
    remove(task, &by_path(task, path, true)?, name)
}

pub fn sys_lremovexattr(task: &Task, path: UserStr, name: UserStr) -> Result<usize> {
    remove(task, &by_path(task, path, false)?, name)
}

pub fn sys_fremovexattr(task: &Task, fd: RawFd, name: UserStr) -> Result<usize> {
    remove(task, &by_fd(task, fd)?, name)
}
