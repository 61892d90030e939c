//! Telling of changes in the tree: what inotify(7) shows. Without watches every call here is one load.
//!
//! The events are bits of inotify(7); who wants them offers a function and counts its watches.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use libos_abi::Result;
use libos_abi::general as linux;

use super::{Inode, PathRef};
use crate::file::{OpenFile, OpenFlags};
use crate::sync::SpinLock;

/// Gets device and inode number of what is watched, the event with its flags, the cookie of a rename, and a name when it is a directory's entry.
pub type Hook = fn((u64, u64), u32, u32, &[u8]);

static HOOK: SpinLock<Option<Hook>> = SpinLock::new(None);
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Offers to hear of changes.
pub fn set_hook(hook: Hook) {
    *HOOK.lock() = Some(hook);
}

/// Counts watches that come and go.
pub fn count_watches(more: usize, less: usize) {
    WATCHES.fetch_add(more, Ordering::Relaxed);
    WATCHES.fetch_sub(less, Ordering::Relaxed);
}

/// Whether anybody listens.
pub fn is_active() -> bool {
    WATCHES.load(Ordering::Relaxed) != 0
}

/// A number that ties the two halves of a rename together.
pub fn new_cookie() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn is_dir(inode: &Arc<dyn Inode>) -> u32 {
    if inode.attributes().is_ok_and(super::Attributes::is_dir) { linux::IN_ISDIR } else { 0 }
}

fn tell(inode: &Arc<dyn Inode>, mask: u32, cookie: u32, name: &[u8]) {
    let hook = *HOOK.lock();
    if let (Some(hook), Ok(stat)) = (hook, inode.stat()) {
        hook((stat.dev, stat.ino), mask, cookie, name);
    }
}

/// An object changed, whatever its names are.
pub fn inode(inode: &Arc<dyn Inode>, mask: u32) {
    if is_active() {
        tell(inode, mask | is_dir(inode), 0, b"");
    }
}

/// An entry of a directory changed; `entry` is what it names.
pub fn entry(dir: &Arc<dyn Inode>, name: &[u8], entry: &Arc<dyn Inode>, mask: u32, cookie: u32) {
    if is_active() {
        tell(dir, mask | is_dir(entry), cookie, name);
    }
}

/// Something happened to what is at a place: its directory hears of it, and so does whoever watches the object itself.
pub fn place(place: &PathRef, mask: u32) {
    if !is_active() {
        return;
    }
    let target = place.inode();
    let mask = mask | is_dir(target);
    let (dir, name) = place.dentry.with_location(|parent, name| (parent.cloned(), name.to_vec()));
    if let Some(dir) = dir.as_ref().and_then(|dir| dir.inode())
        && !place.dentry.is_deleted()
    {
        tell(dir, mask, 0, &name);
    }
    tell(target, mask, 0, b"");
}

/// An object lost a name; `is_last` says that there is no other.
pub fn unlinked(victim: &Arc<dyn Inode>, is_last: bool) {
    if is_last {
        inode(victim, linux::IN_DELETE_SELF);
    }
}

/// Bytes were read or written.
pub fn moved(file: &OpenFile, mask: u32, result: &Result<usize>) {
    if is_active()
        && let (Some(path), Ok(1..)) = (&file.path, result)
    {
        place(path, mask);
    }
}

/// A description goes away.
pub fn closed(file: &OpenFile) {
    if is_active()
        && let Some(path) = &file.path
        && !file.flags().contains(OpenFlags::PATH)
    {
        place(path, if file.flags().can_write() { linux::IN_CLOSE_WRITE } else { linux::IN_CLOSE_NOWRITE });
    }
}
