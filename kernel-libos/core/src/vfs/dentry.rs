//! Directory entries, and the cache of them.
//!
//! A [`Dentry`] is a name in a directory and what it refers to, or the knowledge that it refers to nothing (a negative entry: dynamic loaders and
//! interpreters ask for many files that do not exist). Entries form a tree through their parents and are found by (parent, name) in one hash table, which
//! is bounded: entries that nobody else holds leave it in the order of a clock (second chance).
//!
//! What an entry refers to never changes. A create replaces a negative entry, an unlink takes the positive one out and marks it deleted, a rename moves
//! it. Whoever changes the entries of a directory, or adds a looked-up one, holds the directory's [`Dentry::lock`].

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libos_abi::{Errno, Result};

use super::inode::Inode;
use crate::sync::{Mutex, MutexGuard, SpinLock};

/// Longest name of a directory entry (`NAME_MAX`, limits.h).
pub const NAME_MAX: usize = 255;

/// Entries kept at most beyond those in use.
const CACHE_LIMIT: usize = 16 * 1024;

const MOUNTED: u32 = 1;
const DELETED: u32 = 1 << 1;
const USED: u32 = 1 << 2;

/// A name in a directory.
pub struct Dentry {
    inode: Option<Arc<dyn Inode>>,
    location: SpinLock<Location>,
    hash: AtomicU64,
    flags: AtomicU32,
    lock: Mutex<()>,
}

struct Location {
    parent: Option<Arc<Dentry>>,
    name: Box<[u8]>,
}

impl Dentry {
    fn new(parent: Option<Arc<Dentry>>, name: &[u8], inode: Option<Arc<dyn Inode>>) -> Result<Arc<Dentry>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(name.len()).map_err(|_| Errno::ENOMEM)?;
        bytes.extend_from_slice(name);
        let hash = parent.as_ref().map_or(0, |p| hash_of(p, name));
        Ok(Arc::new(Dentry {
            inode,
            location: SpinLock::new(Location { parent, name: bytes.into_boxed_slice() }),
            hash: AtomicU64::new(hash),
            flags: AtomicU32::new(0),
            lock: Mutex::new(()),
        }))
    }

    /// Returns the top of a tree, or an entry that lies in no directory (a memfd, a pipe reached through /proc), with a name for display.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn root(inode: Arc<dyn Inode>, name: &[u8]) -> Result<Arc<Dentry>> {
        Dentry::new(None, name, Some(inode))
    }

    /// What it refers to; `None` when the name is known not to exist.
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.inode.as_ref()
    }

    /// The directory it is in; a root has none.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.location.lock().parent.clone()
    }

    /// Calls `f` with the parent and the name.
    pub fn with_location<R>(&self, f: impl FnOnce(Option<&Arc<Dentry>>, &[u8]) -> R) -> R {
        let location = self.location.lock();
        f(location.parent.as_ref(), &location.name)
    }

    /// Keeps others from changing the entries of this directory.
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock()
    }

    /// Whether a file system may be mounted on it.
    pub fn is_mount_point(&self) -> bool {
        self.flags.load(Ordering::Acquire) & MOUNTED != 0
    }

    pub(super) fn set_mount_point(&self, is_mount_point: bool) {
        if is_mount_point {
            self.flags.fetch_or(MOUNTED, Ordering::Release);
        } else {
            self.flags.fetch_and(!MOUNTED, Ordering::Release);
        }
    }

    /// Whether the name was removed.
    pub fn is_deleted(&self) -> bool {
        self.flags.load(Ordering::Acquire) & DELETED != 0
    }

    /// Whether `ancestor` is this entry or above it.
    pub fn is_below(self: &Arc<Dentry>, ancestor: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    fn is_child(&self, parent: &Arc<Dentry>, name: &[u8]) -> bool {
        let location = self.location.lock();
        location.parent.as_ref().is_some_and(|p| Arc::ptr_eq(p, parent)) && *location.name == *name
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        // A chain of parents that nobody else holds goes one by one: recursion would need stack in proportion to the depth.
        let mut next = self.location.lock().parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|p| p.location.lock().parent.take());
        }
    }
}

/// FNV-1a over the name, seeded with the parent's address (which stays the same as long as the child holds the parent), mixed at the end.
fn hash_of(parent: &Arc<Dentry>, name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ (Arc::as_ptr(parent) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for &byte in name {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash ^ hash >> 29
}

/// Open addressing with linear probing; removal shifts later entries back, so there are no tombstones.
struct Cache {
    slots: Vec<Option<Arc<Dentry>>>,
    len: usize,
    hand: usize,
}

static CACHE: SpinLock<Cache> = SpinLock::new(Cache { slots: Vec::new(), len: 0, hand: 0 });

impl Cache {
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn find(&self, parent: &Arc<Dentry>, name: &[u8]) -> Option<Arc<Dentry>> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = hash_of(parent, name);
        let mut at = self.home(hash);
        while let Some(entry) = &self.slots[at] {
            if entry.hash.load(Ordering::Relaxed) == hash && entry.is_child(parent, name) {
                if entry.flags.load(Ordering::Relaxed) & USED == 0 {
                    entry.flags.fetch_or(USED, Ordering::Relaxed);
                }
                return Some(entry.clone());
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    /// Makes room for one more; false when there is no memory, and then the entry just is not remembered.
    fn reserve(&mut self) -> bool {
        if (self.len + 1) * 4 <= self.slots.len() * 3 {
            return true;
        }
        let size = (self.slots.len() * 2).max(32);
        let mut slots = Vec::new();
        if slots.try_reserve_exact(size).is_err() {
            return false;
        }
        slots.resize(size, None);
        let old = core::mem::replace(&mut self.slots, slots);
        for entry in old.into_iter().flatten() {
            self.place(entry);
        }
        true
    }

    fn place(&mut self, entry: Arc<Dentry>) {
        let mut at = self.home(entry.hash.load(Ordering::Relaxed));
        while self.slots[at].is_some() {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = Some(entry);
    }

    fn insert(&mut self, entry: Arc<Dentry>) {
        if self.reserve() {
            self.place(entry);
            self.len += 1;
        }
    }

    fn remove(&mut self, entry: &Arc<Dentry>) -> Option<Arc<Dentry>> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(entry.hash.load(Ordering::Relaxed));
        while let Some(here) = &self.slots[at] {
            if Arc::ptr_eq(here, entry) {
                return self.remove_at(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    fn remove_at(&mut self, index: usize) -> Option<Arc<Dentry>> {
        let removed = self.slots[index].take();
        self.len -= 1;
        let mask = self.slots.len() - 1;
        let mut hole = index;
        let mut at = (index + 1) & mask;
        while let Some(entry) = &self.slots[at] {
            let home = self.home(entry.hash.load(Ordering::Relaxed));
            // The entry may move to the hole unless its home lies between the two (cyclically).
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at].take();
                hole = at;
            }
            at = (at + 1) & mask;
        }
        removed
    }

    /// Moves the clock's hand over `steps` slots and takes out what nobody used since it last came by.
    fn sweep(&mut self, steps: usize, out: &mut Vec<Arc<Dentry>>) {
        for _ in 0..steps.min(self.slots.len()) {
            self.hand = (self.hand + 1) & (self.slots.len() - 1);
            let Some(entry) = &self.slots[self.hand] else { continue };
            // Only the table holds it (children hold their parent), and no new holder can come while the table is locked.
            if Arc::strong_count(entry) == 1 && entry.flags.fetch_and(!USED, Ordering::Relaxed) & (USED | MOUNTED) == 0 {
                if out.try_reserve(1).is_err() {
                    return;
                }
                let hand = self.hand;
                out.extend(self.remove_at(hand));
            }
        }
    }
}

/// Returns the entry for a name in a directory, positive or negative: from the cache, or from the file system.
///
/// # Errors
/// `ENOENT` when the directory itself was removed; what the file system answers, except that its `ENOENT` becomes a negative entry.
pub fn lookup(dir: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
    if let Some(entry) = CACHE.lock().find(dir, name) {
        return Ok(entry);
    }
    let inode = dir.inode().ok_or(Errno::ENOENT)?;
    if !inode.caches_names() {
        return Dentry::new(Some(dir.clone()), name, ask(inode, name)?);
    }
    let _guard = dir.lock();
    lookup_locked(dir, name)
}

/// As [`lookup`], for a caller that holds the directory's lock.
///
/// # Errors
/// As [`lookup`].
pub fn lookup_locked(dir: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
    if let Some(entry) = CACHE.lock().find(dir, name) {
        return Ok(entry);
    }
    if dir.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let inode = dir.inode().ok_or(Errno::ENOENT)?;
    let entry = Dentry::new(Some(dir.clone()), name, ask(inode, name)?)?;
    if inode.caches_names() {
        add(&entry);
    }
    Ok(entry)
}

fn ask(dir: &Arc<dyn Inode>, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
    match dir.lookup(name) {
        Ok(inode) => Ok(Some(inode)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn add(entry: &Arc<Dentry>) {
    let mut dropped = Vec::new();
    let mut cache = CACHE.lock();
    cache.insert(entry.clone());
    if cache.len > CACHE_LIMIT {
        cache.sweep(8, &mut dropped);
    }
    drop(cache);
    // Inodes may go with them, and file systems take locks of their own then.
    drop(dropped);
}

/// Replaces a negative entry by one for a new inode; the directory is locked.
///
/// # Errors
/// `ENOMEM`.
pub(super) fn instantiate(negative: &Arc<Dentry>, inode: Arc<dyn Inode>) -> Result<Arc<Dentry>> {
    let removed = CACHE.lock().remove(negative);
    drop(removed);
    let (parent, name) = negative.with_location(|parent, name| (parent.cloned(), Box::<[u8]>::from(name)));
    let entry = Dentry::new(parent, &name, Some(inode))?;
    add(&entry);
    Ok(entry)
}

/// Takes a removed name out; whoever still holds the entry sees that it is deleted. The directory is locked.
pub(super) fn forget(entry: &Arc<Dentry>) {
    entry.flags.fetch_or(DELETED, Ordering::Release);
    let removed = CACHE.lock().remove(entry);
    drop(removed);
}

/// Makes a positive entry take the place of another; both directories are locked. The replaced entry is marked deleted when it was positive.
pub(super) fn rename(entry: &Arc<Dentry>, replaced: &Arc<Dentry>) {
    let (parent, name) = replaced.with_location(|parent, name| (parent.cloned(), Box::<[u8]>::from(name)));
    forget(replaced);
    relocate(entry, parent, name);
}

/// Exchanges the places of two positive entries; both directories are locked.
pub(super) fn exchange(a: &Arc<Dentry>, b: &Arc<Dentry>) {
    let at_a = a.with_location(|parent, name| (parent.cloned(), Box::<[u8]>::from(name)));
    let at_b = b.with_location(|parent, name| (parent.cloned(), Box::<[u8]>::from(name)));
    relocate(a, at_b.0, at_b.1);
    relocate(b, at_a.0, at_a.1);
}

fn relocate(entry: &Arc<Dentry>, parent: Option<Arc<Dentry>>, name: Box<[u8]>) {
    let mut cache = CACHE.lock();
    let was = cache.remove(entry);
    let hash = parent.as_ref().map_or(0, |p| hash_of(p, &name));
    let old = core::mem::replace(&mut *entry.location.lock(), Location { parent, name });
    entry.hash.store(hash, Ordering::Relaxed);
    cache.insert(entry.clone());
    drop(cache);
    drop((was, old));
}

/// Drops entries that nobody uses, when memory is short; returns how many.
pub fn shrink() -> usize {
    let mut dropped = Vec::new();
    let mut cache = CACHE.lock();
    let all = cache.slots.len();
    cache.sweep(all, &mut dropped);
    drop(cache);
    dropped.len()
}
