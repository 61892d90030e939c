//! Readiness: what poll(2), select(2) and epoll(7) ask of a file, and how a file tells that it changed.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bitflags::bitflags;
use libos_abi::general as linux;

use crate::task::wait::{WaitQueue, WaitToken, Wake};

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
        PollTable { register: None }
    }

    /// A table that makes `wake` be called on every change; the registrations last as long as they are kept in `out`.
    pub fn register(wake: &'a Arc<dyn Wake>, out: &'a mut Vec<Registration>) -> PollTable<'a> {
        PollTable { register: Some((wake, out)) }
    }

    /// Registers with a queue, when asked for.
    pub fn add(&mut self, queue: &Arc<WaitQueue>) {
        if let Some((wake, out)) = &mut self.register {
            let token = queue.register((*wake).clone());
            out.push(Registration { queue: queue.clone(), token });
        }
    }
}
