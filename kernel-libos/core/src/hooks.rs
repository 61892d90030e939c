//! What happens at the boundary with ring 3: system calls, faults, interrupts, and the last thing before a program goes on.
//!
//! `arch` calls these through the symbols at the end of this file, which only kernels have.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::abi::general as linux;
use crate::arch::{Fault, Irq, UserFrame};
use crate::mm::Access;
use crate::sync::SpinLock;
use crate::task::signal::{deliver, set};
use crate::task::{cpu, sched, with_current};

/// Watches what programs ask of the kernel.
pub trait Tracer: Sync {
    /// A call is about to run: its number and arguments.
    fn enter(&self, task: &crate::Task, number: u64, args: &[u64; 6]);
    /// A call has answered.
    fn leave(&self, task: &crate::Task, number: u64, args: &[u64; 6], result: i64);
    /// A signal is about to have its effect.
    fn signal(&self, task: &crate::Task, info: &crate::task::signal::SigInfo);
}

/// Whether somebody watches: all that a call costs when nobody does.
static IS_TRACED: AtomicBool = AtomicBool::new(false);
static TRACER: SpinLock<Option<&'static dyn Tracer>> = SpinLock::new(None);

/// Sets who watches.
pub fn set_tracer(tracer: &'static dyn Tracer) {
    *TRACER.lock() = Some(tracer);
    IS_TRACED.store(true, Ordering::Relaxed);
}

/// Calls `f` with whoever watches.
pub(crate) fn trace(f: impl FnOnce(&dyn Tracer)) {
    if IS_TRACED.load(Ordering::Relaxed) {
        let tracer = *TRACER.lock();
        if let Some(tracer) = tracer {
            f(tracer);
        }
    }
}

/// A function of the dispatch table.
pub type Entry = extern "C" fn(&mut UserFrame);

/// Runs the system call whose number is in `orig_rax`.
pub fn system_call(table: &[Entry], frame: &mut UserFrame) {
    if IS_TRACED.load(Ordering::Relaxed) {
        return traced_call(table, frame);
    }
    call(table, frame);
}

#[inline]
fn call(table: &[Entry], frame: &mut UserFrame) {
    match table.get(frame.orig_rax as usize) {
        Some(handler) => with_current(|task| sched::measure_call(task, || handler(frame))),
        None => frame.rax = crate::Errno::ENOSYS.to_ret() as u64,
    }
}

#[cold]
fn traced_call(table: &[Entry], frame: &mut UserFrame) {
    let number = frame.orig_rax;
    let args = [frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9];
    trace(|tracer| with_current(|task| tracer.enter(task, number, &args)));
    call(table, frame);
    let result = frame.rax as i64;
    trace(|tracer| with_current(|task| tracer.leave(task, number, &args, result)));
}

/// Answers a call that is not linked.
pub fn not_linked(frame: &mut UserFrame) {
    // No program names this call: signal delivery makes it, so its handler is nobody's choice.
    if frame.orig_rax == u64::from(linux::__NR_restart_syscall) {
        let restart = with_current(|task| task.signals.take_restart());
        // Nobody but signal delivery has reason to make this call.
        let result = restart.map_or(Err(crate::Errno::EINTR), |restart| with_current(|task| restart(task)));
        frame.rax = result.map_or_else(|errno| errno.to_ret() as u64, |value| value as u64);
        return;
    }
    // The address of the call itself: `syscall` is two bytes long.
    with_current(|task| crate::enosys::report(task, frame.orig_rax as usize, frame.rip.wrapping_sub(2) as usize));
    frame.rax = crate::Errno::ENOSYS.to_ret() as u64;
}

/// Does what is to be done before a program goes on: gives the CPU to others, delivers signals.
pub fn before_user(frame: &mut UserFrame) {
    crate::arch::cpu::clear_work_pending();
    if cpu::must_switch() {
        sched::schedule();
    }
    if with_current(|task| task.signals.is_work_pending()) || deliver::is_interrupted_call(frame) {
        deliver::deliver(frame);
        // Delivery may have slept (stopped by job control), and there may be more.
        if with_current(|task| task.signals.is_work_pending()) {
            crate::arch::cpu::set_work_pending();
        }
    }
}

/// Handles an interrupt; interrupts are off.
pub fn interrupt(irq: Irq) {
    match irq {
        Irq::Timer => crate::time::on_interrupt(),
        Irq::Device(vector) => crate::irq::on_interrupt(vector),
        Irq::Reschedule => cpu::request_switch(),
    }
}

/// Handles an exception of a program.
pub fn user_fault(frame: &mut UserFrame, fault: Fault) {
    // si_code values of asm-generic/siginfo.h.
    const FPE_INTDIV: i32 = 1;
    const ILL_ILLOPN: i32 = 2;
    const TRAP_BRKPT: i32 = 1;
    const TRAP_TRACE: i32 = 2;
    const BUS_ADRALN: i32 = 1;
    const SI_KERNEL: i32 = linux::SI_KERNEL as i32;
    let rip = frame.rip as usize;
    match fault {
        Fault::PageFault { addr, present, write, exec } => page_fault(addr, present, write, exec),
        Fault::DivideError => raise(set::SIGFPE, FPE_INTDIV, rip, 0),
        // Status bits that the control word does not mask.
        Fault::Fpu { status, control } => raise(set::SIGFPE, float_code(u32::from(status & !control)), rip, 16),
        Fault::Simd { mxcsr } => raise(set::SIGFPE, float_code(mxcsr & !(mxcsr >> 7)), rip, 19),
        Fault::InvalidOpcode => raise(set::SIGILL, ILL_ILLOPN, rip, 6),
        Fault::Breakpoint => raise(set::SIGTRAP, SI_KERNEL, 0, 3),
        Fault::Debug => raise(set::SIGTRAP, if frame.rflags & 0x100 != 0 { TRAP_TRACE } else { TRAP_BRKPT }, rip, 1),
        Fault::Alignment => raise(set::SIGBUS, BUS_ADRALN, 0, 17),
        _ => raise(set::SIGSEGV, SI_KERNEL, 0, 13),
    }
}

/// `si_code` for unmasked exception bits of the x87 or SSE status (Linux, `fpu__exception_code`).
fn float_code(bits: u32) -> i32 {
    const FPE_FLTDIV: i32 = 3;
    const FPE_FLTOVF: i32 = 4;
    const FPE_FLTUND: i32 = 5;
    const FPE_FLTRES: i32 = 6;
    const FPE_FLTINV: i32 = 7;
    match bits {
        b if b & 0x01 != 0 => FPE_FLTINV,
        b if b & 0x04 != 0 => FPE_FLTDIV,
        b if b & 0x08 != 0 => FPE_FLTOVF,
        // Underflow and denormal operand.
        b if b & 0x12 != 0 => FPE_FLTUND,
        b if b & 0x20 != 0 => FPE_FLTRES,
        _ => 0,
    }
}

fn raise(signo: u32, code: i32, addr: usize, trap: u64) {
    with_current(|task| task.signals.set_fault(crate::task::signal::frame::FaultRegisters { error: 0, trap, cr2: 0 }));
    deliver::force_fault(signo, code, addr);
}

fn page_fault(addr: usize, present: bool, write: bool, exec: bool) {
    let access = if exec {
        Access::Exec
    } else if write {
        Access::Write
    } else {
        Access::Read
    };
    let result = with_current(|task| task.mm().fault_within(addr, access, &|| crate::mm::Limits::of(task)));
    let Err(error) = result else { return };
    match error.signal() {
        Some((signo, code)) => {
            // Error code bits: present, write, user, instruction fetch (Intel SDM vol. 3, 4.7).
            let bits = u64::from(present) | u64::from(write) << 1 | 4 | u64::from(exec) << 4;
            let fault = crate::task::signal::frame::FaultRegisters { error: bits, trap: 14, cr2: addr as u64 };
            with_current(|task| task.signals.set_fault(fault));
            deliver::force_fault(signo, code, addr);
        }
        // It tries again, unless it was the one to go.
        None => {
            crate::mm::oom::make_room();
        }
    }
}

#[cfg(ukc_kernel)]
mod symbols {
    use super::{Entry, Fault, Irq, UserFrame};

    unsafe extern "C" {
        /// One handler per system call number; the compiler writes it for the application.
        static ukc_syscall_table: [Entry; libos_abi::syscall::TABLE_LEN];
    }

    #[unsafe(no_mangle)]
    fn ukc_syscall(frame: &mut UserFrame) {
        // SAFETY: the symbol has this type in every kernel that the compiler links, and is never written.
        super::system_call(unsafe { &ukc_syscall_table }, frame);
    }

    /// What the table holds for calls that are not linked.
    #[unsafe(no_mangle)]
    extern "C" fn ukc_sys_enosys(frame: &mut UserFrame) {
        super::not_linked(frame);
    }

    #[unsafe(no_mangle)]
    fn ukc_before_user(frame: &mut UserFrame) {
        super::before_user(frame);
    }

    #[unsafe(no_mangle)]
    fn ukc_interrupt(irq: Irq) {
        super::interrupt(irq);
    }

    #[unsafe(no_mangle)]
    fn ukc_user_fault(frame: &mut UserFrame, fault: Fault) {
        super::user_fault(frame, fault);
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        // Whoever reads neither the text nor the place lets the optimiser drop both at each of the places that can panic: a fifth of a small kernel.
        #[cfg(not(ukc_panic_messages))]
        {
            let _ = info;
            crate::arch::panic::kernel_panic("a check failed")
        }
        #[cfg(ukc_panic_messages)]
        crate::arch::panic::kernel_panic_fmt(format_args!("{info}"))
    }
}
