//! Clocks and timers.
//!
//! Two clocks: monotonic nanoseconds since boot, and the wall clock, which is the same counter plus an offset that clock_settime(2) may change.

/// Nanoseconds since boot; never goes backwards.
pub fn monotonic_ns() -> u64 {
    crate::arch::time::monotonic_ns()
}

/// Nanoseconds since the epoch (`CLOCK_REALTIME`).
pub fn realtime_ns() -> u64 {
    crate::arch::time::wall_clock_at_boot_ns().wrapping_add(monotonic_ns())
}
