//! Changes of the tree of names: creating, linking, removing, renaming. Each function is one system call's work after its arguments were decoded.

use alloc::sync::Arc;

use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::PathRef;
use super::context::with_parent;
use super::dentry::{self, Dentry};
use super::inode::{Attributes, Inode, NewNode, RenameFlags};
use super::notify;
use super::open::{check_place, new_gid, umask};
use super::permission::{self, Want};
use super::walk::{Last, Parent};
use crate::file::RawFd;
use crate::sync::Mutex;
use crate::task::{Credentials, Task};

/// Creates a directory, device node, FIFO, socket, empty file or symbolic link, as the type bits of `mode` say; the umask is applied here (not to links).
/// Returns its place.
///
/// # Errors
/// As mkdir(2), mknod(2) and symlink(2).
pub fn create(task: &Task, dir_fd: RawFd, path: &[u8], mode: u32, rdev: u64, target: &[u8]) -> Result<PathRef> {
    with_parent(task, dir_fd, path, |creds, parent, name| {
        if parent.last == Last::Root || !matches!(parent.last, Last::Name(_)) {
            return Err(Errno::EEXIST);
        }
        let dir = &parent.dir;
        super::walk::child(dir, name)?;
        let _guard = dir.dentry.lock();
        let entry = dentry::lookup_locked(&dir.dentry, name)?;
        if entry.inode().is_some() {
            return Err(Errno::EEXIST);
        }
        let kind = mode & linux::S_IFMT;
        if parent.trailing_slash && kind != linux::S_IFDIR {
            return Err(Errno::ENOENT);
        }
        let attributes = dir.inode().attributes()?;
        check_place(creds, dir, attributes, Want::WRITE | Want::EXEC)?;
        if matches!(kind, linux::S_IFCHR | linux::S_IFBLK) && !creds.has_capability(linux::CAP_MKNOD) {
            return Err(Errno::EPERM);
        }
        let mut mode = if kind == linux::S_IFLNK { mode } else { mode & !umask(task) };
        if kind == linux::S_IFDIR {
            // A new directory inherits the set-group-ID bit (inode(7)).
            mode |= attributes.mode & linux::S_ISGID;
        }
        let node = NewNode { mode, uid: creds.fsuid, gid: new_gid(creds, attributes), rdev, target };
        let inode = dir.inode().create(name, &node)?;
        notify::entry(dir.inode(), name, &inode, linux::IN_CREATE, 0);
        Ok(PathRef { mount: dir.mount.clone(), dentry: dentry::instantiate(&entry, inode)? })
    })
}

/// Gives an existing file another name (linkat(2)).
///
/// # Errors
/// As link(2).
pub fn link(task: &Task, old: &PathRef, new_dir_fd: RawFd, new_path: &[u8]) -> Result<()> {
    with_parent(task, new_dir_fd, new_path, |creds, parent, name| {
        if !matches!(parent.last, Last::Name(_)) {
            return Err(Errno::EEXIST);
        }
        let dir = &parent.dir;
        let _guard = dir.dentry.lock();
        let entry = dentry::lookup_locked(&dir.dentry, name)?;
        if entry.inode().is_some() {
            return Err(Errno::EEXIST);
        }
        if parent.trailing_slash {
            return Err(Errno::ENOENT);
        }
        if !Arc::ptr_eq(&old.mount.fs, &dir.mount.fs) || !Arc::ptr_eq(&old.mount, &dir.mount) {
            return Err(Errno::EXDEV);
        }
        check_place(creds, dir, dir.inode().attributes()?, Want::WRITE | Want::EXEC)?;
        if old.inode().attributes()?.is_dir() {
            return Err(Errno::EPERM);
        }
        dir.inode().link(name, old.inode())?;
        dentry::instantiate(&entry, old.inode().clone())?;
        notify::inode(old.inode(), linux::IN_ATTRIB);
        notify::entry(dir.inode(), name, old.inode(), linux::IN_CREATE, 0);
        Ok(())
    })
}

/// Removes a name (unlink(2)).
///
/// # Errors
/// As unlink(2).
pub fn unlink(task: &Task, dir_fd: RawFd, path: &[u8]) -> Result<()> {
    with_parent(task, dir_fd, path, |creds, parent, name| {
        if !matches!(parent.last, Last::Name(_)) {
            return Err(Errno::EISDIR);
        }
        remove(creds, parent, name, false)
    })
}

/// Removes an empty directory (rmdir(2)).
///
/// # Errors
/// As rmdir(2).
pub fn rmdir(task: &Task, dir_fd: RawFd, path: &[u8]) -> Result<()> {
    with_parent(task, dir_fd, path, |creds, parent, name| match parent.last {
        Last::Name(_) => remove(creds, parent, name, true),
        Last::Dot => Err(Errno::EINVAL),
        Last::DotDot => Err(Errno::ENOTEMPTY),
        Last::Root => Err(Errno::EBUSY),
    })
}

fn remove(creds: &Credentials, parent: &Parent, name: &[u8], wants_dir: bool) -> Result<()> {
    let dir = &parent.dir;
    let _guard = dir.dentry.lock();
    let entry = dentry::lookup_locked(&dir.dentry, name)?;
    let inode = entry.inode().ok_or(Errno::ENOENT)?;
    let victim = inode.attributes()?;
    if !wants_dir && parent.trailing_slash {
        return Err(if victim.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    dir.mount.check_writable()?;
    permission::check_delete(creds, dir.inode().attributes()?, victim)?;
    match (wants_dir, victim.is_dir()) {
        (true, false) => return Err(Errno::ENOTDIR),
        (false, true) => return Err(Errno::EISDIR),
        _ => {}
    }
    if entry.is_mount_point() {
        return Err(Errno::EBUSY);
    }
    // Nobody may add entries to a directory while it goes away.
    let _victim_guard = wants_dir.then(|| entry.lock());
    // Afterwards nobody can say any more how many names there were.
    let is_last = wants_dir || notify::is_active() && inode.stat().is_ok_and(|stat| stat.nlink <= 1);
    dir.inode().unlink(name, wants_dir)?;
    if !wants_dir {
        notify::inode(inode, linux::IN_ATTRIB);
    }
    notify::entry(dir.inode(), name, inode, linux::IN_DELETE, 0);
    notify::unlinked(inode, is_last);
    dentry::forget(&entry);
    Ok(())
}

/// One rename at a time: the tree must not change between the check for loops and the move.
static RENAME: Mutex<()> = Mutex::new(());

/// Moves or exchanges names (renameat2(2)).
///
/// # Errors
/// As rename(2).
pub fn rename(task: &Task, old_fd: RawFd, old_path: &[u8], new_fd: RawFd, new_path: &[u8], flags: RenameFlags) -> Result<()> {
    with_parent(task, old_fd, old_path, |creds, old, old_name| {
        with_parent(task, new_fd, new_path, |_, new, new_name| {
            if !Arc::ptr_eq(&old.dir.mount, &new.dir.mount) {
                return Err(Errno::EXDEV);
            }
            if !matches!(old.last, Last::Name(_)) {
                return Err(Errno::EBUSY);
            }
            if !matches!(new.last, Last::Name(_)) {
                return Err(if flags.contains(RenameFlags::NOREPLACE) { Errno::EEXIST } else { Errno::EBUSY });
            }
            let _one = RENAME.lock();
            let is_same_dir = Arc::ptr_eq(&old.dir.dentry, &new.dir.dentry);
            // Ancestors first, so that a remove (which holds a directory and then its victim) cannot deadlock with us.
            let (first, second) = if old.dir.dentry.is_below(&new.dir.dentry) { (&new.dir, &old.dir) } else { (&old.dir, &new.dir) };
            let _first = first.dentry.lock();
            let _second = (!is_same_dir).then(|| second.dentry.lock());
            rename_locked(creds, (old, old_name), (new, new_name), flags)
        })
    })
}

fn rename_locked(
    creds: &Credentials,
    (old, old_name): (&Parent, &[u8]),
    (new, new_name): (&Parent, &[u8]),
    flags: RenameFlags,
) -> Result<()> {
    let from = dentry::lookup_locked(&old.dir.dentry, old_name)?;
    let to = dentry::lookup_locked(&new.dir.dentry, new_name)?;
    let moved = from.inode().ok_or(Errno::ENOENT)?;
    let exchanges = flags.contains(RenameFlags::EXCHANGE);
    if flags.contains(RenameFlags::NOREPLACE) && to.inode().is_some() {
        return Err(Errno::EEXIST);
    }
    if exchanges && to.inode().is_none() {
        return Err(Errno::ENOENT);
    }
    let moved_is = moved.attributes()?;
    if !moved_is.is_dir() && (old.trailing_slash || (new.trailing_slash && !exchanges)) {
        return Err(Errno::ENOTDIR);
    }
    // A directory must not move below itself, nor replace one of its ancestors.
    if new.dir.dentry.is_below(&from) {
        return Err(Errno::EINVAL);
    }
    if old.dir.dentry.is_below(&to) {
        return Err(if exchanges { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    let replaced_is = to.inode().map(|inode| inode.attributes()).transpose()?;
    old.dir.mount.check_writable()?;
    permission::check_delete(creds, old.dir.inode().attributes()?, moved_is)?;
    let new_dir_is = new.dir.inode().attributes()?;
    match replaced_is {
        Some(replaced_is) => permission::check_delete(creds, new_dir_is, replaced_is)?,
        None => permission::check(creds, new_dir_is, Want::WRITE | Want::EXEC)?,
    }
    if Arc::ptr_eq(&from, &to) || to.inode().is_some_and(|inode| Arc::ptr_eq(inode, moved)) {
        // Two names of one file: nothing happens (rename(2)).
        return Ok(());
    }
    if let (Some(replaced_is), false) = (replaced_is, exchanges) {
        match (moved_is.is_dir(), replaced_is.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
    }
    if !Arc::ptr_eq(&old.dir.dentry, &new.dir.dentry) && moved_is.is_dir() {
        // Its `..` changes, so it must be writable itself (rename(2), EACCES).
        permission::check(creds, moved_is, Want::WRITE)?;
    }
    if from.is_mount_point() || to.is_mount_point() {
        return Err(Errno::EBUSY);
    }
    let replaced = to.inode().filter(|_| notify::is_active() && !exchanges).cloned();
    let is_last = replaced.as_ref().is_some_and(|r| replaced_is.is_some_and(Attributes::is_dir) || r.stat().is_ok_and(|s| s.nlink <= 1));
    old.dir.inode().rename(old_name, new.dir.inode(), new_name, flags)?;
    tell_of_rename((old, old_name), (new, new_name), moved, replaced.as_ref(), is_last);
    finish_rename(&from, &to, exchanges);
    Ok(())
}

fn tell_of_rename(
    (old, old_name): (&Parent, &[u8]),
    (new, new_name): (&Parent, &[u8]),
    moved: &Arc<dyn Inode>,
    replaced: Option<&Arc<dyn Inode>>,
    is_last: bool,
) {
    if !notify::is_active() {
        return;
    }
    let cookie = notify::new_cookie();
    notify::entry(old.dir.inode(), old_name, moved, linux::IN_MOVED_FROM, cookie);
    notify::entry(new.dir.inode(), new_name, moved, linux::IN_MOVED_TO, cookie);
    if let Some(replaced) = replaced {
        notify::inode(replaced, linux::IN_ATTRIB);
    }
    notify::inode(moved, linux::IN_MOVE_SELF);
    if let Some(replaced) = replaced {
        notify::unlinked(replaced, is_last);
    }
}

fn finish_rename(from: &Arc<Dentry>, to: &Arc<Dentry>, exchanges: bool) {
    if exchanges {
        dentry::exchange(from, to);
    } else {
        dentry::rename(from, to);
    }
}
