//! The one-shot timer of the local APIC.

use core::sync::atomic::{AtomicU8, Ordering};

use super::calibrate::{self, APIC_HZ};
use super::{monotonic_ns, tsc_params};
use crate::cpu::{self, IrqGuard, Msr};
use crate::irq::TIMER_VECTOR;
use crate::irq::apic::{self, Register};

const OFF: u8 = 0;
const COUNTER: u8 = 1;
const DEADLINE: u8 = 2;
static MODE: AtomicU8 = AtomicU8::new(OFF);

/// Makes [`Irq::Timer`](crate::Irq::Timer) arrive when [`monotonic_ns`] reaches the deadline, at once if it has, or never. It may arrive early (a counter
/// holds 4 seconds): whoever handles it looks at the clock and sets it again. One deadline per CPU; a new one replaces the old.
pub fn set_timer(deadline_ns: Option<u64>) {
    if !cfg!(ukc_kernel) {
        return;
    }
    let _irq = IrqGuard::new();
    match (MODE.load(Ordering::Relaxed), deadline_ns) {
        (OFF, None) => {}
        (OFF, Some(_)) => {
            // Calibration may use the counter, so it comes first.
            let now = monotonic_ns();
            apic::enable();
            let mode = if cpu::features().tsc_deadline {
                apic::write(Register::TimerVector, 2 << 17 | u32::from(TIMER_VECTOR));
                // A memory-mapped write of the mode must be done before the first deadline (Intel SDM vol. 3, 11.5.4.1).
                core::sync::atomic::fence(Ordering::SeqCst);
                DEADLINE
            } else {
                apic::write(Register::Divide, 0b1011);
                COUNTER
            };
            MODE.store(mode, Ordering::Relaxed);
            let _ = now;
            arm(mode, deadline_ns);
        }
        (mode, _) => arm(mode, deadline_ns),
    }
}

fn arm(mode: u8, deadline_ns: Option<u64>) {
    if mode == DEADLINE {
        // 0 disarms (Intel SDM vol. 3, 11.5.4.1).
        let tsc = deadline_ns.map_or(0, |ns| tsc_params().tsc_at(ns).max(1));
        // SAFETY: raises the timer's vector at that time.
        unsafe { cpu::write_msr(Msr::TscDeadline, tsc) };
        return;
    }
    calibrate::before_timer_change();
    let (vector, count) = match deadline_ns {
        Some(deadline) => {
            let ns = u128::from(deadline.saturating_sub(monotonic_ns()));
            let count = (ns * u128::from(APIC_HZ) / 1_000_000_000).clamp(1, u128::from(u32::MAX)) as u32;
            (u32::from(TIMER_VECTOR), count)
        }
        // Masked, but counting, for calibration.
        None => (1 << 16, u32::MAX),
    };
    apic::write(Register::TimerVector, vector);
    apic::write(Register::InitialCount, count);
    calibrate::timer_changed(count);
}
