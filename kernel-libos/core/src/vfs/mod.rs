//! The virtual file system: inodes, directory entries, mounts and path lookup.
//!
//! | file | what it is for |
//! |---|---|
//! | `inode` | the traits of file-system objects and file systems, and the values they speak in |
//! | `dentry` | names in directories and the cache of them, also of names that do not exist |
//! | `mount` | which file system covers which directory; places (`PathRef`) |
//! | `walk` | from a path to a place |
//! | `permission` | who may do what |
//! | `context` | root, working directory, umask; lookups relative to them; paths for display |
//! | `open`, `ops` | open(2); creating, linking, removing, renaming |
//! | `files` | open directories and read-only files, the same for all file systems |
//! | `locks` | record locks and flock(2) |
//! | `paged` | read(2) of files that are pages; lseek(2) |
//! | `volume` | where an image's bytes are: the initrd in place, or a disk |
//! | `reclaim` | giving cached pages back when memory is short |
//! | `registry` | what modules offer: file systems, devices, FIFOs, the writable layer |
//! | `sparse` | a map for pages and inodes by number |
//! | `notify` | telling of changes (inotify) |
//! | `nodes` | names that the kernel itself adds and removes |
//! | `boot` | mounts of the boot record |
//!
//! A new file system is a module that implements [`Inode`] and [`FileSystem`] and registers a [`registry::FileSystemType`] in its init function.

pub mod boot;
pub mod context;
pub mod dentry;
pub mod files;
pub mod inode;
pub mod locks;
pub mod mount;
pub mod nodes;
pub mod notify;
pub mod open;
pub mod ops;
pub mod paged;
pub mod permission;
pub mod reclaim;
pub mod registry;
pub mod sparse;
pub mod volume;
pub mod walk;

pub use context::{FsContext, lookup, lookup_at, path_bytes, path_from};
pub use inode::{
    Attachment, Attributes, DirEntry, FileSystem, Inode, Link, NewNode, RenameFlags, SetAttributes, Stat, StatFs, dirent_kind,
};
pub use mount::{Mount, PathRef};
pub use open::{OpenHow, open, open_at};
pub use paged::default_seek;
