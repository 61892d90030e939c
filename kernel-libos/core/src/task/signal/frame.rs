//! The stack frame of a handler (x86-64, `struct rt_sigframe`) and the way back from it: rt_sigreturn(2).
//!
//! ```text
//!  higher   | vector state in XSAVE format, 64-byte aligned; bytes 464.. say so (magic, sizes), and magic2 follows |  <- fpstate
//!           | siginfo_t, 128 bytes                                                      | frame + 312
//!           | signal mask                                                               | frame + 304
//!           | sigcontext: r8-r15 di si bp bx dx ax cx sp ip flags cs/gs/fs/ss err trap  |
//!           |             oldmask cr2 fpstate reserved[8]                               | frame + 48
//!           | uc_flags, uc_link, uc_stack (sp, flags, size)                             | frame + 8
//!  rsp ->   | return address: the restorer                                              | frame, 8 below a multiple of 16
//! ```
//!
//! The handler gets the signal number in rdi, `siginfo_t *` in rsi, `ucontext_t *` in rdx. Everything a program writes here is checked or made harmless
//! on the way back: selectors and flags by [`UserFrame::sanitize`], the vector state by `FpuState::from_bytes`.

use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use super::action::ActionFlags;
use super::{AltStack, SigInfo, SigSet, SignalAction};
use crate::arch::UserFrame;
use crate::arch::addr::USER_END;
use crate::arch::fpu::{self, FpuState};
use crate::task::Task;
use crate::user::{UserPtr, UserSlice};

/// Words of the frame: 440 bytes.
const WORDS: usize = 55;
/// `ucontext_t`, in words from the frame's start.
const UC: usize = 1;
/// `sigcontext`.
const MC: usize = UC + 5;
const MASK: usize = MC + 32;
const INFO: usize = MASK + 1;
const FPSTATE: usize = MC + 23;

/// `UC_FP_XSTATE`: the vector state is in XSAVE format.
const UC_FP_XSTATE: u64 = 1;
/// `UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`: the stack segment is saved and restored.
const UC_SS: u64 = 2 | 4;

/// `FP_XSTATE_MAGIC1`, `FP_XSTATE_MAGIC2` of asm/sigcontext.h.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Where the software-reserved bytes of the FXSAVE area begin.
const SW_RESERVED: usize = 464;
const FXSAVE_BYTES: usize = 512;

/// `SS_DISABLE`.
pub const SS_DISABLE: u32 = 2;
/// `SS_ONSTACK`.
pub const SS_ONSTACK: u32 = 1;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: u32 = 1 << 31;

/// The red zone below the stack pointer (x86-64 psABI, 3.2.2).
const RED_ZONE: usize = 128;

/// What the processor said about the last fault of a thread, for the frame: error code, trap number, address.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultRegisters {
    /// Error code.
    pub error: u64,
    /// Vector.
    pub trap: u64,
    /// CR2.
    pub cr2: u64,
}

/// Chooses where the frame and the vector state go: their addresses, or `None` when the alternate stack is too small.
fn place(sp: usize, alt: AltStack, wants_alt: bool, vector_bytes: usize) -> Option<(usize, usize)> {
    let was_on_alt = alt.contains(sp);
    let mut top = sp.wrapping_sub(RED_ZONE);
    let enters_alt = wants_alt && alt.size > 0 && !was_on_alt;
    if enters_alt {
        top = alt.base.wrapping_add(alt.size);
    }
    let vectors = top.wrapping_sub(vector_bytes) & !63;
    let frame = (vectors.wrapping_sub(WORDS * 8) & !15).wrapping_sub(8);
    if (enters_alt || was_on_alt) && !alt.contains(frame) {
        return None;
    }
    (frame < USER_END && vectors < USER_END).then_some((frame, vectors))
}

/// Bytes of the vector state in the frame: with the format's magic behind it if it has one.
fn vector_bytes() -> usize {
    fpu::user_size() + if fpu::xfeatures() != 0 { 4 } else { 0 }
}

/// The vector state as the frame holds it.
fn vectors_to_bytes(state: &FpuState) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(vector_bytes()).map_err(|_| Errno::ENOMEM)?;
    bytes.extend_from_slice(state.as_bytes());
    if fpu::xfeatures() != 0 {
        let size = bytes.len() as u32;
        bytes.extend_from_slice(&MAGIC2.to_le_bytes());
        let reserved = &mut bytes[SW_RESERVED..FXSAVE_BYTES];
        reserved.fill(0);
        reserved[0..4].copy_from_slice(&MAGIC1.to_le_bytes());
        reserved[4..8].copy_from_slice(&(size + 4).to_le_bytes());
        reserved[8..16].copy_from_slice(&fpu::xfeatures().to_le_bytes());
        reserved[16..20].copy_from_slice(&size.to_le_bytes());
    }
    Ok(bytes)
}

/// Writes the frame and points the registers to the handler.
///
/// # Errors
/// `EFAULT` when the stack is not writable or the alternate stack too small; `ENOMEM`.
pub(super) fn push(task: &Task, frame: &mut UserFrame, info: &SigInfo, action: &SignalAction, mask: SigSet) -> Result<()> {
    if !action.flags.contains(ActionFlags::RESTORER) {
        // x86-64 has no other way back (Linux, setup_rt_frame).
        return Err(Errno::EFAULT);
    }
    let alt = task.signals.alt_stack();
    let (at, vectors_at) =
        place(frame.rsp as usize, alt, action.flags.contains(ActionFlags::ONSTACK), vector_bytes()).ok_or(Errno::EFAULT)?;

    let mut state = FpuState::try_new().ok_or(Errno::ENOMEM)?;
    state.save_user(frame);
    let vectors = vectors_to_bytes(&state)?;
    UserSlice::new(vectors_at, vectors.len()).ok_or(Errno::EFAULT)?.write_from(&vectors)?;

    let fault = task.signals.thread.lock().fault;
    let mut words = [0u64; WORDS];
    words[0] = action.restorer as u64;
    words[UC] = UC_SS | if fpu::xfeatures() != 0 { UC_FP_XSTATE } else { 0 };
    words[UC + 2] = alt.base as u64;
    words[UC + 3] = u64::from(alt.flags());
    words[UC + 4] = alt.size as u64;
    registers_to_words(frame, &mut words[MC..MASK]);
    words[MC + 19] = fault.error;
    words[MC + 20] = fault.trap;
    words[MC + 21] = mask.0;
    words[MC + 22] = fault.cr2;
    words[FPSTATE] = vectors_at as u64;
    words[MASK] = mask.0;
    words[INFO..INFO + 16].copy_from_slice(&info.to_user());
    UserPtr::<[u64; WORDS]>::new(at).write(words)?;

    if alt.autodisarm {
        task.signals.set_alt_stack(AltStack::default());
    }
    // A handler starts with a clean vector state, as a program does.
    FpuState::try_new().ok_or(Errno::ENOMEM)?.load_user(frame);
    frame.rip = action.handler as u64;
    frame.rsp = at as u64;
    frame.rdi = info.signo as u64;
    frame.rsi = (at + INFO * 8) as u64;
    frame.rdx = (at + UC * 8) as u64;
    frame.rax = 0;
    // Direction, resume and trap flag.
    frame.rflags &= !(1 << 10 | 1 << 16 | 1 << 8);
    frame.sanitize();
    Ok(())
}

/// Takes the frame at the stack pointer back: registers, mask, alternate stack, vector state. Returns what the program finds in rax.
///
/// # Errors
/// `EFAULT` when there is no frame there; the caller raises SIGSEGV.
pub fn pop(task: &Task, frame: &mut UserFrame) -> Result<u64> {
    // The handler's `ret` has taken the return address.
    let at = (frame.rsp as usize).wrapping_sub(8);
    let words = UserPtr::<[u64; WORDS]>::new(at).read()?;
    let vectors = words[FPSTATE] as usize;
    let state = if vectors == 0 { FpuState::try_new().ok_or(Errno::ENOMEM)? } else { read_vectors(vectors)? };
    words_to_registers(&words[MC..MASK], frame);
    frame.sanitize();
    if frame.rip as usize >= USER_END {
        return Err(Errno::EFAULT);
    }
    frame.orig_rax = u64::MAX;
    state.load_user(frame);
    super::set_blocked(task, SigSet(words[MASK]));
    // As Linux: what sigaltstack(2) would refuse is ignored here.
    let _ = AltStack::from_words([words[UC + 2], words[UC + 3], words[UC + 4]]).map(|alt| {
        if !task.signals.alt_stack().contains(frame.rsp as usize) {
            task.signals.set_alt_stack(alt);
        }
    });
    Ok(frame.rax)
}

fn read_vectors(at: usize) -> Result<FpuState> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(fpu::user_size()).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(FXSAVE_BYTES, 0);
    UserSlice::new(at, FXSAVE_BYTES).ok_or(Errno::EFAULT)?.read_to(&mut bytes)?;
    if let Some(size) = extended_size(&bytes) {
        let magic2: UserPtr<u32> = UserPtr::new(at + size);
        if magic2.read()? == MAGIC2 {
            bytes.resize(size, 0);
            UserSlice::new(at, size).ok_or(Errno::EFAULT)?.read_to(&mut bytes)?;
        }
    }
    FpuState::from_bytes(&bytes).ok_or(Errno::ENOMEM)
}

/// Size of the whole state when the software-reserved bytes say that it is longer than the FXSAVE area, and has our format.
fn extended_size(fxsave: &[u8]) -> Option<usize> {
    let word = |at: usize| fxsave.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let size = word(SW_RESERVED + 16)? as usize;
    (word(SW_RESERVED)? == MAGIC1 && size == fpu::user_size() && size > FXSAVE_BYTES).then_some(size)
}

fn registers_to_words(f: &UserFrame, out: &mut [u64]) {
    let cs_to_ss = f.cs & 0xffff | (f.ss & 0xffff) << 48;
    let registers = [
        f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15, f.rdi, f.rsi, f.rbp, f.rbx, f.rdx, f.rax, f.rcx, f.rsp, f.rip, f.rflags,
        cs_to_ss,
    ];
    out[..registers.len()].copy_from_slice(&registers);
}

fn words_to_registers(w: &[u64], f: &mut UserFrame) {
    [f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15] = [w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]];
    [f.rdi, f.rsi, f.rbp, f.rbx, f.rdx, f.rax, f.rcx, f.rsp] = [w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15]];
    [f.rip, f.rflags] = [w[16], w[17]];
}

impl AltStack {
    /// `ss_flags` as stored.
    pub fn flags(self) -> u32 {
        (if self.size == 0 { SS_DISABLE } else { 0 }) | if self.autodisarm { SS_AUTODISARM } else { 0 }
    }

    /// From `stack_t` as three words: base, flags, size (sigaltstack(2)).
    ///
    /// # Errors
    /// `EINVAL` for unknown flags, `ENOMEM` when smaller than `MINSIGSTKSZ`.
    pub fn from_words(words: [u64; 3]) -> Result<AltStack> {
        let flags = words[1] as u32;
        let mode = flags & !SS_AUTODISARM;
        if mode != 0 && mode != SS_ONSTACK && mode != SS_DISABLE {
            return Err(Errno::EINVAL);
        }
        if mode == SS_DISABLE {
            return Ok(AltStack::default());
        }
        // `MINSIGSTKSZ` is 2048.
        if words[2] < 2048 {
            return Err(Errno::ENOMEM);
        }
        Ok(AltStack { base: words[0] as usize, size: words[2] as usize, autodisarm: flags & SS_AUTODISARM != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALT: AltStack = AltStack { base: 0x10_0000, size: 0x4000, autodisarm: false };

    #[test]
    fn frames_lie_below_the_red_zone_and_are_aligned_as_after_a_call() {
        let (frame, vectors) = place(0x7000_1237, AltStack::default(), true, 836).expect("there is room");
        assert_eq!(vectors % 64, 0);
        assert_eq!((frame + 8) % 16, 0);
        assert!(vectors + 836 <= 0x7000_1237 - 128 && frame + WORDS * 8 <= vectors);
    }

    #[test]
    fn the_alternate_stack_is_entered_once_and_must_suffice() {
        let (frame, _) = place(0x7000_0000, ALT, true, 836).expect("there is room");
        assert!(ALT.contains(frame));
        let (inner, _) = place(frame, ALT, true, 836).expect("there is room");
        assert!(inner < frame && ALT.contains(inner));
        assert_eq!(place(ALT.base + 600, ALT, true, 836), None);
        assert!(!ALT.contains(place(0x7000_0000, ALT, false, 836).expect("there is room").0));
    }

    #[test]
    fn a_stack_pointer_near_zero_has_no_frame() {
        assert_eq!(place(64, AltStack::default(), false, 836), None);
    }

    #[test]
    fn the_layout_is_that_of_linux() {
        // offsetof(struct rt_sigframe, uc.uc_mcontext), ..uc_sigmask, ..info, and sizeof.
        assert_eq!((MC * 8, MASK * 8, INFO * 8, WORDS * 8), (48, 304, 312, 440));
        assert_eq!((FPSTATE - MC) * 8, 184);
    }

    #[test]
    fn registers_survive_the_words() {
        let mut frame = UserFrame::new_user(0x1000, 0x2000);
        (frame.r8, frame.r15, frame.rdi, frame.rcx, frame.rbp) = (1, 2, 3, 4, 5);
        let mut words = [0; 32];
        registers_to_words(&frame, &mut words);
        let mut back = UserFrame::new_user(0, 0);
        words_to_registers(&words, &mut back);
        assert_eq!((back.r8, back.r15, back.rdi, back.rcx, back.rbp, back.rip, back.rsp), (1, 2, 3, 4, 5, 0x1000, 0x2000));
    }

    #[test]
    fn sigaltstack_arguments() {
        assert_eq!(AltStack::from_words([0x1000, 0, 100]), Err(Errno::ENOMEM));
        assert_eq!(AltStack::from_words([0x1000, 4, 8192]), Err(Errno::EINVAL));
        assert_eq!(AltStack::from_words([0x1000, 2, 0]), Ok(AltStack::default()));
        assert_eq!(AltStack::from_words([0x1000, 0, 8192]).map(AltStack::flags), Ok(0));
        assert_eq!(AltStack::default().flags(), SS_DISABLE);
    }
}
