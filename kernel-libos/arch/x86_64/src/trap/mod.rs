//! Exceptions, interrupts and system calls: from the entry code to the hooks of `core`, and back to ring 3.

#[cfg(ukc_kernel)]
mod dispatch;
#[cfg(ukc_kernel)]
mod entry;
mod idt;

#[cfg(ukc_kernel)]
pub use idt::init as init_idt;
#[cfg(ukc_kernel)]
pub(crate) use idt::{TablePointer, VECTORS};

/// What a program did that the processor refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// #PF (14): no page, or a page that does not allow the access. `present` tells the two apart.
    PageFault { addr: usize, present: bool, write: bool, exec: bool },
    /// #DE (0).
    DivideError,
    /// #DB (1): single step.
    Debug,
    /// #BP (3): `int3`; rip is behind it.
    Breakpoint,
    /// #OF (4).
    Overflow,
    /// #UD (6).
    InvalidOpcode,
    /// #GP (13) and its relatives #NP (11), #SS (12): a non-canonical address, a privileged instruction, `int n`.
    GeneralProtection { code: u32 },
    /// #AC (17).
    Alignment,
    /// #MF (16): x87 exception; the status word says which (`fnstsw`).
    Fpu { status: u16, control: u16 },
    /// #XM (19): SSE exception; MXCSR says which.
    Simd { mxcsr: u32 },
    /// Anything else.
    Other { vector: u8, code: u32 },
}

impl Fault {
    /// Returns the meaning of an exception vector, its error code and, for a page fault, CR2.
    pub fn decode(vector: u8, code: u64, cr2: usize) -> Fault {
        let code = code as u32;
        match vector {
            0 => Fault::DivideError,
            1 => Fault::Debug,
            3 => Fault::Breakpoint,
            4 => Fault::Overflow,
            6 => Fault::InvalidOpcode,
            11..=13 => Fault::GeneralProtection { code },
            // Error code (Intel SDM vol. 3, 4.7): 1 present, 2 write, 4 user, 16 instruction fetch.
            14 => Fault::PageFault { addr: cr2, present: code & 1 != 0, write: code & 2 != 0, exec: code & 16 != 0 },
            16 => {
                let (status, control) = x87_words();
                Fault::Fpu { status, control }
            }
            17 => Fault::Alignment,
            19 => Fault::Simd { mxcsr: mxcsr() },
            _ => Fault::Other { vector, code },
        }
    }
}

fn x87_words() -> (u16, u16) {
    let (mut status, mut control) = (0u16, 0u16);
    // SAFETY: both store two bytes; the `n` forms raise no pending exception.
    unsafe { core::arch::asm!("fnstsw [{}]", "fnstcw [{}]", in(reg) &mut status, in(reg) &mut control, options(nostack)) };
    (status, control)
}

fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes.
    unsafe { core::arch::asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack)) };
    value
}

/// Enables `syscall`/`sysret` (Intel SDM vol. 2, SYSCALL).
///
/// # Safety
/// After the descriptor tables are loaded.
#[cfg(ukc_kernel)]
pub(crate) unsafe fn init_syscall() {
    use crate::cpu::{Msr, write_msr};
    // Kernel CS 0x08 and SS 0x10; `sysret` takes SS 0x1b + 8 and CS 0x1b + 16.
    const STAR: u64 = 0x1b << 48 | 0x08 << 32;
    // Cleared on entry: TF, IF, DF, IOPL, NT, AC (which would disarm SMAP), as Linux does.
    const MASK: u64 = 0x100 | 0x200 | 0x400 | 0x3000 | 0x4000 | 1 << 18;
    // SAFETY: the selectors exist and the address is the entry code's.
    unsafe {
        write_msr(Msr::Star, STAR);
        write_msr(Msr::Lstar, entry::syscall_address());
        write_msr(Msr::SyscallMask, MASK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_fault_error_codes() {
        assert_eq!(Fault::decode(14, 4, 0x1000), Fault::PageFault { addr: 0x1000, present: false, write: false, exec: false });
        assert_eq!(Fault::decode(14, 7, 8), Fault::PageFault { addr: 8, present: true, write: true, exec: false });
        assert_eq!(Fault::decode(14, 0x15, 8), Fault::PageFault { addr: 8, present: true, write: false, exec: true });
        assert_eq!(Fault::decode(13, 0x402, 0), Fault::GeneralProtection { code: 0x402 });
        assert_eq!(Fault::decode(30, 1, 0), Fault::Other { vector: 30, code: 1 });
        assert_eq!(Fault::decode(19, 0, 0), Fault::Simd { mxcsr: mxcsr() });
    }
}
