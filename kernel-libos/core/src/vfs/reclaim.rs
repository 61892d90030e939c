//! Giving memory back: caches that can drop clean pages say so here, and the allocator asks them when it runs short.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::sync::SpinLock;

/// A cache that can give pages back.
pub trait Reclaim: Send + Sync {
    /// Drops up to `pages` clean pages that nobody else refers to and returns how many. Called while memory is being allocated, so it must not allocate,
    /// and locks that are taken already are left alone.
    fn reclaim(&self, pages: usize) -> usize;
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

/// Asks the caches for pages until `pages` came back; returns how many did. 0 means that there is nothing left to give.
pub fn reclaim(pages: usize) -> usize {
    let mut freed = 0;
    let mut index = 0;
    while freed < pages {
        let Some(caches) = CACHES.try_lock() else { break };
        let Some(cache) = caches.get(index).cloned() else { break };
        drop(caches);
        index += 1;
        if let Some(cache) = cache.upgrade() {
            freed += cache.reclaim(pages - freed);
        }
    }
    freed
}
