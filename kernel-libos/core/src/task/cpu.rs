//! What the scheduler keeps per CPU, and the switch from one task to another: kernel stack, registers, vector state, segment bases, page table.
//!
//! The vector state of a program (x87, MXCSR, the upper halves of vector registers) stays in the registers while kernel threads or the idle loop run and
//! is saved only when another program needs them: a server that sleeps and wakes alone never pays for it. The lower halves are in the entry frame anyway.
//!
//! This file holds the unsafe part of task switching; [`Machine`] is only reached from here and from its own task.

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use libos_abi::{Errno, Result};

use super::sched::Start;
use super::{Task, runqueue::RunQueue};
use crate::arch;
use crate::arch::context::{self, Context};
use crate::arch::fpu::FpuState;
use crate::mm::{AddressSpace, KernelStack};
use crate::sync::SpinLock;

pub use crate::mm::stack::STACK_BYTES;

/// One CPU's part of the scheduler.
pub(super) struct CpuData {
    /// Tasks that could run here.
    pub queue: SpinLock<RunQueue<Arc<Task>>>,
    idle: SpinLock<Option<Arc<Task>>>,
    must_switch: AtomicBool,
    /// When the running task got the CPU.
    since: AtomicU64,
    slice_end: AtomicU64,
    /// Whose page table is loaded; keeps it alive.
    address_space: SpinLock<Option<Arc<AddressSpace>>>,
    /// Whose vector state is in the registers: compared, never dereferenced except for a living task.
    vector_owner: SpinLock<Option<Arc<Task>>>,
    /// The task that just ended, until its stack is no longer in use.
    dead: SpinLock<Option<Arc<Task>>>,
    switches: AtomicU64,
    /// What the segment base registers hold.
    fs_base: AtomicUsize,
    gs_base: AtomicUsize,
}

static BOOT_CPU: CpuData = CpuData {
    queue: SpinLock::new(RunQueue::new()),
    idle: SpinLock::new(None),
    must_switch: AtomicBool::new(false),
    since: AtomicU64::new(0),
    slice_end: AtomicU64::new(u64::MAX),
    address_space: SpinLock::new(None),
    vector_owner: SpinLock::new(None),
    dead: SpinLock::new(None),
    switches: AtomicU64::new(0),
    fs_base: AtomicUsize::new(0),
    gs_base: AtomicUsize::new(0),
};

/// This CPU's part. Only the boot CPU runs today; others would find theirs through `arch::cpu::this_cpu().core_data`.
pub(super) fn data() -> &'static CpuData {
    &BOOT_CPU
}

/// Whether the running task should give way before it returns to ring 3.
pub(crate) fn must_switch() -> bool {
    data().must_switch()
}

/// Asks for a switch before this CPU returns to ring 3.
pub(crate) fn request_switch() {
    data().request_switch();
}

/// Context switches since boot (/proc/stat).
pub fn switch_count() -> u64 {
    data().switches.load(Ordering::Relaxed)
}

impl CpuData {
    pub fn is_current(&self, task: &Task) -> bool {
        core::ptr::eq(arch::cpu::current().cast::<Task>(), task)
    }

    pub fn is_idle(&self, task: &Task) -> bool {
        task.is_idle
    }

    pub fn idle(&self) -> Arc<Task> {
        self.idle.lock().clone().expect("the boot task exists")
    }

    /// Asks for a switch before this CPU returns to ring 3.
    pub fn request_switch(&self) {
        self.must_switch.store(true, Ordering::Relaxed);
        arch::cpu::set_work_pending();
    }

    pub fn must_switch(&self) -> bool {
        self.must_switch.load(Ordering::Relaxed)
    }

    pub fn switch_done(&self) {
        self.must_switch.store(false, Ordering::Relaxed);
    }

    pub fn slice_end(&self) -> u64 {
        self.slice_end.load(Ordering::Relaxed)
    }

    pub fn set_slice_end(&self, at_ns: u64) {
        self.slice_end.store(at_ns, Ordering::Relaxed);
    }

    /// Nanoseconds for which the current task has had the CPU.
    pub fn running_since(&self) -> u64 {
        crate::time::accounting_ns().saturating_sub(self.since.load(Ordering::Relaxed))
    }

    /// Starts to count anew and returns the nanoseconds since the last start.
    pub fn restart_clock(&self) -> u64 {
        let now = crate::time::accounting_ns();
        now.saturating_sub(self.since.swap(now, Ordering::Relaxed))
    }
}

/// A task's part of the machine.
pub(super) struct Machine {
    context: UnsafeCell<Context>,
    /// None for the context the kernel booted in.
    stack: Option<KernelStack>,
    stack_top: usize,
    /// Programs only; kernel threads have no vector state between switches.
    vectors: Option<UnsafeCell<FpuState>>,
    fs_base: AtomicUsize,
    gs_base: AtomicUsize,
}

// SAFETY: `context` and `vectors` are touched only (1) by the switch, on the CPU that the task is leaving or entering, with interrupts off, and (2) by
// `copy_vectors`, while the task has never run. The rest is atomic or immutable.
unsafe impl Sync for Machine {}
// SAFETY: as for `Sync`.
unsafe impl Send for Machine {}

impl Machine {
    pub fn new(is_program: bool) -> Result<Machine> {
        let stack = KernelStack::new()?;
        let stack_top = stack.top();
        let vectors = if is_program { Some(UnsafeCell::new(FpuState::try_new().ok_or(Errno::ENOMEM)?)) } else { None };
        // SAFETY: the stack was just allocated, so its top is writable and nobody else's.
        let context = unsafe { Context::new(stack_top, task_begins, 0) };
        Ok(Machine {
            context: UnsafeCell::new(context),
            stack: Some(stack),
            stack_top,
            vectors,
            fs_base: AtomicUsize::new(0),
            gs_base: AtomicUsize::new(0),
        })
    }

    /// For the context the kernel booted in, which has a stack already.
    pub fn boot() -> Machine {
        Machine {
            context: UnsafeCell::new(Context::empty()),
            stack: None,
            stack_top: 0,
            vectors: None,
            fs_base: AtomicUsize::new(0),
            gs_base: AtomicUsize::new(0),
        }
    }

    /// Sets the segment bases with which a new task starts.
    pub fn set_bases(&self, fs: usize, gs: usize) {
        self.fs_base.store(fs, Ordering::Relaxed);
        self.gs_base.store(gs, Ordering::Relaxed);
    }
}

/// Sets the FS base of the current task (arch_prctl(2)).
pub fn set_fs_base(task: &Task, base: usize) {
    task.sched.machine.fs_base.store(base, Ordering::Relaxed);
    data().fs_base.store(base, Ordering::Relaxed);
    arch::cpu::set_fs_base(base);
}

/// Sets the GS base of the current task (arch_prctl(2)).
pub fn set_gs_base(task: &Task, base: usize) {
    task.sched.machine.gs_base.store(base, Ordering::Relaxed);
    data().gs_base.store(base, Ordering::Relaxed);
    arch::cpu::set_user_gs_base(base);
}

/// FS and GS base of a task (arch_prctl(2)).
pub fn bases(task: &Task) -> (usize, usize) {
    (task.sched.machine.fs_base.load(Ordering::Relaxed), task.sched.machine.gs_base.load(Ordering::Relaxed))
}

/// Gives a task that has never run a copy of the current task's vector state (clone(2)).
pub(super) fn copy_vectors(child: &Task) {
    if let Some(cell) = &child.sched.machine.vectors {
        let irq = arch::cpu::IrqGuard::new();
        // SAFETY: the child has never run and is not in a run queue yet, so nobody else looks at its state. The current task's is in the registers.
        unsafe { (*cell.get()).save() };
        drop(irq);
    }
}

/// Makes the boot context the idle task.
pub(super) fn adopt_boot_context(idle: Arc<Task>) {
    *data().idle.lock() = Some(idle.clone());
    data().restart_clock();
    arch::cpu::set_current(Arc::into_raw(idle).cast());
}

/// Goes over to another task. Interrupts are off. Returns when somebody switches back, possibly long after.
pub(super) fn switch(cpu: &CpuData, previous: Arc<Task>, next: Arc<Task>, is_dead: bool) {
    cpu.switches.fetch_add(1, Ordering::Relaxed);
    if let Some(space) = next.mm_opt() {
        use_address_space(cpu, space);
    }
    let machine = &next.sched.machine;
    if machine.vectors.is_some() {
        load_vectors(cpu, &next);
        load_bases(cpu, machine);
        context::set_kernel_stack(machine.stack_top);
    }
    let intact = previous.sched.machine.stack.as_ref().is_none_or(KernelStack::is_intact);
    assert!(intact, "the kernel stack of a task ran over");
    let (from, to) = (previous.sched.machine.context.get(), machine.context.get());
    // SAFETY: the pointer was stored by `Arc::into_raw` here or in `adopt_boot_context`, and is replaced below.
    let held = unsafe { Arc::from_raw(arch::cpu::current().cast::<Task>()) };
    arch::cpu::set_current(Arc::into_raw(next).cast());
    // Nothing that owns anything may stay on this stack: a dead task never comes back to drop it. A living one is kept by the run queue or the tables.
    if is_dead {
        *cpu.dead.lock() = Some(held);
    } else {
        drop(held);
    }
    drop(previous);
    // SAFETY: (1) interrupts are off; (2) `to` was filled by `Context::new` or by the switch that took the CPU from `next`; (3) both tasks live: `next` is
    // held by `current`, the previous one as said above, and its stack is freed in `switched` at the earliest.
    unsafe { context::switch(from, to) };
    switched();
}

/// The first thing a task does after it got the CPU.
fn switched() {
    let cpu = data();
    let dead = cpu.dead.lock().take();
    drop(dead);
    if super::with_current(|task| task.signals.is_work_pending()) {
        arch::cpu::set_work_pending();
    }
}

fn use_address_space(cpu: &CpuData, space: Arc<AddressSpace>) {
    let mut loaded = cpu.address_space.lock();
    if loaded.as_ref().is_some_and(|l| Arc::ptr_eq(l, &space)) {
        return;
    }
    space.activate();
    let old = loaded.replace(space);
    drop(loaded);
    drop(old);
}

/// Loads the page table of an address space that the current task has just taken, or the kernel's own for `None`.
pub(super) fn load_address_space(space: Option<Arc<AddressSpace>>) {
    let irq = arch::cpu::IrqGuard::new();
    let cpu = data();
    match space {
        Some(space) => use_address_space(cpu, space),
        None => {
            arch::paging::activate_kernel();
            let old = cpu.address_space.lock().take();
            drop(irq);
            drop(old);
        }
    }
}

fn load_vectors(cpu: &CpuData, next: &Arc<Task>) {
    let mut owner = cpu.vector_owner.lock();
    if owner.as_ref().is_some_and(|o| Arc::ptr_eq(o, next)) {
        return;
    }
    if let Some(cell) = owner.as_ref().and_then(|o| o.sched.machine.vectors.as_ref()) {
        // SAFETY: the owner is not running (another task takes its place) and interrupts are off; its state is in the registers.
        unsafe { (*cell.get()).save() };
    }
    if let Some(cell) = &next.sched.machine.vectors {
        // SAFETY: `next` is not running yet and interrupts are off.
        unsafe { (*cell.get()).restore() };
    }
    let old = owner.replace(next.clone());
    drop(owner);
    drop(old);
}

/// Forgets that a task's vector state is in the registers: it ends.
pub(super) fn release_vectors(task: &Task) {
    let mut owner = data().vector_owner.lock();
    let old = if owner.as_ref().is_some_and(|o| core::ptr::eq(Arc::as_ptr(o), task)) { owner.take() } else { None };
    drop(owner);
    drop(old);
}

fn load_bases(cpu: &CpuData, next: &Machine) {
    // Writing the registers is slow and exits under some hypervisors; most programs never set GS.
    let fs = next.fs_base.load(Ordering::Relaxed);
    if cpu.fs_base.swap(fs, Ordering::Relaxed) != fs {
        arch::cpu::set_fs_base(fs);
    }
    let gs = next.gs_base.load(Ordering::Relaxed);
    if cpu.gs_base.swap(gs, Ordering::Relaxed) != gs {
        arch::cpu::set_user_gs_base(gs);
    }
}

/// Where every new task begins, on its own stack, interrupts off.
extern "C" fn task_begins(_: usize) -> ! {
    switched();
    arch::cpu::interrupts_enable();
    let start = super::with_current(|task| task.sched.start.lock().take()).expect("a new task has something to begin with");
    match start {
        Start::Kernel(f) => {
            f();
            super::exit::end_kernel_thread()
        }
        Start::User(frame) => {
            // The frame moves to the stack, because what owns heap memory would never be dropped. A box that was moved out of is freed at the end of its
            // scope, hence the block.
            let frame = {
                let boxed = frame;
                *boxed
            };
            super::clone::child_begins();
            context::enter_user(&frame)
        }
    }
}

/// Continues the current kernel thread as a program: the first process, after exec.
pub fn enter_user(frame: &arch::UserFrame) -> ! {
    super::with_current(|task| context::set_kernel_stack(task.sched.machine.stack_top));
    context::enter_user(frame)
}
