//! Random numbers of the processor.

/// Returns 64 bits of RDRAND, or `None` when the processor has none or its generator stays dry (ten tries; Intel SDM vol. 1, 7.3.17.1).
pub fn rdrand() -> Option<u64> {
    if !crate::cpu::features().rdrand {
        return None;
    }
    (0..10).find_map(|_| {
        let (value, ok): (u64, u8);
        // SAFETY: CPUID says that the instruction exists.
        unsafe { core::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) };
        (ok != 0).then_some(value)
    })
}

/// Returns 64 bits of RDSEED, or `None`.
pub fn rdseed() -> Option<u64> {
    if !crate::cpu::features().rdseed {
        return None;
    }
    (0..100).find_map(|_| {
        let (value, ok): (u64, u8);
        // SAFETY: as above.
        unsafe { core::arch::asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) };
        (ok != 0).then_some(value)
    })
}

/// Returns bits that are hard to guess when nothing better exists: the jitter of 64 reads of the time stamp counter, mixed. Not for keys by itself.
pub fn entropy_mix() -> u64 {
    let mut state = crate::cpu::tsc() ^ 0x9e37_79b9_7f4a_7c15;
    for _ in 0..64 {
        state = splitmix(state ^ crate::cpu::tsc());
    }
    state
}

/// One round of SplitMix64 (Steele, Lea, Flood 2014).
fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    #[test]
    fn splitmix_matches_its_reference() {
        // First output of the reference implementation with seed 0.
        assert_eq!(super::splitmix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn two_mixes_differ() {
        assert_ne!(super::entropy_mix(), super::entropy_mix());
    }
}
