//! A timer that sends signals, once or periodically, by any clock.

use alloc::sync::{Arc, Weak};

use libos_core::sync::SpinLock;
use libos_core::task::signal::{self, SigInfo};
use libos_core::task::wait::Wake;
use libos_core::task::{Process, Task};
use libos_core::time::{self, TimerId};

use crate::clock::Clock;

/// Least time between two signals of a periodic timer. A shorter period counts as overruns: the program would do nothing but handle signals, and not even
/// come to stop the timer. (Linux starts the next period when the signal is taken, to the same end.)
const REST_NS: u64 = 50_000;

/// Whom an alarm tells.
pub enum Notify {
    /// Nobody: the timer is only looked at.
    Nobody,
    /// The process.
    Process(SigInfo),
    /// One thread.
    Thread(Weak<Task>, SigInfo),
}

/// Time until the next expiration (0: disarmed), and between expirations (0: once), in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    pub value_ns: u64,
    pub interval_ns: u64,
}

#[derive(Default)]
struct State {
    /// What the clock shows at the next expiration.
    deadline: Option<u64>,
    interval_ns: u64,
    timer: Option<TimerId>,
    /// Expirations that the last signal stood for, beyond the first.
    overrun: i32,
}

/// A timer that sends signals.
pub struct Alarm {
    me: Weak<Alarm>,
    clock: Clock,
    process: Weak<Process>,
    notify: Notify,
    state: SpinLock<State>,
}

/// The first deadline after `now`, and how many were passed over.
fn advance(deadline: u64, interval_ns: u64, now: u64) -> (u64, u64) {
    let missed = now.saturating_sub(deadline) / interval_ns;
    (deadline.saturating_add(interval_ns.saturating_mul(missed + 1)), missed)
}

impl Alarm {
    /// Returns a disarmed timer.
    pub fn new(process: &Arc<Process>, clock: Clock, notify: Notify) -> Arc<Alarm> {
        Arc::new_cyclic(|me| Alarm {
            me: me.clone(),
            clock,
            process: Arc::downgrade(process),
            notify,
            state: SpinLock::new(State::default()),
        })
    }

    /// What remains, and the interval.
    pub fn get(&self) -> Setting {
        let state = self.state.lock();
        let value_ns = match state.deadline {
            // An expiration that is due and not yet handled counts as still to come (timer_gettime(2)).
            Some(deadline) => deadline.saturating_sub(self.clock.now_ns()).max(1),
            None => 0,
        };
        Setting { value_ns, interval_ns: state.interval_ns }
    }

    /// Arms or disarms; with `is_absolute` the value is what the clock will show. Returns the setting before.
    pub fn set(&self, new: Setting, is_absolute: bool) -> Setting {
        let before = self.get();
        let old_timer = {
            let mut state = self.state.lock();
            state.interval_ns = new.interval_ns;
            state.overrun = 0;
            state.deadline = match new.value_ns {
                0 => None,
                value if is_absolute => Some(value),
                value => Some(self.clock.now_ns().saturating_add(value)),
            };
            state.timer.take()
        };
        cancel(old_timer);
        self.start(0);
        before
    }

    /// Expirations that the last signal stood for, beyond the first (timer_getoverrun(2)).
    pub fn overrun(&self) -> i32 {
        self.state.lock().overrun
    }

    /// Disarms for good.
    pub fn stop(&self) {
        let timer = {
            let mut state = self.state.lock();
            state.deadline = None;
            state.timer.take()
        };
        cancel(timer);
    }

    /// Starts the machine's timer, which does not fire before `not_before` on the monotonic clock.
    fn start(&self, not_before: u64) {
        let Some(me) = self.me.upgrade() else { return };
        let Some(deadline) = self.state.lock().deadline else { return };
        let id = time::start_timer(self.clock.earliest_ns(deadline).max(not_before), me);
        let old = self.state.lock().timer.replace(id);
        cancel(old);
    }

    fn notify(&self, missed: u64) {
        let Some(process) = self.process.upgrade() else { return };
        let (task, mut info) = match &self.notify {
            Notify::Nobody => return,
            Notify::Process(info) => (None, *info),
            Notify::Thread(task, info) => match task.upgrade() {
                Some(task) => (Some(task), *info),
                None => return,
            },
        };
        let pending = signal::timer_overrun(&process, task.as_deref(), info.signo as u32, info.timer_id());
        let missed = i32::try_from(missed).unwrap_or(i32::MAX);
        if pending.is_none() && info.code == libos_core::abi::general::SI_TIMER {
            info.fields[0] |= (missed as u64) << 32;
        }
        self.state.lock().overrun = pending.map_or(missed, |n| n.saturating_add(1).saturating_add(missed));
        // A timer's signal is lost only when the queue of real-time signals is full, as on Linux.
        let _ = match task {
            Some(task) => signal::send_to_task(&task, info),
            None => signal::send_to_process(&process, info),
        };
    }
}

fn cancel(timer: Option<TimerId>) {
    if let Some(timer) = timer {
        time::cancel_timer(timer);
    }
}

impl Wake for Alarm {
    fn wake(&self) {
        let missed = {
            let mut state = self.state.lock();
            state.timer = None;
            let Some(deadline) = state.deadline else { return };
            let now = self.clock.now_ns();
            if now < deadline {
                None
            } else if state.interval_ns == 0 {
                state.deadline = None;
                Some(0)
            } else {
                let (next, missed) = advance(deadline, state.interval_ns, now);
                state.deadline = Some(next);
                Some(missed)
            }
        };
        // Without an expiration a CPU clock was behind, and this was only a look at it; it needs a rest as well.
        if let Some(missed) = missed {
            self.notify(missed);
        }
        self.start(time::monotonic_ns().saturating_add(REST_NS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_advance_past_now_and_count_what_was_missed() {
        assert_eq!(advance(100, 10, 100), (110, 0));
        assert_eq!(advance(100, 10, 109), (110, 0));
        assert_eq!(advance(100, 10, 110), (120, 1));
        assert_eq!(advance(100, 10, 155), (160, 5));
        assert_eq!(advance(u64::MAX - 1, 10, u64::MAX - 1), (u64::MAX, 0));
    }
}
