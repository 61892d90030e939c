//! Ending the machine.

use crate::io::{outb, outl, outw};

/// Ends the machine with a status for the monitor. With QEMU's `isa-debug-exit,iobase=0xf4,iosize=4` QEMU's own exit status is `status << 1 | 1`; without
/// it the status is lost. What is tried, in order: isa-debug-exit; ACPI S5 of QEMU pc and q35, then of Cloud Hypervisor; the keyboard controller's reset
/// (Firecracker's way); a triple fault (microvm with `-no-reboot`).
pub fn exit(status: u8) -> ! {
    crate::cpu::interrupts_disable();
    outl(0xf4, u32::from(status));
    // PM1a control: sleep type 0 is S5 in QEMU's DSDT, bit 13 enters it.
    outw(0x604, 0x2000);
    // Cloud Hypervisor's sleep register: type 5, enable (bit 5).
    outb(0x600, 5 << 2 | 1 << 5);
    outb(0x64, 0xfe);
    triple_fault()
}

#[cfg(ukc_kernel)]
fn triple_fault() -> ! {
    let empty = crate::trap::TablePointer { limit: 0, base: 0 };
    // SAFETY: the machine ends here: there is no vector for the exception, nor for the ones that follow from it.
    unsafe { core::arch::asm!("lidt [{}]", "ud2", "2: hlt", "jmp 2b", in(reg) &empty, options(noreturn)) }
}

#[cfg(not(ukc_kernel))]
fn triple_fault() -> ! {
    panic!("the kernel ended the machine")
}
