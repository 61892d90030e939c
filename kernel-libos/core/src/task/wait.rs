//! Wait queues: how a task sleeps until something changes, and how a change is announced.
//!
//! The rule that loses no wake-up: a sleeper joins the queue first, then looks at the condition, then sleeps; a waker changes the condition first, then
//! wakes the queue.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use super::{Task, sched};
use crate::sync::SpinLock;

/// Something that can be told that a queue it joined was woken: a sleeping task, an epoll item.
pub trait Wake: Send + Sync {
    /// Called in any context, also from interrupts, with the queue locked: must neither block nor touch the same queue.
    fn wake(&self);
}

/// A place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitToken(u64);

struct Entry {
    token: u64,
    wake: Arc<dyn Wake>,
    /// `wake_one` stops after one of these (accept(2) in several processes, `EPOLLEXCLUSIVE`).
    exclusive: bool,
}

struct Inner {
    entries: Vec<Entry>,
    next_token: u64,
}

/// A queue of sleepers and listeners.
pub struct WaitQueue {
    inner: SpinLock<Inner>,
}

impl Default for WaitQueue {
    fn default() -> Self {
        WaitQueue::new()
    }
}

impl WaitQueue {
    /// Returns a queue nobody waits in.
    pub const fn new() -> WaitQueue {
        WaitQueue { inner: SpinLock::new(Inner { entries: Vec::new(), next_token: 0 }) }
    }

    /// Joins the queue.
    pub fn register(&self, wake: Arc<dyn Wake>) -> WaitToken {
        self.join(wake, false)
    }

    /// Joins the queue as a sleeper of which one wake-up is enough.
    pub fn register_exclusive(&self, wake: Arc<dyn Wake>) -> WaitToken {
        self.join(wake, true)
    }

    fn join(&self, wake: Arc<dyn Wake>, exclusive: bool) -> WaitToken {
        let mut inner = self.inner.lock();
        let token = inner.next_token;
        inner.next_token += 1;
        inner.entries.push(Entry { token, wake, exclusive });
        WaitToken(token)
    }

    /// Leaves the queue.
    pub fn unregister(&self, token: WaitToken) {
        let mut inner = self.inner.lock();
        let removed = inner.entries.iter().position(|e| e.token == token.0).map(|i| inner.entries.remove(i));
        drop(inner);
        // The last reference to a listener may go here, outside the lock.
        drop(removed);
    }

    /// Wakes everybody.
    pub fn wake_all(&self) {
        for entry in &self.inner.lock().entries {
            entry.wake.wake();
        }
    }

    /// Wakes all listeners and one exclusive sleeper, the one that waits longest.
    pub fn wake_one(&self) {
        let mut inner = self.inner.lock();
        let mut first_exclusive = None;
        for (i, entry) in inner.entries.iter().enumerate() {
            if !entry.exclusive {
                entry.wake.wake();
            } else if first_exclusive.is_none() {
                first_exclusive = Some(i);
                entry.wake.wake();
            }
        }
        // The woken one goes to the end, so that the next wake-up before it ran reaches somebody else.
        if let Some(i) = first_exclusive {
            let entry = inner.entries.remove(i);
            inner.entries.push(entry);
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().entries.is_empty()
    }

    /// Sleeps until `ready` answers; a signal ends the wait.
    ///
    /// # Errors
    /// `ERESTARTSYS` when a signal is to be delivered.
    pub fn wait<T>(&self, ready: impl FnMut() -> Option<T>) -> Result<T> {
        self.wait_until(None, ready).map(|value| value.expect("no deadline"))
    }

    /// Sleeps until `ready` answers or the deadline (monotonic nanoseconds) passes; then `None`.
    ///
    /// # Errors
    /// `ERESTARTSYS` when a signal is to be delivered.
    pub fn wait_until<T>(&self, deadline_ns: Option<u64>, ready: impl FnMut() -> Option<T>) -> Result<Option<T>> {
        wait_in(&[self], deadline_ns, true, ready)
    }

    /// Sleeps until `ready` answers, whatever signals arrive. For short waits that always end: locks, disks.
    pub fn wait_uninterruptible<T>(&self, ready: impl FnMut() -> Option<T>) -> T {
        match wait_in(&[self], None, false, ready) {
            Ok(Some(value)) => value,
            _ => unreachable!("neither signals nor time end this wait"),
        }
    }
}

/// Sleeps in several queues at once.
///
/// # Errors
/// `ERESTARTSYS` when `interruptible` and a signal is to be delivered.
pub fn wait_in<T>(
    queues: &[&WaitQueue],
    deadline_ns: Option<u64>,
    interruptible: bool,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<Option<T>> {
    if let Some(value) = ready() {
        return Ok(Some(value));
    }
    let task: Arc<Task> = super::current();
    let tokens: Vec<WaitToken> = queues.iter().map(|q| q.register_exclusive(task.clone())).collect();
    let result = loop {
        sched::prepare_to_sleep(&task, interruptible);
        if let Some(value) = ready() {
            break Ok(Some(value));
        }
        if interruptible && task.signals.has_deliverable(&task) {
            break Err(Errno::ERESTARTSYS);
        }
        if deadline_ns.is_some_and(|d| crate::time::monotonic_ns() >= d) {
            break Ok(None);
        }
        sched::sleep_until(deadline_ns);
    };
    sched::cancel_sleep(&task);
    for (queue, token) in queues.iter().zip(tokens) {
        queue.unregister(token);
    }
    result
}

impl Wake for Task {
    fn wake(&self) {
        sched::wake(self);
    }
}
