//! stat(2), statx(2), statfs(2).

use libos_core::abi::general as linux;
use libos_core::file::RawFd;
use libos_core::user::{UserPtr, UserStr};
use libos_core::vfs::mount::MountFlags;
use libos_core::vfs::registry::{major, minor};
use libos_core::vfs::{Mount, PathRef, Stat};
use libos_core::{Errno, Result, Task};

fn write(out: UserPtr<linux::stat>, stat: &Stat) -> Result<usize> {
    out.write(linux::stat {
        st_dev: stat.dev,
        st_ino: stat.ino,
        st_nlink: u64::from(stat.nlink),
        st_mode: stat.mode,
        st_uid: stat.uid,
        st_gid: stat.gid,
        __pad0: 0,
        st_rdev: stat.rdev,
        st_size: stat.size as i64,
        st_blksize: i64::from(stat.block_bytes),
        st_blocks: stat.blocks as i64,
        st_atime: stat.atime.0 as u64,
        st_atime_nsec: u64::from(stat.atime.1),
        st_mtime: stat.mtime.0 as u64,
        st_mtime_nsec: u64::from(stat.mtime.1),
        st_ctime: stat.ctime.0 as u64,
        st_ctime_nsec: u64::from(stat.ctime.1),
        __unused: [0; 3],
    })?;
    Ok(0)
}

pub fn sys_stat(task: &Task, path: UserStr, out: UserPtr<linux::stat>) -> Result<usize> {
    sys_newfstatat(task, linux::AT_FDCWD, path, out, 0)
}

pub fn sys_lstat(task: &Task, path: UserStr, out: UserPtr<linux::stat>) -> Result<usize> {
    sys_newfstatat(task, linux::AT_FDCWD, path, out, linux::AT_SYMLINK_NOFOLLOW)
}

pub fn sys_fstat(task: &Task, fd: RawFd, out: UserPtr<linux::stat>) -> Result<usize> {
    write(out, &task.files().get(fd)?.stat()?)
}

/// Flags of newfstatat(2) and statx(2). Nothing is mounted on demand and nothing is remote, so most change nothing.
const AT_FLAGS: u32 =
    linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH | linux::AT_NO_AUTOMOUNT | linux::AT_STATX_FORCE_SYNC | linux::AT_STATX_DONT_SYNC;

/// The status of what `dir_fd`, `path` and `flags` name together.
fn find(task: &Task, dir_fd: RawFd, path: UserStr, flags: u32) -> Result<(Stat, Option<PathRef>)> {
    if flags & !AT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & linux::AT_EMPTY_PATH != 0 && dir_fd != linux::AT_FDCWD {
        // A null path counts as empty since Linux 6.11.
        let is_empty = path.is_null() || UserPtr::<u8>::new(path.addr()).read()? == 0;
        if is_empty {
            let file = task.files().get(dir_fd)?;
            return Ok((file.stat()?, file.path.clone()));
        }
    }
    let place = crate::at(task, dir_fd, path, flags, AT_FLAGS)?;
    Ok((place.inode().stat()?, Some(place)))
}

pub fn sys_newfstatat(task: &Task, dir_fd: RawFd, path: UserStr, out: UserPtr<linux::stat>, flags: u32) -> Result<usize> {
    write(out, &find(task, dir_fd, path, flags)?.0)
}

fn timestamp((seconds, nanoseconds): (i64, u32)) -> linux::statx_timestamp {
    linux::statx_timestamp { tv_sec: seconds, tv_nsec: nanoseconds, __reserved: 0 }
}

pub fn sys_statx(task: &Task, dir_fd: RawFd, path: UserStr, flags: u32, mask: u32, out: UserPtr<[u8; 256]>) -> Result<usize> {
    let both = linux::AT_STATX_FORCE_SYNC | linux::AT_STATX_DONT_SYNC;
    if mask & linux::STATX__RESERVED != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let (stat, place) = find(task, dir_fd, path, flags)?;
    let mut filled = linux::STATX_BASIC_STATS;
    if stat.btime.is_some() {
        filled |= linux::STATX_BTIME;
    }
    let mut attributes = 0;
    if let Some(place) = &place
        && alloc::sync::Arc::ptr_eq(&place.dentry, &place.mount.root)
    {
        attributes |= u64::from(linux::STATX_ATTR_MOUNT_ROOT);
    }
    // Written field by field into the 256 bytes of `struct statx` (statx(2)), which later kernels fill further.
    let mut bytes = [0; 256];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x00, &filled.to_le_bytes());
    put(0x04, &stat.block_bytes.to_le_bytes());
    put(0x08, &attributes.to_le_bytes());
    put(0x10, &stat.nlink.to_le_bytes());
    put(0x14, &stat.uid.to_le_bytes());
    put(0x18, &stat.gid.to_le_bytes());
    put(0x1c, &(stat.mode as u16).to_le_bytes());
    put(0x20, &stat.ino.to_le_bytes());
    put(0x28, &stat.size.to_le_bytes());
    put(0x30, &stat.blocks.to_le_bytes());
    put(0x38, &u64::from(linux::STATX_ATTR_MOUNT_ROOT).to_le_bytes());
    for (at, time) in [(0x40, stat.atime), (0x50, stat.btime.unwrap_or_default()), (0x60, stat.ctime), (0x70, stat.mtime)] {
        let time = timestamp(time);
        put(at, &time.tv_sec.to_le_bytes());
        put(at + 8, &time.tv_nsec.to_le_bytes());
    }
    for (at, dev) in [(0x80, stat.rdev), (0x88, stat.dev)] {
        put(at, &major(dev).to_le_bytes());
        put(at + 4, &minor(dev).to_le_bytes());
    }
    if let Some(place) = &place {
        put(0x90, &u64::from(place.mount.id).to_le_bytes());
    }
    out.write(bytes)?;
    Ok(0)
}

fn write_fs(out: UserPtr<linux::statfs>, mount: &Mount) -> Result<usize> {
    let fs = mount.fs.stat_fs();
    // ST_VALID is 0x20; the other bits are those of mount(2) (statfs(2), "f_flags").
    let mut flags = 0x20;
    for (flag, bit) in [(MountFlags::RDONLY, 1), (MountFlags::NOSUID, 2), (MountFlags::NODEV, 4), (MountFlags::NOEXEC, 8)] {
        if mount.flags().contains(flag) {
            flags |= bit;
        }
    }
    let fsid = u64::from(mount.id);
    out.write(linux::statfs {
        f_type: fs.magic as i64,
        f_bsize: fs.block_bytes as i64,
        f_blocks: fs.blocks as i64,
        f_bfree: fs.blocks_free as i64,
        f_bavail: fs.blocks_free as i64,
        f_files: fs.files as i64,
        f_ffree: fs.files_free as i64,
        f_fsid: linux::__kernel_fsid_t { val: [fsid as i32, (fsid >> 32) as i32] },
        f_namelen: fs.name_max as i64,
        f_frsize: fs.block_bytes as i64,
        f_flags: flags,
        f_spare: [0; 4],
    })?;
    Ok(0)
}

pub fn sys_statfs(task: &Task, path: UserStr, out: UserPtr<linux::statfs>) -> Result<usize> {
    write_fs(out, &crate::at(task, linux::AT_FDCWD, path, 0, 0)?.mount)
}

/// `PIPEFS_MAGIC` and `SOCKFS_MAGIC` would be told apart by Linux; what has no path here reports the magic of anonymous inodes.
const ANON_INODE_MAGIC: i64 = 0x0904_1934;

pub fn sys_fstatfs(task: &Task, fd: RawFd, out: UserPtr<linux::statfs>) -> Result<usize> {
    match &task.files().get(fd)?.path {
        Some(place) => write_fs(out, &place.mount),
        None => {
            let zero = linux::statfs {
                f_type: ANON_INODE_MAGIC,
                f_bsize: 4096,
                f_blocks: 0,
                f_bfree: 0,
                f_bavail: 0,
                f_files: 0,
                f_ffree: 0,
                f_fsid: linux::__kernel_fsid_t { val: [0; 2] },
                f_namelen: 255,
                f_frsize: 4096,
                f_flags: 0x20,
                f_spare: [0; 4],
            };
            out.write(zero)?;
            Ok(0)
        }
    }
}
