//! Which clocks there are (clock_gettime(2)), reading and setting them.

use alloc::sync::Arc;

use libos_core::abi::general as linux;
use libos_core::task::{Process, table};
use libos_core::time::{self, Timespec, Timeval};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

/// `CAP_SYS_TIME`.
const CAP_SYS_TIME: u32 = linux::CAP_SYS_TIME;

/// What a timer or a sleep goes by.
#[derive(Clone)]
pub enum Clock {
    /// Time since the epoch.
    Realtime,
    /// Time since boot.
    Monotonic,
    /// CPU time of a process: user and system, or user alone.
    Process(Arc<Process>, CpuTime),
    /// CPU time of a thread.
    Thread(Arc<Task>),
}

/// Which CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuTime {
    /// In the program and in the kernel.
    All,
    /// In the program.
    User,
}

impl Clock {
    /// The clock with an id. Negative ids are CPU clocks of others: `~pid << 3 | 4 if a thread's | kind` (Linux, include/linux/posix-timers.h).
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn from_id(task: &Task, id: i32) -> Result<Clock> {
        if id < 0 {
            let pid = !(id >> 3);
            if id & 3 == 3 {
                return Err(Errno::EINVAL);
            }
            return if id & 4 != 0 {
                let thread = if pid == 0 { task.arc().ok_or(Errno::EINVAL)? } else { table::task(pid).map_err(|_| Errno::EINVAL)? };
                if thread.pid() != task.pid() { Err(Errno::EINVAL) } else { Ok(Clock::Thread(thread)) }
            } else {
                let process = if pid == 0 { task.process.clone() } else { table::process(pid).map_err(|_| Errno::EINVAL)? };
                Ok(Clock::Process(process, if id & 3 == 1 { CpuTime::User } else { CpuTime::All }))
            };
        }
        Ok(match id as u32 {
            linux::CLOCK_REALTIME | linux::CLOCK_REALTIME_COARSE | linux::CLOCK_REALTIME_ALARM | linux::CLOCK_TAI => Clock::Realtime,
            // Nothing suspends the machine, and nothing corrects its counter.
            linux::CLOCK_MONOTONIC
            | linux::CLOCK_MONOTONIC_RAW
            | linux::CLOCK_MONOTONIC_COARSE
            | linux::CLOCK_BOOTTIME
            | linux::CLOCK_BOOTTIME_ALARM => Clock::Monotonic,
            linux::CLOCK_PROCESS_CPUTIME_ID => Clock::Process(task.process.clone(), CpuTime::All),
            linux::CLOCK_THREAD_CPUTIME_ID => Clock::Thread(task.arc().ok_or(Errno::EINVAL)?),
            _ => return Err(Errno::EINVAL),
        })
    }

    /// What it shows, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        // CPU time is counted from the first use of any clock on; this is one.
        let monotonic = time::monotonic_ns();
        match self {
            Clock::Realtime => time::realtime_ns(),
            Clock::Monotonic => monotonic,
            Clock::Process(process, which) => {
                let (user, system) = process.cpu_time_ns();
                if *which == CpuTime::User { user } else { user + system }
            }
            Clock::Thread(task) => task.sched.run_ns(),
        }
    }

    /// The earliest monotonic time at which the clock can show `at_ns`: CPU clocks run at most as fast as time.
    pub fn earliest_ns(&self, at_ns: u64) -> u64 {
        time::monotonic_ns().saturating_add(at_ns.saturating_sub(self.now_ns()))
    }

    /// Whether it counts CPU time.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Clock::Process(..) | Clock::Thread(_))
    }
}

pub fn sys_clock_gettime(task: &Task, id: i32, out: UserPtr<Timespec>) -> Result<usize> {
    out.write(Timespec::from_ns(Clock::from_id(task, id)?.now_ns()))?;
    Ok(0)
}

pub fn sys_clock_getres(task: &Task, id: i32, out: UserPtr<Timespec>) -> Result<usize> {
    Clock::from_id(task, id)?;
    // Coarse clocks have the resolution of a tick of 4 ms (`CONFIG_HZ_250`).
    let is_coarse = id == linux::CLOCK_REALTIME_COARSE as i32 || id == linux::CLOCK_MONOTONIC_COARSE as i32;
    out.write_if_not_null(Timespec { sec: 0, nsec: if is_coarse { 4_000_000 } else { 1 } })?;
    Ok(0)
}

fn set(task: &Task, now_ns: u64) -> Result<usize> {
    task.require(CAP_SYS_TIME)?;
    time::set_realtime_ns(now_ns);
    Ok(0)
}

pub fn sys_clock_settime(task: &Task, id: i32, new: UserPtr<Timespec>) -> Result<usize> {
    Clock::from_id(task, id)?;
    if id != linux::CLOCK_REALTIME as i32 {
        return Err(Errno::EINVAL);
    }
    set(task, new.read()?.to_ns()?)
}

pub fn sys_gettimeofday(_task: &Task, out: UserPtr<Timeval>, zone: UserPtr<[i32; 2]>) -> Result<usize> {
    out.write_if_not_null(Timeval::from_ns(time::realtime_ns()))?;
    zone.write_if_not_null([0, 0])?;
    Ok(0)
}

pub fn sys_settimeofday(task: &Task, new: UserPtr<Timeval>, _zone: UserPtr<[i32; 2]>) -> Result<usize> {
    match new.non_null() {
        Some(new) => set(task, new.read()?.to_ns()?),
        None => task.require(CAP_SYS_TIME).map(|()| 0),
    }
}

pub fn sys_time(_task: &Task, out: UserPtr<i64>) -> Result<usize> {
    let seconds = (time::realtime_ns() / time::SECOND_NS) as i64;
    out.write_if_not_null(seconds)?;
    Ok(seconds as usize)
}

/// `struct timex` in words.
const TIMEX_WORDS: usize = 26;
/// Returned when the clock is not synchronised.
const TIME_ERROR: usize = 5;
/// `STA_UNSYNC`.
const STA_UNSYNC: u64 = 0x40;

pub fn sys_adjtimex(_task: &Task, timex: UserPtr<[u64; TIMEX_WORDS]>) -> Result<usize> {
    let mut words = timex.read()?;
    if words[0] as u32 != 0 {
        return Err(Errno::EPERM);
    }
    let now = Timeval::from_ns(time::realtime_ns());
    words = [0; TIMEX_WORDS];
    // maxerror and esterror are unknown: 16 seconds; status, then the tick in microseconds after the time.
    (words[3], words[4], words[5]) = (16_000_000, 16_000_000, STA_UNSYNC);
    (words[7], words[8], words[9], words[10], words[11]) = (500, 32_768_000, now.sec as u64, now.usec as u64, 10_000);
    timex.write(words)?;
    Ok(TIME_ERROR)
}

pub fn sys_clock_adjtime(task: &Task, id: i32, timex: UserPtr<[u64; TIMEX_WORDS]>) -> Result<usize> {
    if id != linux::CLOCK_REALTIME as i32 {
        return Err(Errno::EINVAL);
    }
    sys_adjtimex(task, timex)
}
