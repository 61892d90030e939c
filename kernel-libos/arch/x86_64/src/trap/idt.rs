//! The interrupt descriptor table (Intel SDM vol. 3, 6.10): vectors 0 to 31 are exceptions, the rest interrupts.

#[cfg(ukc_kernel)]
/// Vectors in use; `int n` beyond is a general protection fault.
pub(crate) const VECTORS: usize = 96;

#[cfg(ukc_kernel)]
/// Operand of `lgdt` and `lidt`.
#[repr(C, packed)]
pub(crate) struct TablePointer {
    pub(crate) limit: u16,
    pub(crate) base: u64,
}

/// Fills the table, which all CPUs share, and loads it.
///
/// # Safety
/// After the task state with its interrupt stacks is loaded.
#[cfg(ukc_kernel)]
pub unsafe fn init() {
    use core::cell::UnsafeCell;

    #[repr(C, align(16))]
    struct Table(UnsafeCell<[[u64; 2]; VECTORS]>);
    // SAFETY: written by the boot CPU before the others run.
    unsafe impl Sync for Table {}
    static IDT: Table = Table(UnsafeCell::new([[0; 2]; VECTORS]));

    let stubs = super::entry::stubs();
    // SAFETY: the boot CPU is alone.
    let table = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in table.iter_mut().enumerate() {
        let handler = stubs + vector * super::entry::STUB_BYTES;
        *gate = super::idt::gate(handler, ist(vector), ring(vector));
    }
    let pointer = TablePointer { limit: size_of_val(table) as u16 - 1, base: IDT.0.get() as u64 };
    // SAFETY: all gates are valid.
    unsafe { core::arch::asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) };
}

/// Interrupt stack of a vector: 2 for those that only panic (#DF 8, NMI 2, #MC 18), else 1.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
fn ist(vector: usize) -> u64 {
    if matches!(vector, 2 | 8 | 18) { 2 } else { 1 }
}

/// Least privilege that may raise a vector by an instruction: `int3` and `into` are for programs.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
fn ring(vector: usize) -> u64 {
    if matches!(vector, 3 | 4) { 3 } else { 0 }
}

/// A 64-bit interrupt gate (type 14: interrupts off on entry).
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
fn gate(handler: usize, ist: u64, ring: u64) -> [u64; 2] {
    let handler = handler as u64;
    let low = (handler & 0xffff) | 0x08 << 16 | ist << 32 | (0x8e | ring << 5) << 40 | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_encoded_as_the_manual_says() {
        assert_eq!(gate(0xffff_ffff_8020_1234, 1, 0), [0x8020_8e01_0008_1234, 0xffff_ffff]);
        assert_eq!(gate(0x1000, 2, 3)[0] >> 32, 0xee02);
        assert_eq!((ist(8), ist(14), ring(3), ring(14)), (2, 1, 3, 0));
    }
}
