//! alarm(2), setitimer(2), timer_create(2) and their relatives.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::sync::SpinLock;
use libos_core::task::process::Extension;
use libos_core::task::signal::{SigInfo, set};
use libos_core::task::table;
use libos_core::time::{SECOND_NS, Timespec, Timeval};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::alarm::{Alarm, Notify, Setting};
use crate::clock::{Clock, CpuTime};

/// The timers of a process.
#[derive(Default)]
struct Timers {
    /// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
    interval: SpinLock<[Option<Arc<Alarm>>; 3]>,
    /// By timer id; ids are used again.
    posix: SpinLock<Vec<Option<Arc<Alarm>>>>,
}

impl Extension for Timers {
    fn on_exec(&self) {
        // Interval timers go on (execve(2)); those of timer_create(2) do not.
        let gone = core::mem::take(&mut *self.posix.lock());
        gone.iter().flatten().for_each(|t| t.stop());
    }

    fn on_exit(&self) {
        self.on_exec();
        let gone = core::mem::take(&mut *self.interval.lock());
        gone.iter().flatten().for_each(|t| t.stop());
    }
}

fn interval_timer(task: &Task, which: usize) -> Result<Arc<Alarm>> {
    let timers = task.process.extension::<Timers>();
    let existing = timers.interval.lock().get(which).ok_or(Errno::EINVAL)?.clone();
    if let Some(timer) = existing {
        return Ok(timer);
    }
    let process = &task.process;
    let (clock, signo) = match which {
        0 => (Clock::Monotonic, set::SIGALRM),
        1 => (Clock::Process(process.clone(), CpuTime::User), set::SIGVTALRM),
        _ => (Clock::Process(process.clone(), CpuTime::All), set::SIGPROF),
    };
    let timer = Alarm::new(process, clock, Notify::Process(SigInfo::kernel(signo)));
    let mut slots = timers.interval.lock();
    Ok(slots[which].get_or_insert(timer).clone())
}

pub fn sys_alarm(task: &Task, seconds: u32) -> Result<usize> {
    let setting = Setting { value_ns: u64::from(seconds) * SECOND_NS, interval_ns: 0 };
    let before = interval_timer(task, 0)?.set(setting, false).value_ns;
    // Rounded to seconds, but an alarm that is still to come is never 0 (Linux, alarm_setitimer).
    let rounded = (before + SECOND_NS / 2) / SECOND_NS;
    Ok(if before > 0 { rounded.max(1) as usize } else { 0 })
}

/// `struct itimerval`: interval, then value.
type ItimerVal = [Timeval; 2];

fn to_itimerval(setting: Setting) -> ItimerVal {
    [Timeval::from_ns(setting.interval_ns), Timeval::from_ns(setting.value_ns.next_multiple_of(1000))]
}

pub fn sys_setitimer(task: &Task, which: usize, new: UserPtr<ItimerVal>, old: UserPtr<ItimerVal>) -> Result<usize> {
    let timer = interval_timer(task, which as u32 as usize)?;
    // Linux takes a null pointer for zeros.
    let [interval, value] = match new.non_null() {
        Some(new) => new.read()?,
        None => ItimerVal::default(),
    };
    let before = timer.set(Setting { value_ns: value.to_ns()?, interval_ns: interval.to_ns()? }, false);
    old.write_if_not_null(to_itimerval(before))?;
    Ok(0)
}

pub fn sys_getitimer(task: &Task, which: usize, out: UserPtr<ItimerVal>) -> Result<usize> {
    out.write(to_itimerval(interval_timer(task, which as u32 as usize)?.get()))?;
    Ok(0)
}

/// `struct sigevent` up to the thread id: value, signal and kind, thread.
type SigEvent = [u64; 3];

const SIGEV_SIGNAL: u32 = 0;
const SIGEV_NONE: u32 = 1;
const SIGEV_THREAD_ID: u32 = 4;

pub fn sys_timer_create(task: &Task, clock: i32, event: UserPtr<SigEvent>, id: UserPtr<i32>) -> Result<usize> {
    let clock = Clock::from_id(task, clock)?;
    let given = match event.non_null() {
        Some(event) => Some(event.read()?),
        None => None,
    };
    let [value, signal_and_kind, thread] = given.unwrap_or([0, u64::from(set::SIGALRM), 0]);
    let (signo, kind) = (signal_and_kind as u32, (signal_and_kind >> 32) as u32);
    let has_signal = (1..=set::MAX).contains(&signo);
    let thread = match kind {
        SIGEV_NONE => None,
        SIGEV_SIGNAL if has_signal => None,
        SIGEV_THREAD_ID if has_signal => {
            let thread = table::task(thread as i32).map_err(|_| Errno::EINVAL)?;
            if thread.pid() != task.pid() {
                return Err(Errno::EINVAL);
            }
            Some(thread)
        }
        _ => return Err(Errno::EINVAL),
    };
    let timers = task.process.extension::<Timers>();
    let slot = {
        let mut posix = timers.posix.lock();
        let slot = posix.iter().position(Option::is_none).unwrap_or(posix.len());
        // Without an event, the value is the id.
        let value = if given.is_some() { value } else { slot as u64 };
        let info = SigInfo::timer(signo, slot as i32, 0, value);
        let notify = match thread {
            _ if kind == SIGEV_NONE => Notify::Nobody,
            Some(thread) => Notify::Thread(Arc::downgrade(&thread), info),
            None => Notify::Process(info),
        };
        let alarm = Some(Alarm::new(&task.process, clock, notify));
        if slot == posix.len() {
            posix.try_reserve(1).map_err(|_| Errno::EAGAIN)?;
            posix.push(alarm);
        } else {
            posix[slot] = alarm;
        }
        slot
    };
    if let Err(errno) = id.write(slot as i32) {
        let gone = timers.posix.lock()[slot].take();
        drop(gone);
        return Err(errno);
    }
    Ok(0)
}

fn posix_timer(task: &Task, id: i32) -> Result<Arc<Alarm>> {
    let timers = task.process.find_extension::<Timers>().ok_or(Errno::EINVAL)?;
    let slot = usize::try_from(id).map_err(|_| Errno::EINVAL)?;
    timers.posix.lock().get(slot).cloned().flatten().ok_or(Errno::EINVAL)
}

/// `struct itimerspec`: interval, then value.
type ItimerSpec = [Timespec; 2];

fn to_itimerspec(setting: Setting) -> ItimerSpec {
    [Timespec::from_ns(setting.interval_ns), Timespec::from_ns(setting.value_ns)]
}

pub fn sys_timer_settime(task: &Task, id: i32, flags: u32, new: UserPtr<ItimerSpec>, old: UserPtr<ItimerSpec>) -> Result<usize> {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let [interval, value] = new.read()?;
    let setting = Setting { value_ns: value.to_ns()?, interval_ns: interval.to_ns()? };
    let before = posix_timer(task, id)?.set(setting, flags & linux::TIMER_ABSTIME != 0);
    old.write_if_not_null(to_itimerspec(before))?;
    Ok(0)
}

pub fn sys_timer_gettime(task: &Task, id: i32, out: UserPtr<ItimerSpec>) -> Result<usize> {
    out.write(to_itimerspec(posix_timer(task, id)?.get()))?;
    Ok(0)
}

pub fn sys_timer_getoverrun(task: &Task, id: i32) -> Result<usize> {
    Ok(posix_timer(task, id)?.overrun() as usize)
}

pub fn sys_timer_delete(task: &Task, id: i32) -> Result<usize> {
    let timer = posix_timer(task, id)?;
    timer.stop();
    if let Some(timers) = task.process.find_extension::<Timers>() {
        let gone = timers.posix.lock()[id as usize].take();
        drop(gone);
    }
    Ok(0)
}
