//! Processes: what the threads of a thread group have in common.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use libos_abi::{Errno, Result};

use super::limits::{Limit, Limits};
use super::signal::{ProcessSignals, SignalHandlers};
use super::wait::WaitQueue;
use super::{Task, Tid};
use crate::sync::SpinLock;

pub use super::creds::Credentials;
pub use super::limits::Resource;

/// A thread group.
///
/// Who is whose parent, group and session members change only under the lock of the [process table](super::table); the numbers here may be read at any time.
pub struct Process {
    /// Process id: the id of the first thread, and of any thread that calls execve(2).
    pub pid: Tid,
    pub(super) parent: AtomicI32,
    pub(super) group: AtomicI32,
    pub(super) session: AtomicI32,
    /// Signal that tells the parent of the end; 0 is none (clone(2)).
    pub exit_signal: AtomicU32,
    /// Living threads, the oldest first.
    pub(super) threads: SpinLock<Vec<Arc<Task>>>,
    /// Pending signals of the whole process, stop and exit of the group.
    pub signals: SpinLock<ProcessSignals>,
    pub(super) handlers: SpinLock<Arc<SignalHandlers>>,
    pub(super) limits: SpinLock<Limits>,
    /// What wait(2) finds.
    pub(super) status: SpinLock<Status>,
    /// Woken when a child changes state.
    pub child_events: WaitQueue,
    /// Woken when this process ends (poll(2) of a pidfd).
    pub exit_events: Arc<WaitQueue>,
    /// `PR_SET_CHILD_SUBREAPER`.
    pub is_subreaper: AtomicBool,
    /// `PR_SET_DUMPABLE`.
    pub dumpable: AtomicU32,
    /// personality(2).
    pub personality: AtomicU32,
    /// Whether execve(2) succeeded since the fork (setpgid(2) answers `EACCES` then).
    pub has_execed: AtomicBool,
    /// Wait status of the first thread, which is that of the process when its threads end one by one.
    pub(super) first_thread_status: AtomicI32,
    /// Real user id when the last thread ended.
    pub(super) exit_uid: AtomicU32,
    /// Monotonic nanoseconds at the start.
    pub start_ns: u64,
    /// CPU time of threads that ended, and of children that were waited for.
    pub times: ProcessTimes,
    extensions: SpinLock<Vec<Arc<dyn Extension>>>,
}

/// What modules keep for a process: timers, shared memory segments attached, ... Dropped when the process ends.
pub trait Extension: Any + Send + Sync {
    /// The process executes another program.
    fn on_exec(&self) {}
    /// The last thread has ended.
    fn on_exit(&self) {}
}

/// Nanoseconds of CPU time that outlive the threads that used them.
#[derive(Default)]
#[allow(missing_docs, reason = "the names of getrusage(2)")]
pub struct ProcessTimes {
    pub run_ns: AtomicU64,
    pub system_ns: AtomicU64,
    pub children_run_ns: AtomicU64,
    pub children_system_ns: AtomicU64,
    pub minor_faults: AtomicU64,
    pub switches: AtomicU64,
}

/// What wait(2) reports of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Wait status of a process that has ended.
    pub exited: Option<i32>,
    /// Signal that stopped it, until somebody waited for that.
    pub stopped: Option<u32>,
    /// It was continued, and nobody has waited for that.
    pub continued: bool,
}

impl Process {
    pub(super) fn new(pid: Tid, parent: Tid, group: Tid, session: Tid, limits: Limits, handlers: Arc<SignalHandlers>) -> Process {
        Process {
            pid,
            parent: parent.into(),
            group: group.into(),
            session: session.into(),
            exit_signal: AtomicU32::new(0),
            threads: SpinLock::new(Vec::new()),
            signals: SpinLock::new(ProcessSignals::new()),
            handlers: SpinLock::new(handlers),
            limits: SpinLock::new(limits),
            status: SpinLock::new(Status::default()),
            child_events: WaitQueue::new(),
            exit_events: Arc::new(WaitQueue::new()),
            is_subreaper: AtomicBool::new(false),
            dumpable: AtomicU32::new(1),
            personality: AtomicU32::new(0),
            has_execed: AtomicBool::new(false),
            first_thread_status: AtomicI32::new(0),
            exit_uid: AtomicU32::new(0),
            start_ns: crate::time::accounting_ns(),
            times: ProcessTimes::default(),
            extensions: SpinLock::new(Vec::new()),
        }
    }

    /// Process id of the parent (getppid(2)); 0 for the first process.
    pub fn parent(&self) -> Tid {
        self.parent.load(Ordering::Relaxed)
    }

    /// Process group (getpgid(2)).
    pub fn group(&self) -> Tid {
        self.group.load(Ordering::Relaxed)
    }

    /// Session (getsid(2)).
    pub fn session(&self) -> Tid {
        self.session.load(Ordering::Relaxed)
    }

    /// Living threads, the oldest first. Empty for a zombie.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.threads.lock().clone()
    }

    /// Number of living threads.
    pub fn thread_count(&self) -> usize {
        self.threads.lock().len()
    }

    /// Some living thread, the first if it lives.
    pub fn main_thread(&self) -> Option<Arc<Task>> {
        self.threads.lock().first().cloned()
    }

    /// What wait(2) reports.
    pub fn status(&self) -> Status {
        *self.status.lock()
    }

    /// Whether it has ended and nobody has waited for it yet.
    pub fn is_zombie(&self) -> bool {
        self.status.lock().exited.is_some()
    }

    pub(super) fn exit_uid(&self) -> u32 {
        self.exit_uid.load(Ordering::Relaxed)
    }

    /// Real user id, of a zombie too.
    pub fn uid(&self) -> u32 {
        self.main_thread().map_or_else(|| self.exit_uid(), |t| t.creds().uid)
    }

    /// Signal actions.
    pub fn handlers(&self) -> Arc<SignalHandlers> {
        self.handlers.lock().clone()
    }

    /// Soft limit of a resource.
    pub fn limit(&self, resource: Resource) -> u64 {
        self.limits.lock().get(resource).soft
    }

    /// Both limits of a resource (getrlimit(2)).
    pub fn limits(&self, resource: Resource) -> Limit {
        self.limits.lock().get(resource)
    }

    /// Changes the limits of a resource; `privileged` may raise the hard one (setrlimit(2)).
    ///
    /// # Errors
    /// `EINVAL` when the soft limit is above the hard one, `EPERM`.
    pub fn set_limits(&self, resource: Resource, new: Limit, privileged: bool) -> Result<()> {
        let mut limits = self.limits.lock();
        if new.soft > new.hard {
            return Err(Errno::EINVAL);
        }
        if new.hard > limits.get(resource).hard && !privileged {
            return Err(Errno::EPERM);
        }
        limits.set(resource, new);
        Ok(())
    }

    /// What a module keeps for this process, made at the first use.
    pub fn extension<T: Extension + Default>(&self) -> Arc<T> {
        if let Some(found) = self.find_extension::<T>() {
            return found;
        }
        let new = Arc::new(T::default());
        let mut extensions = self.extensions.lock();
        for extension in extensions.iter() {
            // Somebody else may have been faster.
            if let Some(found) = downcast::<T>(extension) {
                return found;
            }
        }
        extensions.push(new.clone());
        new
    }

    /// What a module keeps for this process, if it has anything.
    pub fn find_extension<T: Extension>(&self) -> Option<Arc<T>> {
        self.extensions.lock().iter().find_map(downcast::<T>)
    }

    pub(super) fn extensions(&self) -> Vec<Arc<dyn Extension>> {
        self.extensions.lock().clone()
    }

    pub(super) fn take_extensions(&self) -> Vec<Arc<dyn Extension>> {
        core::mem::take(&mut *self.extensions.lock())
    }

    /// CPU time of all its threads, living and dead: (user, system) nanoseconds.
    pub fn cpu_time_ns(&self) -> (u64, u64) {
        let mut run = self.times.run_ns.load(Ordering::Relaxed);
        let mut system = self.times.system_ns.load(Ordering::Relaxed);
        for thread in self.threads.lock().iter() {
            run += thread.sched.run_ns();
            system += thread.sched.system_ns();
        }
        let system = system.min(run);
        (run - system, system)
    }

    /// CPU time of children that were waited for: (user, system) nanoseconds.
    pub fn children_time_ns(&self) -> (u64, u64) {
        let run = self.times.children_run_ns.load(Ordering::Relaxed);
        let system = self.times.children_system_ns.load(Ordering::Relaxed).min(run);
        (run - system, system)
    }
}

fn downcast<T: Extension>(extension: &Arc<dyn Extension>) -> Option<Arc<T>> {
    let any: Arc<dyn Any + Send + Sync> = extension.clone();
    any.downcast().ok()
}

/// `struct rusage` (getrusage(2)) in its 18 words, of times in nanoseconds.
pub fn rusage_words(user_ns: u64, system_ns: u64, max_rss_kib: u64, minor_faults: u64, voluntary: u64, involuntary: u64) -> [u64; 18] {
    let split = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000 / 1000];
    let ([us, uu], [ss, su]) = (split(user_ns), split(system_ns));
    [us, uu, ss, su, max_rss_kib, 0, 0, 0, minor_faults, 0, 0, 0, 0, 0, 0, 0, voluntary, involuntary]
}
