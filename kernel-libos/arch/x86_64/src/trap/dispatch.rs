//! What the entry code calls.

use super::Fault;
use crate::addr::USER_END;
use crate::cpu;
use crate::frame::UserFrame;
use crate::hooks;

const PAGE_FAULT: u64 = 14;
const FIRST_INTERRUPT: u64 = 32;

/// A trap, interrupts off. Returning continues what was interrupted.
pub(super) extern "C" fn trap(frame: &mut UserFrame, vector: u64, code: u64, cr2: usize) {
    if vector >= FIRST_INTERRUPT {
        crate::irq::handle(vector as u8);
    } else if frame.is_user() {
        let fault = Fault::decode(vector as u8, code, cr2);
        cpu::interrupts_enable();
        hooks::ukc_user_fault(frame, fault);
    } else if vector != PAGE_FAULT || !user_copy_fault(frame, code, cr2) {
        crate::panic::trap(frame, vector, code, cr2);
    }
}

/// A page fault in ring 0. Returns false unless a user-copy primitive raised it at a user address.
fn user_copy_fault(frame: &mut UserFrame, code: u64, cr2: usize) -> bool {
    let Some(fixup) = crate::user::fixup(frame.rip as usize) else { return false };
    // The address space may have changed hands while `core` slept; the copy is retried in whatever is there then.
    if cr2 < USER_END {
        let interrupts_were_on = frame.rflags & 0x200 != 0;
        if interrupts_were_on {
            cpu::interrupts_enable();
        }
        let retry = hooks::ukc_kernel_fault(cr2, code & 2 != 0);
        cpu::interrupts_disable();
        if retry {
            return true;
        }
    }
    frame.rip = fixup as u64;
    true
}

/// Runs the exit work until there is none, then answers, with interrupts off, whether `sysret` can restore the frame.
pub(super) extern "C" fn exit_to_user(frame: &mut UserFrame) -> bool {
    loop {
        cpu::interrupts_enable();
        hooks::ukc_before_user(frame);
        cpu::interrupts_disable();
        if cpu::work_pending() {
            continue;
        }
        // A return to a non-canonical address would fault in ring 0 (`iretq` on all, `sysret` on Intel's). To the program it is what executing there is.
        if frame.rip < USER_END as u64 {
            break;
        }
        if frame.rip >> 47 == 0 {
            // The page below the boundary is never mapped; let the program fault on it by itself, through `iretq`.
            break;
        }
        cpu::interrupts_enable();
        hooks::ukc_user_fault(frame, Fault::GeneralProtection { code: 0 });
    }
    frame.sanitize();
    const TRAP_OR_RESUME: u64 = 0x100 | 1 << 16;
    frame.rcx == frame.rip && frame.r11 == frame.rflags && frame.rip < USER_END as u64 && frame.rflags & TRAP_OR_RESUME == 0
}

/// #DF, NMI, #MC: `words` are rip, cs, rflags, rsp, ss.
pub(super) extern "C" fn fatal(vector: u64, words: &[u64; 5], rbp: u64) -> ! {
    crate::panic::fatal(vector, words, rbp)
}
