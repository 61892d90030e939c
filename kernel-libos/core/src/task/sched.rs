//! The scheduler: who has the CPU, and how tasks give it away and get it back.
//!
//! The kernel is not preemptible. A task keeps the CPU until it sleeps or returns to ring 3; there it is replaced when its slice is over while others
//! wait, or when somebody woke up who is further behind. Without others there is no slice, hence no timer; without anybody the CPU halts.
//!
//! A task's life: *running* (on the CPU or in the queue), *sleeping* (interruptible or not), *stopped* (job control), *dead*. The state changes under the
//! lock of the run queue, so a wake-up between [`prepare_to_sleep`] and [`sleep_until`] is not lost: it makes the task running again, and the switch away
//! does not happen. One run queue per CPU; a task stays with its CPU, because its vector registers may still be there (see [`super::cpu`]).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicI8, AtomicU8, AtomicU32, AtomicU64, Ordering};

use libos_abi::{Errno, Result};

use super::Task;
use super::cpu::{self, CpuData};
use super::runqueue::{SLICE_NS, WAKE_GRANULARITY_NS, scaled, weight};
use crate::arch::UserFrame;
use crate::arch::cpu::IrqGuard;
use crate::sync::SpinLock;

/// What a task is doing, as bits so that a waker can name several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State(u8);

impl State {
    /// On the CPU or in the run queue.
    pub const RUNNING: State = State(1);
    /// Sleeping; signals wake it.
    pub const INTERRUPTIBLE: State = State(2);
    /// Sleeping; only what it waits for wakes it.
    pub const UNINTERRUPTIBLE: State = State(4);
    /// Stopped by a signal.
    pub const STOPPED: State = State(8);
    /// Ended.
    pub const DEAD: State = State(16);

    const SLEEPING: State = State(2 | 4);

    /// The letter of /proc/PID/stat.
    pub fn letter(self) -> u8 {
        match self {
            State::INTERRUPTIBLE => b'S',
            State::UNINTERRUPTIBLE => b'D',
            State::STOPPED => b'T',
            State::DEAD => b'Z',
            _ => b'R',
        }
    }
}

/// With what a task begins.
pub(super) enum Start {
    /// A function of the kernel.
    Kernel(Box<dyn FnOnce() + Send>),
    /// The registers of a program.
    User(Box<UserFrame>),
}

/// What the scheduler keeps for a task.
pub struct SchedState {
    state: AtomicU8,
    vruntime: AtomicU64,
    run_ns: AtomicU64,
    system_ns: AtomicU64,
    calls: AtomicU64,
    /// Times it gave the CPU away of itself, and times it was taken.
    pub voluntary_switches: AtomicU64,
    /// Times the CPU was taken from it.
    pub involuntary_switches: AtomicU64,
    nice: AtomicI8,
    /// `SCHED_*` of sched_setscheduler(2); accepted and reported, it changes nothing.
    pub policy: AtomicU32,
    /// Real-time priority, the same.
    pub priority: AtomicU32,
    /// Affinity mask as the program set it; all CPUs at first.
    pub affinity: AtomicU64,
    pub(super) start: SpinLock<Option<Start>>,
    pub(super) machine: cpu::Machine,
}

impl SchedState {
    /// A task that is or will become a program (`is_program`) has vector state.
    ///
    /// # Errors
    /// `ENOMEM` when there is no kernel stack.
    pub(super) fn new(start: Start, is_program: bool) -> Result<SchedState> {
        let machine = cpu::Machine::new(is_program)?;
        Ok(SchedState::with(machine, Some(start)))
    }

    /// For the context the kernel booted in.
    pub(super) fn boot() -> SchedState {
        SchedState::with(cpu::Machine::boot(), None)
    }

    fn with(machine: cpu::Machine, start: Option<Start>) -> SchedState {
        SchedState {
            state: AtomicU8::new(State::RUNNING.0),
            vruntime: AtomicU64::new(0),
            run_ns: AtomicU64::new(0),
            system_ns: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            voluntary_switches: AtomicU64::new(0),
            involuntary_switches: AtomicU64::new(0),
            nice: AtomicI8::new(0),
            policy: AtomicU32::new(0),
            priority: AtomicU32::new(0),
            affinity: AtomicU64::new(u64::MAX),
            start: SpinLock::new(start),
            machine,
        }
    }

    /// What the task is doing.
    pub fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    fn set_state(&self, state: State) {
        self.state.store(state.0, Ordering::Release);
    }

    /// CPU time used so far in nanoseconds, exact at the last switch.
    pub fn run_ns(&self) -> u64 {
        let stored = self.run_ns.load(Ordering::Relaxed);
        if super::with_current(|current| core::ptr::eq(&raw const current.sched, self)) {
            stored + cpu::data().running_since()
        } else {
            stored
        }
    }

    /// The part of it spent in system calls, estimated from every eighth call.
    pub fn system_ns(&self) -> u64 {
        self.system_ns.load(Ordering::Relaxed)
    }

    /// Nice value (nice(2)).
    pub fn nice(&self) -> i8 {
        self.nice.load(Ordering::Relaxed)
    }

    /// Sets the nice value, from -20 to 19.
    pub fn set_nice(&self, nice: i8) {
        self.nice.store(nice.clamp(-20, 19), Ordering::Relaxed);
    }

    /// Starts from another task's nice value and policy (fork(2)).
    pub(super) fn inherit(&self, parent: &SchedState) {
        self.set_nice(parent.nice());
        self.policy.store(parent.policy.load(Ordering::Relaxed), Ordering::Relaxed);
        self.priority.store(parent.priority.load(Ordering::Relaxed), Ordering::Relaxed);
        self.affinity.store(parent.affinity.load(Ordering::Relaxed), Ordering::Relaxed);
        self.vruntime.store(parent.vruntime.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Runs a system call and counts its time: every eighth one is measured and stands for eight.
pub(crate) fn measure_call(task: &Task, call: impl FnOnce()) {
    let calls = task.sched.calls.load(Ordering::Relaxed);
    task.sched.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
    if calls & 7 != 7 {
        return call();
    }
    let before = task.sched.run_ns();
    call();
    let used = task.sched.run_ns().saturating_sub(before);
    task.sched.system_ns.fetch_add(used * 8, Ordering::Relaxed);
}

/// Announces that the current task will sleep; a wake-up from here on is not lost.
pub fn prepare_to_sleep(task: &Task, interruptible: bool) {
    let _queue = cpu::data().queue.lock();
    task.sched.set_state(if interruptible { State::INTERRUPTIBLE } else { State::UNINTERRUPTIBLE });
}

/// Announces that the current task will stop until it is continued or killed.
pub(super) fn prepare_to_stop(task: &Task) {
    let _queue = cpu::data().queue.lock();
    task.sched.set_state(State::STOPPED);
}

/// Gives the CPU away until somebody wakes the task or the deadline passes; returns at once when it was woken since [`prepare_to_sleep`].
pub fn sleep_until(deadline_ns: Option<u64>) {
    let timer = deadline_ns.map(|deadline| crate::time::start_timer(deadline, super::current()));
    schedule();
    if let Some(timer) = timer {
        crate::time::cancel_timer(timer);
    }
}

/// Takes back the announcement.
pub fn cancel_sleep(task: &Task) {
    let _queue = cpu::data().queue.lock();
    task.sched.set_state(State::RUNNING);
}

/// Makes a sleeping task runnable; any context.
pub fn wake(task: &Task) {
    wake_if(task, State::SLEEPING);
}

/// Wakes a task for a signal: not from uninterruptible sleep, and from a stop only when the signal ends it.
pub(super) fn wake_for_signal(task: &Task, ends_stop: bool) {
    wake_if(task, State(State::INTERRUPTIBLE.0 | if ends_stop { State::STOPPED.0 } else { 0 }));
}

fn wake_if(task: &Task, states: State) {
    let cpu = cpu::data();
    let mut queue = cpu.queue.lock();
    if task.sched.state.load(Ordering::Relaxed) & states.0 == 0 {
        return;
    }
    task.sched.set_state(State::RUNNING);
    if cpu.is_current(task) {
        // It has not left the CPU yet; it will notice.
        return;
    }
    let Some(arc) = task.arc() else { return };
    let vruntime = queue.entry_time(task.sched.vruntime.load(Ordering::Relaxed));
    task.sched.vruntime.store(vruntime, Ordering::Relaxed);
    queue.push(vruntime, arc);
    drop(queue);
    on_queued(cpu, vruntime);
}

/// Somebody with this virtual run time now waits for the CPU.
fn on_queued(cpu: &CpuData, vruntime: u64) {
    let is_behind = super::with_current(|current| {
        if cpu.is_idle(current) {
            return true;
        }
        let running = current.sched.vruntime.load(Ordering::Relaxed) + scaled(cpu.running_since(), weight(current.sched.nice()));
        vruntime + WAKE_GRANULARITY_NS < running
    });
    if is_behind {
        cpu.request_switch();
    } else if cpu.slice_end() == u64::MAX {
        // Up to now the running task was alone.
        let end = crate::time::monotonic_ns() + SLICE_NS;
        cpu.set_slice_end(end);
        crate::time::program(end);
    }
}

/// When the running task's slice is over, in monotonic nanoseconds; `u64::MAX` while nobody waits.
pub(crate) fn slice_end_ns() -> u64 {
    let cpu = cpu::data();
    let end = cpu.slice_end();
    if end != u64::MAX && crate::time::monotonic_ns() >= end {
        cpu.set_slice_end(u64::MAX);
        cpu.request_switch();
        return u64::MAX;
    }
    end
}

/// Puts a new task into the run queue for the first time.
pub(super) fn start(task: Arc<Task>) {
    let cpu = cpu::data();
    let mut queue = cpu.queue.lock();
    let vruntime = queue.entry_time(task.sched.vruntime.load(Ordering::Relaxed));
    task.sched.vruntime.store(vruntime, Ordering::Relaxed);
    queue.push(vruntime, task);
    drop(queue);
    on_queued(cpu, vruntime);
}

/// Makes room in the run queue for so many tasks.
///
/// # Errors
/// `ENOMEM`.
pub(super) fn reserve(tasks: usize) -> Result<()> {
    cpu::data().queue.lock().reserve(tasks).map_err(|_| Errno::ENOMEM)
}

/// Lets others run who wait (sched_yield(2)).
pub fn yield_now() {
    let behind = cpu::data().queue.lock().peek();
    if let Some(next) = behind {
        // Everybody who waits now is at most here; the task lines up behind the first of them.
        super::with_current(|task| task.sched.vruntime.fetch_max(next + 1, Ordering::Relaxed));
        schedule();
    }
}

/// Marks the current task as ended and gives the CPU away for good.
pub(super) fn die(task: &Task) -> ! {
    {
        let _queue = cpu::data().queue.lock();
        task.sched.set_state(State::DEAD);
    }
    schedule();
    unreachable!("a dead task was resumed");
}

/// Gives the CPU to the next task; the current one stays in the queue if it is still running.
pub fn schedule() {
    let irq = IrqGuard::new();
    let cpu = cpu::data();
    assert!(super::spin_locks_held() == 0, "a task sleeps while it holds a spin lock");
    let previous = super::current();
    let used = cpu.restart_clock();
    previous.sched.run_ns.fetch_add(used, Ordering::Relaxed);
    let vruntime = previous.sched.vruntime.load(Ordering::Relaxed) + scaled(used, weight(previous.sched.nice()));
    previous.sched.vruntime.store(vruntime, Ordering::Relaxed);

    let mut queue = cpu.queue.lock();
    let state = previous.sched.state();
    if state == State::RUNNING && !cpu.is_idle(&previous) {
        queue.push(vruntime, previous.clone());
    }
    let next = queue.pop().unwrap_or_else(|| cpu.idle());
    cpu.set_slice_end(if queue.is_empty() { u64::MAX } else { crate::time::monotonic_ns() + SLICE_NS });
    drop(queue);
    cpu.switch_done();
    if cpu.slice_end() != u64::MAX {
        crate::time::program(cpu.slice_end());
    }
    if Arc::ptr_eq(&next, &previous) {
        return;
    }
    if state == State::RUNNING { &previous.sched.involuntary_switches } else { &previous.sched.voluntary_switches }
        .fetch_add(1, Ordering::Relaxed);
    cpu::switch(cpu, previous, next, state == State::DEAD);
    drop(irq);
}

/// What the boot context does for the rest of its life: lets others run, and halts when nobody wants to.
pub(crate) fn idle() -> ! {
    loop {
        schedule();
        crate::arch::cpu::interrupts_disable();
        if cpu::data().queue.lock().is_empty() {
            crate::arch::cpu::halt();
        }
        crate::arch::cpu::interrupts_enable();
    }
}
