//! The processor: interrupt flag, per-CPU data, features, segment bases, control registers.
//!
//! In kernel mode `GS_BASE` points to the [`PerCpu`] of this CPU and `KERNEL_GS_BASE` holds the program's; the entry code swaps them.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use crate::segments::Segments;

/// What one CPU needs for itself. The first fields are known to the entry code by their offsets.
#[repr(C, align(64))]
pub struct PerCpu {
    /// This structure's address, so that `gs:[0]` gives a pointer.
    this: AtomicUsize,
    /// Top of the kernel stack of the running task: where system calls and interrupts from ring 3 save registers.
    pub(crate) kernel_stack: AtomicUsize,
    /// Where `syscall` parks the program's stack pointer for two instructions.
    pub(crate) user_rsp: AtomicUsize,
    /// `core`'s: the running task.
    current: AtomicPtr<()>,
    /// `core`'s: nonzero when there is something to do before returning to ring 3.
    work_pending: AtomicU32,
    /// 0 for the boot CPU.
    id: AtomicU32,
    /// `core`'s: spin locks held.
    pub spin_locks: AtomicU32,
    reserved: u32,
    /// `core`'s: whatever else it keeps per CPU.
    pub core_data: AtomicPtr<()>,
    /// Descriptor table, task state segment, interrupt stacks.
    pub(crate) segments: UnsafeCell<Segments>,
}

// SAFETY: `segments` is written once by its own CPU before interrupts are on; everything else is atomic.
unsafe impl Sync for PerCpu {}

pub(crate) const PERCPU_KERNEL_STACK: usize = 8;
pub(crate) const PERCPU_USER_RSP: usize = 16;
const PERCPU_CURRENT: usize = 24;
const PERCPU_WORK: usize = 32;
const _: () = assert!(core::mem::offset_of!(PerCpu, kernel_stack) == PERCPU_KERNEL_STACK);
const _: () = assert!(core::mem::offset_of!(PerCpu, user_rsp) == PERCPU_USER_RSP);
const _: () = assert!(core::mem::offset_of!(PerCpu, current) == PERCPU_CURRENT);
const _: () = assert!(core::mem::offset_of!(PerCpu, work_pending) == PERCPU_WORK);

impl PerCpu {
    /// Returns the data of a CPU that has not started.
    pub const fn new(id: u32) -> PerCpu {
        PerCpu {
            this: AtomicUsize::new(0),
            kernel_stack: AtomicUsize::new(0),
            user_rsp: AtomicUsize::new(0),
            current: AtomicPtr::new(core::ptr::null_mut()),
            work_pending: AtomicU32::new(0),
            id: AtomicU32::new(id),
            spin_locks: AtomicU32::new(0),
            reserved: 0,
            core_data: AtomicPtr::new(core::ptr::null_mut()),
            segments: UnsafeCell::new(Segments::new()),
        }
    }
}

static BOOT_CPU: PerCpu = PerCpu::new(0);

/// Returns this CPU's data.
pub fn this_cpu() -> &'static PerCpu {
    #[cfg(ukc_kernel)]
    {
        let this: *const PerCpu;
        // SAFETY: in kernel mode GS is the per-CPU base and its first field the address of the whole, which lives forever.
        unsafe {
            core::arch::asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly));
            &*this
        }
    }
    #[cfg(not(ukc_kernel))]
    &BOOT_CPU
}

/// Number of this CPU, 0 for the boot CPU.
pub fn cpu_id() -> u32 {
    this_cpu().id.load(Ordering::Relaxed)
}

/// What [`set_current`] stored on this CPU.
#[inline]
pub fn current() -> *const () {
    #[cfg(ukc_kernel)]
    {
        let current: *const ();
        // SAFETY: GS is the per-CPU base; one instruction, so that a task that moves to another CPU in between still reads its own.
        unsafe {
            core::arch::asm!("mov {}, gs:[{offset}]", out(reg) current, offset = const PERCPU_CURRENT, options(nostack, preserves_flags, readonly))
        };
        current
    }
    #[cfg(not(ukc_kernel))]
    this_cpu().current.load(Ordering::Relaxed)
}

/// Stores `core`'s pointer to the running task.
pub fn set_current(task: *const ()) {
    this_cpu().current.store(task.cast_mut(), Ordering::Relaxed);
}

/// Asks for [`ukc_before_user`](crate::hooks) to be called (again) before this CPU returns to ring 3.
pub fn set_work_pending() {
    this_cpu().work_pending.store(1, Ordering::Relaxed);
}

/// Takes that back; `core` does so at the start of its work.
pub fn clear_work_pending() {
    this_cpu().work_pending.store(0, Ordering::Relaxed);
}

/// Whether work is pending on this CPU.
pub fn work_pending() -> bool {
    this_cpu().work_pending.load(Ordering::Relaxed) != 0
}

/// Makes GS point to `cpu`, loads its descriptor tables and enables `syscall`.
///
/// # Safety
/// Once per CPU, with interrupts off.
#[cfg(ukc_kernel)]
pub unsafe fn init_this_cpu(cpu: &'static PerCpu) {
    cpu.this.store(cpu as *const PerCpu as usize, Ordering::Relaxed);
    // SAFETY: the CPU is starting, so nobody else looks at its segments; the selectors and bases are the kernel's own.
    unsafe {
        (*cpu.segments.get()).load();
        write_msr(Msr::GsBase, cpu as *const PerCpu as u64);
        write_msr(Msr::KernelGsBase, 0);
        crate::trap::init_syscall();
    }
}

/// Prepares the boot CPU.
///
/// # Safety
/// Once, with interrupts off.
#[cfg(ukc_kernel)]
pub(crate) unsafe fn init_boot_cpu() {
    // SAFETY: the caller's promise.
    unsafe { init_this_cpu(&BOOT_CPU) }
}

/// Lets interrupts in.
#[inline]
pub fn interrupts_enable() {
    #[cfg(ukc_kernel)]
    // SAFETY: the trap entry can handle interrupts anywhere in the kernel.
    unsafe {
        core::arch::asm!("sti", options(nostack))
    };
}

/// Keeps interrupts out.
#[inline]
pub fn interrupts_disable() {
    #[cfg(ukc_kernel)]
    // SAFETY: always sound; the machine only becomes deaf.
    unsafe {
        core::arch::asm!("cli", options(nostack))
    };
}

/// Whether interrupts may come in.
#[inline]
pub fn interrupts_enabled() -> bool {
    #[cfg(ukc_kernel)]
    {
        let flags: u64;
        // SAFETY: reads the flags register. It uses the stack, which `nostack`'s absence says.
        unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
        flags & 0x200 != 0
    }
    #[cfg(not(ukc_kernel))]
    false
}

/// Interrupts are off while it lives; afterwards they are as before.
#[derive(Debug)]
pub struct IrqGuard {
    were_enabled: bool,
}

impl IrqGuard {
    /// Turns interrupts off.
    #[inline]
    #[allow(clippy::new_without_default, reason = "turning interrupts off is no default")]
    pub fn new() -> IrqGuard {
        let were_enabled = interrupts_enabled();
        if were_enabled {
            interrupts_disable();
        }
        IrqGuard { were_enabled }
    }
}

impl Drop for IrqGuard {
    #[inline]
    fn drop(&mut self) {
        if self.were_enabled {
            interrupts_enable();
        }
    }
}

/// Enables interrupts and sleeps until one came. An interrupt that arrives between the caller's last look (interrupts off) and the sleep ends it, because
/// `sti` takes effect after the next instruction. Returns with interrupts on.
pub fn halt() {
    #[cfg(ukc_kernel)]
    // SAFETY: as `interrupts_enable`.
    unsafe {
        core::arch::asm!("sti", "hlt", options(nostack))
    };
}

/// Says that this CPU spins.
#[inline]
pub fn relax() {
    core::hint::spin_loop();
}

/// What this processor can do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Features {
    pub xsave: bool,
    pub tsc_deadline: bool,
    pub x2apic: bool,
    pub rdrand: bool,
    pub rdseed: bool,
    pub smep: bool,
    pub smap: bool,
    pub fsgsbase: bool,
    pub gib_pages: bool,
    pub invariant_tsc: bool,
    pub rdtscp: bool,
    /// CPUID 1 EDX, which is Linux' `AT_HWCAP`.
    pub hwcap: u32,
    /// Runs under a hypervisor (CPUID 1 ECX bit 31).
    pub hypervisor: bool,
}

/// Asks CPUID (Intel SDM vol. 2, CPUID) for a leaf: eax, ebx, ecx, edx.
pub fn cpuid(leaf: u32, subleaf: u32) -> (u32, u32, u32, u32) {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    (r.eax, r.ebx, r.ecx, r.edx)
}

/// Returns what the processor can do. Asks CPUID each time (an exit under virtualisation): keep the answer.
pub fn features() -> Features {
    let (max, ..) = cpuid(0, 0);
    let (_, _, c1, d1) = cpuid(1, 0);
    let b7 = if max >= 7 { cpuid(7, 0).1 } else { 0 };
    let (max_extended, ..) = cpuid(0x8000_0000, 0);
    let d81 = if max_extended >= 0x8000_0001 { cpuid(0x8000_0001, 0).3 } else { 0 };
    let d87 = if max_extended >= 0x8000_0007 { cpuid(0x8000_0007, 0).3 } else { 0 };
    let bit = |word: u32, n: u32| word >> n & 1 != 0;
    Features {
        xsave: bit(c1, 26),
        tsc_deadline: bit(c1, 24),
        x2apic: bit(c1, 21),
        rdrand: bit(c1, 30),
        rdseed: bit(b7, 18),
        smep: bit(b7, 7),
        smap: bit(b7, 20),
        fsgsbase: bit(b7, 0),
        gib_pages: bit(d81, 26),
        invariant_tsc: bit(d87, 8),
        rdtscp: bit(d81, 27),
        hwcap: d1,
        hypervisor: bit(c1, 31),
    }
}

/// Model-specific registers in use (Intel SDM vol. 4; KVM's from its documentation, "KVM-specific MSRs").
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Msr {
    ApicBase = 0x1b,
    TscDeadline = 0x6e0,
    /// First of the x2APIC registers.
    X2Apic = 0x800,
    Efer = 0xc000_0080,
    Star = 0xc000_0081,
    Lstar = 0xc000_0082,
    Cstar = 0xc000_0083,
    SyscallMask = 0xc000_0084,
    FsBase = 0xc000_0100,
    GsBase = 0xc000_0101,
    KernelGsBase = 0xc000_0102,
    KvmWallClock = 0x4b56_4d00,
    KvmSystemTime = 0x4b56_4d01,
}

/// Reads a model-specific register; 0 on the host.
pub fn read_msr(msr: Msr) -> u64 {
    read_msr_number(msr as u32)
}

pub(crate) fn read_msr_number(number: u32) -> u64 {
    #[cfg(ukc_kernel)]
    {
        let (low, high): (u32, u32);
        // SAFETY: the registers of `Msr` exist or were found by CPUID, and reading them has no effect.
        unsafe { core::arch::asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
        u64::from(high) << 32 | u64::from(low)
    }
    #[cfg(not(ukc_kernel))]
    {
        let _ = number;
        0
    }
}

/// Writes a model-specific register.
///
/// # Safety
/// The value must leave the processor in a state the kernel expects.
pub unsafe fn write_msr(msr: Msr, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { write_msr_number(msr as u32, value) }
}

/// # Safety
/// As [`write_msr`].
pub(crate) unsafe fn write_msr_number(number: u32, value: u64) {
    #[cfg(ukc_kernel)]
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    };
    #[cfg(not(ukc_kernel))]
    let _ = (number, value);
}

/// The program's FS base (thread pointer).
pub fn fs_base() -> usize {
    read_msr(Msr::FsBase) as usize
}

/// Sets the program's FS base. A non-canonical address is refused: `wrmsr` would fault.
pub fn set_fs_base(base: usize) {
    if is_canonical(base) {
        // SAFETY: kernel code does not use FS.
        unsafe { write_msr(Msr::FsBase, base as u64) }
    }
}

/// The program's GS base.
pub fn user_gs_base() -> usize {
    read_msr(Msr::KernelGsBase) as usize
}

/// Sets the program's GS base. A non-canonical address is refused.
pub fn set_user_gs_base(base: usize) {
    if is_canonical(base) {
        // SAFETY: the register is swapped in only on the way to ring 3.
        unsafe { write_msr(Msr::KernelGsBase, base as u64) }
    }
}

const fn is_canonical(addr: usize) -> bool {
    let top = addr as isize >> 47;
    top == 0 || top == -1
}

/// Reads the time stamp counter, not before earlier instructions (`lfence`; Intel SDM vol. 2, RDTSC).
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has both instructions.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

/// Physical address of the active page table.
pub(crate) fn active_table() -> u64 {
    #[cfg(ukc_kernel)]
    {
        let cr3: u64;
        // SAFETY: reading CR3 has no effect.
        unsafe { core::arch::asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
        cr3 & !0xfff
    }
    #[cfg(not(ukc_kernel))]
    0
}

/// # Safety
/// The table must map the kernel as the present one does.
pub(crate) unsafe fn set_active_table(table: u64) {
    #[cfg(ukc_kernel)]
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("mov cr3, {}", in(reg) table, options(nostack, preserves_flags))
    };
    #[cfg(not(ukc_kernel))]
    let _ = table;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_addresses() {
        assert!(is_canonical(0) && is_canonical(0x7fff_ffff_ffff) && is_canonical(0xffff_8000_0000_0000) && is_canonical(usize::MAX));
        assert!(!is_canonical(0x8000_0000_0000) && !is_canonical(0xffff_7fff_ffff_ffff));
    }

    #[test]
    fn current_is_what_was_set() {
        let task = 5u32;
        set_current((&raw const task).cast());
        assert_eq!(current(), (&raw const task).cast());
        set_work_pending();
        assert!(work_pending());
        clear_work_pending();
        assert!(!work_pending());
    }
}
