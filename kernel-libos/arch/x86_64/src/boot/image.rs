//! The kernel's own mapping: where its parts are, and the tables that give each its rights.
//!
//! Boot starts with 2 MiB pages that allow everything. `protect` then builds what stays: the image in 4 KiB pages (text R-X, constants R, data RW, the
//! rest of its last 2 MiB RW), the direct map never executable and read-only where it shows text and constants, and no identity map. One set of
//! last-level tables serves both views of the image: the direct map's path to them says no-execute one level up.

use core::ops::Range;

#[cfg(ukc_kernel)]
use crate::addr::{KERNEL_BASE, PhysAddr};

#[cfg(ukc_kernel)]
unsafe extern "C" {
    // Set by the linker, page aligned.
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __kernel_end: u8;
}

/// Addresses of kernel code.
pub fn text_range() -> Range<usize> {
    #[cfg(ukc_kernel)]
    {
        (&raw const __text_start) as usize..(&raw const __text_end) as usize
    }
    #[cfg(not(ukc_kernel))]
    {
        0..0
    }
}

#[cfg(ukc_kernel)]
mod kernel {
    use super::*;
    use crate::boot::entry::{BOOT_PD, BOOT_PDPT_HIGH, BOOT_PDPT_LOW, BOOT_PML4, Page};

    pub(crate) const PRESENT: u64 = 1;
    pub(crate) const WRITE: u64 = 2;
    pub(crate) const LARGE: u64 = 1 << 7;
    pub(crate) const GLOBAL: u64 = 1 << 8;
    pub(crate) const NO_EXEC: u64 = 1 << 63;
    const ADDR: u64 = 0x000f_ffff_ffff_f000;
    pub(crate) const LARGE_BYTES: u64 = 2 << 20;
    pub(crate) const GIB: u64 = 1 << 30;

    fn phys(page: &Page) -> u64 {
        page as *const Page as u64 - KERNEL_BASE as u64
    }

    /// Physical address of the kernel's top-level table.
    pub(crate) fn kernel_table() -> PhysAddr {
        PhysAddr(phys(&BOOT_PML4))
    }

    /// Physical range of the image with its .bss.
    pub(crate) fn image_range() -> (PhysAddr, PhysAddr) {
        let at = |symbol: *const u8| PhysAddr((symbol as usize - KERNEL_BASE) as u64);
        // The first loaded byte is text; nothing lies before it.
        (at(&raw const __text_start), at(&raw const __kernel_end))
    }

    /// Maps RAM of one GiB number into the direct map: all of it with a 1 GiB page, or 2 MiB pages from `first` up to `end` (both in that GiB).
    /// `alloc` gives zeroed pages by their physical address, already mapped.
    ///
    /// # Safety
    /// Boot only. The range is RAM.
    pub(crate) unsafe fn map_direct(first: u64, end: u64, gib_pages: bool, alloc: &mut dyn FnMut() -> Option<u64>) -> Option<()> {
        let gib = first / GIB;
        let top = (gib / 512) as usize;
        let mut pdpt = phys(&BOOT_PDPT_LOW);
        if top > 0 {
            let entry = BOOT_PML4.get(256 + top);
            pdpt = if entry & PRESENT != 0 { entry & ADDR } else { alloc()? };
            BOOT_PML4.set(256 + top, pdpt | PRESENT | WRITE | NO_EXEC);
        }
        // SAFETY: tables lie in mapped RAM.
        let pdpt = unsafe { Page::at(pdpt) };
        let i = (gib % 512) as usize;
        let entry = pdpt.get(i);
        if entry & LARGE != 0 {
            return Some(());
        }
        if entry & PRESENT == 0 && gib_pages && first == gib * GIB && end == first + GIB {
            pdpt.set(i, first | PRESENT | WRITE | LARGE | GLOBAL);
            return Some(());
        }
        let pd = if entry & PRESENT != 0 { entry & ADDR } else { alloc()? };
        pdpt.set(i, pd | PRESENT | WRITE);
        // SAFETY: as above.
        let pd = unsafe { Page::at(pd) };
        let mut at = first & !(LARGE_BYTES - 1);
        while at < end {
            let slot = (at % GIB / LARGE_BYTES) as usize;
            if pd.get(slot) & PRESENT == 0 {
                pd.set(slot, at | PRESENT | WRITE | LARGE | GLOBAL);
            }
            at += LARGE_BYTES;
        }
        Some(())
    }

    /// Gives every part of the image its rights and drops the identity map.
    ///
    /// # Safety
    /// Boot only, once; the image lies in the first GiB.
    pub(crate) unsafe fn protect(alloc: &mut dyn FnMut() -> Option<u64>) -> Option<()> {
        let (start, end) = image_range();
        let at = |symbol: *const u8| symbol as u64 - KERNEL_BASE as u64;
        let text = at(&raw const __text_start)..at(&raw const __text_end);
        let constants = at(&raw const __rodata_start)..at(&raw const __rodata_end);
        let high_pd_addr = alloc()?;
        // SAFETY: just allocated.
        let high_pd = unsafe { Page::at(high_pd_addr) };
        let mut region = start.0 & !(LARGE_BYTES - 1);
        while region < end.0 {
            let table_addr = alloc()?;
            // SAFETY: just allocated.
            let table = unsafe { Page::at(table_addr) };
            for i in 0..512 {
                let page = region + i as u64 * 4096;
                let rights = if text.contains(&page) {
                    0
                } else if constants.contains(&page) {
                    NO_EXEC
                } else {
                    WRITE | NO_EXEC
                };
                table.set(i, page | PRESENT | GLOBAL | rights);
            }
            let slot = (region / LARGE_BYTES) as usize;
            high_pd.set(slot, table_addr | PRESENT | WRITE);
            // The path through PML4[256] says no-execute.
            BOOT_PD.set(slot, table_addr | PRESENT | WRITE);
            region += LARGE_BYTES;
        }
        BOOT_PDPT_HIGH.set(510, high_pd_addr | PRESENT | WRITE);
        BOOT_PML4.set(0, 0);
        Some(())
    }

    /// The table of the last GiB, for device memory.
    pub(crate) fn last_gib() -> (&'static Page, usize) {
        (&BOOT_PDPT_HIGH, 511)
    }
}
#[cfg(ukc_kernel)]
pub(crate) use kernel::*;
