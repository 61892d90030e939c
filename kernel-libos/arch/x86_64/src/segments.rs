//! Descriptor table, task state segment and the stacks on which interrupts arrive (Intel SDM vol. 3, chapters 3 and 8).
//!
//! Every vector has an interrupt stack (IST) because code of `core` (the Rust library) is compiled with a red zone: an exception frame pushed at the
//! interrupted stack pointer would overwrite it. The entry code leaves IST1 at once (see `trap::entry`); IST2 is for #DF, NMI and #MC, which only panic.

use core::mem::size_of;

/// Task state segment; of use are the stack pointers only.
#[repr(C, packed(4))]
struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Offset of the I/O permission map: beyond the limit, so ring 3 may use no port.
    io_map: u16,
}
const _: () = assert!(size_of::<Tss>() == 104);

/// Bytes of IST1: 5 words by the CPU, 2 by the stub, 2 saved registers; nothing else ever runs on it.
const TRAP_STACK_BYTES: usize = 256;
/// Bytes of IST2: printing a panic.
const FATAL_STACK_BYTES: usize = 6144;

/// A CPU's own descriptor table, task state and interrupt stacks.
#[repr(C, align(16))]
pub(crate) struct Segments {
    trap_stack: [u8; TRAP_STACK_BYTES],
    fatal_stack: [u8; FATAL_STACK_BYTES],
    gdt: [u64; 8],
    tss: Tss,
}

impl Segments {
    pub(crate) const fn new() -> Segments {
        Segments {
            trap_stack: [0; TRAP_STACK_BYTES],
            fatal_stack: [0; FATAL_STACK_BYTES],
            gdt: [0; 8],
            tss: Tss { reserved0: 0, rsp: [0; 3], reserved1: 0, ist: [0; 7], reserved2: 0, reserved3: 0, io_map: 0 },
        }
    }

    /// Fills the tables and makes the CPU use them.
    ///
    /// # Safety
    /// On the CPU that owns them, interrupts off; the structure never moves.
    #[cfg(ukc_kernel)]
    pub(crate) unsafe fn load(&mut self) {
        self.tss.ist[0] = (&raw const self.trap_stack) as u64 + TRAP_STACK_BYTES as u64;
        self.tss.ist[1] = (&raw const self.fatal_stack) as u64 + FATAL_STACK_BYTES as u64;
        self.tss.io_map = size_of::<Tss>() as u16;
        let tss = (&raw const self.tss) as u64;
        self.gdt = [
            0,
            0x00af_9b00_0000_ffff, // 0x08 ring-0 code, 64-bit
            0x00cf_9300_0000_ffff, // 0x10 ring-0 data
            0x00cf_fb00_0000_ffff, // 0x18 ring-3 code, 32-bit: `sysret` counts from here; never loaded
            0x00cf_f300_0000_ffff, // 0x20 ring-3 data
            0x00af_fb00_0000_ffff, // 0x28 ring-3 code, 64-bit
            (size_of::<Tss>() as u64 - 1) | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56, // 0x30 available TSS
            tss >> 32,
        ];
        let pointer = crate::trap::TablePointer { limit: size_of::<[u64; 8]>() as u16 - 1, base: (&raw const self.gdt) as u64 };
        // SAFETY: the table has the same code and data selectors as the boot table, so CS and SS stay valid; FS and GS are loaded with null.
        unsafe {
            core::arch::asm!(
                "lgdt [{pointer}]",
                "ltr {tss:x}",
                "mov ss, {data:e}",
                "mov ds, {zero:e}",
                "mov es, {zero:e}",
                "mov fs, {zero:e}",
                "mov gs, {zero:e}",
                pointer = in(reg) &pointer,
                tss = in(reg) 0x30u32,
                data = in(reg) 0x10u32,
                zero = in(reg) 0u32,
                options(nostack, preserves_flags)
            );
        }
    }
}
