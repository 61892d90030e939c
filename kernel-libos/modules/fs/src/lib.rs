//! Paths: open(2), stat(2), access(2), mkdir(2), rename(2), chmod(2), getdents(2), mount(2), xattr(7) and their relatives.
//!
//! Arguments → `vfs` → answers. Path walks, permission checks and changes of the tree are `libos_core::vfs`'s; here arguments are decoded and structures
//! written out.
//!
//! | file | what it is for |
//! |---|---|
//! | `open` | open, openat, openat2, creat |
//! | `stat` | stat, statx, statfs and their relatives |
//! | `access` | access and its relatives |
//! | `place` | working directory, root, links that are read |
//! | `change` | mkdir, unlink, rename, link, symlink |
//! | `attributes` | chmod, chown, utimensat, truncate, umask |
//! | `list` | getdents |
//! | `xattr` | extended attributes |
//! | `mount` | mount, umount2 |
//! | `memfd` | memfd_create |
//!
//! Differences from Linux: mount(2) knows memory file systems and bind mounts; block devices are mounted by the boot record only.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod attributes;
mod change;
mod list;
mod memfd;
mod mount;
mod open;
mod place;
mod stat;
mod xattr;

use libos_core::abi::general as linux;
use libos_core::file::RawFd;
use libos_core::user::UserStr;
use libos_core::vfs::{self, PathRef};
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: fs,
    needs: [ramfs],
    syscalls: {
        open => open::sys_open,
        openat => open::sys_openat,
        openat2 => open::sys_openat2,
        creat => open::sys_creat,
        stat => stat::sys_stat,
        lstat => stat::sys_lstat,
        fstat => stat::sys_fstat,
        newfstatat => stat::sys_newfstatat,
        statx => stat::sys_statx,
        statfs => stat::sys_statfs,
        fstatfs => stat::sys_fstatfs,
        access => access::sys_access,
        faccessat => access::sys_faccessat,
        faccessat2 => access::sys_faccessat2,
        readlink => place::sys_readlink,
        readlinkat => place::sys_readlinkat,
        getcwd => place::sys_getcwd,
        chdir => place::sys_chdir,
        fchdir => place::sys_fchdir,
        chroot => place::sys_chroot,
        mkdir => change::sys_mkdir,
        mkdirat => change::sys_mkdirat,
        rmdir => change::sys_rmdir,
        unlink => change::sys_unlink,
        unlinkat => change::sys_unlinkat,
        rename => change::sys_rename,
        renameat => change::sys_renameat,
        renameat2 => change::sys_renameat2,
        link => change::sys_link,
        linkat => change::sys_linkat,
        symlink => change::sys_symlink,
        symlinkat => change::sys_symlinkat,
        chmod => attributes::sys_chmod,
        fchmod => attributes::sys_fchmod,
        fchmodat => attributes::sys_fchmodat,
        fchmodat2 => attributes::sys_fchmodat2,
        chown => attributes::sys_chown,
        lchown => attributes::sys_lchown,
        fchown => attributes::sys_fchown,
        fchownat => attributes::sys_fchownat,
        utime => attributes::sys_utime,
        utimes => attributes::sys_utimes,
        futimesat => attributes::sys_futimesat,
        utimensat => attributes::sys_utimensat,
        umask => attributes::sys_umask,
        truncate => attributes::sys_truncate,
        getdents => list::sys_getdents,
        getdents64 => list::sys_getdents64,
        mount => mount::sys_mount: partial "memory file systems and bind mounts only",
        umount2 => mount::sys_umount2,
        setxattr => xattr::sys_setxattr,
        lsetxattr => xattr::sys_lsetxattr,
        fsetxattr => xattr::sys_fsetxattr,
        getxattr => xattr::sys_getxattr,
        lgetxattr => xattr::sys_lgetxattr,
        fgetxattr => xattr::sys_fgetxattr,
        listxattr => xattr::sys_listxattr,
        llistxattr => xattr::sys_llistxattr,
        flistxattr => xattr::sys_flistxattr,
        removexattr => xattr::sys_removexattr,
        lremovexattr => xattr::sys_lremovexattr,
        fremovexattr => xattr::sys_fremovexattr,
        memfd_create => memfd::sys_memfd_create,
    },
}

/// Looks a path up with the `AT_` flags that most calls share: `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH`. `known` are the flags that the call has.
///
/// # Errors
/// `EINVAL` for unknown flags; as path_resolution(7). A descriptor without a path (a socket) is `ENOENT`, and the caller treats it before.
fn at(task: &Task, dir_fd: RawFd, path: UserStr, flags: u32, known: u32) -> Result<PathRef> {
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path()?;
    if path.is_empty() && flags & linux::AT_EMPTY_PATH != 0 {
        return vfs::context::start_of(task, dir_fd, &path);
    }
    vfs::lookup_at(task, dir_fd, &path, flags & linux::AT_SYMLINK_NOFOLLOW == 0)
}
