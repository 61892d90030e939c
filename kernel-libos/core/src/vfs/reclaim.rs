//! Giving memory back: caches that can drop clean pages say so here, and the allocator asks them when it runs short.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::mm::{self, PageSource};
use crate::sync::SpinLock;
use crate::vfs::sparse::Sparse;

/// A cache that can give pages back.
pub trait Reclaim: Send + Sync {
    /// Drops up to `pages` clean pages that nobody else refers to and returns how many. Called while memory is being allocated, so it must not allocate,
    /// and locks that are taken already are left alone.
    fn reclaim(&self, pages: usize) -> usize;

    /// As [`Reclaim::reclaim`], for a moment when no locks are held: takes clean pages out of the address spaces that map them first. Their next access reads
    /// them again.
    fn reclaim_mapped(&self, pages: usize) -> usize {
        self.reclaim(pages)
    }
}

static CACHES: SpinLock<Vec<Weak<dyn Reclaim>>> = SpinLock::new(Vec::new());

/// Adds a cache for as long as it lives.
pub fn register(cache: &Arc<dyn Reclaim>) {
    static HOOKED: AtomicBool = AtomicBool::new(false);
    if !HOOKED.swap(true, Ordering::Relaxed) {
        crate::mm::frame::register_shrinker(reclaim);
    }
    let mut caches = CACHES.lock();
    caches.retain(|c| c.strong_count() > 0);
    caches.push(Arc::downgrade(cache));
}

/// Asks the caches for pages until `pages` came back; returns how many did. Pages that are mapped stay.
pub fn reclaim(pages: usize) -> usize {
    ask(pages, |cache, pages| cache.reclaim(pages))
}

/// As [`reclaim`], also for pages that are mapped; the caller holds no locks. 0 means that there is nothing left to give.
pub fn reclaim_mapped(pages: usize) -> usize {
    ask(pages, |cache, pages| cache.reclaim_mapped(pages))
}

fn ask(pages: usize, f: impl Fn(&dyn Reclaim, usize) -> usize) -> usize {
    let mut freed = 0;
    let mut index = 0;
    while freed < pages {
        let Some(caches) = CACHES.try_lock() else { break };
        let Some(cache) = caches.get(index).cloned() else { break };
        drop(caches);
        index += 1;
        if let Some(cache) = cache.upgrade() {
            freed += f(&*cache, pages - freed);
        }
    }
    freed
}

/// Asks the inodes of a file system, one after the other, to give `pages` pages back. No reference is dropped while the list is locked, since an inode
/// takes itself off it.
pub fn ask_inodes<I>(inodes: &SpinLock<Sparse<Weak<I>>>, pages: usize, f: impl Fn(&I, usize) -> usize) -> usize {
    let mut freed = 0;
    let mut from = 0;
    while freed < pages {
        let Some(list) = inodes.try_lock() else { break };
        let next = list.next(from).map(|(number, weak)| (number, weak.upgrade()));
        drop(list);
        let Some((number, inode)) = next else { break };
        freed += inode.map_or(0, |inode| f(&inode, pages - freed));
        from = number + 1;
    }
    freed
}

/// Takes the pages of `cache` out of the address spaces that map them in the name of `source`; private copies stay.
pub fn unmap_cached(source: &dyn PageSource, cache: &dyn PageSource) {
    mm::invalidate_frames(source, 0, u64::MAX, &|index, frame| {
        let mut is_cached = false;
        cache.cached(index, 1, &mut |_, cached| is_cached = cached.phys().0 == frame.phys().0);
        is_cached
    });
}
