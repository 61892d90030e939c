//! Signals (signal(7)).
//!
//! | file | what it is for |
//! |---|---|
//! | `set`, `info`, `pending` | numbers and sets; `siginfo_t`; what was sent and not yet taken |
//! | `action` | the table of handlers |
//! | `send` | choosing who gets it; kill(2) permission; effects that sending has at once |
//! | `deliver` | on the way to ring 3: default actions, stopping, restarting calls |
//! | `frame` | the stack frame of a handler, and the way back from it |
//!
//! Locks, outer first: process table, `Process::signals`, `SignalHandlers`, `TaskSignals::thread`, run queue.

pub mod action;
pub mod deliver;
pub mod frame;
pub mod info;
pub mod pending;
pub mod send;
pub mod set;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libos_abi::{Errno, Result};

use super::Task;
use super::wait::WaitQueue;
use crate::sync::SpinLock;

pub use action::{ActionFlags, SignalAction, SignalHandlers};
pub use deliver::force_fault;
pub use info::SigInfo;
pub use pending::Pending;
pub use send::{may_signal, send_to_current, send_to_group, send_to_process, send_to_task};
pub use set::SigSet;

/// Signal state that all threads of a process share.
pub struct ProcessSignals {
    /// Sent to the process as a whole.
    pub pending: Pending,
    /// The process ends with this wait status: every thread that sees it ends.
    pub exiting: Option<i32>,
    /// One thread executes another program and waits for the others to end.
    pub executing: bool,
    /// The signal that stops the process, while it is stopped.
    pub stopped: Option<u32>,
}

impl ProcessSignals {
    pub(super) const fn new() -> ProcessSignals {
        ProcessSignals { pending: Pending::new(), exiting: None, executing: false, stopped: None }
    }
}

/// Signal state of one thread.
pub struct TaskSignals {
    /// Whether there may be something to do before the thread returns to ring 3, or reason to end a sleep.
    attention: AtomicBool,
    /// Blocked signals; only the thread itself changes them.
    blocked: AtomicU64,
    pub(super) thread: SpinLock<ThreadSignals>,
    /// Joined by signalfd files, which become readable.
    pub arrivals: Arc<WaitQueue>,
}

/// The part of a thread's signal state that has no atomics.
pub(super) struct ThreadSignals {
    pub pending: Pending,
    /// Signals that sigtimedwait(2) takes although they are blocked.
    pub awaited: SigSet,
    /// The mask to return to after sigsuspend(2), ppoll(2), ...
    pub saved_mask: Option<SigSet>,
    pub alt_stack: AltStack,
    /// What restart_syscall(2) does.
    pub restart: Option<Restart>,
    /// This thread alone must end: another one executes a program.
    pub kill: bool,
    /// The last fault, for the frames of handlers.
    pub fault: frame::FaultRegisters,
}

/// How an interrupted call goes on, with the time that remains.
pub type Restart = Box<dyn FnOnce(&Task) -> Result<usize> + Send>;

/// The alternate stack (sigaltstack(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AltStack {
    /// Lowest address.
    pub base: usize,
    /// Bytes; 0 is none.
    pub size: usize,
    /// `SS_AUTODISARM`.
    pub autodisarm: bool,
}

impl AltStack {
    /// Whether a stack pointer lies on it.
    pub fn contains(self, sp: usize) -> bool {
        self.size > 0 && sp > self.base && sp - self.base <= self.size
    }
}

impl TaskSignals {
    pub(super) fn new() -> TaskSignals {
        TaskSignals {
            attention: AtomicBool::new(false),
            blocked: AtomicU64::new(0),
            thread: SpinLock::new(ThreadSignals {
                pending: Pending::new(),
                awaited: SigSet::EMPTY,
                saved_mask: None,
                alt_stack: AltStack::default(),
                restart: None,
                kill: false,
                fault: frame::FaultRegisters::default(),
            }),
            arrivals: Arc::new(WaitQueue::new()),
        }
    }

    /// Whether a signal waits that is not blocked. The task must be the current one.
    pub fn has_deliverable(&self, task: &Task) -> bool {
        debug_assert!(core::ptr::eq(self, &raw const task.signals));
        self.attention.load(Ordering::Acquire)
    }

    /// Whether there is something to do before the thread returns to ring 3.
    pub fn is_work_pending(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// Blocked signals.
    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Ordering::Relaxed))
    }

    /// Sets the mask of a task that does not run yet.
    pub(super) fn start_with_mask(&self, mask: SigSet) {
        self.blocked.store(mask.0, Ordering::Relaxed);
    }

    /// Signals pending for this thread alone.
    pub fn pending_set(&self) -> SigSet {
        self.thread.lock().pending.set()
    }

    /// Notes what the processor said about a fault.
    pub fn set_fault(&self, fault: frame::FaultRegisters) {
        self.thread.lock().fault = fault;
    }

    /// The alternate stack.
    pub fn alt_stack(&self) -> AltStack {
        self.thread.lock().alt_stack
    }

    /// Sets the alternate stack; the caller has checked it.
    pub fn set_alt_stack(&self, stack: AltStack) {
        self.thread.lock().alt_stack = stack;
    }

    /// Says how restart_syscall(2) goes on; the call then answers `Errno::ERESTART_RESTARTBLOCK`.
    pub fn set_restart(&self, restart: Restart) -> Errno {
        let old = self.thread.lock().restart.replace(restart);
        drop(old);
        Errno::ERESTART_RESTARTBLOCK
    }

    /// Takes what [`TaskSignals::set_restart`] stored.
    pub fn take_restart(&self) -> Option<Restart> {
        self.thread.lock().restart.take()
    }
}

/// Changes the mask of the current thread, SIGKILL and SIGSTOP excepted.
pub fn set_blocked(task: &Task, mask: SigSet) {
    let process = task.process.signals.lock();
    task.signals.blocked.store(mask.minus(SigSet::UNBLOCKABLE).0, Ordering::Relaxed);
    send::recalculate(task, &process);
}

/// Runs an interruptible call under a temporary mask (sigsuspend(2), ppoll(2), pselect(2), epoll_pwait(2)). When a signal ended the call, the mask stays
/// until the signal was delivered: the handler is entered under it and returns to the old one.
///
/// # Errors
/// As `call`.
pub fn with_mask<T>(task: &Task, mask: Option<SigSet>, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(mask) = mask else { return call() };
    let old = task.signals.blocked();
    set_blocked(task, mask);
    let result = call();
    let is_interrupted = matches!(
        result,
        Err(Errno::ERESTARTSYS | Errno::ERESTARTNOHAND | Errno::ERESTARTNOINTR | Errno::ERESTART_RESTARTBLOCK | Errno::EINTR)
    );
    if is_interrupted && task.signals.has_deliverable(task) {
        task.signals.thread.lock().saved_mask = Some(old);
    } else {
        set_blocked(task, old);
    }
    result
}

/// Signals pending for a thread or its process.
pub fn all_pending(task: &Task) -> SigSet {
    let process = task.process.signals.lock();
    process.pending.set().union(task.signals.pending_set())
}

/// Signals pending for a thread or its process that it blocks (sigpending(2)).
pub fn pending(task: &Task) -> SigSet {
    all_pending(task).intersection(task.signals.blocked())
}

/// Drops a signal that the process has begun to ignore, wherever it is pending (sigaction(2), POSIX 2.4.3).
pub fn discard_ignored(task: &Task, signo: u32) {
    let signal = SigSet::of(&[signo]);
    let mut process = task.process.signals.lock();
    process.pending.discard(signal);
    for thread in task.process.threads.lock().iter() {
        thread.signals.thread.lock().pending.discard(signal);
    }
    send::recalculate(task, &process);
}

/// Takes a pending signal among `wanted`, whether blocked or not (sigtimedwait(2), signalfd(2)).
pub fn take_pending(task: &Task, wanted: SigSet) -> Option<SigInfo> {
    let mut process = task.process.signals.lock();
    let wanted = wanted.minus(SigSet::UNBLOCKABLE);
    let own = task.signals.thread.lock().pending.take(wanted);
    let taken = own.or_else(|| process.pending.take(wanted));
    send::recalculate(task, &process);
    taken
}

/// How often a timer has expired since its signal, which is still pending, was sent; `None` when none is pending.
pub fn timer_overrun(process: &super::Process, task: Option<&Task>, signo: u32, id: i32) -> Option<i32> {
    match task {
        Some(task) => task.signals.thread.lock().pending.timer_overrun(signo, id),
        None => process.signals.lock().pending.timer_overrun(signo, id),
    }
}

/// Says which blocked signals end the thread's sleep, for sigtimedwait(2).
pub fn set_awaited(task: &Task, awaited: SigSet) {
    task.signals.thread.lock().awaited = awaited;
}
