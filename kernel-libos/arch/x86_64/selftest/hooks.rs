//! What `core` would define: two tasks at most, switched by hand.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use libos_arch::addr::{PhysAddr, VirtAddr, phys_to_virt};
use libos_arch::context::{self, Context};
use libos_arch::fpu::FpuState;
use libos_arch::paging::{Flags, PageTable};
use libos_arch::{BootInfo, Fault, Irq, UserFrame, cpu, time};

pub const CODE: usize = 0x40_0000;
pub const STACK_TOP: usize = 0x7fff_ffff_e000;
/// A page that shows the tick count to programs.
pub const TICK_PAGE: usize = 0x50_0000;
/// Pages from here on appear when touched.
pub const LAZY: usize = 0x60_0000;
pub const LAZY_END: usize = 0x70_0000;
/// A read-only page.
pub const READ_ONLY: usize = 0x78_0000;

pub static TICKS: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds between ticks; 0 stops them.
pub static PERIOD: AtomicU64 = AtomicU64::new(0);
/// Vector of the last device interrupt, and the last eight bytes of console input.
pub static DEVICE: AtomicU64 = AtomicU64::new(0);
pub static INPUT: AtomicU64 = AtomicU64::new(0);
/// Faults that [`ukc_kernel_fault`] resolved, and calls of [`ukc_before_user`].
pub static KERNEL_FAULTS: AtomicUsize = AtomicUsize::new(0);
pub static BEFORE_USER: AtomicUsize = AtomicUsize::new(0);
/// What [`ukc_before_user`] does to the frame, once.
pub static BREAK_RIP: AtomicBool = AtomicBool::new(false);

/// A task.
pub struct Task {
    pub context: UnsafeCell<Context>,
    pub stack_top: usize,
    pub table: PageTable,
    pub fpu: FpuState,
    /// How it ended: the argument of syscall 60, or the fault.
    pub end: Option<End>,
    pub frame: UserFrame,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Exit(u64),
    Fault(Fault, u64),
}

/// Whom syscall 24 and the end of a task switch to.
pub struct Slots(pub UnsafeCell<[*mut Task; 2]>, pub UnsafeCell<Context>, pub UnsafeCell<usize>);
// SAFETY: one CPU, and interrupts do not touch it.
unsafe impl Sync for Slots {}
pub static SLOTS: Slots = Slots(UnsafeCell::new([core::ptr::null_mut(); 2]), UnsafeCell::new(Context::empty()), UnsafeCell::new(0));

pub fn lazy_page(table: &mut PageTable, addr: usize) -> bool {
    let page = VirtAddr(addr & !0xfff);
    if !(LAZY..LAZY_END).contains(&addr) || table.query(page).is_some() {
        return false;
    }
    table.map(page, crate::heap::page(), Flags::USER | Flags::WRITE).is_ok()
}

/// The task that runs.
pub fn running() -> &'static mut Task {
    // SAFETY: one CPU; tasks live until the test ends.
    unsafe { &mut *(cpu::current() as *mut Task) }
}

impl Task {
    pub fn new(code: &[u8], frame: UserFrame) -> Task {
        let mut table = PageTable::new().unwrap();
        let code_page = crate::heap::page();
        assert!(code.len() <= 4096);
        // SAFETY: a fresh page.
        unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), phys_to_virt(code_page), code.len()) };
        table.map(VirtAddr(CODE), code_page, Flags::USER | Flags::EXEC).unwrap();
        table.map(VirtAddr(STACK_TOP - 4096), crate::heap::page(), Flags::USER | Flags::WRITE).unwrap();
        table.map(VirtAddr(TICK_PAGE), tick_page(), Flags::USER).unwrap();
        table.map(VirtAddr(READ_ONLY), crate::heap::page(), Flags::USER).unwrap();
        // 16 KiB of kernel stack, which the heap gives in a row.
        let stack = alloc::vec![0u128; 1024].leak().as_mut_ptr_range();
        let stack_top = stack.end as usize;
        // SAFETY: the stack is the task's own.
        let context = unsafe { Context::new(stack_top, start_task, 0) };
        Task { context: UnsafeCell::new(context), stack_top, table, fpu: FpuState::new_default(), end: None, frame }
    }
}

extern crate alloc;

extern "C" fn start_task(_: usize) -> ! {
    cpu::interrupts_enable();
    context::enter_user(&running().frame)
}

/// The page with the tick count.
fn tick_page() -> PhysAddr {
    static PAGE: AtomicU64 = AtomicU64::new(0);
    if PAGE.load(Ordering::Relaxed) == 0 {
        PAGE.store(crate::heap::page().0, Ordering::Relaxed);
        TICK_FRAME.store(PAGE.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    PhysAddr(PAGE.load(Ordering::Relaxed))
}
static TICK_FRAME: AtomicU64 = AtomicU64::new(0);

fn make_current(task: &mut Task) {
    context::set_kernel_stack(task.stack_top);
    cpu::set_current((task as *mut Task).cast_const().cast());
    task.table.activate();
    task.fpu.restore();
}

/// Runs tasks until both have ended.
pub fn run(first: &mut Task, second: Option<&mut Task>) {
    cpu::interrupts_disable();
    // SAFETY: nothing runs yet.
    unsafe {
        *SLOTS.0.get() = [first, second.map_or(core::ptr::null_mut(), |t| t as *mut Task)];
        *SLOTS.2.get() = 0;
        make_current(&mut *(*SLOTS.0.get())[0]);
        context::switch(SLOTS.1.get(), (*(*SLOTS.0.get())[0]).context.get());
    }
    libos_arch::paging::activate_kernel();
    cpu::interrupts_enable();
}

/// Gives the CPU to the other task, or to the test when there is none.
fn give_up() {
    cpu::interrupts_disable();
    let from = running();
    from.fpu.save();
    // SAFETY: interrupts are off; the slots' tasks live until the test returns.
    unsafe {
        let at = 1 - *SLOTS.2.get();
        let other = (*SLOTS.0.get())[at];
        if !other.is_null() && (*other).end.is_none() {
            *SLOTS.2.get() = at;
            make_current(&mut *other);
            context::switch(from.context.get(), (*other).context.get());
        } else if from.end.is_some() {
            context::switch(from.context.get(), SLOTS.1.get());
        }
    }
    cpu::interrupts_enable();
}

fn end(end: End) {
    running().end = Some(end);
    give_up();
    panic!("a task that ended runs");
}

/// Ruins every xmm register, as kernel code may.
fn ruin_xmm() {
    // SAFETY: declared.
    unsafe {
        core::arch::asm!(
            "pcmpeqd xmm0, xmm0",
            "pcmpeqd xmm1, xmm1",
            "pcmpeqd xmm7, xmm7",
            "pcmpeqd xmm8, xmm8",
            "pcmpeqd xmm15, xmm15",
            out("xmm0") _,
            out("xmm1") _,
            out("xmm7") _,
            out("xmm8") _,
            out("xmm15") _
        )
    };
}

#[unsafe(no_mangle)]
fn ukc_main(boot: &'static BootInfo) -> ! {
    crate::heap::init(boot);
    crate::tests::all(boot);
    libos_arch::kprintln!("all passed");
    libos_arch::power::exit(42)
}

#[unsafe(no_mangle)]
fn ukc_syscall(frame: &mut UserFrame) {
    assert!(cpu::interrupts_enabled(), "syscalls run with interrupts on");
    ruin_xmm();
    frame.rax = match frame.orig_rax {
        60 => return end(End::Exit(frame.rdi)),
        24 => {
            give_up();
            0
        }
        // Waits for ticks inside the kernel.
        35 => {
            let until = TICKS.load(Ordering::Relaxed) + frame.rdi;
            while TICKS.load(Ordering::Relaxed) < until {
                cpu::halt();
            }
            0x1234
        }
        // Changes a register other than rax, so that the way back is `iretq` with the new value.
        15 => {
            frame.rcx = 77;
            frame.r11 = 78;
            79
        }
        _ => -38i64 as u64,
    };
}

#[unsafe(no_mangle)]
fn ukc_user_fault(frame: &mut UserFrame, fault: Fault) {
    assert!(cpu::interrupts_enabled(), "faults are handled with interrupts on");
    ruin_xmm();
    if let Fault::PageFault { addr, present: false, .. } = fault
        && lazy_page(&mut running().table, addr)
    {
        return;
    }
    end(End::Fault(fault, frame.rip));
}

#[unsafe(no_mangle)]
fn ukc_kernel_fault(addr: usize, write: bool) -> bool {
    let resolved = lazy_page(&mut running().table, addr);
    let _ = write;
    KERNEL_FAULTS.fetch_add(usize::from(resolved), Ordering::Relaxed);
    resolved
}

#[unsafe(no_mangle)]
fn ukc_interrupt(irq: Irq) {
    assert!(!cpu::interrupts_enabled());
    ruin_xmm();
    if let Irq::Device(vector) = irq {
        DEVICE.store(u64::from(vector), Ordering::Relaxed);
        while let Some(byte) = libos_arch::console::read_byte() {
            INPUT.store(INPUT.load(Ordering::Relaxed) << 8 | u64::from(byte), Ordering::Relaxed);
        }
    }
    if irq == Irq::Timer {
        let ticks = TICKS.fetch_add(1, Ordering::Relaxed) + 1;
        let frame = TICK_FRAME.load(Ordering::Relaxed);
        if frame != 0 {
            // SAFETY: the page belongs to this counter.
            unsafe { phys_to_virt(PhysAddr(frame)).cast::<u64>().write_volatile(ticks) };
        }
        let period = PERIOD.load(Ordering::Relaxed);
        time::set_timer((period != 0).then(|| time::monotonic_ns() + period));
        cpu::set_work_pending();
    }
}

#[unsafe(no_mangle)]
fn ukc_before_user(frame: &mut UserFrame) {
    assert!(cpu::interrupts_enabled());
    cpu::clear_work_pending();
    ruin_xmm();
    BEFORE_USER.fetch_add(1, Ordering::Relaxed);
    if BREAK_RIP.swap(false, Ordering::Relaxed) {
        frame.rip = 0x8000_0000_0000;
        frame.rcx = frame.rip;
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    libos_arch::panic::kernel_panic_fmt(format_args!("{info}"))
}
