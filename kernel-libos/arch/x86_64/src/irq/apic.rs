//! The local APIC (Intel SDM vol. 3, chapter 11): by MSR where the processor has x2APIC, else memory-mapped.
//!
//! It is switched on at first use: a program that neither sleeps nor talks to a device never pays for it.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::{PhysAddr, map_mmio};
use crate::cpu::{self, Msr, read_msr, write_msr};

/// Registers, as offsets of the memory-mapped form.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Register {
    Id = 0x20,
    EndOfInterrupt = 0xb0,
    Spurious = 0xf0,
    CommandLow = 0x300,
    CommandHigh = 0x310,
    TimerVector = 0x320,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    Divide = 0x3e0,
}

/// 0: off; 1: x2APIC; else the address of the registers.
static BASE: AtomicUsize = AtomicUsize::new(0);
const X2APIC: usize = 1;

/// Switches the APIC of the boot CPU on, once.
pub(crate) fn enable() {
    if BASE.load(Ordering::Relaxed) != 0 || !cfg!(ukc_kernel) {
        return;
    }
    let msr = read_msr(Msr::ApicBase);
    // SAFETY: bit 11 enables the APIC, bit 10 its x2 mode, which CPUID says exists; the address stays.
    let base = unsafe {
        if cpu::features().x2apic {
            write_msr(Msr::ApicBase, msr | 1 << 11);
            write_msr(Msr::ApicBase, msr | 1 << 11 | 1 << 10);
            X2APIC
        } else {
            write_msr(Msr::ApicBase, msr | 1 << 11);
            map_mmio(PhysAddr(msr & 0x000f_ffff_ffff_f000), 4096) as usize
        }
    };
    BASE.store(base, Ordering::Relaxed);
    // Bit 8 of the spurious register lets interrupts through.
    write(Register::Spurious, 1 << 8 | u32::from(super::SPURIOUS_VECTOR));
}

/// Reads a register; the APIC is on.
pub(crate) fn read(register: Register) -> u32 {
    match BASE.load(Ordering::Relaxed) {
        0 => 0,
        X2APIC => cpu::read_msr_number(Msr::X2Apic as u32 + (register as u32 >> 4)) as u32,
        // SAFETY: mapped by `enable`.
        base => unsafe { ((base + register as usize) as *const u32).read_volatile() },
    }
}

/// Writes a register; the APIC is on.
pub(crate) fn write(register: Register, value: u32) {
    match BASE.load(Ordering::Relaxed) {
        0 => {}
        // SAFETY: only this module and the timer write registers, with values that raise the vectors above.
        X2APIC => unsafe { cpu::write_msr_number(Msr::X2Apic as u32 + (register as u32 >> 4), u64::from(value)) },
        // SAFETY: mapped by `enable`; values as above.
        base => unsafe { ((base + register as usize) as *mut u32).write_volatile(value) },
    }
}

/// Says that the interrupt being served is done.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
pub(crate) fn end_of_interrupt() {
    write(Register::EndOfInterrupt, 0);
}

/// This CPU's APIC id.
pub fn apic_id() -> u32 {
    enable();
    let id = read(Register::Id);
    if BASE.load(Ordering::Relaxed) == X2APIC { id } else { id >> 24 }
}

/// Raises a vector on another CPU.
pub fn send(apic_id: u32, vector: u8) {
    if BASE.load(Ordering::Relaxed) == X2APIC {
        let command = u64::from(apic_id) << 32 | u64::from(vector);
        // SAFETY: an interrupt command with a vector of ours (fixed delivery).
        unsafe { cpu::write_msr_number(Msr::X2Apic as u32 + (Register::CommandLow as u32 >> 4), command) }
    } else {
        write(Register::CommandHigh, apic_id << 24);
        write(Register::CommandLow, u32::from(vector));
    }
}
