//! Device memory, mapped uncached into the last GiB of the address space.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::PhysAddr;

/// Start of the window.
const WINDOW: usize = 0xffff_ffff_c000_0000;
/// The last page stays empty, so that an end never wraps around.
const WINDOW_BYTES: usize = (1 << 30) - 4096;

/// First free byte of the window, as an offset.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Maps `len` bytes of device memory and returns where. Mappings stay forever; drivers make theirs once.
///
/// # Panics
/// When the window of 1 GiB or the memory for its tables is used up.
pub fn map_mmio(phys: PhysAddr, len: usize) -> *mut u8 {
    if !cfg!(ukc_kernel) {
        return crate::addr::phys_to_virt(phys);
    }
    let inside = phys.0 as usize & 0xfff;
    let bytes = (inside + len + 0xfff) & !0xfff;
    let offset = NEXT.fetch_add(bytes, Ordering::Relaxed);
    assert!(offset + bytes <= WINDOW_BYTES, "no room for device memory");
    for at in (0..bytes).step_by(4096) {
        map_page(WINDOW + offset + at, (phys.0 & !0xfff) + at as u64);
    }
    (WINDOW + offset + inside) as *mut u8
}

#[cfg(ukc_kernel)]
fn map_page(va: usize, phys: u64) {
    use crate::boot::image::{GLOBAL, NO_EXEC, PRESENT, WRITE, last_gib};
    use crate::boot::table_page;
    // Write-through and cache-disable: strong uncacheable, whatever the page attribute table says.
    const UNCACHED: u64 = 1 << 3 | 1 << 4;
    static LOCKED: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);
    let _irq = crate::cpu::IrqGuard::new();
    while LOCKED.swap(true, Ordering::Acquire) {
        crate::cpu::relax();
    }
    let (mut table, mut index) = last_gib();
    for shift in [21, 12] {
        let entry = table.get(index);
        let child = if entry & PRESENT != 0 {
            entry & 0x000f_ffff_ffff_f000
        } else {
            let page = crate::hooks::ukc_alloc_table().expect("memory for the tables of device memory").0;
            table.set(index, page | PRESENT | WRITE);
            page
        };
        table = table_page(child);
        index = va >> shift & 511;
    }
    table.set(index, phys | PRESENT | WRITE | GLOBAL | NO_EXEC | UNCACHED);
    LOCKED.store(false, Ordering::Release);
}

#[cfg(not(ukc_kernel))]
fn map_page(_va: usize, _phys: u64) {}
