//! The direct map: where physical memory is visible to the kernel.
//!
//! On the host, where `cargo test` runs, physical memory is an arena of ordinary memory and page number `n` lies at `arena + n * PAGE_SIZE`, so that
//! frames and everything built on them are tested without a machine.

use crate::arch::addr::PhysAddr;

use super::PAGE_SIZE;
use super::buddy::Pfn;

/// Physical address of a page.
pub(super) fn phys(pfn: Pfn) -> PhysAddr {
    PhysAddr(base() + pfn as u64 * PAGE_SIZE as u64)
}

/// Number of the page that a physical address lies in.
pub(super) fn pfn(phys: PhysAddr) -> Pfn {
    ((phys.0 - base()) / PAGE_SIZE as u64) as Pfn
}

/// Address at which a physical page is visible.
pub(super) fn page_ptr(pfn: Pfn) -> *mut u8 {
    crate::arch::addr::phys_to_virt(phys(pfn))
}

/// Physical address of page 0.
#[cfg(ukc_kernel)]
fn base() -> u64 {
    0
}

/// Physical address of page 0: on the host the physical address of memory is its address (`arch::addr::phys_to_virt`).
#[cfg(not(ukc_kernel))]
fn base() -> u64 {
    host::arena() as u64
}

/// Reads the `index`th u32 of a free page, whose contents are the allocator's.
pub(super) fn read_link(pfn: Pfn, index: usize) -> u32 {
    // SAFETY: the page is free RAM, so nobody else uses it; the address is aligned and lies inside the page.
    unsafe { page_ptr(pfn).cast::<u32>().add(index).read() }
}

/// Writes the `index`th u32 of a free page.
pub(super) fn write_link(pfn: Pfn, index: usize, value: u32) {
    // SAFETY: as for `read_link`.
    unsafe { page_ptr(pfn).cast::<u32>().add(index).write(value) }
}

#[cfg(not(ukc_kernel))]
pub(super) mod host {
    #[cfg(test)]
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::PAGE_SIZE;

    /// Bytes of the pretended RAM; only what is touched costs memory.
    pub(in crate::mm) const ARENA_BYTES: usize = 1 << 30;

    static ARENA: AtomicUsize = AtomicUsize::new(0);
    /// Pages from the arena's upper half that tests took for themselves.
    #[cfg(test)]
    pub(super) static TEST_PAGES: AtomicU32 = AtomicU32::new(0);

    pub(super) fn arena() -> usize {
        let arena = ARENA.load(Ordering::Acquire);
        if arena != 0 {
            return arena;
        }
        let layout = core::alloc::Layout::from_size_align(ARENA_BYTES, PAGE_SIZE).expect("constants");
        // SAFETY: the size is not 0.
        let new = unsafe { alloc::alloc::alloc(layout) } as usize;
        assert!(new != 0, "no memory for the arena");
        match ARENA.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            Err(other) => {
                // SAFETY: allocated above with this layout, and nobody else learnt of it.
                unsafe { alloc::alloc::dealloc(new as *mut u8, layout) };
                other
            }
        }
    }
}

/// Takes pages of the host's arena that the global allocator does not manage, aligned to 2 MiB.
#[cfg(test)]
pub(super) fn test_pages(pages: usize) -> Pfn {
    let pages = pages.next_multiple_of(512) as u32;
    let used = host::TEST_PAGES.fetch_add(pages, core::sync::atomic::Ordering::Relaxed);
    let first = (host::ARENA_BYTES / 2 / PAGE_SIZE) as u32 + used;
    assert!((first + pages) as usize * PAGE_SIZE <= host::ARENA_BYTES, "too many test pages");
    first
}
