//! Signals.

use super::Task;

/// Signal state of one thread.
pub struct TaskSignals {}

impl TaskSignals {
    /// Whether a signal waits that is not blocked.
    pub fn has_deliverable(&self, task: &Task) -> bool {
        let _ = task;
        unimplemented!()
    }
}

/// Sends a signal to the current thread, as the kernel does for SIGPIPE.
pub fn send_to_current(signo: u32) {
    let _ = signo;
    unimplemented!()
}
