//! Memory of the test kernel: pages from the largest usable region, a heap that never frees.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libos_arch::addr::{PAGE_SIZE, PhysAddr, phys_to_virt};
use libos_arch::boot::BootInfo;

static NEXT: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);
/// Tables given out and not taken back.
pub static TABLES: AtomicUsize = AtomicUsize::new(0);

pub fn init(boot: &BootInfo) {
    let largest = boot.memory.iter().filter(|r| r.usable).max_by_key(|r| r.len).expect("memory");
    NEXT.store(largest.start, Ordering::Relaxed);
    END.store(largest.end(), Ordering::Relaxed);
}

/// A zeroed page.
pub fn page() -> PhysAddr {
    let page = NEXT.fetch_add(PAGE_SIZE as u64, Ordering::Relaxed);
    assert!(page < END.load(Ordering::Relaxed), "out of memory");
    // SAFETY: a page of RAM that nobody else was given.
    unsafe { phys_to_virt(PhysAddr(page)).write_bytes(0, PAGE_SIZE) };
    PhysAddr(page)
}

#[unsafe(no_mangle)]
fn ukc_alloc_table() -> Option<PhysAddr> {
    TABLES.fetch_add(1, Ordering::Relaxed);
    Some(page())
}

#[unsafe(no_mangle)]
fn ukc_free_table(_table: PhysAddr) {
    TABLES.fetch_sub(1, Ordering::Relaxed);
}

struct Heap;

// SAFETY: every allocation is whole pages that nobody else has.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        assert!(layout.align() <= PAGE_SIZE);
        let bytes = layout.size().next_multiple_of(PAGE_SIZE) as u64;
        phys_to_virt(PhysAddr(NEXT.fetch_add(bytes, Ordering::Relaxed)))
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: Heap = Heap;
