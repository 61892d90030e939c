//! From counter ticks to nanoseconds and back.

/// `ns = base_ns + ((tsc - base_tsc) * mult >> shift)`, with a product of up to 96 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TscParams {
    /// Nanoseconds per tick, times 2^shift.
    pub mult: u32,
    /// At most 63.
    pub shift: u32,
    /// Counter at `base_ns`.
    pub base_tsc: u64,
    /// Nanoseconds since the kernel started at `base_tsc`.
    pub base_ns: u64,
}

impl TscParams {
    /// Returns the scale of a counter with a frequency, as exact as 32 bits allow.
    pub fn from_hz(hz: u64, base_tsc: u64, base_ns: u64) -> TscParams {
        let hz = hz.max(1);
        let mut shift = 63;
        let mut mult = (1_000_000_000u128 << shift) / u128::from(hz);
        while mult > u128::from(u32::MAX) && shift > 0 {
            mult >>= 1;
            shift -= 1;
        }
        TscParams { mult: mult.min(u128::from(u32::MAX)) as u32, shift, base_tsc, base_ns }
    }

    /// Nanoseconds at a counter value; values before the base count as the base.
    pub fn ns_at(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.base_tsc);
        self.base_ns + ((u128::from(ticks) * u128::from(self.mult)) >> self.shift) as u64
    }

    /// Counter value at which the clock shows `ns`, rounded up.
    pub fn tsc_at(&self, ns: u64) -> u64 {
        let ns = ns.saturating_sub(self.base_ns);
        let ticks = ((u128::from(ns) << self.shift) + u128::from(self.mult) - 1) / u128::from(self.mult.max(1));
        self.base_tsc.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_both_ways() {
        for hz in [1_000_000u64, 999_999_999, 1_000_000_000, 2_445_403_000, 5_000_000_001] {
            let p = TscParams::from_hz(hz, 1000, 500);
            assert_eq!(p.ns_at(1000), 500);
            assert_eq!(p.ns_at(0), 500, "never before the base");
            // An hour, within 2 parts in 10^9.
            let hour = p.ns_at(1000 + hz * 3600) - 500;
            assert!(hour.abs_diff(3_600_000_000_000) <= 7200, "{hz}: {hour}");
            let at = p.tsc_at(1_000_500);
            assert!(p.ns_at(at) >= 1_000_500 && p.ns_at(at - 1) <= 1_000_500, "{hz}");
        }
    }

    #[test]
    fn extreme_counters_do_not_overflow() {
        let p = TscParams::from_hz(3_000_000_000, 0, 0);
        assert!(p.ns_at(u64::MAX) > 1 << 61);
        assert_eq!(TscParams::from_hz(1_000_000_000, 0, 0).tsc_at(u64::MAX), u64::MAX);
    }
}
