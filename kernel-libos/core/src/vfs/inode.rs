//! The trait of file-system objects, and the plain values it speaks in.
//!
//! An inode is what a name refers to: a file, directory, symbolic link, device node, FIFO or socket (inode(7)). File systems implement [`Inode`]; the
//! checks that are the same for all of them (permissions, sticky bits, name lengths, mount flags) are made by the callers in `walk` and `ops`, so a file
//! system only does what it is told. The callers hold the directory's lock during changes of its entries.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::AtomicU32;

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::PathRef;
use crate::file::{FileOps, OpenFile, OpenFlags};
use crate::mm::PageSource;

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
        Stat { dev: ANONYMOUS_DEV, ino: 1, mode: 0o600, nlink: 1, block_bytes: 4096, ..Stat::default() }
    }
}

/// Device number of files without a file system of their own (pipes, epoll).
pub const ANONYMOUS_DEV: u64 = 0x0a;

/// What a permission check needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Attributes {
    /// The type bits.
    pub fn kind(self) -> u32 {
        self.mode & linux::S_IFMT
    }

    /// Whether it is a directory.
    pub fn is_dir(self) -> bool {
        self.kind() == linux::S_IFDIR
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(self) -> bool {
        self.kind() == linux::S_IFLNK
    }

    /// Whether it is a regular file.
    pub fn is_regular(self) -> bool {
        self.kind() == linux::S_IFREG
    }
}

/// The `DT_*` value of a mode (readdir(3)).
pub fn dirent_kind(mode: u32) -> u8 {
    ((mode & linux::S_IFMT) >> 12) as u8
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

/// A new file-system object: mkdir(2), mknod(2), symlink(2), and open(2) with `O_CREAT`.
#[derive(Clone, Copy)]
pub struct NewNode<'a> {
    /// Type and permissions, umask already applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: &'a [u8],
}

/// Changes of attributes: chmod(2), chown(2), utimensat(2). `None` leaves a field alone; the change time is always set to now.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttributes {
    /// Permission bits (without type).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<(i64, u32)>,
    /// Last change of the data.
    pub mtime: Option<(i64, u32)>,
}

/// Where a symbolic link leads.
pub enum Link {
    /// To a path, relative to the link's directory.
    Path(Vec<u8>),
    /// Straight to a place, whatever its name is: the magic links of /proc/self (proc(5)).
    Jump(PathRef),
}

bitflags! {
    /// Flags of renameat2(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = linux::RENAME_NOREPLACE;
        const EXCHANGE = linux::RENAME_EXCHANGE;
        const WHITEOUT = linux::RENAME_WHITEOUT;
    }
}

/// A file-system object. Every method has the answer of an object that cannot do it.
pub trait Inode: Send + Sync + Any {
    /// Mode and owner; cheap, because every path component asks for it.
    ///
    /// # Errors
    /// `EIO`.
    fn attributes(&self) -> Result<Attributes>;

    /// Status.
    ///
    /// # Errors
    /// `EIO`.
    fn stat(&self) -> Result<Stat>;

    /// Looks up a name in a directory; never `.` or `..`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EIO`.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let _ = name;
        Err(Errno::ENOTDIR)
    }

    /// Whether the answers of `lookup` may be remembered. Directories that change on their own (/proc) say no.
    fn caches_names(&self) -> bool {
        true
    }

    /// Creates a name that does not exist yet.
    ///
    /// # Errors
    /// `EROFS`, `ENOSPC`, `ENOMEM`, `EPERM` when the file system cannot.
    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let _ = (name, node);
        Err(Errno::EPERM)
    }

    /// Creates a regular file without a name (`O_TMPFILE`).
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    fn create_unnamed(&self, node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let _ = node;
        Err(Errno::EOPNOTSUPP)
    }

    /// Gives an inode of the same file system one more name that does not exist yet.
    ///
    /// # Errors
    /// `EPERM`, `EMLINK`, `EROFS`.
    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let _ = (name, inode);
        Err(Errno::EPERM)
    }

    /// Removes a name that is known to exist; `is_dir` says that it is a directory, which must be empty.
    ///
    /// # Errors
    /// `ENOTEMPTY`, `EROFS`, `EPERM`.
    fn unlink(&self, name: &[u8], is_dir: bool) -> Result<()> {
        let _ = (name, is_dir);
        Err(Errno::EPERM)
    }

    /// Moves the entry `name` to `new_name` in `new_dir`, a directory of the same file system, replacing what is there; or exchanges both.
    ///
    /// # Errors
    /// `ENOTEMPTY` when a directory would be replaced that is not empty; `EINVAL` for flags that are not supported, `EROFS`, `EPERM`.
    fn rename(&self, name: &[u8], new_dir: &Arc<dyn Inode>, new_name: &[u8], flags: RenameFlags) -> Result<()> {
        let _ = (name, new_dir, new_name, flags);
        Err(Errno::EPERM)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// `EINVAL` when it is not a symbolic link, `ENAMETOOLONG`, `EACCES`.
    fn read_link(&self) -> Result<Link> {
        Err(Errno::EINVAL)
    }

    /// What readlink(2) shows; differs from [`Inode::read_link`] for magic links only.
    ///
    /// # Errors
    /// As [`Inode::read_link`].
    fn link_text(&self) -> Result<Vec<u8>> {
        match self.read_link()? {
            Link::Path(path) => Ok(path),
            Link::Jump(place) => Ok(super::path_bytes(&place)),
        }
    }

    /// Opens a regular file. Directories, device nodes, FIFOs and sockets are opened by `open.rs`, without asking the file system.
    ///
    /// # Errors
    /// As open(2).
    fn open(self: Arc<Self>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let _ = flags;
        Err(Errno::ENXIO)
    }

    /// The pages of a regular file.
    ///
    /// # Errors
    /// `ENODEV`.
    fn pages(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        Err(Errno::ENODEV)
    }

    /// Emits a directory's entries (also `.` and `..`) from a cookie on, 0 being the start, until `emit` refuses one. Cookies are the directory's own and
    /// stay good while entries come and go. Must not hold a spin lock that another method of the same inode takes while it calls `emit`.
    ///
    /// # Errors
    /// `ENOTDIR`, `EIO`.
    fn read_dir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let _ = (from, emit);
        Err(Errno::ENOTDIR)
    }

    /// The seals of a file that can be sealed (fcntl(2), "File Sealing").
    fn seals(&self) -> Option<&AtomicU32> {
        None
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// `EROFS`, `EPERM`.
    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        let _ = change;
        Err(Errno::EPERM)
    }

    /// Changes the size of a regular file.
    ///
    /// # Errors
    /// `EINVAL` when it is not a regular file, `EFBIG`, `ENOSPC`, `EROFS`, `EPERM` when a seal forbids it.
    fn truncate(&self, len_bytes: u64) -> Result<()> {
        let _ = len_bytes;
        Err(Errno::EINVAL)
    }

    /// Makes the object and its entries durable (fsync(2) of a directory).
    ///
    /// # Errors
    /// `EIO`.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Value of an extended attribute (xattr(7)).
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`.
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let _ = name;
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of all extended attributes, each with a NUL after it.
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    fn xattr_names(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Sets (`Some`) or removes (`None`) an extended attribute; `must_exist` is `XATTR_REPLACE` (true) or `XATTR_CREATE` (false).
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `EOPNOTSUPP`, `ENOSPC`, `EROFS`.
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, must_exist: Option<bool>) -> Result<()> {
        let _ = (name, value, must_exist);
        Err(Errno::EOPNOTSUPP)
    }

    /// A slot where the pipe behind a FIFO, or the socket bound to a name, lives as long as the inode.
    fn attachment(&self) -> Option<&Attachment> {
        None
    }

    /// For file systems that must recognise their own inodes (link, rename).
    fn as_any(&self) -> &dyn Any;
}

/// Something that a module hangs on an inode: the pipe of a FIFO, the socket of a socket file.
pub type Attachment = crate::sync::SpinLock<Option<Arc<dyn Any + Send + Sync>>>;

/// A mounted file system.
pub trait FileSystem: Send + Sync {
    /// Its top directory.
    fn root(&self) -> Arc<dyn Inode>;

    /// Name of its type, as in /proc/mounts.
    fn type_name(&self) -> &'static str;

    /// What statfs(2) reports.
    fn stat_fs(&self) -> StatFs;

    /// Makes everything durable.
    ///
    /// # Errors
    /// `EIO`.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Whether nothing can be written.
    fn is_read_only(&self) -> bool {
        false
    }
}

/// What statfs(2) reports.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "statfs(2) describes each field")]
pub struct StatFs {
    pub magic: u64,
    pub block_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
}

/// Returns an error for files that cannot be read through a description of their own (`O_PATH`): the file system is never asked.
pub(crate) struct PathOnly;

impl FileOps for PathOnly {
    fn stat(&self) -> Result<Stat> {
        Err(Errno::EBADF)
    }

    fn poll(&self, _file: &OpenFile, _table: &mut crate::poll::PollTable<'_>) -> crate::poll::PollEvents {
        crate::poll::PollEvents::NVAL
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
