//! Readiness: what poll(2), select(2) and epoll(7) ask of a file, and how a file tells that it changed.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use crate::task::wait::{WaitQueue, WaitToken, Wake};
use crate::task::{Task, sched};

bitflags! {
    /// The `POLL*` bits of poll(2), the same numbers as `EPOLL*`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PollEvents: u32 {
        const IN = linux::POLLIN;
        const PRI = linux::POLLPRI;
        const OUT = linux::POLLOUT;
        const ERR = linux::POLLERR;
        const HUP = linux::POLLHUP;
        const NVAL = linux::POLLNVAL;
        const RDNORM = linux::POLLRDNORM;
        const RDBAND = linux::POLLRDBAND;
        const WRNORM = linux::POLLWRNORM;
        const WRBAND = linux::POLLWRBAND;
        const RDHUP = linux::POLLRDHUP;
    }
}

impl PollEvents {
    /// Readable.
    pub const READABLE: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
    /// Writable.
    pub const WRITABLE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM);
}

/// Collects the wait queues that a file's readiness depends on.
///
/// A file's `poll` calls [`PollTable::add`] for each of its queues *before* it looks at its state; a table that only asks for the state ignores the call.
pub struct PollTable<'a> {
    register: Option<(&'a Arc<dyn Wake>, &'a mut Vec<Registration>)>,
    is_exclusive: bool,
}

/// A place in a wait queue; leaves it when dropped.
pub struct Registration {
    queue: Arc<WaitQueue>,
    token: WaitToken,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.queue.unregister(self.token);
    }
}

impl<'a> PollTable<'a> {
    /// A table that only asks for the state.
    pub fn query() -> PollTable<'static> {
        PollTable { register: None, is_exclusive: false }
    }

    /// A table that makes `wake` be called on every change; the registrations last as long as they are kept in `out`.
    pub fn register(wake: &'a Arc<dyn Wake>, out: &'a mut Vec<Registration>) -> PollTable<'a> {
        PollTable { register: Some((wake, out)), is_exclusive: false }
    }

    /// As [`PollTable::register`], for a listener of which one wake-up is enough (`EPOLLEXCLUSIVE`).
    pub fn register_exclusive(wake: &'a Arc<dyn Wake>, out: &'a mut Vec<Registration>) -> PollTable<'a> {
        PollTable { register: Some((wake, out)), is_exclusive: true }
    }

    /// Registers with a queue, when asked for.
    pub fn add(&mut self, queue: &Arc<WaitQueue>) {
        if let Some((wake, out)) = &mut self.register {
            let wake = (*wake).clone();
            let token = if self.is_exclusive { queue.register_exclusive(wake) } else { queue.register(wake) };
            out.push(Registration { queue: queue.clone(), token });
        }
    }
}

/// A task that waits for readiness. It keeps its own note of having been woken, because the files it asks may sleep themselves on the way.
struct Waiter {
    task: Arc<Task>,
    is_woken: AtomicBool,
}

impl Wake for Waiter {
    fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
        sched::wake(&self.task);
    }
}

/// Waits until `check` answers, which asks files for their readiness with the table it is given; `None` when the deadline (monotonic nanoseconds) passes.
///
/// # Errors
/// `ERESTARTNOHAND` when a signal is to be delivered: these calls are not restarted when a handler ran (signal(7)).
pub fn wait_ready<T>(deadline_ns: Option<u64>, mut check: impl FnMut(&mut PollTable<'_>) -> Option<T>) -> Result<Option<T>> {
    if let Some(value) = check(&mut PollTable::query()) {
        return Ok(Some(value));
    }
    if deadline_ns.is_some_and(|deadline| deadline <= crate::time::monotonic_ns()) {
        return Ok(None);
    }
    let waiter = Arc::new(Waiter { task: crate::task::current(), is_woken: AtomicBool::new(false) });
    let wake: Arc<dyn Wake> = waiter.clone();
    let mut registrations = Vec::new();
    let mut is_registered = false;
    loop {
        waiter.is_woken.store(false, Ordering::Release);
        let found = if is_registered {
            check(&mut PollTable::query())
        } else {
            is_registered = true;
            check(&mut PollTable::register(&wake, &mut registrations))
        };
        if found.is_some() {
            return Ok(found);
        }
        let outcome = loop {
            sched::prepare_to_sleep(&waiter.task, true);
            if waiter.is_woken.load(Ordering::Acquire) {
                break None;
            }
            if waiter.task.signals.has_deliverable(&waiter.task) {
                break Some(Err(Errno::ERESTARTNOHAND));
            }
            if deadline_ns.is_some_and(|deadline| deadline <= crate::time::monotonic_ns()) {
                break Some(Ok(None));
            }
            sched::sleep_until(deadline_ns);
        };
        sched::cancel_sleep(&waiter.task);
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
}
