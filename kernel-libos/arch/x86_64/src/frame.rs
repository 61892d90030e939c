//! The registers of a program, as the kernel saves them at every entry from ring 3.
//!
//! The entry code pushes them onto the task's kernel stack, whose top 432 bytes therefore are the frame (see [`user_frame_at`]). Offsets are repeated as
//! constants for the assembly and checked below.

use core::mem::{offset_of, size_of};

/// Selector of ring-3 code.
pub const USER_CS: u64 = 0x2b;
/// Selector of ring-3 data and stack.
pub const USER_SS: u64 = 0x23;
/// Flags a program may set: CF PF AF ZF SF TF DF OF NT? no; RF, AC, ID (Intel SDM vol. 1, 3.4.3; Linux' FIX_EFLAGS).
pub const USER_FLAGS: u64 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 1 << 16 | 1 << 18;
/// Interrupt flag, always set in ring 3, and the bit that is always one.
const FIXED_FLAGS: u64 = 0x202;

/// All registers of a program except what `fpu` holds (x87, MXCSR, upper halves of vector registers).
///
/// The order from `r15` on is that of Linux' `struct pt_regs` (`PTRACE_GETREGS` without the segments).
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct UserFrame {
    /// xmm0 to xmm15: kernel code uses SSE, so they are saved like the others.
    pub xmm: [u128; 16],
    /// Padding that keeps the frame a multiple of 16 bytes.
    pub reserved: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// System call number; -1 when the entry was no system call.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

pub(crate) const FRAME_BYTES: usize = 432;
const _: () = assert!(size_of::<UserFrame>() == FRAME_BYTES && FRAME_BYTES.is_multiple_of(16));
const _: () = assert!(offset_of!(UserFrame, r15) == 264 && offset_of!(UserFrame, rax) == 344 && offset_of!(UserFrame, orig_rax) == 384);
const _: () = assert!(offset_of!(UserFrame, rip) == 392 && offset_of!(UserFrame, ss) == 424);

impl UserFrame {
    /// Returns the registers of a program that starts at `rip` with everything else zero.
    pub const fn new_user(rip: usize, rsp: usize) -> UserFrame {
        UserFrame {
            xmm: [0; 16],
            reserved: 0,
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: u64::MAX,
            rip: rip as u64,
            cs: USER_CS,
            rflags: FIXED_FLAGS,
            rsp: rsp as u64,
            ss: USER_SS,
        }
    }

    /// Whether the frame was made by ring 3.
    pub const fn is_user(&self) -> bool {
        self.cs & 3 != 0
    }

    /// Forces what a program must not choose (signal frames and ptrace write the rest): selectors, interrupt flag, I/O privilege.
    pub fn sanitize(&mut self) {
        self.cs = USER_CS;
        self.ss = USER_SS;
        self.rflags = self.rflags & USER_FLAGS | FIXED_FLAGS;
    }
}

/// Returns where the frame of a task with this kernel stack lies while the task is in the kernel.
pub const fn user_frame_at(stack_top: usize) -> *mut UserFrame {
    (stack_top - FRAME_BYTES) as *mut UserFrame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_choose_privileges() {
        let mut frame = UserFrame::new_user(0x1000, 0x2000);
        frame.cs = 0x08;
        frame.ss = 0x10;
        // IOPL 3, NT, VM and an interrupt flag that is off.
        frame.rflags = 3 << 12 | 1 << 14 | 1 << 17 | 0x40;
        frame.sanitize();
        assert_eq!((frame.cs, frame.ss, frame.rflags), (USER_CS, USER_SS, 0x242));
    }

    #[test]
    fn the_frame_is_the_top_of_the_stack() {
        assert_eq!(user_frame_at(0x10000) as usize % 16, 0);
        assert_eq!(user_frame_at(0x10000) as usize + size_of::<UserFrame>(), 0x10000);
    }
}
