//! memfd_create(2): a file in memory without a name.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags};
use libos_core::sync::SpinLock;
use libos_core::user::UserStr;
use libos_core::vfs::open::anonymous_place;
use libos_core::vfs::{FileSystem, NewNode, registry};
use libos_core::{Errno, Result, Task};

/// Where such files live; made when the first one is.
static HOME: SpinLock<Option<Arc<dyn FileSystem>>> = SpinLock::new(None);

fn home() -> Result<Arc<dyn FileSystem>> {
    if let Some(home) = HOME.lock().clone() {
        return Ok(home);
    }
    let new = registry::mount("tmpfs", None, b"")?;
    Ok(HOME.lock().get_or_insert(new).clone())
}

/// Longest name: 249 bytes, because `memfd:` comes before it and a name has 255 (memfd_create(2)).
const NAME_MAX: usize = 249;

pub fn sys_memfd_create(task: &Task, name: UserStr, flags: u32) -> Result<usize> {
    let sealing = linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL;
    let known = linux::MFD_CLOEXEC | sealing | linux::MFD_EXEC;
    // MFD_HUGETLB asks for pages that are not there.
    if flags & !known != 0 || flags & (linux::MFD_EXEC | linux::MFD_NOEXEC_SEAL) == linux::MFD_EXEC | linux::MFD_NOEXEC_SEAL {
        return Err(Errno::EINVAL);
    }
    let name = name.read(NAME_MAX + 1, Errno::EINVAL)?;
    let creds = task.creds();
    let permissions = if flags & linux::MFD_NOEXEC_SEAL != 0 { 0o666 } else { 0o777 };
    let node = NewNode { mode: linux::S_IFREG | permissions, uid: creds.fsuid, gid: creds.fsgid, rdev: 0, target: b"" };
    let inode = home()?.root().create_unnamed(&node)?;
    if flags & sealing != 0 {
        let seals = if flags & linux::MFD_NOEXEC_SEAL != 0 { linux::F_SEAL_EXEC } else { 0 };
        inode.seals().ok_or(Errno::EINVAL)?.store(seals, Ordering::Relaxed);
    }
    let shown = [b"/memfd:", &name[..], b" (deleted)"].concat();
    let ops = inode.clone().open(OpenFlags::RDWR)?;
    let file = OpenFile::new(ops, OpenFlags::RDWR | OpenFlags::LARGEFILE, Some(anonymous_place(inode, &shown)?));
    task.install(file, flags & linux::MFD_CLOEXEC != 0)
}
