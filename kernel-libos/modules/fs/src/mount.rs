//! mount(2) and umount2(2): memory file systems and bind mounts.

use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::user::UserStr;
use libos_core::vfs::mount::{self, MountFlags};
use libos_core::vfs::{self, registry};
use libos_core::{Errno, Result, Task};

/// Longest type name, source and option string: a page (mount(2)).
const TEXT_MAX: usize = 4096;

fn text(from: UserStr) -> Result<Vec<u8>> {
    if from.is_null() { Ok(Vec::new()) } else { from.read(TEXT_MAX, Errno::EINVAL) }
}

pub fn sys_mount(task: &Task, source: UserStr, target: UserStr, fs_type: UserStr, flags: u64, data: UserStr) -> Result<usize> {
    let fs_type = text(fs_type)?;
    let source = text(source)?;
    let data = text(data)?;
    let place = vfs::lookup(task, &target.read_path()?)?;
    task.require(linux::CAP_SYS_ADMIN)?;
    let flags = flags as u32;
    let mount_flags = MountFlags::from_bits_truncate(flags);
    if flags & linux::MS_REMOUNT != 0 {
        if !alloc::sync::Arc::ptr_eq(&place.dentry, &place.mount.root) {
            return Err(Errno::EINVAL);
        }
        place.mount.set_flags(mount_flags);
        return Ok(0);
    }
    if flags & linux::MS_BIND != 0 {
        let what = vfs::lookup(task, &source)?;
        mount::bind(&place, &what)?;
        return Ok(0);
    }
    if flags & (linux::MS_SHARED | linux::MS_PRIVATE | linux::MS_SLAVE | linux::MS_UNBINDABLE) != 0 {
        // There is one namespace, so nothing propagates anywhere.
        return Ok(0);
    }
    if flags & linux::MS_MOVE != 0 {
        return Err(Errno::EINVAL);
    }
    let name = core::str::from_utf8(&fs_type).map_err(|_| Errno::ENODEV)?;
    let fs = registry::mount(name, None, &data)?;
    mount::mount(&place, fs, if source.is_empty() { b"none" } else { &source }, mount_flags)?;
    Ok(0)
}

pub fn sys_umount2(task: &Task, target: UserStr, flags: u32) -> Result<usize> {
    let known = linux::MNT_FORCE | linux::MNT_DETACH | linux::MNT_EXPIRE | linux::UMOUNT_NOFOLLOW;
    if flags & !known != 0 || flags & linux::MNT_EXPIRE != 0 && flags & (linux::MNT_FORCE | linux::MNT_DETACH) != 0 {
        return Err(Errno::EINVAL);
    }
    let place = vfs::lookup_at(task, linux::AT_FDCWD, &target.read_path()?, flags & linux::UMOUNT_NOFOLLOW == 0)?;
    task.require(linux::CAP_SYS_ADMIN)?;
    mount::unmount(&place, flags & linux::MNT_DETACH != 0)?;
    Ok(0)
}
