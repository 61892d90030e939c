//! Delivering: what a thread does about its signals on the way to ring 3.

use core::sync::atomic::Ordering;

use libos_abi::Errno;
use libos_abi::general as linux;

use super::action::{ActionFlags, DEFAULT, SignalAction};
use super::set::{self, Default as DefaultAction, SIGKILL, SIGSTOP};
use super::{SigInfo, SigSet, frame, send};
use crate::arch::UserFrame;
use crate::task::{Task, exit, sched, table};

/// What to do next.
enum Next {
    /// Nothing is left.
    Nothing,
    /// Enter a handler.
    Handler(SigInfo, SignalAction),
    /// End the whole process with a wait status.
    Exit(i32),
    /// End this thread.
    ExitThread,
    /// Stop, unless the group is orphaned and the signal a terminal's.
    Stop(u32),
    /// The process is stopped already: join.
    JoinStop,
}

/// What a call that was interrupted answers or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resume {
    /// `EINTR`.
    Interrupted,
    /// The same call again.
    Again,
    /// restart_syscall(2).
    RestartCall,
}

/// How a call goes on that answered `errno`, with the flags of the handler that runs first, if one does (signal(7), "Interruption of system calls").
/// `None` when the call was not interrupted.
fn resume(errno: Errno, handler: Option<ActionFlags>) -> Option<Resume> {
    Some(match (errno, handler) {
        (Errno::ERESTARTNOINTR, _) => Resume::Again,
        (Errno::ERESTARTSYS, Some(flags)) if flags.contains(ActionFlags::RESTART) => Resume::Again,
        (Errno::ERESTARTSYS | Errno::ERESTARTNOHAND | Errno::ERESTART_RESTARTBLOCK, Some(_)) => Resume::Interrupted,
        (Errno::ERESTARTSYS | Errno::ERESTARTNOHAND, None) => Resume::Again,
        (Errno::ERESTART_RESTARTBLOCK, None) => Resume::RestartCall,
        _ => return None,
    })
}

/// Whether a system call left one of the numbers that programs must not see.
pub(crate) fn is_interrupted_call(frame: &UserFrame) -> bool {
    frame.orig_rax as i64 >= 0 && (-516..=-512).contains(&(frame.rax as i64))
}

/// Delivers what is pending: ends, stops, or makes the frame enter a handler. Called on the way to ring 3, with nothing on the stack that owns anything.
pub(crate) fn deliver(frame: &mut UserFrame) {
    loop {
        let next = crate::task::with_current(next);
        match next {
            Next::Nothing => break,
            Next::Handler(info, action) => return enter_handler(frame, &info, &action),
            Next::Exit(status) => exit::exit_group(status),
            Next::ExitThread => exit::exit_thread(0),
            Next::Stop(signo) => stop(signo),
            Next::JoinStop => wait_while_stopped(),
        }
    }
    resume_call(frame, None);
    crate::task::with_current(|task| {
        let saved = task.signals.thread.lock().saved_mask.take();
        if let Some(mask) = saved {
            super::set_blocked(task, mask);
        }
    });
}

fn next(task: &Task) -> Next {
    let handlers = task.process.handlers();
    let mut shared = task.process.signals.lock();
    loop {
        if let Some(status) = shared.exiting {
            return Next::Exit(status);
        }
        let mut thread = task.signals.thread.lock();
        if thread.kill {
            return Next::ExitThread;
        }
        let is_killed = thread.pending.set().union(shared.pending.set()).contains(SIGKILL);
        if shared.stopped.is_some() && !is_killed {
            return Next::JoinStop;
        }
        let wanted = if is_killed { SigSet::of(&[SIGKILL]) } else { SigSet(!task.signals.blocked().0) };
        let taken = thread.pending.take(wanted).or_else(|| shared.pending.take(wanted));
        drop(thread);
        send::recalculate(task, &shared);
        let Some(info) = taken else { return Next::Nothing };
        let signo = info.signo as u32;
        let action = handlers.get(signo);
        if !action.ignores(signo) {
            crate::hooks::trace(|tracer| tracer.signal(task, &info));
        }
        if action.is_handler() {
            if action.flags.contains(ActionFlags::RESETHAND) {
                handlers.set(signo, SignalAction { handler: DEFAULT, ..action });
            }
            return Next::Handler(info, action);
        }
        if action.ignores(signo) {
            continue;
        }
        match set::default_of(signo) {
            DefaultAction::Ignore => {}
            DefaultAction::Stop => return Next::Stop(signo),
            DefaultAction::Terminate => return Next::Exit(signo as i32),
        }
    }
}

fn resume_call(frame: &mut UserFrame, handler: Option<ActionFlags>) {
    if !is_interrupted_call(frame) {
        return;
    }
    let errno = Errno((frame.rax as i64).unsigned_abs() as u16);
    // `syscall` is two bytes long; going back to it makes the same call again.
    match resume(errno, handler) {
        None => {}
        Some(Resume::Interrupted) => frame.rax = Errno::EINTR.to_ret() as u64,
        Some(Resume::Again) => {
            frame.rax = frame.orig_rax;
            frame.rip -= 2;
        }
        Some(Resume::RestartCall) => {
            frame.rax = u64::from(linux::__NR_restart_syscall);
            frame.rip -= 2;
        }
    }
    frame.orig_rax = u64::MAX;
}

fn enter_handler(frame: &mut UserFrame, info: &SigInfo, action: &SignalAction) {
    resume_call(frame, Some(action.flags));
    // What comes next is no system call any more, whatever rax holds.
    frame.orig_rax = u64::MAX;
    let is_done = crate::task::with_current(|task| {
        let blocked = task.signals.blocked();
        let saved = task.signals.thread.lock().saved_mask.take();
        if frame::push(task, frame, info, action, saved.unwrap_or(blocked)).is_err() {
            return false;
        }
        let mut mask = blocked.union(action.mask);
        if !action.flags.contains(ActionFlags::NODEFER) {
            mask = mask.with(info.signo as u32);
        }
        super::set_blocked(task, mask);
        true
    });
    if !is_done {
        // No room on the stack: SIGSEGV, which must not come back here when it is SIGSEGV that failed (Linux, signal_setup_done).
        crate::task::with_current(|task| {
            if info.signo as u32 == set::SIGSEGV {
                task.process.handlers().set(set::SIGSEGV, SignalAction::DEFAULT);
            }
            force(task, SigInfo::kernel(set::SIGSEGV));
        });
    }
}

fn stop(signo: u32) {
    let is_stopped = crate::task::with_current(|task| {
        let process = &task.process;
        if signo != SIGSTOP && table::with(|t| t.is_orphaned_group(process.group(), None)) {
            return false;
        }
        let mut shared = process.signals.lock();
        // A SIGCONT or SIGKILL may have come while the table was looked at.
        let is_killed = task.signals.thread.lock().pending.set().union(shared.pending.set()).contains(SIGKILL);
        if shared.exiting.is_some() || is_killed {
            return false;
        }
        let is_first = shared.stopped.replace(signo).is_none();
        for thread in process.threads.lock().iter() {
            send::alert(thread, false);
        }
        drop(shared);
        if is_first {
            let mut status = process.status.lock();
            status.stopped = Some(signo);
            status.continued = false;
            drop(status);
            send::notify_parent(process, linux::CLD_STOPPED, signo as i32);
        }
        true
    });
    if is_stopped {
        wait_while_stopped();
    }
}

fn wait_while_stopped() {
    crate::task::with_current(|task| {
        loop {
            sched::prepare_to_stop(task);
            let shared = task.process.signals.lock();
            let thread = task.signals.thread.lock();
            let is_killed = thread.pending.set().union(shared.pending.set()).contains(SIGKILL);
            let goes_on = shared.stopped.is_none() || shared.exiting.is_some() || thread.kill || is_killed;
            drop(thread);
            drop(shared);
            if goes_on {
                break;
            }
            sched::schedule();
        }
        sched::cancel_sleep(task);
    });
}

/// Makes the current thread get a signal that it cannot escape: when it is blocked or ignored, the default action happens.
fn force(task: &Task, info: SigInfo) {
    let signo = info.signo as u32;
    let handlers = task.process.handlers();
    let shared = task.process.signals.lock();
    let action = handlers.get(signo);
    let blocked = task.signals.blocked();
    if blocked.contains(signo) || !action.is_handler() {
        handlers.set(signo, SignalAction { handler: DEFAULT, ..action });
        task.signals.blocked.store(blocked.without(signo).0, Ordering::Relaxed);
    }
    let mut thread = task.signals.thread.lock();
    // Kernel signals are never refused for lack of room; without memory the details are lost, not the signal.
    thread.pending.push(info, usize::MAX);
    drop(thread);
    send::recalculate(task, &shared);
}

/// Raises the signal of a fault in the current thread: `si_code` and `si_addr` as sigaction(2) lists them.
pub fn force_fault(signo: u32, code: i32, addr: usize) {
    crate::task::with_current(|task| force(task, SigInfo::fault(signo, code, addr)));
}

/// Raises a signal in the current thread that it can neither block nor ignore.
pub fn force_signal(signo: u32) {
    crate::task::with_current(|task| force(task, SigInfo::kernel(signo)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_resume_as_signal_7_says() {
        use Resume::*;
        let plain = Some(ActionFlags::empty());
        let restart = Some(ActionFlags::RESTART);
        for (errno, none, without, with) in [
            (Errno::ERESTARTSYS, Again, Interrupted, Again),
            (Errno::ERESTARTNOINTR, Again, Again, Again),
            (Errno::ERESTARTNOHAND, Again, Interrupted, Interrupted),
            (Errno::ERESTART_RESTARTBLOCK, RestartCall, Interrupted, Interrupted),
        ] {
            assert_eq!(resume(errno, None), Some(none), "{errno:?}");
            assert_eq!(resume(errno, plain), Some(without), "{errno:?}");
            assert_eq!(resume(errno, restart), Some(with), "{errno:?}");
        }
        assert_eq!(resume(Errno::EINTR, restart), None);
    }

    #[test]
    fn only_calls_are_resumed_and_only_once() {
        let mut frame = UserFrame::new_user(0x1002, 0x2000);
        frame.rax = Errno::ERESTARTSYS.to_ret() as u64;
        assert!(!is_interrupted_call(&frame), "orig_rax says that it was no call");
        frame.orig_rax = 7;
        resume_call(&mut frame, None);
        assert_eq!((frame.rip, frame.rax), (0x1000, 7));
        resume_call(&mut frame, None);
        assert_eq!((frame.rip, frame.rax), (0x1000, 7));
    }
}
