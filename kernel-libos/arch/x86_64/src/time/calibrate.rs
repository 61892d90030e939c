//! The frequency of the time stamp counter, from the best source there is:
//!
//! 1. kvm-clock (KVM documentation, "KVM-specific MSRs"): the hypervisor's own scale;
//! 2. CPUID 0x15: crystal frequency and ratio;
//! 3. CPUID 0x40000010: the hypervisor's figure in kHz;
//! 4. measured against the APIC timer, which hypervisors run at exactly 1 GHz (QEMU `APIC_BUS_CYCLE_NS`, also KVM's): for 10 microseconds at
//!    first, so that nobody waits, then over ten times as long again and again as time passes;
//! 5. measured against the interval timer (8254, 1.193182 MHz);
//! 6. CPUID 0x16: the nominal frequency.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{BASE_TSC, SEQUENCE, TscParams, publish, tsc_params};
use crate::addr::{PhysAddr, virt_to_phys};
use crate::cpu::{self, IrqGuard, Msr, cpuid};
use crate::io::{inb, outb};
use crate::irq::apic::{self, Register};

/// Frequency of the APIC timer under a hypervisor, divider 1.
pub(super) const APIC_HZ: u64 = 1_000_000_000;
/// APIC ticks of the first measurement: 10 microseconds, good to a few percent.
const FIRST_TICKS: u32 = 10_000;
/// From here on the scale may be shown to programs, which do not come back for a better one: 10 ms, good to a part in ten thousand.
const SETTLED_TICKS: u64 = 10_000_000;
/// Enough measured: a second. Reading both counters takes about a microsecond, so this is good to a part in a million.
const ENOUGH_TICKS: u64 = 1_000_000_000;

/// Whether the scale is as good as programs may rely on.
static SETTLED: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicBool = AtomicBool::new(false);
/// Counter value at which the next refinement is due; `u64::MAX` is never.
static REFINE_AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// kvm-clock's time at the kernel's start in nanoseconds; 0 without kvm-clock.
static KVM_NS_AT_START: AtomicU64 = AtomicU64::new(0);

/// What has been measured against the APIC timer: ticks of both over the same intervals.
static APIC_TICKS: AtomicU64 = AtomicU64::new(0);
static TSC_TICKS: AtomicU64 = AtomicU64::new(0);
/// The running interval: initial count (0: none) and the counter when it was set.
static INITIAL: AtomicU64 = AtomicU64::new(0);
static INITIAL_TSC: AtomicU64 = AtomicU64::new(0);

struct Lock(#[allow(dead_code)] IrqGuard);

impl Lock {
    fn take() -> Lock {
        let irq = IrqGuard::new();
        while BUSY.swap(true, Ordering::Acquire) {
            cpu::relax();
        }
        Lock(irq)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// Finds the frequency the first time.
pub(super) fn first() {
    let _lock = Lock::take();
    if SEQUENCE.load(Ordering::Acquire) != 0 {
        return;
    }
    let exact = kvm_hz().or_else(crystal_hz).or_else(hypervisor_hz);
    let hz = exact.or_else(apic_hz).or_else(pit_hz).or_else(nominal_hz).unwrap_or(1_000_000_000);
    // Only the APIC timer is measured again.
    SETTLED.store(REFINE_AT.load(Ordering::Relaxed) == u64::MAX, Ordering::Relaxed);
    publish(TscParams::from_hz(hz, BASE_TSC.load(Ordering::Relaxed), 0));
}

/// Whether the scale is good enough for programs.
pub(super) fn is_settled() -> bool {
    SETTLED.load(Ordering::Relaxed)
}

/// Whether enough time has passed for a better measurement.
pub(super) fn wants_refinement(now: u64) -> bool {
    now >= REFINE_AT.load(Ordering::Relaxed)
}

/// Measures again over the time since the last measurement.
pub(super) fn refine() {
    let lock = Lock::take();
    if !wants_refinement(cpu::tsc()) {
        return;
    }
    take_interval();
    // Keep the counter that is running: it may be somebody's timer.
    drop(lock);
}

/// The APIC timer is about to be set to something else: uses what it counted so far. The caller has interrupts off.
pub(super) fn before_timer_change() {
    if REFINE_AT.load(Ordering::Relaxed) != u64::MAX {
        let _lock = Lock::take();
        take_interval();
        INITIAL.store(0, Ordering::Relaxed);
    }
}

/// The APIC timer was set to `initial`.
pub(super) fn timer_changed(initial: u32) {
    if REFINE_AT.load(Ordering::Relaxed) != u64::MAX {
        INITIAL_TSC.store(cpu::tsc(), Ordering::Relaxed);
        INITIAL.store(u64::from(initial), Ordering::Relaxed);
    }
}

/// Adds the running interval to the sums, starts the next one where it ended, and publishes a better slope when the sums have grown enough.
fn take_interval() {
    let initial = INITIAL.load(Ordering::Relaxed);
    let left = u64::from(apic::read(Register::CurrentCount));
    let now = cpu::tsc();
    if initial == 0 || left == 0 || left > initial {
        // It ran out some time ago: nothing to learn, until it is set again.
        REFINE_AT.store(now.saturating_add(TSC_TICKS.load(Ordering::Relaxed)), Ordering::Relaxed);
        return;
    }
    let apic_ticks = APIC_TICKS.fetch_add(initial - left, Ordering::Relaxed) + initial - left;
    let tsc_ticks = TSC_TICKS.load(Ordering::Relaxed) + now.saturating_sub(INITIAL_TSC.load(Ordering::Relaxed));
    TSC_TICKS.store(tsc_ticks, Ordering::Relaxed);
    INITIAL.store(left, Ordering::Relaxed);
    INITIAL_TSC.store(now, Ordering::Relaxed);
    if !wants_refinement(now) {
        return;
    }
    if let Some(hz) = (u128::from(tsc_ticks) * u128::from(APIC_HZ)).checked_div(u128::from(apic_ticks)) {
        let old = tsc_params();
        let now = cpu::tsc();
        if apic_ticks >= SETTLED_TICKS {
            SETTLED.store(true, Ordering::Relaxed);
        }
        publish(TscParams::from_hz(hz as u64, now, old.ns_at(now)));
    }
    // Next when about ten times as much is known.
    let next = if apic_ticks >= ENOUGH_TICKS { u64::MAX } else { now.saturating_add(tsc_ticks.saturating_mul(9)) };
    REFINE_AT.store(next, Ordering::Relaxed);
}

fn hypervisor_leaf() -> Option<(u32, [u32; 3])> {
    if cpuid(1, 0).2 >> 31 == 0 {
        return None;
    }
    let (max, b, c, d) = cpuid(0x4000_0000, 0);
    Some((max, [b, c, d]))
}

fn is_kvm() -> bool {
    matches!(hypervisor_leaf(), Some((_, name)) if name == [0x4b4d_564b, 0x564b_4d56, 0x4d])
}

/// The page KVM describes its clock in: version, pad, tsc_timestamp, system_time, mul, shift, flags.
#[repr(C, align(64))]
struct KvmPage([AtomicU64; 4]);
static KVM_PAGE: KvmPage = KvmPage([const { AtomicU64::new(0) }; 4]);

fn kvm_hz() -> Option<u64> {
    // CPUID 0x40000001 EAX bit 3: the clock with the MSRs used here.
    if !is_kvm() || cpuid(0x4000_0001, 0).0 >> 3 & 1 == 0 {
        return None;
    }
    let page: PhysAddr = virt_to_phys((&raw const KVM_PAGE).cast());
    // SAFETY: KVM writes 32 bytes there, which are atomics.
    unsafe { cpu::write_msr(Msr::KvmSystemTime, page.0 | 1) };
    let [_, stamp, system_ns, scale] = KVM_PAGE.0.each_ref().map(|word| word.load(Ordering::Acquire));
    let (mul, shift) = (scale as u32, (scale >> 32) as i8);
    // SAFETY: stops it: only the scale is of interest, and a page that changes would cost exits.
    unsafe { cpu::write_msr(Msr::KvmSystemTime, 0) };
    let hz = kvm_scale_to_hz(mul, shift)?;
    // The kernel started a little before KVM wrote the page.
    let since = stamp.saturating_sub(BASE_TSC.load(Ordering::Relaxed));
    let since_ns = (u128::from(since) * 1_000_000_000 / u128::from(hz)) as u64;
    KVM_NS_AT_START.store(system_ns.saturating_sub(since_ns).max(1), Ordering::Relaxed);
    Some(hz)
}

/// ns = (ticks << shift) * mul >> 32.
fn kvm_scale_to_hz(mul: u32, shift: i8) -> Option<u64> {
    if mul == 0 || !(-31..=31).contains(&shift) {
        return None;
    }
    let hz = (1_000_000_000u128 << 64) / u128::from(mul);
    // Now hz << 32; the shift of the ticks divides it.
    u64::try_from(if shift >= 0 { hz >> 32 >> shift } else { hz >> 32 << -shift }).ok().filter(|&hz| hz > 1_000_000)
}

/// Where KVM writes the wall clock: version u32, seconds u32, nanoseconds u32.
#[repr(C, align(16))]
struct KvmWallClock([core::sync::atomic::AtomicU32; 4]);
static KVM_WALL_CLOCK: KvmWallClock = KvmWallClock([const { core::sync::atomic::AtomicU32::new(0) }; 4]);

/// Unix time in nanoseconds at the kernel's start by kvm-clock: the wall clock at the hypervisor's time zero, plus the hypervisor's time then.
pub(super) fn kvm_wall_clock_at_boot() -> Option<u64> {
    let _ = tsc_params();
    let at_start = KVM_NS_AT_START.load(Ordering::Relaxed);
    if at_start == 0 {
        return None;
    }
    let _lock = Lock::take();
    let page = virt_to_phys((&raw const KVM_WALL_CLOCK).cast());
    // SAFETY: KVM writes twelve bytes there, which are atomics.
    unsafe { cpu::write_msr(Msr::KvmWallClock, page.0) };
    let [_, seconds, nanoseconds, _] = KVM_WALL_CLOCK.0.each_ref().map(|word| u64::from(word.load(Ordering::Acquire)));
    (seconds != 0).then(|| seconds * 1_000_000_000 + nanoseconds + at_start)
}

fn crystal_hz() -> Option<u64> {
    if cpuid(0, 0).0 < 0x15 {
        return None;
    }
    let (denominator, numerator, crystal, _) = cpuid(0x15, 0);
    (denominator != 0 && numerator != 0 && crystal != 0).then(|| u64::from(crystal) * u64::from(numerator) / u64::from(denominator))
}

fn hypervisor_hz() -> Option<u64> {
    let (max, _) = hypervisor_leaf()?;
    (max >= 0x4000_0010).then(|| u64::from(cpuid(0x4000_0010, 0).0) * 1000).filter(|&hz| hz != 0)
}

fn nominal_hz() -> Option<u64> {
    (cpuid(0, 0).0 >= 0x16).then(|| u64::from(cpuid(0x16, 0).0 & 0xffff) * 1_000_000).filter(|&hz| hz != 0)
}

fn apic_hz() -> Option<u64> {
    hypervisor_leaf()?;
    apic::enable();
    apic::write(Register::Divide, 0b1011); // by 1
    apic::write(Register::TimerVector, 1 << 16); // masked, one shot
    apic::write(Register::InitialCount, u32::MAX);
    // Once before it counts (the first access is slower), and always the device first, so that the time of the access cancels out.
    apic::read(Register::CurrentCount);
    let start = apic::read(Register::CurrentCount);
    let start_tsc = cpu::tsc();
    let (mut now, mut tsc);
    let mut tries = 0u32;
    loop {
        now = apic::read(Register::CurrentCount);
        tsc = cpu::tsc();
        tries += 1;
        if start.saturating_sub(now) >= FIRST_TICKS {
            break;
        }
        if tries > 10_000_000 {
            return None;
        }
    }
    let (apic_ticks, tsc_ticks) = (u64::from(start - now), tsc - start_tsc);
    APIC_TICKS.store(apic_ticks, Ordering::Relaxed);
    TSC_TICKS.store(tsc_ticks, Ordering::Relaxed);
    INITIAL.store(u64::from(now), Ordering::Relaxed);
    INITIAL_TSC.store(tsc, Ordering::Relaxed);
    REFINE_AT.store(tsc.saturating_add(tsc_ticks * 9), Ordering::Relaxed);
    Some((u128::from(tsc_ticks) * u128::from(APIC_HZ) / u128::from(apic_ticks)) as u64)
}

/// Channel 2 of the 8254 in mode 0 with the speaker off: 11932 ticks are 10 ms, and bit 5 of port 0x61 shows the end.
fn pit_hz() -> Option<u64> {
    const TICKS: u16 = 11932;
    const PIT_HZ: u64 = 1_193_182;
    let gate = inb(0x61);
    if gate == 0xff {
        return None;
    }
    outb(0x61, gate & !2 | 1);
    outb(0x43, 0b1011_0000);
    outb(0x42, TICKS as u8);
    outb(0x42, (TICKS >> 8) as u8);
    let start = cpu::tsc();
    let mut tries = 0u32;
    while inb(0x61) & 0x20 == 0 {
        tries += 1;
        if tries > 1_000_000 {
            return None;
        }
    }
    let ticks = cpu::tsc() - start;
    // An absent timer shows its end at once.
    (tries > 10).then(|| ticks * PIT_HZ / u64::from(TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_scales() {
        // 2.5 GHz: 0.4 ns per tick is shift -1 (ticks halved) with mul 0.8 * 2^32.
        let hz = kvm_scale_to_hz((0.8 * 4_294_967_296.0) as u32, -1).unwrap();
        assert!(hz.abs_diff(2_500_000_000) < 10, "{hz}");
        assert!(kvm_scale_to_hz(0x8000_0000, 1).unwrap().abs_diff(1_000_000_000) < 2);
        assert_eq!(kvm_scale_to_hz(0, 0), None);
    }
}
