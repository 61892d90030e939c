//! The scheduler.

use super::Task;

/// What the scheduler keeps for a task.
pub struct SchedState {}

/// Announces that the current task will sleep; a wake-up from here on is not lost.
pub fn prepare_to_sleep(task: &Task, interruptible: bool) {
    let _ = (task, interruptible);
    unimplemented!()
}

/// Gives the CPU away until somebody wakes the task or the deadline passes; returns at once when it was woken since [`prepare_to_sleep`].
pub fn sleep_until(deadline_ns: Option<u64>) {
    let _ = deadline_ns;
    unimplemented!()
}

/// Takes back the announcement.
pub fn cancel_sleep(task: &Task) {
    let _ = task;
    unimplemented!()
}

/// Makes a task runnable; any context.
pub fn wake(task: &Task) {
    let _ = task;
    unimplemented!()
}
