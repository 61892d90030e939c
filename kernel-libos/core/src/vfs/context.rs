//! Root directory, working directory and umask: what chdir(2), chroot(2) and umask(2) change, shared by clone(`CLONE_FS`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::PathRef;
use super::mount::namespace_root;
use super::walk::{Cursor, Parent, Resolve, Step, Walker};
use crate::file::RawFd;
use crate::sync::SpinLock;
use crate::task::{Credentials, Task};

/// Root directory, working directory and umask of a task.
pub struct FsContext {
    /// Where `/` is (chroot(2)).
    pub root: SpinLock<PathRef>,
    /// Where relative paths start (chdir(2)).
    pub cwd: SpinLock<PathRef>,
    /// File mode creation mask (umask(2)).
    pub umask: AtomicU32,
}

impl FsContext {
    /// Returns the context of the first process: root and working directory are `root`, the umask is 022.
    pub fn new(root: PathRef) -> FsContext {
        FsContext { root: SpinLock::new(root.clone()), cwd: SpinLock::new(root), umask: AtomicU32::new(0o022) }
    }

    /// Returns a copy (fork(2)).
    pub fn duplicate(&self) -> FsContext {
        let root = self.root.lock().clone();
        let cwd = self.cwd.lock().clone();
        FsContext { root: SpinLock::new(root), cwd: SpinLock::new(cwd), umask: AtomicU32::new(self.umask.load(Ordering::Relaxed)) }
    }

    /// Root directory now.
    pub fn root(&self) -> PathRef {
        self.root.lock().clone()
    }

    /// Working directory now.
    pub fn cwd(&self) -> PathRef {
        self.cwd.lock().clone()
    }
}

/// The directory that a relative path starts from: a descriptor or `AT_FDCWD`. An absolute path needs none, so the descriptor is not looked at.
///
/// # Errors
/// `EBADF`; `ENOTDIR` when the descriptor is no directory.
pub fn start_of(task: &Task, dir_fd: RawFd, path: &[u8]) -> Result<PathRef> {
    if path.first() == Some(&b'/') {
        return Ok(task.fs().root());
    }
    if dir_fd == linux::AT_FDCWD {
        return Ok(task.fs().cwd());
    }
    let file = task.files().get(dir_fd)?;
    let place = file.path.clone().ok_or(Errno::ENOTDIR)?;
    // An empty path refers to the descriptor itself, whatever it is; the caller has checked AT_EMPTY_PATH.
    if !path.is_empty() && !place.inode().attributes()?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    Ok(place)
}

/// Walks a path for a task.
///
/// # Errors
/// As path_resolution(7).
pub fn lookup_at(task: &Task, dir_fd: RawFd, path: &[u8], follow: bool) -> Result<PathRef> {
    lookup_with(task, &task.creds(), dir_fd, path, follow)
}

/// As [`lookup_at`], with other credentials than the task's (access(2)).
///
/// # Errors
/// As path_resolution(7).
pub fn lookup_with(task: &Task, creds: &Credentials, dir_fd: RawFd, path: &[u8], follow: bool) -> Result<PathRef> {
    let start = start_of(task, dir_fd, path)?;
    let mut walker = Walker { creds, root: task.fs().root(), resolve: Resolve::empty(), beneath: None, links: 0 };
    walker.walk(start, path, follow)
}

/// Walks a path from the working directory, following links.
///
/// # Errors
/// As path_resolution(7).
pub fn lookup(task: &Task, path: &[u8]) -> Result<PathRef> {
    lookup_at(task, linux::AT_FDCWD, path, true)
}

/// Walks to the directory of the last component and calls `f` with it and the component's name.
///
/// # Errors
/// As path_resolution(7), and what `f` answers.
pub(super) fn with_parent<R>(
    task: &Task,
    dir_fd: RawFd,
    path: &[u8],
    f: impl FnOnce(&Credentials, &Parent, &[u8]) -> Result<R>,
) -> Result<R> {
    let start = start_of(task, dir_fd, path)?;
    let creds = task.creds();
    let mut walker = Walker { creds: &creds, root: task.fs().root(), resolve: Resolve::empty(), beneath: None, links: 0 };
    let mut cursor = Cursor::new(path);
    let parent = walker.parent(start, &mut cursor)?;
    f(&creds, &parent, cursor.name(&parent.last))
}

/// What a walk with `follow` finds at the end, also when it is nothing.
pub(super) fn walk_open<'p>(walker: &mut Walker<'_>, start: PathRef, path: &'p [u8], follow: bool) -> Result<(Step, Cursor<'p>)> {
    let mut cursor = Cursor::new(path);
    let mut start = start;
    loop {
        let parent = walker.parent(start, &mut cursor)?;
        match walker.finish(&mut cursor, parent, follow)? {
            Step::Again(from) => start = from,
            step => return Ok((step, cursor)),
        }
    }
}

/// The absolute path of a place as seen from `root`; `(unreachable)` comes in front when it lies elsewhere, as getcwd(2) has it.
pub fn path_from(root: &PathRef, place: &PathRef) -> Vec<u8> {
    // Built from the end: names are pushed reversed, and the whole is reversed at last.
    let mut out = Vec::new();
    let mut at = place.clone();
    let is_deleted = place.dentry.is_deleted();
    let is_reachable = loop {
        if at.is_same(root) {
            break true;
        }
        if Arc::ptr_eq(&at.dentry, &at.mount.root) {
            match at.mount.covers() {
                Some(place) => {
                    at = place;
                    continue;
                }
                None => break namespace_root().is_ok_and(|r| r.is_same(&at) && r.is_same(root)),
            }
        }
        let parent = at.dentry.with_location(|parent, name| {
            out.extend(name.iter().rev());
            parent.cloned()
        });
        match parent {
            Some(parent) => {
                out.push(b'/');
                at.dentry = parent;
            }
            // Something outside any directory: `pipe:[7]`, `/memfd:x`.
            None => {
                out.reverse();
                return out;
            }
        }
    };
    if out.is_empty() {
        out.push(b'/');
    }
    out.reverse();
    if !is_reachable {
        out.splice(0..0, b"(unreachable)".iter().copied());
    }
    if is_deleted {
        out.extend_from_slice(b" (deleted)");
    }
    out
}

/// The absolute path of a place, as /proc shows it.
pub fn path_bytes(place: &PathRef) -> Vec<u8> {
    match namespace_root() {
        Ok(root) => path_from(&root, place),
        Err(_) => place.dentry.with_location(|_, name| name.to_vec()),
    }
}
