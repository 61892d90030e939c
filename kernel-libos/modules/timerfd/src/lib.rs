//! timerfd_create(2): expirations of a timer as something to read.
//!
//! Differences from Linux: an absolute timer on `CLOCK_REALTIME` does not move when the clock is set; `TFD_TIMER_CANCEL_ON_SET` is noticed at the next read.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFile, OpenFlags, RawFd};
use libos_core::io::IoDst;
use libos_core::poll::{PollEvents, PollTable};
use libos_core::sync::SpinLock;
use libos_core::task::wait::{WaitQueue, Wake};
use libos_core::time::{self, TimerId, Timespec};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: timerfd,
    needs: [],
    syscalls: {
        timerfd_create => sys_timerfd_create,
        timerfd_settime => sys_timerfd_settime,
        timerfd_gettime => sys_timerfd_gettime,
    },
}

const TFD_TIMER_ABSTIME: u32 = 1;
const TFD_TIMER_CANCEL_ON_SET: u32 = 2;

#[derive(Default)]
struct State {
    /// Monotonic nanoseconds of the next expiration.
    deadline: Option<u64>,
    interval_ns: u64,
    expirations: u64,
    timer: Option<TimerId>,
    /// Offset of the wall clock when the timer was set with `TFD_TIMER_CANCEL_ON_SET`.
    cancel_offset: Option<u64>,
}

struct TimerFd {
    me: Weak<TimerFd>,
    is_realtime: bool,
    state: SpinLock<State>,
    readers: Arc<WaitQueue>,
}

impl State {
    /// Counts what has expired by now; returns whether there is anything new.
    fn catch_up(&mut self, now: u64) -> bool {
        let Some(deadline) = self.deadline.filter(|d| *d <= now) else { return false };
        match (now - deadline).checked_div(self.interval_ns) {
            None => {
                self.expirations += 1;
                self.deadline = None;
            }
            Some(more) => {
                self.expirations += 1 + more;
                self.deadline = Some(deadline + (1 + more) * self.interval_ns);
            }
        }
        true
    }

    fn setting(&self, now: u64) -> [Timespec; 2] {
        let value = self.deadline.map_or(0, |d| d.saturating_sub(now).max(1));
        [Timespec::from_ns(self.interval_ns), Timespec::from_ns(value)]
    }
}

impl TimerFd {
    /// Arms the machine's timer for the next expiration.
    fn arm(&self) {
        let Some(me) = self.me.upgrade() else { return };
        let deadline = self.state.lock().deadline;
        let timer = deadline.map(|d| time::start_timer(d, me));
        let old = core::mem::replace(&mut self.state.lock().timer, timer);
        if let Some(old) = old {
            time::cancel_timer(old);
        }
    }

    /// Takes the count, or says that the clock was set.
    fn take(&self) -> Option<Result<u64>> {
        let mut state = self.state.lock();
        state.catch_up(time::monotonic_ns());
        if state.cancel_offset.is_some_and(|offset| offset != time::wall_offset_ns()) {
            state.cancel_offset = Some(time::wall_offset_ns());
            state.expirations = 0;
            return Some(Err(Errno::ECANCELED));
        }
        (state.expirations > 0).then(|| Ok(core::mem::take(&mut state.expirations)))
    }
}

impl Wake for TimerFd {
    fn wake(&self) {
        {
            let mut state = self.state.lock();
            state.timer = None;
            if state.catch_up(time::monotonic_ns()) {
                // Armed again by the next read, as on Linux: what nobody has read yet needs no further interrupt, and a timer of a microsecond would
                // leave no time for anything else.
                drop(state);
                self.readers.wake_all();
                return;
            }
        }
        self.arm();
    }
}

impl FileOps for TimerFd {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let count = match self.take() {
            Some(count) => count?,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => self.readers.wait(|| self.take())??,
        };
        let is_stopped = {
            let state = self.state.lock();
            state.timer.is_none() && state.deadline.is_some()
        };
        if is_stopped {
            self.arm();
        }
        dst.push(&count.to_le_bytes())
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.readers);
        let mut state = self.state.lock();
        state.catch_up(time::monotonic_ns());
        if state.expirations > 0 { PollEvents::READABLE } else { PollEvents::empty() }
    }

    fn release(&self, _file: &OpenFile) {
        let timer = {
            let mut state = self.state.lock();
            state.deadline = None;
            state.timer.take()
        };
        if let Some(timer) = timer {
            time::cancel_timer(timer);
        }
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(String::from("anon_inode:[timerfd]"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn sys_timerfd_create(task: &Task, clock: u32, flags: u32) -> Result<usize> {
    // TFD_CLOEXEC and TFD_NONBLOCK are O_CLOEXEC and O_NONBLOCK.
    if flags & !(linux::O_CLOEXEC | linux::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let is_realtime = match clock {
        linux::CLOCK_REALTIME => true,
        linux::CLOCK_MONOTONIC | linux::CLOCK_BOOTTIME => false,
        // Waking a sleeping machine is a right that containers lack.
        linux::CLOCK_REALTIME_ALARM | linux::CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let flags = OpenFlags::from_bits_truncate(flags);
    let ops = Arc::new_cyclic(|me| TimerFd {
        me: me.clone(),
        is_realtime,
        state: SpinLock::new(State::default()),
        readers: Arc::new(WaitQueue::new()),
    });
    let file = OpenFile::new(ops, OpenFlags::RDWR | flags & OpenFlags::NONBLOCK, None);
    task.install(file, flags.contains(OpenFlags::CLOEXEC))
}

fn with_timer<R>(task: &Task, fd: RawFd, f: impl FnOnce(&TimerFd) -> Result<R>) -> Result<R> {
    let file = task.files().get(fd)?;
    f(file.ops.as_any().downcast_ref::<TimerFd>().ok_or(Errno::EINVAL)?)
}

fn sys_timerfd_settime(task: &Task, fd: RawFd, flags: u32, new: UserPtr<[Timespec; 2]>, old: UserPtr<[Timespec; 2]>) -> Result<usize> {
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let [interval, value] = new.read()?;
    let (interval_ns, value_ns) = (interval.to_ns()?, value.to_ns()?);
    let before = with_timer(task, fd, |timer| {
        let now = time::monotonic_ns();
        let is_absolute = flags & TFD_TIMER_ABSTIME != 0;
        let deadline = match value_ns {
            0 => None,
            at if is_absolute && timer.is_realtime => Some(at.saturating_sub(time::wall_offset_ns())),
            at if is_absolute => Some(at),
            after => Some(now.saturating_add(after)),
        };
        let before = {
            let mut state = timer.state.lock();
            state.catch_up(now);
            let before = state.setting(now);
            let watches_clock = is_absolute && timer.is_realtime && flags & TFD_TIMER_CANCEL_ON_SET != 0;
            state.cancel_offset = watches_clock.then(time::wall_offset_ns);
            (state.deadline, state.interval_ns, state.expirations) = (deadline, interval_ns, 0);
            before
        };
        timer.arm();
        Ok(before)
    })?;
    old.write_if_not_null(before)?;
    Ok(0)
}

fn sys_timerfd_gettime(task: &Task, fd: RawFd, out: UserPtr<[Timespec; 2]>) -> Result<usize> {
    let now = with_timer(task, fd, |timer| {
        let mut state = timer.state.lock();
        let now = time::monotonic_ns();
        state.catch_up(now);
        Ok(state.setting(now))
    })?;
    out.write(now)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_counted_when_somebody_looks() {
        let mut periodic = State { deadline: Some(100), interval_ns: 10, ..State::default() };
        assert!(!periodic.catch_up(99));
        assert!(periodic.catch_up(125));
        assert_eq!((periodic.expirations, periodic.deadline), (3, Some(130)));
        let mut once = State { deadline: Some(100), ..State::default() };
        assert!(once.catch_up(500));
        assert_eq!((once.expirations, once.deadline, once.catch_up(600)), (1, None, false));
    }

    #[test]
    fn what_is_due_counts_as_one_nanosecond_to_come() {
        let state = State { deadline: Some(5), interval_ns: 7, ..State::default() };
        assert_eq!(state.setting(9), [Timespec::from_ns(7), Timespec::from_ns(1)]);
        assert_eq!(State::default().setting(9), [Timespec::default(); 2]);
    }
}
