//! Clocks and timers.
//!
//! Two clocks: monotonic nanoseconds since boot, and the wall clock, which is the same counter plus an offset that clock_settime(2) may change.
//!
//! All timers of the machine lie in one queue; the architecture's one-shot timer is set to the earliest of them or to the end of the running task's
//! time slice. Nothing ticks while nothing is due.

pub mod queue;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use libos_abi::{Errno, Result};

use crate::sync::SpinLock;
use crate::task::wait::{WaitQueue, Wake};

pub use queue::TimerId;
use queue::TimerQueue;

/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;

static TIMERS: SpinLock<TimerQueue<Arc<dyn Wake>>> = SpinLock::new(TimerQueue::new());

/// What the architecture's timer is set to; `u64::MAX` is not at all.
static PROGRAMMED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Nanoseconds to add to the monotonic clock for `CLOCK_REALTIME`; 0 means not yet asked for, because reading the hardware's clock takes time at boot.
static WALL_OFFSET: AtomicU64 = AtomicU64::new(0);

/// Woken when the wall clock is set (`TFD_TIMER_CANCEL_ON_SET`).
pub static CLOCK_WAS_SET: WaitQueue = WaitQueue::new();

/// Nanoseconds since boot; never goes backwards.
pub fn monotonic_ns() -> u64 {
    let now = crate::arch::time::monotonic_ns();
    // Looking at the clock may have refined its scale.
    crate::exec::vdso::follow_clock();
    now
}

/// As [`monotonic_ns`], but 0 as long as nobody needed a clock: for accounting, which is no reason to calibrate one (about a million instructions where
/// the processor does not tell its frequency). A single program that never asks for the time never pays for it.
pub fn accounting_ns() -> u64 {
    if crate::arch::time::is_calibrated() { monotonic_ns() } else { 0 }
}

/// Nanoseconds since the epoch (`CLOCK_REALTIME`).
pub fn realtime_ns() -> u64 {
    wall_offset_ns().wrapping_add(monotonic_ns())
}

/// Realtime minus monotonic clock, in nanoseconds.
pub fn wall_offset_ns() -> u64 {
    match WALL_OFFSET.load(Ordering::Relaxed) {
        0 => {
            let offset = crate::arch::time::wall_clock_at_boot_ns().max(1);
            // Whoever is first decides; clock_settime may have been.
            let offset = WALL_OFFSET.compare_exchange(0, offset, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(offset);
            crate::exec::vdso::publish();
            offset
        }
        offset => offset,
    }
}

/// As [`wall_offset_ns`], but 0 when nobody has asked for it yet.
pub fn known_wall_offset_ns() -> u64 {
    WALL_OFFSET.load(Ordering::Relaxed)
}

/// Sets the wall clock (clock_settime(2)).
pub fn set_realtime_ns(now_ns: u64) {
    WALL_OFFSET.store(now_ns.wrapping_sub(monotonic_ns()).max(1), Ordering::Relaxed);
    crate::exec::vdso::publish();
    CLOCK_WAS_SET.wake_all();
}

/// Arranges for `wake` to be called, in interrupt context, once the monotonic clock reaches the deadline.
pub fn start_timer(deadline_ns: u64, wake: Arc<dyn Wake>) -> TimerId {
    let id = TIMERS.lock().add(deadline_ns, wake);
    program(deadline_ns);
    id
}

/// Takes that back. Returns whether it was still to come.
pub fn cancel_timer(id: TimerId) -> bool {
    // The architecture's timer stays as it is: one early interrupt costs less than reprogramming at each cancel. The value is dropped outside the lock.
    let cancelled = TIMERS.lock().cancel(id);
    cancelled.is_some()
}

/// Makes sure that the timer fires no later than the deadline.
pub(crate) fn program(deadline_ns: u64) {
    if deadline_ns < PROGRAMMED.load(Ordering::Relaxed) {
        PROGRAMMED.store(deadline_ns, Ordering::Relaxed);
        crate::arch::time::set_timer(Some(deadline_ns));
    }
}

/// The architecture's timer has fired: calls everybody who is due and sets it anew.
pub(crate) fn on_interrupt() {
    PROGRAMMED.store(u64::MAX, Ordering::Relaxed);
    loop {
        let now = monotonic_ns();
        // The guard must be gone before `wake` runs, which may take other locks or start a timer.
        let due = TIMERS.lock().pop_expired(now);
        match due {
            Some(wake) => wake.wake(),
            None => break,
        }
    }
    let next = TIMERS.lock().next().unwrap_or(u64::MAX).min(crate::task::sched::slice_end_ns());
    if next != u64::MAX {
        program(next);
    }
}

/// Seconds and nanoseconds, as clock_gettime(2) has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    pub nsec: i64,
}

impl Timespec {
    /// From nanoseconds.
    pub fn from_ns(ns: u64) -> Timespec {
        Timespec { sec: (ns / SECOND_NS) as i64, nsec: (ns % SECOND_NS) as i64 }
    }

    /// In nanoseconds; beyond 584 years it saturates.
    ///
    /// # Errors
    /// `EINVAL` when negative or not normalised.
    pub fn to_ns(self) -> Result<u64> {
        if self.sec < 0 || !(0..SECOND_NS as i64).contains(&self.nsec) {
            return Err(Errno::EINVAL);
        }
        Ok((self.sec as u64).saturating_mul(SECOND_NS).saturating_add(self.nsec as u64))
    }
}

/// Seconds and microseconds, as gettimeofday(2) has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Timeval {
    /// Seconds.
    pub sec: i64,
    /// Microseconds, below 10^6.
    pub usec: i64,
}

impl Timeval {
    /// From nanoseconds, rounded down.
    pub fn from_ns(ns: u64) -> Timeval {
        Timeval { sec: (ns / SECOND_NS) as i64, usec: (ns % SECOND_NS / 1000) as i64 }
    }

    /// In nanoseconds.
    ///
    /// # Errors
    /// `EINVAL` when negative or not normalised.
    pub fn to_ns(self) -> Result<u64> {
        if !(0..1_000_000).contains(&self.usec) {
            return Err(Errno::EINVAL);
        }
        Timespec { sec: self.sec, nsec: self.usec * 1000 }.to_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_convert_and_refuse_what_is_not_normalised() {
        assert_eq!(Timespec { sec: 1, nsec: 5 }.to_ns(), Ok(1_000_000_005));
        assert_eq!(Timespec { sec: 0, nsec: 1_000_000_000 }.to_ns(), Err(Errno::EINVAL));
        assert_eq!(Timespec { sec: -1, nsec: 0 }.to_ns(), Err(Errno::EINVAL));
        assert_eq!(Timespec { sec: i64::MAX, nsec: 0 }.to_ns(), Ok(u64::MAX));
        assert_eq!(Timeval { sec: 0, usec: 1_000_000 }.to_ns(), Err(Errno::EINVAL));
        assert_eq!(Timeval::from_ns(2_500_000_999), Timeval { sec: 2, usec: 500_000 });
        assert_eq!(Timespec::from_ns(2_500_000_999), Timespec { sec: 2, nsec: 500_000_999 });
    }
}
