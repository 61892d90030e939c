//! x87, MXCSR and the upper halves of vector registers: what [`UserFrame`] does not hold.
//!
//! Kernel code is baseline x86-64 and changes only xmm0 to xmm15, so this state is saved when another task is about to run and for signal frames, not at
//! every entry. The format is that of XSAVE (Intel SDM vol. 1, chapter 13), or of FXSAVE on processors without it, which is also what Linux puts into
//! signal frames.

use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::frame::UserFrame;

const FXSAVE_BYTES: usize = 512;
const HEADER_BYTES: usize = 64;
const FCW: usize = 0;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;

const X87: u64 = 1;
const SSE: u64 = 2;
#[cfg(ukc_kernel)]
/// x87, SSE, AVX, AVX-512 (opmask, upper halves, upper registers).
const WANTED: u64 = X87 | SSE | 4 | 0xe0;

/// Size of the state; 512 means FXSAVE.
static SIZE: AtomicU32 = AtomicU32::new(FXSAVE_BYTES as u32);
/// XCR0: the components in use; 0 means FXSAVE.
static COMPONENTS: AtomicU64 = AtomicU64::new(0);

/// Enables XSAVE with all components we know.
///
/// # Safety
/// Once per CPU at start, in ring 0.
#[cfg(ukc_kernel)]
pub(crate) unsafe fn init() {
    use crate::cpu::cpuid;
    if cpuid(1, 0).2 >> 26 & 1 == 0 {
        return;
    }
    // SAFETY: CPUID says that the processor has XSAVE, and the mask is a subset of what it supports. (AVX-512 is taken whole or not at all.)
    unsafe {
        let cr4: u64;
        core::arch::asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags));
        core::arch::asm!("mov cr4, {}", in(reg) cr4 | 1 << 18, options(nostack, preserves_flags));
        let (low, _, _, high) = cpuid(0xd, 0);
        let mut mask = (u64::from(high) << 32 | u64::from(low)) & WANTED;
        if mask & 0xe4 != 0xe4 {
            mask &= !0xe0;
        }
        core::arch::asm!("xsetbv", in("ecx") 0, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nomem, nostack, preserves_flags));
        COMPONENTS.store(mask, Ordering::Relaxed);
        SIZE.store(cpuid(0xd, 0).1, Ordering::Relaxed);
    }
}

/// Bytes of a state, as [`FpuState::as_bytes`] gives it.
pub fn user_size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
}

/// The XSAVE components in use (XCR0), 0 when the format is FXSAVE.
pub fn xfeatures() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

/// A saved state, 64-byte aligned.
#[derive(Debug)]
pub struct FpuState {
    area: NonNull<u8>,
}

// SAFETY: it owns its memory.
unsafe impl Send for FpuState {}
// SAFETY: shared references only read.
unsafe impl Sync for FpuState {}

fn layout() -> Layout {
    Layout::from_size_align(user_size(), 64).expect("a few KiB")
}

impl FpuState {
    /// Returns the state a program starts with (psABI 3.4.1: all exceptions masked, round to nearest, extended precision).
    pub fn new_default() -> FpuState {
        FpuState::try_new().unwrap_or_else(|| handle_alloc_error(layout()))
    }

    /// As [`new_default`](Self::new_default); `None` without memory.
    pub fn try_new() -> Option<FpuState> {
        let mut state = FpuState::zeroed()?;
        state.bytes_mut()[FCW..FCW + 2].copy_from_slice(&0x37fu16.to_le_bytes());
        state.set_u32(MXCSR, 0x1f80);
        Some(state)
    }

    fn zeroed() -> Option<FpuState> {
        // SAFETY: the layout has a size.
        NonNull::new(unsafe { alloc_zeroed(layout()) }).map(|area| FpuState { area })
    }

    /// As `clone`; `None` without memory.
    pub fn try_clone(&self) -> Option<FpuState> {
        let mut copy = FpuState::zeroed()?;
        copy.bytes_mut().copy_from_slice(self.as_bytes());
        Some(copy)
    }

    /// Saves this CPU's state. (Its xmm part is the kernel's and worthless; see [`save_user`](Self::save_user).)
    pub fn save(&mut self) {
        let mask = xfeatures();
        // SAFETY: the area is as large as the components in use need, and aligned.
        unsafe {
            if mask == 0 {
                core::arch::asm!("fxsave64 [{}]", in(reg) self.area.as_ptr(), options(nostack, preserves_flags));
            } else {
                core::arch::asm!(
                    "xsave64 [{}]", in(reg) self.area.as_ptr(), in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                    options(nostack, preserves_flags)
                );
            }
        }
    }

    /// Loads this CPU's state.
    pub fn restore(&self) {
        let mask = xfeatures();
        // SAFETY: the area holds a valid state: it was saved by the processor, is the default, or was checked by `from_bytes`. Vector registers are
        // declared as clobbered.
        unsafe {
            if mask == 0 {
                core::arch::asm!("fxrstor64 [{}]", in(reg) self.area.as_ptr(), clobber_abi("sysv64"), options(nostack));
            } else {
                core::arch::asm!(
                    "xrstor64 [{}]", in(reg) self.area.as_ptr(), in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                    clobber_abi("sysv64"), options(nostack)
                );
            }
        }
    }

    /// Saves the whole state of the program whose registers are in `frame`, for a signal frame or a child.
    pub fn save_user(&mut self, frame: &UserFrame) {
        self.save();
        for (i, value) in frame.xmm.iter().enumerate() {
            self.bytes_mut()[XMM + 16 * i..XMM + 16 * i + 16].copy_from_slice(&value.to_le_bytes());
        }
        if xfeatures() != 0 {
            let components = self.u64_at(XSTATE_BV) | SSE;
            self.set_u64(XSTATE_BV, components);
        }
    }

    /// Loads the whole state of the program, its xmm part into `frame`.
    pub fn load_user(&self, frame: &mut UserFrame) {
        self.restore();
        let has_sse = xfeatures() == 0 || self.u64_at(XSTATE_BV) & SSE != 0;
        for (i, value) in frame.xmm.iter_mut().enumerate() {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&self.as_bytes()[XMM + 16 * i..XMM + 16 * i + 16]);
            *value = if has_sse { u128::from_le_bytes(bytes) } else { 0 };
        }
    }

    /// The state in the processor's format.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the area has this size and lives as long as `self`.
        unsafe { core::slice::from_raw_parts(self.area.as_ptr(), user_size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes it unique.
        unsafe { core::slice::from_raw_parts_mut(self.area.as_ptr(), user_size()) }
    }

    /// Returns the state that a program describes (sigreturn), made harmless: unknown components, reserved header bytes and unsupported MXCSR bits, upon
    /// which `xrstor` would fault, are cleared. A description of only the first 512 bytes is an FXSAVE image. `None` when it is shorter, or without memory.
    pub fn from_bytes(bytes: &[u8]) -> Option<FpuState> {
        if bytes.len() < FXSAVE_BYTES {
            return None;
        }
        let mut state = FpuState::zeroed()?;
        let size = user_size();
        let full = bytes.len() >= size && size > FXSAVE_BYTES;
        let taken = if full { size } else { FXSAVE_BYTES };
        state.bytes_mut()[..taken].copy_from_slice(&bytes[..taken]);
        let mxcsr = state.u32_at(MXCSR) & mxcsr_mask();
        state.set_u32(MXCSR, mxcsr);
        if size > FXSAVE_BYTES {
            let components = if full { state.u64_at(XSTATE_BV) & xfeatures() } else { X87 | SSE };
            state.set_u64(XSTATE_BV, components);
            // Compaction and the reserved words of the header must be zero for the standard form.
            state.bytes_mut()[XCOMP_BV..FXSAVE_BYTES + HEADER_BYTES].fill(0);
        }
        Some(state)
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.as_bytes()[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.bytes_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn set_u64(&mut self, at: usize, value: u64) {
        self.bytes_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// MXCSR bits that may be set (Intel SDM vol. 1, 11.6.6): FXSAVE stores the mask, zero meaning 0xffbf.
fn mxcsr_mask() -> u32 {
    #[repr(align(16))]
    struct Area([u8; FXSAVE_BYTES]);
    let mut area = Area([0; FXSAVE_BYTES]);
    // SAFETY: 512 aligned bytes.
    unsafe { core::arch::asm!("fxsave64 [{}]", in(reg) &mut area, options(nostack, preserves_flags)) };
    match u32::from_le_bytes([area.0[MXCSR_MASK], area.0[MXCSR_MASK + 1], area.0[MXCSR_MASK + 2], area.0[MXCSR_MASK + 3]]) {
        0 => 0xffbf,
        mask => mask,
    }
}

impl Clone for FpuState {
    fn clone(&self) -> FpuState {
        self.try_clone().unwrap_or_else(|| handle_alloc_error(layout()))
    }
}

impl Drop for FpuState {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the size is fixed before the first allocation.
        unsafe { dealloc(self.area.as_ptr(), layout()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmm_of_the_frame_is_part_of_the_state() {
        let mut frame = UserFrame::new_user(0, 0);
        frame.xmm[15] = 0x0123_4567_89ab_cdef << 64 | 5;
        let mut state = FpuState::new_default();
        state.save_user(&frame);
        let mut other = UserFrame::new_user(0, 0);
        state.clone().load_user(&mut other);
        assert_eq!(other.xmm, frame.xmm);
    }

    #[test]
    fn wild_bytes_become_a_state_that_loads() {
        assert!(FpuState::from_bytes(&[0xff; 511]).is_none());
        let state = FpuState::from_bytes(&[0xff; 512]).unwrap();
        assert_eq!(state.u32_at(MXCSR) & !mxcsr_mask(), 0);
        // Loading it would fault if MXCSR had reserved bits; its own exceptions are all masked.
        state.restore();
        FpuState::new_default().restore();
    }
}
