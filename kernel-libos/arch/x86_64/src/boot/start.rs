//! The first Rust code: puts together [`BootInfo`], builds the final tables, calls [`ukc_main`](crate::hooks).

use core::cell::UnsafeCell;

use super::image::{self, GIB};
use super::memory::MemoryMap;
use super::protocol::{self, Physical, Unusable};
use super::{BootInfo, Entry};
use crate::addr::{PAGE_SIZE, PhysAddr, phys_to_virt};
use crate::boot::entry::Page;
use crate::cpu;

/// Regions that fit; monitors give about ten.
const REGIONS: usize = 64;
/// Pages for tables before the memory map is known: the image's directory and table, and one more directory.
const POOL_PAGES: usize = 3;

struct Boot(UnsafeCell<MemoryMap<REGIONS>>, UnsafeCell<Option<BootInfo>>);
// SAFETY: the boot CPU alone touches it before `ukc_main`, and nobody changes it afterwards.
unsafe impl Sync for Boot {}
static BOOT: Boot = Boot(UnsafeCell::new(MemoryMap::new()), UnsafeCell::new(None));
static POOL: [Page; POOL_PAGES] = [const { Page::new() }; POOL_PAGES];

/// Gives out zeroed pages for tables: first the pool, then RAM.
struct Tables<'a> {
    pool_used: usize,
    map: &'a mut MemoryMap<REGIONS>,
    /// RAM below this is mapped.
    mapped_end: u64,
}

impl Tables<'_> {
    fn alloc(&mut self) -> Option<u64> {
        if let Some(page) = POOL.get(self.pool_used) {
            self.pool_used += 1;
            return Some(crate::addr::virt_to_phys((page as *const Page).cast()).0);
        }
        let page = self.map.carve(1, self.mapped_end)?;
        // SAFETY: free RAM below `mapped_end`.
        unsafe { phys_to_virt(PhysAddr(page)).write_bytes(0, PAGE_SIZE) };
        Some(page)
    }
}

/// Reads guest memory through the direct map, extending it where needed.
struct Reader<'a, 'b>(&'a mut Tables<'b>);

impl Physical for Reader<'_, '_> {
    fn read(&mut self, addr: u64, dst: &mut [u8]) {
        let end = addr + dst.len() as u64;
        if end > GIB {
            // SAFETY: the monitor put something there, so it is RAM; a page directory is taken from the pool.
            let mapped = unsafe { image::map_direct(addr, end, false, &mut || self.0.alloc()) };
            if mapped.is_none() {
                crate::panic::kernel_panic("the boot information cannot be mapped");
            }
        }
        // SAFETY: mapped.
        unsafe { core::ptr::copy_nonoverlapping(phys_to_virt(PhysAddr(addr)), dst.as_mut_ptr(), dst.len()) }
    }
}

/// Entered from `common64` on the boot stack, interrupts off.
pub(super) extern "C" fn start(protocol: u32, info: u64) -> ! {
    crate::time::started();
    // SAFETY: the boot CPU, once, interrupts off.
    unsafe {
        cpu::init_boot_cpu();
        crate::trap::init_idt();
    }
    crate::irq::mask_8259();
    // SAFETY: nobody else runs.
    let map = unsafe { &mut *BOOT.0.get() };
    let mut tables = Tables { pool_used: 0, map, mapped_end: GIB };
    let entry = if protocol == 0 { Entry::Pvh } else { Entry::Linux64 };
    // The map is filled while tables may be carved from it, so it is read into a place of its own.
    let mut read_map = MemoryMap::<REGIONS>::new();
    let found = match protocol::read(entry, info, &mut Reader(&mut tables), &mut read_map) {
        Ok(found) => found,
        Err(Unusable::NotPvh) => crate::panic::kernel_panic("the monitor gives no boot information"),
        Err(Unusable::NoMemoryMap) => crate::panic::kernel_panic("the monitor gives no memory map"),
    };
    *tables.map = read_map;
    let kernel = image::image_range();
    tables.map.reserve(0, PAGE_SIZE as u64);
    tables.map.reserve(kernel.0.0, kernel.1.0 - kernel.0.0);
    tables.map.reserve(found.initrd.0, found.initrd.1);
    tables.map.reserve(found.cmdline.0, found.cmdline.1 as u64);
    let features = cpu::features();
    // SAFETY: boot, once.
    unsafe {
        if features.smap {
            crate::user::enable_smap();
        }
        crate::fpu::init();
        if map_ram(&mut tables, features.gib_pages).is_none() || image::protect(&mut || tables.alloc()).is_none() {
            crate::panic::kernel_panic("no memory for the kernel's page tables");
        }
        enable_protection(&features);
    }
    let range = |addr: u64, len: usize| {
        // SAFETY: RAM that was reserved above and is mapped; it lives as long as the kernel.
        unsafe { core::slice::from_raw_parts(phys_to_virt(PhysAddr(addr)), len) }
    };
    let info = BootInfo {
        // SAFETY: nobody changes the map any more.
        memory: unsafe { (*BOOT.0.get()).regions() },
        initrd: (found.initrd.1 != 0).then_some((PhysAddr(found.initrd.0), found.initrd.1 as usize)),
        cmdline: if found.cmdline.1 == 0 { &[] } else { range(found.cmdline.0, found.cmdline.1) },
        kernel,
        entry,
        rsdp: (found.rsdp != 0).then_some(PhysAddr(found.rsdp)),
    };
    // SAFETY: written once, before anybody reads it.
    let info: &'static BootInfo = unsafe { (*BOOT.1.get()).insert(info) };
    crate::hooks::ukc_main(info)
}

/// Maps all RAM into the direct map.
///
/// # Safety
/// Boot only.
unsafe fn map_ram(tables: &mut Tables<'_>, gib_pages: bool) -> Option<()> {
    // Carving splits regions while we walk, so the walk goes by address: always the lowest region that ends above what is done.
    let mut done = GIB;
    loop {
        let next = tables.map.regions().iter().map(|r| (r.start.max(done), r.end())).filter(|(from, to)| from < to).min();
        let Some((from, to)) = next else { return Some(()) };
        let end = to.min((from / GIB + 1) * GIB);
        // SAFETY: the caller's promise; the range is RAM.
        unsafe { image::map_direct(from, end, gib_pages, &mut || tables.alloc())? };
        done = end;
    }
}

/// Makes the processor use the final tables and turns on what protects the kernel from the program.
///
/// # Safety
/// After [`image::protect`]; SMAP's no-ops are patched.
unsafe fn enable_protection(features: &cpu::Features) {
    const PGE: u64 = 1 << 7;
    const SMEP: u64 = 1 << 20;
    const SMAP: u64 = 1 << 21;
    let mut bits = PGE;
    if features.smep {
        bits |= SMEP;
    }
    if features.smap {
        bits |= SMAP;
    }
    // SAFETY: the tables map everything in use; setting PGE also forgets the global entries cached so far.
    unsafe {
        cpu::set_active_table(image::kernel_table().0);
        let cr4: u64;
        core::arch::asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags));
        core::arch::asm!("mov cr4, {}", in(reg) cr4 | bits, options(nostack, preserves_flags));
    }
}
