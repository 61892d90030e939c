//! Which physical pages are free: a binary buddy allocator that never looks at memory nobody asked for.
//!
//! Every page of RAM has four bytes of metadata ([`Buddy::meta`]). A page in use holds its reference count there; the first page of a free block holds
//! [`FREE`] and the block's order (a block of order `n` is `2^n` pages, aligned to its size); everything else is 0. Free blocks of one order form a
//! list whose links lie in the free pages themselves.
//!
//! **Lazy.** Metadata are not initialised at boot. Each region of RAM has a frontier, `next`: pages below it are known to the allocator, pages above it
//! were never touched. When no free block is large enough, the frontier moves by [`STEP_ORDER`]. So boot costs the same with 8 MiB and with 8 GiB.
//!
//! Single pages, which is nearly all of the traffic, go through a short stack of pages that are not merged.

use core::sync::atomic::AtomicU32;

use super::direct;

/// A physical page number.
pub(super) type Pfn = u32;

/// Largest block: 2^14 pages, 64 MiB.
pub(super) const MAX_ORDER: usize = 14;

/// How far the frontier moves at once: 32 pages.
const STEP_ORDER: usize = 5;

/// Marks the first page of a free block; the low bits are its order.
const FREE: u32 = 1 << 31;

/// How many single pages are kept unmerged.
const HOT_MAX: usize = 64;

/// A range of usable RAM, `[next, end)` of which nobody has touched.
#[derive(Clone, Copy)]
struct Region {
    start: Pfn,
    next: Pfn,
    end: Pfn,
}

/// Regions kept; a machine has two to four.
const REGIONS_MAX: usize = 16;

pub(super) struct Buddy {
    /// First page of the first free block of each order; 0 is none, because page 0 is never given out.
    heads: [Pfn; MAX_ORDER + 1],
    hot: Pfn,
    hot_len: usize,
    regions: [Region; REGIONS_MAX],
    region_count: usize,
    free_pages: usize,
    total_pages: usize,
    /// Address of the metadata of page 0.
    meta: usize,
}

impl Buddy {
    /// An allocator without memory.
    pub(super) const fn new() -> Buddy {
        let none = Region { start: 0, next: 0, end: 0 };
        Buddy {
            heads: [0; MAX_ORDER + 1],
            hot: 0,
            hot_len: 0,
            regions: [none; REGIONS_MAX],
            region_count: 0,
            free_pages: 0,
            total_pages: 0,
            meta: 0,
        }
    }

    /// Whether [`Buddy::init`] was called.
    pub(super) fn is_ready(&self) -> bool {
        self.meta != 0
    }

    /// Takes possession of RAM: half-open ranges of page numbers that overlap nothing. `meta` is where four bytes for every page from 0 to the last
    /// region's end lie; the ranges do not contain that memory.
    pub(super) fn init(&mut self, meta: usize, ranges: impl Iterator<Item = (Pfn, Pfn)>) {
        self.meta = meta;
        for (start, end) in ranges {
            let start = start.max(1);
            if start < end && self.region_count < REGIONS_MAX {
                self.regions[self.region_count] = Region { start, next: start, end };
                self.region_count += 1;
                self.free_pages += (end - start) as usize;
                self.total_pages += (end - start) as usize;
            }
        }
    }

    pub(super) fn free_pages(&self) -> usize {
        self.free_pages
    }

    pub(super) fn total_pages(&self) -> usize {
        self.total_pages
    }

    fn meta(&self, pfn: Pfn) -> &AtomicU32 {
        meta_at(self.meta, pfn)
    }

    fn meta_get(&self, pfn: Pfn) -> u32 {
        self.meta(pfn).load(core::sync::atomic::Ordering::Relaxed)
    }

    fn meta_set(&self, pfn: Pfn, value: u32) {
        self.meta(pfn).store(value, core::sync::atomic::Ordering::Relaxed);
    }

    /// Allocates a block of `2^order` pages and returns its first page; the metadata of its pages is 0.
    pub(super) fn alloc(&mut self, order: usize) -> Option<Pfn> {
        if order == 0 && self.hot != 0 {
            let pfn = self.hot;
            self.hot = direct::read_link(pfn, 0);
            self.hot_len -= 1;
            self.free_pages -= 1;
            return Some(pfn);
        }
        if order > MAX_ORDER {
            return None;
        }
        let pfn = self.alloc_block(order).or_else(|| {
            // The unmerged pages may be what a larger block lacks.
            self.merge_hot();
            self.alloc_block(order)
        })?;
        self.free_pages -= 1 << order;
        Some(pfn)
    }

    fn alloc_block(&mut self, order: usize) -> Option<Pfn> {
        let from = match (order..=MAX_ORDER).find(|&o| self.heads[o] != 0) {
            Some(from) => from,
            None => {
                self.advance(order);
                (order..=MAX_ORDER).find(|&o| self.heads[o] != 0)?
            }
        };
        let pfn = self.heads[from];
        self.unlink(pfn, from);
        // Give the upper halves back until the block has the wanted size.
        for o in (order..from).rev() {
            self.link(pfn + (1 << o), o);
        }
        Some(pfn)
    }

    /// Frees a block.
    pub(super) fn free(&mut self, pfn: Pfn, order: usize) {
        self.free_pages += 1 << order;
        if order == 0 && self.hot_len < HOT_MAX {
            self.meta_set(pfn, 0);
            direct::write_link(pfn, 0, self.hot);
            self.hot = pfn;
            self.hot_len += 1;
        } else {
            self.merge(pfn, order);
        }
    }

    /// Allocates `pages` pages in a row.
    pub(super) fn alloc_run(&mut self, pages: usize) -> Option<Pfn> {
        let order = pages.checked_next_power_of_two()?.trailing_zeros() as usize;
        let pfn = self.alloc(order)?;
        self.free_run(pfn + pages as Pfn, (1 << order) - pages);
        Some(pfn)
    }

    /// Frees `pages` pages in a row, which need not be a block.
    pub(super) fn free_run(&mut self, mut pfn: Pfn, mut pages: usize) {
        while pages > 0 {
            let order = (pfn.trailing_zeros() as usize).min(pages.ilog2() as usize).min(MAX_ORDER);
            self.free(pfn, order);
            pfn += 1 << order;
            pages -= 1 << order;
        }
    }

    fn merge_hot(&mut self) {
        while self.hot != 0 {
            let pfn = self.hot;
            self.hot = direct::read_link(pfn, 0);
            self.merge(pfn, 0);
        }
        self.hot_len = 0;
    }

    /// Puts a block on its list, together with its buddy when that is free as well.
    fn merge(&mut self, mut pfn: Pfn, mut order: usize) {
        self.meta_set(pfn, 0);
        while order < MAX_ORDER {
            let buddy = pfn ^ (1 << order);
            if !self.is_known(buddy) || self.meta_get(buddy) != FREE | order as u32 {
                break;
            }
            self.unlink(buddy, order);
            pfn &= buddy;
            order += 1;
        }
        self.link(pfn, order);
    }

    /// Whether a page belongs to us and its metadata is initialised.
    fn is_known(&self, pfn: Pfn) -> bool {
        self.regions[..self.region_count].iter().any(|r| r.start <= pfn && pfn < r.next)
    }

    /// Moves frontiers until a block of `order` is free, or memory ends.
    fn advance(&mut self, order: usize) {
        let want = order.max(STEP_ORDER);
        for i in 0..self.region_count {
            loop {
                let Region { next, end, .. } = self.regions[i];
                if next >= end {
                    break;
                }
                let got = want.min(next.trailing_zeros() as usize).min((end - next).ilog2() as usize);
                for pfn in next..next + (1 << got) {
                    self.meta_set(pfn, 0);
                }
                self.regions[i].next = next + (1 << got);
                self.merge(next, got);
                if (order..=MAX_ORDER).any(|o| self.heads[o] != 0) {
                    return;
                }
            }
        }
    }

    fn link(&mut self, pfn: Pfn, order: usize) {
        let head = self.heads[order];
        self.meta_set(pfn, FREE | order as u32);
        direct::write_link(pfn, 0, head);
        direct::write_link(pfn, 1, 0);
        if head != 0 {
            direct::write_link(head, 1, pfn);
        }
        self.heads[order] = pfn;
    }

    fn unlink(&mut self, pfn: Pfn, order: usize) {
        let (next, prev) = (direct::read_link(pfn, 0), direct::read_link(pfn, 1));
        if prev == 0 {
            self.heads[order] = next;
        } else {
            direct::write_link(prev, 0, next);
        }
        if next != 0 {
            direct::write_link(next, 1, prev);
        }
        self.meta_set(pfn, 0);
    }
}

/// The metadata of a page, given where page 0's lie.
pub(super) fn meta_at<'a>(base: usize, pfn: Pfn) -> &'a AtomicU32 {
    // SAFETY: `Buddy::init` was given an array with one entry for every page of RAM, which is never freed; entries are only used as atomics.
    unsafe { &*((base + pfn as usize * size_of::<u32>()) as *const AtomicU32) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A `Buddy` over pages `first..first + pages` of the host's arena, which the test leaks.
    fn buddy(pages: usize) -> (Buddy, Pfn) {
        let first = direct::test_pages(pages);
        let meta: Vec<u32> = vec![0xdead_beef; first as usize + pages];
        let mut buddy = Buddy::new();
        // Two regions with a hole between them.
        let middle = first + pages as Pfn / 2;
        buddy.init(meta.leak().as_ptr() as usize, [(first, middle), (middle + 3, first + pages as Pfn)].into_iter());
        (buddy, first)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn blocks_never_overlap_and_everything_comes_back(ops in prop::collection::vec((any::<bool>(), 1usize..40, any::<usize>()), 1..200)) {
            let (mut buddy, first) = buddy(512);
            let total = buddy.free_pages();
            prop_assert_eq!(total, 509);
            let mut owned = vec![false; 512];
            let mut runs: Vec<(Pfn, usize)> = Vec::new();
            for (is_alloc, pages, pick) in ops {
                if is_alloc || runs.is_empty() {
                    if let Some(pfn) = buddy.alloc_run(pages) {
                        for page in pfn..pfn + pages as Pfn {
                            let slot = &mut owned[(page - first) as usize];
                            prop_assert!(!*slot, "page given out twice");
                            *slot = true;
                        }
                        runs.push((pfn, pages));
                    }
                } else {
                    let (pfn, pages) = runs.swap_remove(pick % runs.len());
                    for page in pfn..pfn + pages as Pfn {
                        owned[(page - first) as usize] = false;
                    }
                    buddy.free_run(pfn, pages);
                }
                prop_assert_eq!(buddy.free_pages(), total - owned.iter().filter(|o| **o).count());
            }
            for (pfn, pages) in runs {
                buddy.free_run(pfn, pages);
            }
            // Everything can be had again, page by page, and not one more.
            let mut count = 0;
            while buddy.alloc(0).is_some() {
                count += 1;
            }
            prop_assert_eq!(count, total);
        }
    }

    #[test]
    fn freed_neighbours_merge_to_large_blocks() {
        let (mut buddy, _) = buddy(512);
        let pages: Vec<Pfn> = core::iter::from_fn(|| buddy.alloc(0)).collect();
        assert!(buddy.alloc(6).is_none());
        for pfn in pages {
            buddy.free(pfn, 0);
        }
        assert!(buddy.alloc(6).is_some());
    }
}
