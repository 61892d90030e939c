//! What is mapped where: an ordered list of virtual memory areas, without pages.
//!
//! [`VmaMap`] is pure bookkeeping: ranges that do not overlap, in order, split when a part changes and merged when neighbours become equal. Addresses are
//! page aligned; the caller sees to it. A sorted vector rather than a tree: it is small code, lookups are a binary search, and even a JVM has but some
//! hundred areas.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use bitflags::bitflags;
use libos_abi::{Errno, Result};

use super::{PAGE_SIZE, PageSource, Protection};
use crate::file::OpenFile;

bitflags! {
    /// What is special about an area.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct VmaFlags: u32 {
        /// `MAP_SHARED`: writes go to the source, and fork shares the pages.
        const SHARED = 1;
        /// `MAP_GROWSDOWN`, and the stack: grows when the program touches memory just below.
        const GROWS_DOWN = 1 << 1;
        /// `mlock`.
        const LOCKED = 1 << 2;
        /// `MADV_DONTFORK`.
        const DONT_FORK = 1 << 3;
        /// `MADV_WIPEONFORK`.
        const WIPE_ON_FORK = 1 << 4;
        /// The main thread's stack, for /proc.
        const STACK = 1 << 5;
        /// The program break, for /proc.
        const HEAP = 1 << 6;
        /// mprotect may add `PROT_WRITE`: not for shared mappings of files opened for reading only.
        const MAY_WRITE = 1 << 7;
        /// mprotect may add `PROT_EXEC`: not for files of mounts without execution.
        const MAY_EXEC = 1 << 8;
        /// The kernel's own (vDSO): mremap may move but not grow it.
        const SPECIAL = 1 << 9;
        /// `MAP_NORESERVE`.
        const NO_RESERVE = 1 << 10;
        /// mlock2's `MLOCK_ONFAULT`.
        const LOCK_ON_FAULT = 1 << 11;
        /// `MADV_DONTDUMP`.
        const DONT_DUMP = 1 << 12;
        /// `MADV_SEQUENTIAL`/`MADV_RANDOM`: no pages around a fault.
        const RANDOM = 1 << 13;
    }
}

/// Pages kept free below an area that grows down (mmap(2), "MAP_GROWSDOWN"; Linux' `stack_guard_gap`).
pub const STACK_GUARD_BYTES: usize = 256 * PAGE_SIZE;

/// Most areas of one address space (proc(5), `/proc/sys/vm/max_map_count`).
pub const MAX_AREAS: usize = 65530;

/// A virtual memory area.
#[derive(Clone)]
pub struct Vma {
    /// Addresses.
    pub range: Range<usize>,
    /// Access.
    pub protection: Protection,
    /// What is special.
    pub flags: VmaFlags,
    /// Where pages come from; `None` is private anonymous memory.
    pub source: Option<Arc<dyn PageSource>>,
    /// Page of the source that the first address shows.
    pub first_page: u64,
    /// The open file that was mapped: it stays open as long as the mapping (mmap(2), NOTES), and /proc/PID/maps shows its path.
    pub file: Option<Arc<OpenFile>>,
}

impl Vma {
    /// Bytes.
    #[allow(clippy::len_without_is_empty, reason = "an area is never empty")]
    pub fn len(&self) -> usize {
        self.range.end - self.range.start
    }

    /// Page of the source that an address shows.
    pub fn page_index(&self, addr: usize) -> u64 {
        self.first_page + ((addr - self.range.start) / PAGE_SIZE) as u64
    }

    /// Whether pages are shared with the source.
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    /// Whether this area and the one that follows could be one.
    fn continues_in(&self, next: &Vma) -> bool {
        self.range.end == next.range.start
            && self.protection == next.protection
            && self.flags == next.flags
            && match (&self.source, &next.source) {
                (None, None) => true,
                (Some(a), Some(b)) => same_source(a, b) && self.page_index(self.range.end) == next.first_page,
                _ => false,
            }
            && match (&self.file, &next.file) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            }
    }

    fn part(&self, range: Range<usize>) -> Vma {
        Vma { first_page: self.page_index(range.start), range, ..self.clone() }
    }
}

/// Whether two handles refer to the same source.
pub(super) fn same_source(a: &Arc<dyn PageSource>, b: &Arc<dyn PageSource>) -> bool {
    // Addresses of the objects only: one type may have several vtables.
    core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

/// The areas of an address space.
#[derive(Default, Clone)]
pub struct VmaMap {
    list: Vec<Vma>,
    bytes: usize,
}

impl VmaMap {
    /// A map without areas.
    pub const fn new() -> VmaMap {
        VmaMap { list: Vec::new(), bytes: 0 }
    }

    /// All areas, by address.
    pub fn iter(&self) -> core::slice::Iter<'_, Vma> {
        self.list.iter()
    }

    /// Sum of all lengths in bytes.
    pub fn total_bytes(&self) -> usize {
        self.bytes
    }

    /// Number of areas.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Index of the first area that ends behind an address.
    fn index(&self, addr: usize) -> usize {
        self.list.partition_point(|v| v.range.end <= addr)
    }

    /// Returns the area an address lies in.
    pub fn find(&self, addr: usize) -> Option<&Vma> {
        self.list.get(self.index(addr)).filter(|v| v.range.start <= addr)
    }

    /// Returns the area an address lies in, or else the next one above.
    pub fn find_or_next(&self, addr: usize) -> Option<&Vma> {
        self.list.get(self.index(addr))
    }

    /// Returns the areas that touch a range.
    pub fn overlapping(&self, range: Range<usize>) -> &[Vma] {
        let first = self.index(range.start);
        let count = self.list[first..].partition_point(|v| v.range.start < range.end);
        &self.list[first..first + count]
    }

    /// Whether areas cover a whole range without holes.
    pub fn covers(&self, range: Range<usize>) -> bool {
        let mut at = range.start;
        for vma in self.overlapping(range.clone()) {
            if vma.range.start > at {
                return false;
            }
            at = vma.range.end;
        }
        at >= range.end
    }

    /// Adds an area where nothing is, as part of its neighbours if possible.
    ///
    /// # Errors
    /// `ENOMEM` for too many areas or without memory; then nothing changed.
    pub fn insert(&mut self, vma: Vma) -> Result<()> {
        let i = self.index(vma.range.start);
        debug_assert!(self.list.get(i).is_none_or(|v| v.range.start >= vma.range.end), "areas overlap");
        let len = vma.len();
        let joins_before = i > 0 && self.list[i - 1].continues_in(&vma);
        let joins_after = self.list.get(i).is_some_and(|next| vma.continues_in(next));
        match (joins_before, joins_after) {
            (true, true) => {
                self.list[i - 1].range.end = self.list[i].range.end;
                self.list.remove(i);
            }
            (true, false) => self.list[i - 1].range.end = vma.range.end,
            (false, true) => {
                self.list[i].range.start = vma.range.start;
                self.list[i].first_page = vma.first_page;
            }
            (false, false) => {
                self.reserve(1)?;
                self.list.insert(i, vma);
            }
        }
        self.bytes += len;
        Ok(())
    }

    fn reserve(&mut self, more: usize) -> Result<()> {
        if self.list.len() + more > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        self.list.try_reserve(more).map_err(|_| Errno::ENOMEM)
    }

    /// Makes `addr` a boundary between areas; room was reserved.
    fn split_at(&mut self, addr: usize) {
        let i = self.index(addr);
        if let Some(vma) = self.list.get(i)
            && vma.range.start < addr
        {
            let upper = vma.part(addr..vma.range.end);
            self.list[i].range.end = addr;
            self.list.insert(i + 1, upper);
        }
    }

    /// Removes everything in a range and returns it. The caller drops it after it released its locks: sources may have destructors.
    ///
    /// # Errors
    /// `ENOMEM`; then nothing changed.
    pub fn remove(&mut self, range: Range<usize>) -> Result<Vec<Vma>> {
        let touched = self.overlapping(range.clone()).len();
        let mut removed = Vec::new();
        if touched == 0 {
            return Ok(removed);
        }
        // Cutting a hole into one area adds one.
        self.reserve(2)?;
        removed.try_reserve_exact(touched).map_err(|_| Errno::ENOMEM)?;
        self.split_at(range.start);
        self.split_at(range.end);
        let first = self.index(range.start);
        let count = self.list[first..].partition_point(|v| v.range.start < range.end);
        for vma in self.list.drain(first..first + count) {
            self.bytes -= vma.len();
            removed.push(vma);
        }
        Ok(removed)
    }

    /// Changes the areas of a range: splits at its ends, calls `change` for each area inside, merges what became equal.
    ///
    /// # Errors
    /// `ENOMEM`; then nothing changed. What `change` answers: areas below keep their change, as with mprotect(2).
    pub fn modify(&mut self, range: Range<usize>, mut change: impl FnMut(&mut Vma) -> Result<()>) -> Result<()> {
        if self.overlapping(range.clone()).is_empty() {
            return Ok(());
        }
        self.reserve(2)?;
        self.split_at(range.start);
        self.split_at(range.end);
        let first = self.index(range.start);
        let count = self.list[first..].partition_point(|v| v.range.start < range.end);
        let result = self.list[first..first + count].iter_mut().try_for_each(&mut change);
        // Merge from above, so that indices below stay valid.
        for i in (first..=first + count).rev() {
            if i > 0 && i < self.list.len() && self.list[i - 1].continues_in(&self.list[i]) {
                self.list[i - 1].range.end = self.list[i].range.end;
                self.list.remove(i);
            }
        }
        result
    }

    /// Extends the area that starts at `start` downwards to `new_start`, where nothing is.
    pub fn grow_down(&mut self, start: usize, new_start: usize) {
        let i = self.index(start);
        let vma = &mut self.list[i];
        debug_assert!(vma.range.start == start && new_start < start);
        self.bytes += start - new_start;
        vma.range.start = new_start;
    }

    /// Finds the highest free range of `len` bytes inside `window`, with `guard` below areas that grow down.
    pub fn find_gap_below(&self, len: usize, window: Range<usize>) -> Option<usize> {
        let mut top = window.end;
        // Areas that reach below the window's end, from above.
        let first_above = self.list.partition_point(|v| v.range.start < window.end);
        if let Some(above) = self.list.get(first_above) {
            top = top.min(lower_bound(above));
        }
        for vma in self.list[..first_above].iter().rev() {
            if top < window.start.checked_add(len)? {
                return None;
            }
            let bottom = vma.range.end.max(window.start);
            if top >= bottom && top - bottom >= len {
                return Some(top - len);
            }
            top = top.min(lower_bound(vma));
        }
        (top >= window.start && top - window.start >= len).then(|| top - len)
    }

    /// Finds the lowest free range of `len` bytes inside `window`.
    pub fn find_gap_above(&self, len: usize, window: Range<usize>) -> Option<usize> {
        let mut bottom = window.start;
        for vma in &self.list[self.index(window.start)..] {
            if lower_bound(vma) >= bottom && lower_bound(vma) - bottom >= len {
                break;
            }
            bottom = bottom.max(vma.range.end);
        }
        let end = bottom.checked_add(len)?;
        (end <= window.end).then_some(bottom)
    }

    /// Whether a range is free, guard gaps included.
    pub fn is_free(&self, range: Range<usize>) -> bool {
        self.find_or_next(range.start).is_none_or(|v| lower_bound(v) >= range.end)
    }
}

/// Where free memory below an area ends.
fn lower_bound(vma: &Vma) -> usize {
    if vma.flags.contains(VmaFlags::GROWS_DOWN) { vma.range.start.saturating_sub(STACK_GUARD_BYTES) } else { vma.range.start }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: usize = 64;
    const BASE: usize = 0x10000;

    fn addr(page: usize) -> usize {
        BASE + page * PAGE_SIZE
    }

    /// The same thing, the simplest way: what each page is.
    type Model = [Option<(u32, u64)>; PAGES];

    struct Source;
    impl PageSource for Source {
        fn page(&self, _: u64, _: bool) -> Result<super::super::Frame> {
            Err(Errno::EIO)
        }
        fn len_bytes(&self) -> u64 {
            u64::MAX
        }
        fn describe(&self) -> super::super::SourceName {
            Default::default()
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Map { file: bool, prot: u32, at: usize, len: usize, first: u64 },
        Unmap { at: usize, len: usize },
        Protect { prot: u32, at: usize, len: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        let at_len = (0usize..PAGES, 1usize..20);
        prop_oneof![
            (any::<bool>(), 0u32..3, at_len.clone(), 0u64..4).prop_map(|(file, prot, (at, len), first)| Op::Map {
                file,
                prot,
                at,
                len,
                first
            }),
            at_len.clone().prop_map(|(at, len)| Op::Unmap { at, len }),
            (0u32..3, at_len).prop_map(|(prot, (at, len))| Op::Protect { prot, at, len }),
        ]
    }

    fn check(map: &VmaMap, model: &Model) -> Result<(), TestCaseError> {
        let mut count = 0;
        for (page, expected) in model.iter().enumerate() {
            let found = map.find(addr(page) + 5);
            let shown = found.map(|v| (v.protection.bits(), if v.source.is_some() { 1000 + v.page_index(addr(page)) } else { 0 }));
            prop_assert_eq!(shown, *expected, "page {}", page);
            count += expected.is_some() as usize;
        }
        prop_assert_eq!(map.total_bytes(), count * PAGE_SIZE);
        for pair in map.list.windows(2) {
            prop_assert!(pair[0].range.end <= pair[1].range.start && !pair[0].continues_in(&pair[1]));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn behaves_like_a_map_of_pages(ops in prop::collection::vec(op(), 1..60)) {
            let source: Arc<dyn PageSource> = Arc::new(Source);
            let (mut map, mut model): (VmaMap, Model) = (VmaMap::new(), [None; PAGES]);
            for op in ops {
                match op {
                    Op::Map { file, prot, at, len, first } => {
                        let end = (at + len).min(PAGES);
                        map.remove(addr(at)..addr(end)).unwrap();
                        map.insert(Vma {
                            range: addr(at)..addr(end),
                            protection: Protection::from_bits_retain(prot),
                            flags: VmaFlags::empty(),
                            source: file.then(|| source.clone()),
                            first_page: if file { first } else { 0 },
                            file: None,
                        }).unwrap();
                        for (i, page) in model[at..end].iter_mut().enumerate() {
                            *page = Some((prot, if file { 1000 + first + i as u64 } else { 0 }));
                        }
                    }
                    Op::Unmap { at, len } => {
                        let end = (at + len).min(PAGES);
                        let removed = map.remove(addr(at)..addr(end)).unwrap();
                        prop_assert_eq!(removed.iter().map(Vma::len).sum::<usize>() / PAGE_SIZE, model[at..end].iter().flatten().count());
                        model[at..end].fill(None);
                    }
                    Op::Protect { prot, at, len } => {
                        let end = (at + len).min(PAGES);
                        map.modify(addr(at)..addr(end), |v| { v.protection = Protection::from_bits_retain(prot); Ok(()) }).unwrap();
                        model[at..end].iter_mut().flatten().for_each(|m| m.0 = prot);
                    }
                }
                check(&map, &model)?;
                for len in [1, 3, 17] {
                    let bytes = len * PAGE_SIZE;
                    let fits = |at: usize| model[at..at + len].iter().all(Option::is_none);
                    let window = addr(0)..addr(PAGES);
                    prop_assert_eq!(map.find_gap_below(bytes, window.clone()), (0..=PAGES - len).rev().find(|a| fits(*a)).map(addr));
                    prop_assert_eq!(map.find_gap_above(bytes, window), (0..=PAGES - len).find(|a| fits(*a)).map(addr));
                }
                prop_assert_eq!(map.covers(addr(3)..addr(9)), model[3..9].iter().all(Option::is_some));
                prop_assert_eq!(map.is_free(addr(3)..addr(9)), model[3..9].iter().all(Option::is_none));
            }
        }
    }

    #[test]
    fn nothing_is_placed_into_the_gap_below_a_stack() {
        let mut map = VmaMap::new();
        let stack = 0x7000_0000;
        map.insert(Vma {
            range: stack..stack + 0x10000,
            protection: Protection::READ,
            flags: VmaFlags::GROWS_DOWN,
            source: None,
            first_page: 0,
            file: None,
        })
        .unwrap();
        assert_eq!(map.find_gap_below(PAGE_SIZE, 0x10000..stack + 0x10000), Some(stack - STACK_GUARD_BYTES - PAGE_SIZE));
        assert!(!map.is_free(stack - PAGE_SIZE..stack));
    }
}
