//! Clocks and the one-shot timer.
//!
//! The monotonic clock is the time stamp counter, scaled. Its frequency is found at first use (`calibrate`), measured ones are refined later; a refinement
//! changes the slope from now on, so the clock never goes backwards. The kernel's start is 0.

mod calibrate;
mod rtc;
mod scale;
mod timer;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cpu;
pub use scale::TscParams;
pub use timer::set_timer;

/// The scale, readable without a lock: `SEQUENCE` is odd while it changes, 0 before calibration.
static SEQUENCE: AtomicU32 = AtomicU32::new(0);
static MULT_SHIFT: AtomicU64 = AtomicU64::new(0);
static BASE_TSC: AtomicU64 = AtomicU64::new(0);
static BASE_NS: AtomicU64 = AtomicU64::new(0);

/// Remembers when the kernel started.
#[cfg(ukc_kernel)]
pub(crate) fn started() {
    BASE_TSC.store(cpu::tsc(), Ordering::Relaxed);
}

/// Nanoseconds since the kernel started.
pub fn monotonic_ns() -> u64 {
    if !cfg!(ukc_kernel) {
        return host_ns();
    }
    let params = tsc_params();
    let now = cpu::tsc();
    if calibrate::wants_refinement(now) {
        calibrate::refine();
    }
    params.ns_at(now)
}

/// Returns how to compute [`monotonic_ns`] from the time stamp counter, for the vDSO. They change when [`tsc_generation`] does.
pub fn tsc_params() -> TscParams {
    loop {
        let sequence = SEQUENCE.load(Ordering::Acquire);
        if sequence == 0 {
            calibrate::first();
            continue;
        }
        let mult_shift = MULT_SHIFT.load(Ordering::Relaxed);
        let params = TscParams {
            mult: mult_shift as u32,
            shift: (mult_shift >> 32) as u32,
            base_tsc: BASE_TSC.load(Ordering::Relaxed),
            base_ns: BASE_NS.load(Ordering::Relaxed),
        };
        core::sync::atomic::fence(Ordering::Acquire);
        if sequence & 1 == 0 && SEQUENCE.load(Ordering::Relaxed) == sequence {
            return params;
        }
        cpu::relax();
    }
}

/// Whether anybody has needed a clock yet, so that reading it costs no calibration.
pub fn is_calibrated() -> bool {
    !cfg!(ukc_kernel) || SEQUENCE.load(Ordering::Acquire) != 0
}

/// A number that changes with [`tsc_params`]; 0 before they are known well enough to be shown to programs, which look at the counter without the kernel
/// and so would never learn of better ones.
pub fn tsc_generation() -> u32 {
    if calibrate::is_settled() { SEQUENCE.load(Ordering::Acquire) } else { 0 }
}

/// Publishes a new scale. One writer at a time, interrupts off.
fn publish(params: TscParams) {
    let sequence = SEQUENCE.load(Ordering::Relaxed);
    // The first publication goes from 0 to 2 by way of 1, too.
    SEQUENCE.store(sequence.wrapping_add(1), Ordering::Relaxed);
    core::sync::atomic::fence(Ordering::Release);
    MULT_SHIFT.store(u64::from(params.mult) | u64::from(params.shift) << 32, Ordering::Relaxed);
    BASE_TSC.store(params.base_tsc, Ordering::Relaxed);
    BASE_NS.store(params.base_ns, Ordering::Relaxed);
    SEQUENCE.store(sequence.wrapping_add(2).max(2), Ordering::Release);
}

/// Unix time in nanoseconds when the kernel started, from kvm-clock or the CMOS clock (whole seconds); 0 when the machine has neither.
pub fn wall_clock_at_boot_ns() -> u64 {
    static CACHED: AtomicU64 = AtomicU64::new(0);
    if !cfg!(ukc_kernel) {
        return host_wall_ns();
    }
    let cached = CACHED.load(Ordering::Relaxed);
    if cached != 0 {
        return cached;
    }
    let now = calibrate::kvm_wall_clock_at_boot().or_else(|| rtc::read().map(|unix| (unix * 1_000_000_000).saturating_sub(monotonic_ns())));
    let now = now.unwrap_or(0);
    CACHED.store(now, Ordering::Relaxed);
    now
}

#[cfg(not(ukc_kernel))]
mod host {
    #[cfg(not(test))]
    use std::sync::OnceLock;
    #[cfg(not(test))]
    use std::time::{Instant, SystemTime, UNIX_EPOCH};
    #[cfg(test)]
    use std::{
        sync::OnceLock,
        time::{Instant, SystemTime, UNIX_EPOCH},
    };

    static START: OnceLock<Instant> = OnceLock::new();

    pub(super) fn host_ns() -> u64 {
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    pub(super) fn host_wall_ns() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        now.saturating_sub(host_ns())
    }
}
#[cfg(not(ukc_kernel))]
use host::{host_ns, host_wall_ns};

#[cfg(ukc_kernel)]
fn host_ns() -> u64 {
    0
}
#[cfg(ukc_kernel)]
fn host_wall_ns() -> u64 {
    0
}
