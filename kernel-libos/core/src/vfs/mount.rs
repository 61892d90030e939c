//! Mounts: which tree of which file system covers which directory.
//!
//! There is one mount namespace. A [`Mount`] shows a directory of a file system (its root, or for a bind mount any directory) at a place in another
//! mount. A few mounts are only promised at boot ([`promise`]): /proc, /sys and /dev come into being when a path first leads to them, so a program that
//! never looks pays nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::dentry::{self, Dentry};
use super::inode::{FileSystem, Inode, NewNode};
use crate::sync::SpinLock;

bitflags! {
    /// Per-mount flags: the `MS_` constants of mount(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        const RDONLY = linux::MS_RDONLY;
        const NOSUID = linux::MS_NOSUID;
        const NODEV = linux::MS_NODEV;
        const NOEXEC = linux::MS_NOEXEC;
    }
}

/// A file system shown at a place.
pub struct Mount {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// Its directory that is shown.
    pub root: Arc<Dentry>,
    /// What /proc/mounts shows as the source.
    pub source: Vec<u8>,
    /// Number, as in /proc/self/mountinfo.
    pub id: u32,
    flags: AtomicU32,
    /// Where it is; the root of the namespace has no such place.
    covers: SpinLock<Option<PathRef>>,
}

impl Mount {
    fn new(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, source: &[u8], flags: MountFlags) -> Arc<Mount> {
        static NEXT_ID: AtomicU32 = AtomicU32::new(20);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Mount { fs, root, source: source.to_vec(), id, flags: AtomicU32::new(flags.bits()), covers: SpinLock::new(None) })
    }

    /// Flags now.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Changes the flags (`MS_REMOUNT`).
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// Whether writing through this mount is refused.
    ///
    /// # Errors
    /// `EROFS`.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) || self.fs.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// The place it covers; `None` for the root of the namespace and after umount(2).
    pub fn covers(&self) -> Option<PathRef> {
        self.covers.lock().clone()
    }

    /// Its top, as a place.
    pub fn top(self: &Arc<Mount>) -> PathRef {
        PathRef { mount: self.clone(), dentry: self.root.clone() }
    }
}

/// A place in the tree of names: an existing directory entry, seen through a mount.
#[derive(Clone)]
pub struct PathRef {
    /// The mount it is seen through.
    pub mount: Arc<Mount>,
    /// The entry; it exists (is not negative).
    pub dentry: Arc<Dentry>,
}

impl PathRef {
    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode().expect("a place exists")
    }

    /// Whether both are the same entry in the same mount.
    pub fn is_same(&self, other: &PathRef) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// The directory above, which is never above `root`; crosses mounts downwards in the tree.
    pub fn parent(&self, root: &PathRef) -> PathRef {
        let mut at = self.clone();
        loop {
            if at.is_same(root) {
                return at;
            }
            if !Arc::ptr_eq(&at.dentry, &at.mount.root) {
                let Some(parent) = at.dentry.parent() else { return at };
                // What is mounted on the parent hides nothing here: the path came through below.
                return PathRef { mount: at.mount, dentry: parent };
            }
            match at.mount.covers() {
                Some(place) => at = place,
                None => return at,
            }
        }
    }

    /// Follows mounts on this place to the topmost one.
    pub fn cross(mut self) -> PathRef {
        while self.dentry.is_mount_point() {
            let mounts = MOUNTS.lock();
            let covering = mounts.iter().rev().find(|m| m.covers.lock().as_ref().is_some_and(|c| c.is_same(&self))).cloned();
            drop(mounts);
            match covering {
                Some(mount) => self = mount.top(),
                None => break,
            }
        }
        self
    }
}

static MOUNTS: SpinLock<Vec<Arc<Mount>>> = SpinLock::new(Vec::new());

/// All mounts in the order they were made; the first is the root.
pub fn mounts() -> Vec<Arc<Mount>> {
    MOUNTS.lock().clone()
}

/// The root of the namespace.
///
/// # Errors
/// `ENOENT` before the root is mounted.
pub fn namespace_root() -> Result<PathRef> {
    let root = MOUNTS.lock().first().cloned().ok_or(Errno::ENOENT)?;
    Ok(root.top())
}

/// Mounts the root of the namespace, once.
///
/// # Errors
/// `EBUSY` when there is one, `ENOMEM`.
pub fn mount_root(fs: Arc<dyn FileSystem>, source: &[u8], flags: MountFlags) -> Result<PathRef> {
    let mount = Mount::new(fs.clone(), Dentry::root(fs.root(), b"/")?, source, flags);
    let mut mounts = MOUNTS.lock();
    if !mounts.is_empty() {
        return Err(Errno::EBUSY);
    }
    mounts.push(mount.clone());
    drop(mounts);
    Ok(mount.top())
}

/// Mounts a file system on a directory.
///
/// # Errors
/// `ENOTDIR`, `ENOMEM`.
pub fn mount(place: &PathRef, fs: Arc<dyn FileSystem>, source: &[u8], flags: MountFlags) -> Result<Arc<Mount>> {
    let root = Dentry::root(fs.root(), b"/")?;
    attach(place, Mount::new(fs, root, source, flags))
}

/// Shows a directory or file at another place (`MS_BIND`).
///
/// # Errors
/// `ENOTDIR` when one is a directory and the other is not.
pub fn bind(place: &PathRef, what: &PathRef) -> Result<Arc<Mount>> {
    let new = Mount::new(what.mount.fs.clone(), what.dentry.clone(), &what.mount.source, what.mount.flags());
    attach(place, new)
}

fn attach(place: &PathRef, mount: Arc<Mount>) -> Result<Arc<Mount>> {
    let top = mount.root.inode().ok_or(Errno::ENOENT)?;
    if top.attributes()?.is_dir() != place.inode().attributes()?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    *mount.covers.lock() = Some(place.clone());
    MOUNTS.lock().push(mount.clone());
    place.dentry.set_mount_point(true);
    Ok(mount)
}

/// Takes a mount away (umount2(2)).
///
/// # Errors
/// `EINVAL` when `place` is not the top of a mount or the root; `EBUSY` when something is mounted below and the unmount is not lazy.
pub fn unmount(place: &PathRef, is_lazy: bool) -> Result<()> {
    let mount = &place.mount;
    if !Arc::ptr_eq(&place.dentry, &mount.root) {
        return Err(Errno::EINVAL);
    }
    let covered = mount.covers().ok_or(Errno::EINVAL)?;
    let mut mounts = MOUNTS.lock();
    let has_mount_below = mounts.iter().any(|m| m.covers.lock().as_ref().is_some_and(|c| Arc::ptr_eq(&c.mount, mount)));
    if has_mount_below && !is_lazy {
        return Err(Errno::EBUSY);
    }
    let removed = mounts.iter().position(|m| Arc::ptr_eq(m, mount)).map(|i| mounts.remove(i));
    let is_covered_still = mounts.iter().any(|m| m.covers.lock().as_ref().is_some_and(|c| Arc::ptr_eq(&c.dentry, &covered.dentry)));
    drop(mounts);
    *mount.covers.lock() = None;
    covered.dentry.set_mount_point(is_covered_still);
    drop(removed);
    Ok(())
}

/// A mount that is made when a path first leads to its place in the root directory.
struct Promise {
    name: &'static [u8],
    fs_type: &'static str,
    flags: MountFlags,
}

static PROMISES: SpinLock<Vec<Promise>> = SpinLock::new(Vec::new());

/// Promises that a file system of a type will be at `/name`.
pub fn promise(name: &'static [u8], fs_type: &'static str, flags: MountFlags) {
    PROMISES.lock().push(Promise { name, fs_type, flags });
}

/// Keeps the promise for a name in the root directory, or all of them; called when the name is not cached yet and before the directory is listed.
/// The mount point is made when the root file system lacks it; when that fails the promise is dropped and lookups see the root file system as it is.
pub(super) fn keep_promises(dir: &PathRef, name: Option<&[u8]>) {
    loop {
        let promise = {
            let mut promises = PROMISES.lock();
            let Some(first) = MOUNTS.lock().first().cloned() else { return };
            if !Arc::ptr_eq(&dir.mount, &first) || !Arc::ptr_eq(&dir.dentry, &first.root) {
                return;
            }
            match promises.iter().position(|p| name.is_none_or(|n| n == p.name)) {
                Some(i) => promises.remove(i),
                None => return,
            }
        };
        let _ = keep(dir, &promise);
    }
}

fn keep(dir: &PathRef, promise: &Promise) -> Result<()> {
    let mut entry = dentry::lookup(&dir.dentry, promise.name)?;
    if entry.inode().is_none() {
        let node = NewNode { mode: linux::S_IFDIR | 0o755, uid: 0, gid: 0, rdev: 0, target: b"" };
        let _guard = dir.dentry.lock();
        entry = dentry::instantiate(&entry, dir.inode().create(promise.name, &node)?)?;
    }
    let fs = super::registry::mount(promise.fs_type, None, b"")?;
    mount(&PathRef { mount: dir.mount.clone(), dentry: entry }, fs, promise.fs_type.as_bytes(), promise.flags)?;
    Ok(())
}

/// Whether any promise is open; a cheap test for the path walk.
pub(super) fn has_promises() -> bool {
    !PROMISES.lock().is_empty()
}
