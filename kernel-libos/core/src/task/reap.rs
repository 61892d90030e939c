//! Waiting for children: wait4(2), waitid(2).

use core::sync::atomic::Ordering;

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::process::Status;
use super::signal::set::SIGCHLD;
use super::{Process, Task, Tid, table};

bitflags! {
    /// Options of wait4(2) and waitid(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct WaitOptions: u32 {
        const NOHANG = linux::WNOHANG;
        const STOPPED = linux::WSTOPPED;
        const EXITED = linux::WEXITED;
        const CONTINUED = linux::WCONTINUED;
        const NOWAIT = linux::WNOWAIT;
        const NOTHREAD = linux::__WNOTHREAD;
        const ALL = linux::__WALL;
        const CLONE = linux::__WCLONE;
    }
}

/// Which children to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Any child.
    Any,
    /// One child.
    Pid(Tid),
    /// The children in a process group.
    Group(Tid),
}

/// What happened to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// Its process id.
    pub pid: Tid,
    /// Its real user id.
    pub uid: u32,
    /// Wait status, as wait4(2) stores it.
    pub status: i32,
    /// CPU time of it and of the children it waited for: user and system nanoseconds.
    pub times_ns: (u64, u64),
}

/// Wait status of a process that a signal stopped.
const fn stopped(signo: u32) -> i32 {
    (signo as i32) << 8 | 0x7f
}

/// Wait status of a process that was continued.
const CONTINUED: i32 = 0xffff;

/// `si_code` and `si_status` for a wait status.
pub fn child_code(status: i32) -> (u32, i32) {
    match status {
        CONTINUED => (linux::CLD_CONTINUED, linux::SIGCONT as i32),
        s if s & 0xff == 0x7f => (linux::CLD_STOPPED, s >> 8 & 0xff),
        s if s & 0x7f == 0 => (linux::CLD_EXITED, s >> 8 & 0xff),
        s => (linux::CLD_KILLED, s & 0x7f),
    }
}

/// Whether a child is among those asked for. A child that was cloned with another signal than SIGCHLD needs `__WCLONE` or `__WALL`.
fn is_wanted(which: Which, options: WaitOptions, pid: Tid, group: Tid, exit_signal: u32) -> bool {
    let is_named = match which {
        Which::Any => true,
        Which::Pid(wanted) => wanted == pid,
        Which::Group(wanted) => wanted == group,
    };
    let is_clone = exit_signal != SIGCHLD;
    is_named && (options.contains(WaitOptions::ALL) || is_clone == options.contains(WaitOptions::CLONE))
}

/// What of a child's state is to be reported under the options: the wait status.
fn report(status: &Status, options: WaitOptions) -> Option<i32> {
    if let Some(exited) = status.exited {
        return options.contains(WaitOptions::EXITED).then_some(exited);
    }
    if let (Some(signo), true) = (status.stopped, options.contains(WaitOptions::STOPPED)) {
        return Some(stopped(signo));
    }
    (status.continued && options.contains(WaitOptions::CONTINUED)).then_some(CONTINUED)
}

/// Waits until a child is in one of the states asked for. `None` with `WNOHANG` when none is.
///
/// # Errors
/// `ECHILD` when there is no such child; `ERESTARTSYS`.
pub fn wait(task: &Task, which: Which, options: WaitOptions) -> Result<Option<Waited>> {
    let parent = &task.process;
    let found = if options.contains(WaitOptions::NOHANG) {
        find(parent, which, options)
    } else {
        Some(parent.child_events.wait(|| find(parent, which, options))?)
    };
    found.transpose()
}

/// Looks once: `Some(Err(ECHILD))` when there is nobody to wait for, `None` when nobody is in a wanted state.
fn find(parent: &Process, which: Which, options: WaitOptions) -> Option<Result<Waited>> {
    // What is removed is freed outside the lock of the table.
    let (found, _gone) = table::with(|t| {
        let mut has_child = false;
        let mut found = None;
        for child in t.processes() {
            let is_child = child.parent() == parent.pid;
            if !is_child || !is_wanted(which, options, child.pid, child.group(), child.exit_signal.load(Ordering::Relaxed)) {
                continue;
            }
            has_child = true;
            let mut status = child.status.lock();
            let Some(reported) = report(&status, options) else { continue };
            let (user, system) = child.cpu_time_ns();
            let (children_user, children_system) = child.children_time_ns();
            let times_ns = (user + children_user, system + children_system);
            let waited = Waited { pid: child.pid, uid: child.uid(), status: reported, times_ns };
            if options.contains(WaitOptions::NOWAIT) {
                return (Some(Ok(waited)), None);
            }
            if status.exited.is_none() {
                if reported == CONTINUED {
                    status.continued = false;
                } else {
                    status.stopped = None;
                }
                return (Some(Ok(waited)), None);
            }
            drop(status);
            parent.times.children_run_ns.fetch_add(times_ns.0 + times_ns.1, Ordering::Relaxed);
            parent.times.children_system_ns.fetch_add(times_ns.1, Ordering::Relaxed);
            found = Some(waited);
            break;
        }
        match found {
            Some(waited) => (Some(Ok(waited)), t.remove_process(waited.pid)),
            None => (if has_child { None } else { Some(Err(Errno::ECHILD)) }, None),
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXITED: WaitOptions = WaitOptions::EXITED;

    #[test]
    fn children_are_chosen_by_id_group_and_kind() {
        let all = EXITED | WaitOptions::ALL;
        let clone = EXITED | WaitOptions::CLONE;
        for (which, options, exit_signal, expected) in [
            (Which::Any, EXITED, SIGCHLD, true),
            (Which::Any, EXITED, 0, false),
            (Which::Any, clone, 0, true),
            (Which::Any, clone, SIGCHLD, false),
            (Which::Any, all, 10, true),
            (Which::Pid(5), EXITED, SIGCHLD, true),
            (Which::Pid(6), EXITED, SIGCHLD, false),
            (Which::Group(4), EXITED, SIGCHLD, true),
            (Which::Group(5), EXITED, SIGCHLD, false),
        ] {
            assert_eq!(is_wanted(which, options, 5, 4, exit_signal), expected, "{which:?} {options:?} {exit_signal}");
        }
    }

    #[test]
    fn states_are_reported_when_asked_for() {
        let stopped = Status { stopped: Some(19), ..Status::default() };
        assert_eq!(report(&stopped, EXITED), None);
        assert_eq!(report(&stopped, WaitOptions::STOPPED), Some(0x137f));
        let continued = Status { continued: true, ..Status::default() };
        assert_eq!(report(&continued, WaitOptions::CONTINUED), Some(0xffff));
        let exited = Status { exited: Some(0x300), stopped: Some(19), continued: true };
        assert_eq!(report(&exited, EXITED), Some(0x300));
        assert_eq!(report(&exited, WaitOptions::STOPPED), None);
    }

    #[test]
    fn statuses_become_codes() {
        assert_eq!(child_code(0x300), (linux::CLD_EXITED, 3));
        assert_eq!(child_code(9), (linux::CLD_KILLED, 9));
        assert_eq!(child_code(0x137f), (linux::CLD_STOPPED, 19));
        assert_eq!(child_code(0xffff), (linux::CLD_CONTINUED, 18));
    }
}
