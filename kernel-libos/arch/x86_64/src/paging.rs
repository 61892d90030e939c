//! Page tables of programs: four levels, 4 KiB pages (Intel SDM vol. 3, 4.5).
//!
//! The upper half of every table is the kernel's: its top-level entries are copied once and never change, because everything below them is shared. A
//! table owns the tables of its lower half, not the pages they map.
//!
//! Changes to the active table flush what this CPU has cached of it. Other CPUs are the caller's business.

use alloc::vec::Vec;
use core::ops::Range;

use bitflags::bitflags;

use crate::addr::{PAGE_SIZE, PhysAddr, USER_END, VirtAddr, phys_to_virt};
use crate::cpu;
use crate::hooks;

bitflags! {
    /// What a page allows, and what the processor noted about it. Every mapped page is readable.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u64 {
        /// Writable.
        const WRITE = 1 << 1;
        /// Accessible to ring 3. A page without it is known to the table but reachable by nobody, the kernel included (`PROT_NONE`).
        const USER = 1 << 2;
        /// Device memory: not cached.
        const NOCACHE = 1 << 4;
        /// Set by the processor at any access.
        const ACCESSED = 1 << 5;
        /// Set by the processor at a write.
        const DIRTY = 1 << 6;
        /// The same in all address spaces.
        const GLOBAL = 1 << 8;
        /// For the owner of the table to use; the processor ignores it.
        const SOFT0 = 1 << 9;
        /// As `SOFT0`.
        const SOFT1 = 1 << 10;
        /// As `SOFT0`.
        const SOFT2 = 1 << 11;
        /// Executable. (In the entry the bit has the opposite sense.)
        const EXEC = 1 << 63;
    }
}

/// No memory for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

/// What [`PageTable::update`] does with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Leave it.
    Keep,
    /// Change its flags.
    Protect(Flags),
    /// Remove it.
    Unmap,
    /// Leave it and those behind it.
    Stop,
}

const PRESENT: u64 = 1;
/// In a last-level entry: the page is mapped although nobody may access it (no [`Flags::USER`]). Such entries are not present for the processor, so that
/// copies in ring 0 fault as well.
const HELD: u64 = 1 << 52;
/// A last-level entry that maps something.
const MAPPED: u64 = PRESENT | HELD;
const NO_EXEC: u64 = 1 << 63;
const ADDR: u64 = 0x000f_ffff_ffff_f000;
/// Tables allow everything; the page decides.
const TABLE: u64 = PRESENT | 1 << 1 | 1 << 2;
const ENTRIES: usize = 512;
/// More pages than this are flushed by reloading the table.
const FLUSH_ONE_BY_ONE: usize = 32;

fn encode(pa: PhysAddr, flags: Flags) -> u64 {
    debug_assert!(pa.0 & !ADDR == 0, "page address");
    pa.0 | (flags.bits() ^ NO_EXEC) | if flags.contains(Flags::USER) { PRESENT } else { HELD }
}

fn decode(entry: u64) -> (PhysAddr, Flags) {
    (PhysAddr(entry & ADDR), Flags::from_bits_truncate(entry ^ NO_EXEC))
}

const fn index(va: usize, level: u32) -> usize {
    va >> (12 + 9 * level) & (ENTRIES - 1)
}

/// A table page as a pointer to its entries.
#[derive(Clone, Copy)]
struct Table(*mut u64);

impl Table {
    /// # Safety
    /// `addr` must be a page of entries that lives while the result is used.
    unsafe fn at(addr: PhysAddr) -> Table {
        Table(phys_to_virt(addr).cast())
    }

    fn get(self, index: usize) -> u64 {
        debug_assert!(index < ENTRIES);
        // SAFETY: the table has 512 entries and lives (`at`). Volatile, because the processor sets accessed and dirty bits.
        unsafe { self.0.add(index).read_volatile() }
    }

    fn set(self, index: usize, entry: u64) {
        debug_assert!(index < ENTRIES);
        // SAFETY: as above.
        unsafe { self.0.add(index).write_volatile(entry) }
    }

    /// The table an entry points to.
    fn child(entry: u64) -> Option<Table> {
        // SAFETY: present entries of upper levels in the lower half point to tables that this page table owns.
        (entry & PRESENT != 0).then(|| unsafe { Table::at(PhysAddr(entry & ADDR)) })
    }
}

/// The page table of an address space.
#[derive(Debug)]
pub struct PageTable {
    root: PhysAddr,
    /// The tables below the root, in the order they were made: freeing them needs no search.
    tables: Vec<PhysAddr>,
}

impl PageTable {
    /// Returns a table with an empty lower half, or `None` without memory.
    pub fn new() -> Option<PageTable> {
        let root = hooks::ukc_alloc_table()?;
        #[cfg(ukc_kernel)]
        {
            // SAFETY: both are tables; the kernel's lives forever.
            let (new, kernel) = unsafe { (Table::at(root), Table::at(crate::boot::image::kernel_table())) };
            for i in ENTRIES / 2..ENTRIES {
                let entry = kernel.get(i);
                if entry != 0 {
                    new.set(i, entry);
                }
            }
        }
        Some(PageTable { root, tables: Vec::new() })
    }

    /// Physical address of the top level.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    fn top(&self) -> Table {
        // SAFETY: the root lives as long as `self`.
        unsafe { Table::at(self.root) }
    }

    /// The last-level table and index of an address, if there is one.
    fn leaf(&self, va: VirtAddr) -> Option<(Table, usize)> {
        let mut table = self.top();
        for level in [3, 2, 1] {
            table = Table::child(table.get(index(va.0, level)))?;
        }
        Some((table, index(va.0, 0)))
    }

    /// Maps a page, replacing what was there. Both addresses are page aligned; `va` lies in the lower half.
    ///
    /// # Errors
    /// [`OutOfMemory`] when a table is needed and there is no page for it.
    pub fn map(&mut self, va: VirtAddr, pa: PhysAddr, flags: Flags) -> Result<(), OutOfMemory> {
        debug_assert!(va.is_user() && va.0.is_multiple_of(PAGE_SIZE));
        let table = self.make_leaf(va)?;
        let i = index(va.0, 0);
        let old = table.get(i);
        table.set(i, encode(pa, flags));
        if old & MAPPED != 0 {
            self.flush_page(va);
        }
        Ok(())
    }

    /// Maps `count` pages from `va` on, as far as one last-level table reaches, where nothing is mapped: `frame` says for each page's number what to map,
    /// if anything. One walk for all of them.
    ///
    /// # Errors
    /// As [`PageTable::map`].
    pub fn map_free(
        &mut self,
        va: VirtAddr,
        count: usize,
        flags: Flags,
        frame: &mut dyn FnMut(usize) -> Option<PhysAddr>,
    ) -> Result<(), OutOfMemory> {
        debug_assert!(va.is_user() && va.0.is_multiple_of(PAGE_SIZE));
        let table = self.make_leaf(va)?;
        let first = index(va.0, 0);
        for n in 0..count.min(ENTRIES - first) {
            if table.get(first + n) & MAPPED == 0
                && let Some(pa) = frame(n)
            {
                table.set(first + n, encode(pa, flags));
            }
        }
        Ok(())
    }

    /// The last-level table of an address, made if necessary.
    fn make_leaf(&mut self, va: VirtAddr) -> Result<Table, OutOfMemory> {
        let mut table = self.top();
        for level in [3, 2, 1] {
            let i = index(va.0, level);
            table = match Table::child(table.get(i)) {
                Some(child) => child,
                None => {
                    self.tables.try_reserve(1).map_err(|_| OutOfMemory)?;
                    let page = hooks::ukc_alloc_table().ok_or(OutOfMemory)?;
                    self.tables.push(page);
                    table.set(i, page.0 | TABLE);
                    // SAFETY: just allocated, zeroed.
                    unsafe { Table::at(page) }
                }
            };
        }
        Ok(table)
    }

    /// Removes a page and returns what was there.
    pub fn unmap(&mut self, va: VirtAddr) -> Option<(PhysAddr, Flags)> {
        let (table, i) = self.leaf(va)?;
        let old = table.get(i);
        if old & MAPPED == 0 {
            return None;
        }
        table.set(i, 0);
        self.flush_page(va);
        Some(decode(old))
    }

    /// Changes the flags of a page (accessed and dirty start anew). Returns false when there is none.
    pub fn protect(&mut self, va: VirtAddr, flags: Flags) -> bool {
        let Some((table, i)) = self.leaf(va) else { return false };
        let old = table.get(i);
        if old & MAPPED == 0 {
            return false;
        }
        table.set(i, encode(PhysAddr(old & ADDR), flags));
        self.flush_page(va);
        true
    }

    /// Returns the page at an address, with what the processor noted.
    pub fn query(&self, va: VirtAddr) -> Option<(PhysAddr, Flags)> {
        let (table, i) = self.leaf(va)?;
        let entry = table.get(i);
        (entry & MAPPED != 0).then(|| decode(entry))
    }

    /// Calls `f` for every mapped page that starts in the range, in ascending order. Costs nothing for absent tables.
    pub fn for_each(&self, range: Range<VirtAddr>, f: &mut dyn FnMut(VirtAddr, PhysAddr, Flags)) {
        visit(self.top(), 3, 0, &(range.start.0..range.end.0.min(USER_END)), &mut |table, i, va| {
            let (pa, flags) = decode(table.get(i));
            f(VirtAddr(va), pa, flags);
            true
        });
    }

    /// As [`for_each`](Self::for_each), and does with each page what `f` answers; cheaper than looking every page up again. Flushes what changed.
    pub fn update(&mut self, range: Range<VirtAddr>, f: &mut dyn FnMut(VirtAddr, PhysAddr, Flags) -> Update) {
        let active = self.is_active();
        let mut changed = 0;
        visit(self.top(), 3, 0, &(range.start.0..range.end.0.min(USER_END)), &mut |table, i, va| {
            let (pa, flags) = decode(table.get(i));
            match f(VirtAddr(va), pa, flags) {
                Update::Keep => return true,
                Update::Stop => return false,
                Update::Protect(flags) => table.set(i, encode(pa, flags)),
                Update::Unmap => table.set(i, 0),
            }
            changed += 1;
            if active && changed <= FLUSH_ONE_BY_ONE {
                invalidate(va);
            }
            true
        });
        if active && changed > FLUSH_ONE_BY_ONE {
            self.flush_all();
        }
    }

    /// Makes this CPU use the table.
    pub fn activate(&self) {
        if !self.is_active() {
            // SAFETY: the upper half is the kernel's.
            unsafe { cpu::set_active_table(self.root.0) }
        }
    }

    /// Whether this CPU uses the table.
    pub fn is_active(&self) -> bool {
        cfg!(ukc_kernel) && cpu::active_table() == self.root.0
    }

    /// Forgets what this CPU has cached of a page, if the table is active.
    pub fn flush_page(&self, va: VirtAddr) {
        if self.is_active() {
            invalidate(va.0);
        }
    }

    /// Forgets what this CPU has cached of the lower half, if the table is active.
    pub fn flush_all(&self) {
        if self.is_active() {
            // SAFETY: it is the active table already.
            unsafe { cpu::set_active_table(self.root.0) }
        }
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        #[cfg(ukc_kernel)]
        if self.is_active() {
            activate_kernel();
        }
        for table in &self.tables {
            hooks::ukc_free_table(*table);
        }
        hooks::ukc_free_table(self.root);
    }
}

/// Makes this CPU use the kernel's own table, whose lower half is empty.
pub fn activate_kernel() {
    #[cfg(ukc_kernel)]
    // SAFETY: it is the table all others take their upper half from.
    unsafe {
        cpu::set_active_table(crate::boot::image::kernel_table().0)
    };
}

/// Calls `f(last-level table, index, address)` for the mapped pages of a range, until it answers false; returns its last answer.
fn visit(table: Table, level: u32, base: usize, range: &Range<usize>, f: &mut dyn FnMut(Table, usize, usize) -> bool) -> bool {
    if range.is_empty() {
        return true;
    }
    if level == 0 {
        // The inner loop of everything: whole pages only, no multiplication, one test per entry.
        let first = range.start.saturating_sub(base).div_ceil(PAGE_SIZE);
        let end = range.end.saturating_sub(base).div_ceil(PAGE_SIZE).min(ENTRIES);
        for i in first..end {
            if table.get(i) & MAPPED != 0 && !f(table, i, base + i * PAGE_SIZE) {
                return false;
            }
        }
        return true;
    }
    let size = PAGE_SIZE << (9 * level);
    let first = range.start.saturating_sub(base) / size;
    for i in first..ENTRIES {
        let va = base + i * size;
        if va >= range.end {
            break;
        }
        if let Some(child) = Table::child(table.get(i))
            && !visit(child, level - 1, va, range, f)
        {
            return false;
        }
    }
    true
}

fn invalidate(va: usize) {
    #[cfg(ukc_kernel)]
    // SAFETY: only costs a walk.
    unsafe {
        core::arch::asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags))
    };
    #[cfg(not(ukc_kernel))]
    let _ = va;
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: Flags = Flags::WRITE.union(Flags::USER);

    fn at(va: usize) -> VirtAddr {
        VirtAddr(va)
    }

    #[test]
    fn maps_queries_protects_and_unmaps() {
        let mut table = PageTable::new().unwrap();
        let va = at(0x7fff_ffff_e000);
        assert_eq!(table.query(va), None);
        assert_eq!(table.unmap(va), None);
        table.map(va, PhysAddr(0x1234_5000), RW).unwrap();
        assert_eq!(table.query(va), Some((PhysAddr(0x1234_5000), RW)));
        assert!(table.protect(va, Flags::USER | Flags::EXEC));
        assert_eq!(table.query(va), Some((PhysAddr(0x1234_5000), Flags::USER | Flags::EXEC)));
        assert_eq!(table.unmap(va), Some((PhysAddr(0x1234_5000), Flags::USER | Flags::EXEC)));
        assert!(!table.protect(va, RW));
    }

    #[test]
    fn no_exec_is_set_unless_asked_for() {
        assert_eq!(encode(PhysAddr(0x1000), Flags::USER), 0x8000_0000_0000_1005);
        assert_eq!(encode(PhysAddr(0x1000), RW | Flags::EXEC), 0x1007);
        assert_eq!(decode(0x1067), (PhysAddr(0x1000), RW | Flags::EXEC | Flags::ACCESSED | Flags::DIRTY));
    }

    #[test]
    fn pages_without_access_are_kept_but_not_present() {
        let mut table = PageTable::new().unwrap();
        table.map(at(0x5000), PhysAddr(0x9000), Flags::EXEC).unwrap();
        assert_eq!(table.query(at(0x5000)), Some((PhysAddr(0x9000), Flags::EXEC)));
        assert_eq!(encode(PhysAddr(0x9000), Flags::EXEC) & PRESENT, 0);
        assert!(table.protect(at(0x5000), RW));
        assert_eq!(table.unmap(at(0x5000)), Some((PhysAddr(0x9000), RW)));
    }

    #[test]
    fn an_update_can_stop() {
        let mut table = PageTable::new().unwrap();
        for va in [0x1000, 0x2000, 0x8000_0000] {
            table.map(at(va), PhysAddr(0x1000), RW).unwrap();
        }
        let mut seen = vec![];
        table.update(at(0)..at(USER_END), &mut |va, _, _| {
            seen.push(va.0);
            if va.0 == 0x2000 { Update::Stop } else { Update::Unmap }
        });
        assert_eq!(seen, [0x1000, 0x2000]);
        assert!(table.query(at(0x1000)).is_none() && table.query(at(0x8000_0000)).is_some());
    }

    #[test]
    fn visits_exactly_the_range_in_order() {
        let mut table = PageTable::new().unwrap();
        let pages = [0x1000, 0x2000, 0x20_0000, 0x4000_0000, 0x80_0000_0000, 0x7fff_ffff_e000];
        for (n, &va) in pages.iter().enumerate() {
            table.map(at(va), PhysAddr((n as u64 + 1) << 12), RW).unwrap();
        }
        let seen = |table: &PageTable, from: usize, to: usize| {
            let mut seen = vec![];
            table.for_each(at(from)..at(to), &mut |va, _, _| seen.push(va.0));
            seen
        };
        assert_eq!(seen(&table, 0, USER_END), pages);
        assert_eq!(seen(&table, 0, usize::MAX), pages);
        assert_eq!(seen(&table, 0x2000, 0x4000_0000), [0x2000, 0x20_0000]);
        assert_eq!(seen(&table, 0x2001, 0x20_0001), [0x20_0000]);
        assert_eq!(seen(&table, 0x3000, 0x3000), [0usize; 0]);
        table.update(at(0x2000)..at(0x80_0000_0001), &mut |va, _, flags| match va.0 {
            0x2000 => Update::Unmap,
            0x4000_0000 => Update::Protect(flags - Flags::WRITE),
            _ => Update::Keep,
        });
        assert_eq!(seen(&table, 0, USER_END), [0x1000, 0x20_0000, 0x4000_0000, 0x80_0000_0000, 0x7fff_ffff_e000]);
        assert_eq!(table.query(at(0x4000_0000)), Some((PhysAddr(0x4000), Flags::USER)));
    }
}
