//! open(2) and openat2(2): from a path to an open file description.

use alloc::sync::Arc;

use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::context::{start_of, walk_open};
use super::dentry;
use super::inode::{Attributes, Inode, NewNode, PathOnly};
use super::mount::MountFlags;
use super::notify;
use super::permission::{self, Want};
use super::walk::{Parent, Resolve, Step, Walker};
use super::{PathRef, registry};
use crate::file::{FileOps, OpenFile, OpenFlags, RawFd};
use crate::task::{Credentials, Task};

/// What openat2(2) is asked for.
#[derive(Clone, Copy)]
pub struct OpenHow {
    /// Flags.
    pub flags: OpenFlags,
    /// Permissions of a new file, before the umask.
    pub mode: u32,
    /// Limits of the walk.
    pub resolve: Resolve,
}

impl OpenHow {
    /// Opens what exists.
    pub fn existing(flags: OpenFlags) -> OpenHow {
        OpenHow { flags, mode: 0, resolve: Resolve::empty() }
    }
}

/// Opens a path as the kernel does for exec: with the task's credentials, relative to its working directory.
///
/// # Errors
/// As open(2).
pub fn open(task: &Task, path: &[u8], flags: OpenFlags) -> Result<Arc<OpenFile>> {
    open_at(task, linux::AT_FDCWD, path, OpenHow::existing(flags))
}

/// Opens a path relative to a directory descriptor.
///
/// # Errors
/// As open(2) and openat2(2).
pub fn open_at(task: &Task, dir_fd: RawFd, path: &[u8], how: OpenHow) -> Result<Arc<OpenFile>> {
    let flags = how.flags;
    let creds = task.creds();
    let start = start_of(task, dir_fd, path)?;
    let confined = how.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
    // IN_ROOT makes the starting directory the root of this walk, also for an absolute path.
    let start = if confined && path.first() == Some(&b'/') { start_of(task, dir_fd, b".")? } else { start };
    let root = if how.resolve.contains(Resolve::IN_ROOT) { start.clone() } else { task.fs().root() };
    let beneath = confined.then(|| start.clone());
    let mut walker = Walker { creds: &creds, root, resolve: how.resolve, beneath, links: 0 };

    let creates = flags.contains(OpenFlags::CREAT) && !flags.contains(OpenFlags::PATH);
    let exclusive = creates && flags.contains(OpenFlags::EXCL);
    let follow = !flags.contains(OpenFlags::NOFOLLOW) && !exclusive;
    let (step, cursor) = walk_open(&mut walker, start, path, follow)?;
    match step {
        Step::At(place) => {
            if exclusive {
                return Err(Errno::EEXIST);
            }
            // fs.protected_* are not implemented; Linux's defaults for them concern world-writable sticky directories only.
            if is_tmpfile(flags) {
                return open_unnamed(task, &creds, place, how);
            }
            open_place(&creds, place, flags, creates)
        }
        Step::Missing(parent, entry) if creates => {
            let node = new_file(task, &creds, &parent, how)?;
            let Some(place) = create_file(&creds, &parent, &entry, cursor.name(&parent.last), &node)? else {
                // Somebody else made it meanwhile.
                if exclusive {
                    return Err(Errno::EEXIST);
                }
                return open_at(task, dir_fd, path, how);
            };
            // A file just made opens with any access, whatever its mode (open(2), `mode`).
            finish_open(place, flags - OpenFlags::TRUNC)
        }
        _ => Err(Errno::ENOENT),
    }
}

/// Opens a place again or for the first time, with permission checks: what comes after the walk.
///
/// # Errors
/// As open(2).
pub fn open_place(creds: &Credentials, place: PathRef, flags: OpenFlags, creates: bool) -> Result<Arc<OpenFile>> {
    let attributes = place.inode().attributes()?;
    if attributes.is_dir() && creates {
        return Err(Errno::EISDIR);
    }
    if flags.contains(OpenFlags::DIRECTORY) && !attributes.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if flags.contains(OpenFlags::PATH) {
        return Ok(OpenFile::new(Arc::new(PathOnly), flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW), Some(place)));
    }
    if attributes.is_symlink() {
        return Err(Errno::ELOOP);
    }
    let writes = flags.can_write() || flags.contains(OpenFlags::TRUNC);
    if attributes.is_dir() && writes {
        return Err(Errno::EISDIR);
    }
    let mut want = Want::empty();
    // Access mode 3 is odd but real: it needs both permissions and allows neither (open(2), "File access mode").
    want.set(Want::READ, !flags.contains(OpenFlags::WRONLY) || flags.contains(OpenFlags::RDWR));
    want.set(Want::WRITE, writes);
    check_place(creds, &place, attributes, want)?;
    if flags.contains(OpenFlags::NOATIME) && !permission::is_owner(creds, attributes) {
        return Err(Errno::EPERM);
    }
    if flags.contains(OpenFlags::TRUNC) && attributes.is_regular() {
        place.inode().truncate(0)?;
        notify::place(&place, linux::IN_MODIFY);
    }
    finish_open(place, flags)
}

/// Checks permissions and the mount's flags.
///
/// # Errors
/// `EACCES`; `EROFS` for files and directories on a read-only mount.
pub fn check_place(creds: &Credentials, place: &PathRef, attributes: Attributes, want: Want) -> Result<()> {
    if want.contains(Want::WRITE) && matches!(attributes.kind(), linux::S_IFREG | linux::S_IFDIR | linux::S_IFLNK) {
        place.mount.check_writable()?;
    }
    permission::check(creds, attributes, want)?;
    if want.contains(Want::EXEC) && attributes.is_regular() && place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

fn finish_open(place: PathRef, flags: OpenFlags) -> Result<Arc<OpenFile>> {
    let inode = place.inode().clone();
    let ops: Arc<dyn FileOps> = match inode.attributes()?.kind() {
        linux::S_IFCHR => {
            if place.mount.flags().contains(MountFlags::NODEV) {
                return Err(Errno::EACCES);
            }
            registry::open_device(inode.stat()?.rdev, flags)?
        }
        linux::S_IFBLK | linux::S_IFSOCK => return Err(Errno::ENXIO),
        linux::S_IFIFO => registry::open_fifo(&inode, flags)?,
        linux::S_IFDIR => Arc::new(super::files::DirFile { inode }),
        _ => inode.open(flags)?,
    };
    let file = OpenFile::new(ops, flags, Some(place));
    file.ops.opened(&file);
    if let Some(place) = &file.path {
        notify::place(place, linux::IN_OPEN);
    }
    Ok(file)
}

fn is_tmpfile(flags: OpenFlags) -> bool {
    // O_TMPFILE contains the bit of O_DIRECTORY.
    flags.contains(OpenFlags::TMPFILE)
}

fn open_unnamed(task: &Task, creds: &Credentials, dir: PathRef, how: OpenHow) -> Result<Arc<OpenFile>> {
    let attributes = dir.inode().attributes()?;
    if !attributes.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if !how.flags.can_write() {
        return Err(Errno::EINVAL);
    }
    check_place(creds, &dir, attributes, Want::WRITE | Want::EXEC)?;
    let mode = linux::S_IFREG | how.mode & 0o7777 & !umask(task);
    let inode = dir.inode().create_unnamed(&NewNode { mode, uid: creds.fsuid, gid: new_gid(creds, attributes), rdev: 0, target: b"" })?;
    let dentry = dentry::Dentry::root(inode, b"/tmp/#tmpfile (deleted)")?;
    finish_open(PathRef { mount: dir.mount, dentry }, how.flags - OpenFlags::TMPFILE)
}

fn new_file(task: &Task, creds: &Credentials, parent: &Parent, how: OpenHow) -> Result<NewNode<'static>> {
    if parent.trailing_slash {
        return Err(Errno::EISDIR);
    }
    if how.flags.contains(OpenFlags::DIRECTORY) {
        return Err(Errno::EINVAL);
    }
    let dir = parent.dir.inode().attributes()?;
    let mode = linux::S_IFREG | how.mode & 0o7777 & !umask(task);
    Ok(NewNode { mode, uid: creds.fsuid, gid: new_gid(creds, dir), rdev: 0, target: b"" })
}

/// Creates a file for a negative entry; `None` when the name came to exist meanwhile.
fn create_file(
    creds: &Credentials,
    parent: &Parent,
    entry: &Arc<dentry::Dentry>,
    name: &[u8],
    node: &NewNode<'_>,
) -> Result<Option<PathRef>> {
    let dir = &parent.dir;
    let _guard = dir.dentry.lock();
    let now = dentry::lookup_locked(&dir.dentry, name)?;
    if now.inode().is_some() {
        return Ok(None);
    }
    check_place(creds, dir, dir.inode().attributes()?, Want::WRITE | Want::EXEC)?;
    let inode = dir.inode().create(name, node)?;
    let _ = entry;
    notify::entry(dir.inode(), name, &inode, linux::IN_CREATE, 0);
    let dentry = dentry::instantiate(&now, inode)?;
    Ok(Some(PathRef { mount: dir.mount.clone(), dentry }))
}

pub(super) fn umask(task: &Task) -> u32 {
    task.fs().umask.load(core::sync::atomic::Ordering::Relaxed)
}

/// Group of a new file: the creator's, or the directory's when that has the set-group-ID bit (inode(7)).
pub(super) fn new_gid(creds: &Credentials, dir: Attributes) -> u32 {
    if dir.mode & linux::S_ISGID != 0 { dir.gid } else { creds.fsgid }
}

/// Wraps an inode that has no name (a memfd, a pipe) as a place, so that it can be opened again through /proc/self/fd.
///
/// # Errors
/// `ENOMEM`, `ENOENT` before the root is mounted.
pub fn anonymous_place(inode: Arc<dyn Inode>, name: &[u8]) -> Result<PathRef> {
    Ok(PathRef { mount: super::mount::namespace_root()?.mount, dentry: dentry::Dentry::root(inode, name)? })
}
