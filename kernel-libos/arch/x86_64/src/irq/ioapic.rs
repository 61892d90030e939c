//! I/O APICs (Intel 82093AA datasheet). The first is at 0xfec00000 with lines 0 to 23, microvm's second at 0xfec10000 with lines 24 to 47; both addresses
//! are what every monitor we know uses, so ACPI tables are not needed for them.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Trigger;
use crate::addr::{PhysAddr, map_mmio};

const ADDRESSES: [u64; 2] = [0xfec0_0000, 0xfec1_0000];
/// Lines of each.
const LINES: u32 = 24;

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;

/// Mapped addresses; 0 is not looked at yet, 1 absent.
static MAPPED: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
const ABSENT: usize = 1;
/// Lines routed by us, so that unmasking never opens one that nobody asked for.
static ROUTED: AtomicU64 = AtomicU64::new(0);

fn controller(gsi: u32) -> Option<(usize, u32)> {
    let number = (gsi / LINES) as usize;
    let cell = MAPPED.get(number)?;
    if cell.load(Ordering::Relaxed) == 0 {
        let base = if cfg!(ukc_kernel) { map_mmio(PhysAddr(ADDRESSES[number]), 0x20) as usize } else { ABSENT };
        // The version register says how many lines there are; absent memory reads as all ones.
        let present = base != ABSENT && (read(base, VERSION) >> 16 & 0xff) + 1 == LINES;
        cell.store(if present { base } else { ABSENT }, Ordering::Relaxed);
    }
    match cell.load(Ordering::Relaxed) {
        ABSENT => None,
        base => Some((base, gsi % LINES)),
    }
}

fn read(base: usize, register: u32) -> u32 {
    // SAFETY: mapped: register select at 0, window at 0x10. One CPU programs lines, with interrupts off or before its device is on.
    unsafe {
        (base as *mut u32).write_volatile(register);
        ((base + 0x10) as *const u32).read_volatile()
    }
}

fn write(base: usize, register: u32, value: u32) {
    // SAFETY: as above.
    unsafe {
        (base as *mut u32).write_volatile(register);
        ((base + 0x10) as *mut u32).write_volatile(value);
    }
}

pub(super) fn route(gsi: u32, vector: u8, trigger: Trigger) -> bool {
    let _irq = crate::cpu::IrqGuard::new();
    let Some((base, line)) = controller(gsi) else { return false };
    let entry = u32::from(vector)
        | match trigger {
            Trigger::Edge => 0,
            Trigger::Level => 1 << 15,
            Trigger::LevelLow => 1 << 15 | 1 << 13,
        };
    write(base, REDIRECTION + 2 * line, MASKED);
    write(base, REDIRECTION + 2 * line + 1, super::apic_id() << 24);
    write(base, REDIRECTION + 2 * line, entry);
    ROUTED.fetch_or(1 << gsi, Ordering::Relaxed);
    true
}

pub(super) fn set_mask(gsi: u32, masked: bool) {
    let _irq = crate::cpu::IrqGuard::new();
    if gsi >= 64 || ROUTED.load(Ordering::Relaxed) >> gsi & 1 == 0 {
        return;
    }
    if let Some((base, line)) = controller(gsi) {
        let entry = read(base, REDIRECTION + 2 * line) & !MASKED;
        write(base, REDIRECTION + 2 * line, if masked { entry | MASKED } else { entry });
    }
}
