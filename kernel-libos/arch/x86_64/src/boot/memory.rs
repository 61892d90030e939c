//! The memory map while it is being put together.

use crate::addr::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;

/// A range of physical memory, page aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// RAM that nobody uses.
    pub usable: bool,
}

impl Region {
    const NONE: Region = Region { start: 0, len: 0, usable: false };

    /// The byte behind the last.
    pub const fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Regions in ascending order, without overlaps among the usable ones.
#[derive(Debug)]
pub struct MemoryMap<const N: usize> {
    regions: [Region; N],
    count: usize,
}

impl<const N: usize> Default for MemoryMap<N> {
    fn default() -> Self {
        MemoryMap::new()
    }
}

impl<const N: usize> MemoryMap<N> {
    /// Returns an empty map.
    pub const fn new() -> Self {
        MemoryMap { regions: [Region::NONE; N], count: 0 }
    }

    /// The regions so far.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.count]
    }

    fn insert(&mut self, region: Region) {
        if region.len == 0 || self.count == N {
            // A full map loses memory, nothing else: what is not listed is not used.
            return;
        }
        let at = self.regions[..self.count].iter().position(|r| r.start > region.start).unwrap_or(self.count);
        self.regions.copy_within(at..self.count, at + 1);
        self.regions[at] = region;
        self.count += 1;
    }

    /// Adds a range of RAM, shrunk to whole pages.
    pub fn add_ram(&mut self, start: u64, len: u64) {
        let first = start.saturating_add(PAGE - 1) & !(PAGE - 1);
        let end = start.saturating_add(len) & !(PAGE - 1);
        if first < end {
            self.insert(Region { start: first, len: end - first, usable: true });
        }
    }

    /// Marks a range, grown to whole pages, as in use.
    pub fn reserve(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        let end = start.saturating_add(len).saturating_add(PAGE - 1) & !(PAGE - 1);
        let start = start & !(PAGE - 1);
        // Each usable region that the range touches becomes up to three.
        let mut i = 0;
        while i < self.count {
            let region = self.regions[i];
            let (from, to) = (region.start.max(start), region.end().min(end));
            if region.usable && from < to {
                self.regions.copy_within(i + 1..self.count, i);
                self.count -= 1;
                // The used part goes first: when the map is full, memory is lost rather than given out twice.
                self.insert(Region { start: from, len: to - from, usable: false });
                self.insert(Region { start: region.start, len: from - region.start, usable: true });
                self.insert(Region { start: to, len: region.end() - to, usable: true });
                i = 0;
                continue;
            }
            i += 1;
        }
    }

    /// Takes pages from the end of the highest usable region that ends at or below `limit`, or `None`.
    pub fn carve(&mut self, pages: u64, limit: u64) -> Option<u64> {
        let len = pages * PAGE;
        let region = self.regions().iter().rev().find(|r| r.usable && r.len >= len && r.end() <= limit)?;
        let start = region.end() - len;
        self.reserve(start, len);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show<const N: usize>(map: &MemoryMap<N>) -> Vec<(u64, u64, bool)> {
        map.regions().iter().map(|r| (r.start, r.end(), r.usable)).collect()
    }

    #[test]
    fn ram_is_sorted_and_whole_pages() {
        let mut map = MemoryMap::<8>::new();
        map.add_ram(0x10_0000, 0x1000_0800);
        map.add_ram(0x10, 0x9f000);
        map.add_ram(0x5000_0001, 0xfff);
        assert_eq!(show(&map), [(0x1000, 0x9f000, true), (0x10_0000, 0x1010_0000, true)]);
    }

    #[test]
    fn reserving_splits() {
        let mut map = MemoryMap::<16>::new();
        map.add_ram(0, 0x10_000);
        map.add_ram(0x20_000, 0x10_000);
        map.reserve(0x2800, 0x1000);
        assert_eq!(show(&map), [(0, 0x2000, true), (0x2000, 0x4000, false), (0x4000, 0x10_000, true), (0x20_000, 0x30_000, true)]);
        map.reserve(0xf000, 0x12_000);
        assert_eq!(
            map.regions().iter().filter(|r| r.usable).map(|r| (r.start, r.end())).collect::<Vec<_>>(),
            [(0, 0x2000), (0x4000, 0xf000), (0x21_000, 0x30_000)]
        );
        map.reserve(0, u64::MAX);
        assert!(map.regions().iter().all(|r| !r.usable));
    }

    #[test]
    fn a_full_map_gives_nothing_out_twice() {
        let mut map = MemoryMap::<2>::new();
        map.add_ram(0, 0x10_000);
        map.reserve(0x4000, 0x1000);
        assert!(map.regions().iter().filter(|r| r.usable).all(|r| r.end() <= 0x4000 || r.start >= 0x5000));
    }

    #[test]
    fn carving_takes_from_the_end() {
        let mut map = MemoryMap::<8>::new();
        map.add_ram(0, 0x10_000);
        map.add_ram(1 << 32, 0x10_000);
        assert_eq!(map.carve(2, 1 << 32), Some(0xe000));
        assert_eq!(map.carve(1, 1 << 32), Some(0xd000));
        assert_eq!(map.carve(100, 1 << 32), None);
    }
}
