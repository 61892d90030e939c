//! Interrupt controllers: the local APIC of each CPU and the I/O APICs. Both 8259s are masked at boot and never used: every monitor we run on has an I/O
//! APIC, and on microvm the 8259 is not connected.
//!
//! Vectors 32 to 95 are interrupts: 32 the timer, 33 "look at your run queue" from another CPU, 34 to 94 devices, 95 spurious ones.

pub(crate) mod apic;
mod ioapic;

use core::sync::atomic::{AtomicU8, Ordering};

use crate::io::outb;

pub use apic::{apic_id, send};

/// Vector of the timer.
pub(crate) const TIMER_VECTOR: u8 = 32;
/// Vector that asks another CPU to schedule.
pub const RESCHEDULE_VECTOR: u8 = 33;
const FIRST_DEVICE_VECTOR: u8 = 34;
/// The low four bits must be ones on old processors.
pub(crate) const SPURIOUS_VECTOR: u8 = 95;

/// What interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Irq {
    /// The deadline of [`set_timer`](crate::time::set_timer) has passed, or its counter ran out early: look at the clock and set it again.
    Timer,
    /// A device; the vector is the one [`allocate_vector`] gave.
    Device(u8),
    /// Another CPU wants this one to schedule.
    Reschedule,
}

/// How a line asks for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Once per rising edge (ISA, virtio-mmio).
    Edge,
    /// As long as the line is high (virtio-mmio on some monitors).
    Level,
    /// As long as the line is low (PCI INTx).
    LevelLow,
}

/// Returns a vector that no device has, or `None` when all 61 are taken.
pub fn allocate_vector() -> Option<u8> {
    static NEXT: AtomicU8 = AtomicU8::new(FIRST_DEVICE_VECTOR);
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < SPURIOUS_VECTOR).then_some(next + 1)).ok()
}

/// Routes a line (global system interrupt) to a vector of the boot CPU and lets it through. Returns false when no I/O APIC has the line.
pub fn enable_gsi(gsi: u32, vector: u8, trigger: Trigger) -> bool {
    apic::enable();
    ioapic::route(gsi, vector, trigger)
}

/// Keeps a line out.
pub fn mask_gsi(gsi: u32) {
    ioapic::set_mask(gsi, true);
}

/// Lets a line through again.
pub fn unmask_gsi(gsi: u32) {
    ioapic::set_mask(gsi, false);
}

/// Returns the address and data of a message that raises a vector on the boot CPU (Intel SDM vol. 3, 11.11).
pub fn msi_address_data(vector: u8) -> (u64, u32) {
    apic::enable();
    (0xfee0_0000 | u64::from(apic_id() & 0xff) << 12, u32::from(vector))
}

/// Masks every line of both 8259s: firmware leaves the interval timer running on vector 8.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
pub(crate) fn mask_8259() {
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

/// An interrupt arrived; interrupts are off.
#[cfg(ukc_kernel)]
pub(crate) fn handle(vector: u8) {
    match vector {
        SPURIOUS_VECTOR => {}
        TIMER_VECTOR => {
            apic::end_of_interrupt();
            crate::hooks::ukc_interrupt(Irq::Timer);
        }
        RESCHEDULE_VECTOR => {
            apic::end_of_interrupt();
            crate::hooks::ukc_interrupt(Irq::Reschedule);
        }
        _ => {
            crate::hooks::ukc_interrupt(Irq::Device(vector));
            apic::end_of_interrupt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_run_out() {
        let mut last = FIRST_DEVICE_VECTOR - 1;
        while let Some(vector) = allocate_vector() {
            assert_eq!(vector, last + 1);
            last = vector;
        }
        assert_eq!(last, SPURIOUS_VECTOR - 1);
    }
}
