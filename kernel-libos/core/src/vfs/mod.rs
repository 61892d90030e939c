//! The virtual file system: inodes, directory entries, mounts and path lookup.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use crate::file::{OpenFile, OpenFlags};
use crate::sync::SpinLock;
use crate::task::Task;

/// What stat(2) and statx(2) report; times are (seconds, nanoseconds).
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "stat(2) describes each field")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub block_bytes: u32,
    pub blocks: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub btime: Option<(i64, u32)>,
}

impl Stat {
    /// Status of a file that has no inode (epoll, eventfd): mode 0600 and no type.
    pub fn anonymous() -> Stat {
        Stat { mode: 0o600, nlink: 1, block_bytes: 4096, ..Stat::default() }
    }
}

/// One entry that `read_dir` emits.
pub struct DirEntry<'a> {
    /// Name.
    pub name: &'a [u8],
    /// Inode number.
    pub ino: u64,
    /// `DT_*`.
    pub kind: u8,
    /// Offset cookie of the entry after this one.
    pub next: u64,
}

/// A file system object.
pub trait Inode: Send + Sync {
    /// Status.
    ///
    /// # Errors
    /// `EIO`.
    fn stat(&self) -> Result<Stat>;

    /// Looks up a name in a directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EIO`.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let _ = name;
        Err(Errno::ENOTDIR)
    }
}

/// A place in the tree of names: a directory entry in a mount.
#[derive(Clone)]
pub struct PathRef {
    /// The inode.
    pub inode: Arc<dyn Inode>,
}

/// Root directory, working directory and umask of a task.
pub struct FsContext {
    /// Where `/` is (chroot(2)).
    pub root: SpinLock<PathRef>,
    /// Where relative paths start (chdir(2)).
    pub cwd: SpinLock<PathRef>,
    /// File mode creation mask (umask(2)).
    pub umask: core::sync::atomic::AtomicU32,
}

/// Opens a path as the kernel does for exec: with the task's credentials, relative to its working directory.
///
/// # Errors
/// As open(2).
pub fn open(task: &Task, path: &[u8], flags: OpenFlags) -> Result<Arc<OpenFile>> {
    let _ = (task, path, flags);
    unimplemented!()
}

/// The absolute path of a place, as getcwd(2) shows it.
pub fn path_bytes(path: &PathRef) -> Vec<u8> {
    let _ = path;
    unimplemented!()
}

/// lseek(2) for a file of a known size.
///
/// # Errors
/// `EINVAL` for a negative result or an unknown whence, `ENXIO` for `SEEK_DATA` and `SEEK_HOLE` beyond the end.
pub fn default_seek(size: u64, file: &OpenFile, offset: i64, whence: u32) -> Result<u64> {
    let _ = (size, file, offset, whence);
    unimplemented!()
}
