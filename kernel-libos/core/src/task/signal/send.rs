//! Sending: who gets a signal, and what it does at once.

use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::action::{ActionFlags, DEFAULT};
use super::set::{SIGCHLD, SIGCONT, SIGKILL};
use super::{ProcessSignals, SigInfo, SigSet};
use crate::task::{Process, Resource, Task, Tid, sched, table};

/// `CAP_KILL`.
const CAP_KILL: u32 = linux::CAP_KILL;

/// Whether a task may send a signal to a process (kill(2)).
///
/// # Errors
/// `EPERM`.
pub fn may_signal(sender: &Task, process: &Process, signo: u32) -> Result<()> {
    // A zombie takes any signal, without effect.
    let Some(target) = process.main_thread() else { return Ok(()) };
    if core::ptr::eq(&raw const *sender.process, process) {
        return Ok(());
    }
    let (from, to) = (sender.creds(), target.creds());
    let is_same_user = [from.euid, from.uid].iter().any(|id| [to.suid, to.uid].contains(id));
    let continues_session = signo == SIGCONT && process.session() == sender.process.session();
    if is_same_user || continues_session || from.has_capability(CAP_KILL) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Sends a signal to a process; any of its threads that does not block it takes it.
///
/// # Errors
/// `EAGAIN` when a real-time signal cannot be queued.
pub fn send_to_process(process: &Process, info: SigInfo) -> Result<()> {
    post(process, None, info)
}

/// Sends a signal to one thread.
///
/// # Errors
/// As [`send_to_process`].
pub fn send_to_task(task: &Task, info: SigInfo) -> Result<()> {
    post(&task.process, Some(task), info)
}

/// Sends a signal of the kernel to all processes of a group, as a terminal does.
pub fn send_to_group(group: Tid, signo: u32) {
    for process in table::group(group) {
        // Signals of the kernel are never refused.
        let _ = send_to_process(&process, SigInfo::kernel(signo));
    }
}

/// Sends a signal to the current thread, as the kernel does for SIGPIPE.
pub fn send_to_current(signo: u32) {
    crate::task::with_current(|task| {
        let info = SigInfo::user(signo, linux::SI_USER as i32, task.pid(), task.creds().uid);
        // A standard signal is never refused.
        let _ = send_to_task(task, info);
    });
}

fn post(process: &Process, target: Option<&Task>, info: SigInfo) -> Result<()> {
    let signo = info.signo as u32;
    let limit = usize::try_from(process.limit(Resource::SigPending)).unwrap_or(usize::MAX);
    let handlers = process.handlers();
    let mut shared = process.signals.lock();
    if shared.exiting.is_some() || process.pid == 0 {
        return Ok(());
    }
    let was_continued = undo_opposites(process, &mut shared, signo);
    let result = queue(process, target, info, limit, &mut shared, handlers.get(signo));
    drop(shared);
    if was_continued {
        process.status.lock().continued = true;
        notify_parent(process, linux::CLD_CONTINUED, SIGCONT as i32);
    }
    if let Ok(true) = result {
        announce(process, target);
    }
    result.map(drop)
}

/// SIGCONT and the signals that stop cancel each other, whatever happens to the new one (signal(7)). Returns whether the process was continued.
fn undo_opposites(process: &Process, shared: &mut ProcessSignals, signo: u32) -> bool {
    let opposite = if signo == SIGCONT {
        SigSet::STOPPING
    } else if SigSet::STOPPING.contains(signo) {
        SigSet::of(&[SIGCONT])
    } else {
        return false;
    };
    shared.pending.discard(opposite);
    let continues = signo == SIGCONT && shared.stopped.take().is_some();
    for thread in process.threads.lock().iter() {
        thread.signals.thread.lock().pending.discard(opposite);
        if continues {
            sched::wake_for_signal(thread, true);
        }
    }
    continues
}

/// Queues the signal and wakes whoever takes it. Returns whether it is now pending.
fn queue(
    process: &Process,
    target: Option<&Task>,
    info: SigInfo,
    limit: usize,
    shared: &mut ProcessSignals,
    action: super::SignalAction,
) -> Result<bool> {
    let signo = info.signo as u32;
    let threads = process.threads.lock();
    let Some(first) = target.or(threads.first().map(|t| &**t)) else { return Ok(false) };
    if first.signals.is_cared_for(signo) {
        if action.ignores(signo) || is_protected(process, &info, &action) {
            return Ok(false);
        }
    } else if signo == SIGKILL && is_protected(process, &info, &action) {
        return Ok(false);
    }
    let has_room = match target {
        Some(task) => task.signals.thread.lock().pending.push(info, limit),
        None => shared.pending.push(info, limit),
    };
    if !has_room {
        return Err(Errno::EAGAIN);
    }
    let taker = match target {
        Some(task) => Some(task).filter(|t| t.signals.wants(signo)),
        None => threads.iter().map(|t| &**t).find(|t| t.signals.wants(signo)),
    };
    if let Some(task) = taker {
        alert(task, signo == SIGKILL);
    }
    Ok(true)
}

/// The first process is protected as Linux protects init: what others send it has an effect only through a handler, and nothing stops it. What it sends
/// itself and what the kernel sends kills it, so that `abort()` ends the machine with the right status.
fn is_protected(process: &Process, info: &SigInfo, action: &super::SignalAction) -> bool {
    process.pid == 1
        && action.handler == DEFAULT
        && (SigSet::STOPPING.contains(info.signo as u32) || info.is_from_user() && info.code != linux::SI_TIMER && info.pid() != 1)
}

/// Tells signalfd files that something arrived.
fn announce(process: &Process, target: Option<&Task>) {
    match target {
        Some(task) => task.signals.arrivals.wake_all(),
        None => {
            for thread in process.threads().iter() {
                thread.signals.arrivals.wake_all();
            }
        }
    }
}

/// Makes a thread look at its signals.
pub(in crate::task) fn alert(task: &Task, ends_stop: bool) {
    task.signals.attention.store(true, core::sync::atomic::Ordering::Release);
    sched::wake_for_signal(task, ends_stop);
    if crate::task::cpu::data().is_current(task) {
        crate::arch::cpu::set_work_pending();
    }
}

/// Recomputes whether a thread has something to look at; its process's signals are locked.
pub(super) fn recalculate(task: &Task, process: &ProcessSignals) {
    let thread = task.signals.thread.lock();
    let deliverable = thread.pending.set().union(process.pending.set()).minus(task.signals.blocked());
    let attention = !deliverable.is_empty() || process.exiting.is_some() || process.stopped.is_some() || thread.kill;
    task.signals.attention.store(attention, core::sync::atomic::Ordering::Release);
    drop(thread);
    if attention && crate::task::cpu::data().is_current(task) {
        crate::arch::cpu::set_work_pending();
    }
}

impl super::TaskSignals {
    /// Whether a signal would be looked at when it arrives: not blocked, and not awaited. An ignored signal may then be dropped at once.
    fn is_cared_for(&self, signo: u32) -> bool {
        !self.blocked().contains(signo) && !self.thread.lock().awaited.contains(signo)
    }

    /// Whether the thread can take a signal now.
    fn wants(&self, signo: u32) -> bool {
        SigSet::UNBLOCKABLE.contains(signo) || !self.blocked().contains(signo) || self.thread.lock().awaited.contains(signo)
    }
}

/// Tells the parent that a process stopped or went on: SIGCHLD, unless the parent does not want to know, and a wake-up for wait(2).
pub(in crate::task) fn notify_parent(process: &Process, code: u32, status: i32) {
    let Ok(parent) = table::process(process.parent()) else { return };
    let action = parent.handlers().get(SIGCHLD);
    if action.is_handler() && !action.flags.contains(ActionFlags::NOCLDSTOP) {
        // SIGCHLD is never refused.
        let _ = send_to_process(&parent, child_info(process, code, status));
    }
    parent.child_events.wake_all();
}

/// The details of a SIGCHLD about a process.
pub(in crate::task) fn child_info(process: &Process, code: u32, status: i32) -> SigInfo {
    let (user, system) = process.cpu_time_ns();
    // Clock ticks of 10 ms (`USER_HZ`).
    SigInfo::child(code, process.pid, process.uid(), status, user / 10_000_000, system / 10_000_000)
}
