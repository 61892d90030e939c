//! Where the parts of a program go. The numbers are Linux', so that programs which know them (sanitizers, JITs, Go) find what they expect.
//!
//! ```text
//! 0x0000000000400000   a program that is not position-independent (its own choice)
//! 0x0000555555554000+  a position-independent program; the program break follows either
//!                      ...
//!             ... mmap grows down from here to lower addresses
//!             gap of the stack limit, and the distance the stack was moved by
//! 0x00007ff...         stack, vDSO just above it
//! 0x00007ffffffff000   end
//! ```

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::addr::USER_END;
use crate::mm::PAGE_SIZE;

/// Two thirds of the address space (`ELF_ET_DYN_BASE`).
const PROGRAM_BASE: usize = 0x5555_5555_4000;

/// Random bits of page numbers, as on Linux: mmap and programs 28, the stack 22 (16 GiB), the program break 13 (32 MiB).
const MMAP_BITS: u32 = 28;
const STACK_BITS: u32 = 22;
const BRK_BITS: u32 = 13;

/// Between the stack's top and the vDSO: nothing of the stack's page may be the vDSO's.
const VDSO_GAP: usize = PAGE_SIZE;

/// Room above the stack for the vDSO and its data.
const VDSO_ROOM: usize = 16 * PAGE_SIZE;

/// Addresses of one program's parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Where a position-independent program starts.
    pub program_base: usize,
    /// Bytes between the program's end and the program break.
    pub brk_offset: usize,
    /// Mappings go below this.
    pub mmap_top: usize,
    /// Behind the highest byte of the stack; a multiple of 16.
    pub stack_top: usize,
    /// Where the vDSO goes.
    pub vdso_base: usize,
    /// For the program (`AT_RANDOM`).
    pub random_bytes: [u8; 16],
}

impl Layout {
    /// Returns a layout with fresh random numbers.
    pub fn random(stack_limit: u64) -> Layout {
        let mut generator = Generator::new();
        let mut next = || generator.next();
        Layout::from_random([next(), next(), next(), next(), next(), next()], stack_limit)
    }

    fn from_random(random: [u64; 6], stack_limit: u64) -> Layout {
        let pages = |value: u64, bits: u32| (value & ((1 << bits) - 1)) as usize * PAGE_SIZE;
        let stack_end = USER_END - VDSO_ROOM - pages(random[0], STACK_BITS);
        // Linux also moves the stack inside its page, so that neighbouring processes do not share cache sets.
        let stack_top = stack_end - (random[0] >> 32 & 0x1ff) as usize * 16;
        // The gap holds the stack at its limit and the largest random distance, at least 128 MiB and at most five sixths (`mmap_base`).
        let spread = PAGE_SIZE << STACK_BITS;
        let gap = stack_limit.min(USER_END as u64) as usize;
        let gap = (gap + spread + (1 << 20)).clamp(128 << 20, USER_END / 6 * 5).next_multiple_of(PAGE_SIZE);
        let mut random_bytes = [0; 16];
        random_bytes[..8].copy_from_slice(&random[4].to_le_bytes());
        random_bytes[8..].copy_from_slice(&random[5].to_le_bytes());
        Layout {
            program_base: PROGRAM_BASE + pages(random[1], MMAP_BITS),
            brk_offset: pages(random[2], BRK_BITS),
            mmap_top: USER_END - gap - pages(random[3], MMAP_BITS),
            stack_top,
            vdso_base: stack_end + VDSO_GAP,
            random_bytes,
        }
    }
}

/// Numbers that programs cannot guess: hardware randomness when there is some, mixed with a state that all programs share.
struct Generator(u64);

static STATE: AtomicU64 = AtomicU64::new(0);

impl Generator {
    fn new() -> Generator {
        let fresh = crate::arch::rng::rdrand().unwrap_or_else(crate::arch::rng::entropy_mix);
        Generator(fresh ^ STATE.load(Ordering::Relaxed))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        STATE.store(self.0, Ordering::Relaxed);
    }
}

/// `AT_HWCAP`: CPUID 1 EDX. Asked once: under virtualisation CPUID is slow.
pub(super) fn hwcap() -> u32 {
    static CACHED: AtomicU64 = AtomicU64::new(0);
    const KNOWN: u64 = 1 << 32;
    let cached = CACHED.load(Ordering::Relaxed);
    if cached & KNOWN != 0 {
        return cached as u32;
    }
    let (_, _, _, edx) = crate::arch::cpu::cpuid(1, 0);
    CACHED.store(KNOWN | u64::from(edx), Ordering::Relaxed);
    edx
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn parts_never_meet(random in any::<[u64; 6]>(), stack_limit in prop_oneof![Just(8u64 << 20), Just(u64::MAX), any::<u64>()]) {
            let layout = Layout::from_random(random, stack_limit);
            prop_assert_eq!(layout.stack_top % 16, 0);
            prop_assert!(layout.vdso_base.is_multiple_of(PAGE_SIZE) && layout.vdso_base >= layout.stack_top.next_multiple_of(PAGE_SIZE));
            prop_assert!(layout.vdso_base + VDSO_ROOM - VDSO_GAP <= USER_END);
            let usable = stack_limit.min(USER_END as u64 / 6 * 5 - (17 << 30)) as usize;
            prop_assert!(layout.mmap_top.is_multiple_of(PAGE_SIZE) && layout.mmap_top + usable < layout.stack_top);
            prop_assert!(layout.mmap_top > 1 << 40);
            prop_assert!(layout.program_base >= PROGRAM_BASE && layout.program_base < PROGRAM_BASE + (1 << 40) + 1);
        }
    }

    #[test]
    fn two_layouts_differ() {
        let (a, b) = (Layout::random(8 << 20), Layout::random(8 << 20));
        assert!(a.stack_top != b.stack_top || a.mmap_top != b.mmap_top);
        assert_ne!(a.random_bytes, b.random_bytes);
    }
}
