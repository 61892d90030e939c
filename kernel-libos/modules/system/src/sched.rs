//! sched_*(2), getpriority(2).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::task::runqueue::SLICE_NS;
use libos_core::task::{sched, table};
use libos_core::time::Timespec;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

fn find(task: &Task, tid: i32) -> Result<Arc<Task>> {
    match tid {
        0 => task.arc().ok_or(Errno::ESRCH),
        t if t < 0 => Err(Errno::EINVAL),
        t => table::task(t),
    }
}

/// Whether the caller may change another task's scheduling: the same user or `CAP_SYS_NICE`.
fn check_owner(task: &Task, other: &Task) -> Result<()> {
    let (from, to) = (task.creds(), other.creds());
    let is_owner = from.euid == to.euid || from.euid == to.uid;
    if is_owner || from.has_capability(linux::CAP_SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

/// As [`find`], for the calls that answer `ESRCH` for negative numbers.
fn find_any(task: &Task, tid: i32) -> Result<Arc<Task>> {
    if tid < 0 { Err(Errno::ESRCH) } else { find(task, tid) }
}

pub fn sys_sched_yield(_task: &Task) -> Result<usize> {
    sched::yield_now();
    Ok(0)
}

/// CPUs there are, as a mask.
const CPUS: u64 = 1;

pub fn sys_sched_getaffinity(task: &Task, tid: i32, len: usize, out: UserPtr<u64>) -> Result<usize> {
    if len < 8 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let mask = find_any(task, tid)?.sched.affinity.load(Ordering::Relaxed) & CPUS;
    out.write(mask)?;
    // The size of the kernel's own mask.
    Ok(8)
}

pub fn sys_sched_setaffinity(task: &Task, tid: i32, len: usize, mask: UserPtr<u8>) -> Result<usize> {
    let mut bytes = [0; 8];
    for (i, byte) in bytes.iter_mut().enumerate().take(len) {
        *byte = mask.index(i).read()?;
    }
    let mask = u64::from_le_bytes(bytes) & CPUS;
    let target = find_any(task, tid)?;
    check_owner(task, &target)?;
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    target.sched.affinity.store(mask, Ordering::Relaxed);
    Ok(0)
}

/// `SCHED_RESET_ON_FORK`.
const RESET_ON_FORK: u32 = 0x4000_0000;

/// Lowest and highest priority of a policy.
fn priorities(policy: u32) -> Result<(u32, u32)> {
    match policy {
        linux::SCHED_NORMAL | linux::SCHED_BATCH | linux::SCHED_IDLE | linux::SCHED_DEADLINE => Ok((0, 0)),
        linux::SCHED_FIFO | linux::SCHED_RR => Ok((1, 99)),
        _ => Err(Errno::EINVAL),
    }
}

fn set_policy(task: &Task, target: &Task, policy: u32, priority: u32) -> Result<usize> {
    let kind = policy & !RESET_ON_FORK;
    let (low, high) = priorities(kind)?;
    if priority < low || priority > high || kind == linux::SCHED_DEADLINE {
        return Err(Errno::EINVAL);
    }
    check_owner(task, target)?;
    // Real-time priorities need a right or a limit (sched(7)); a container has neither.
    let limit = u64::from(priority) > task.limit(libos_core::task::Resource::RtPrio);
    if high > 0 && limit {
        task.require(linux::CAP_SYS_NICE)?;
    }
    target.sched.policy.store(policy, Ordering::Relaxed);
    target.sched.priority.store(priority, Ordering::Relaxed);
    Ok(0)
}

pub fn sys_sched_getscheduler(task: &Task, tid: i32) -> Result<usize> {
    Ok(find(task, tid)?.sched.policy.load(Ordering::Relaxed) as usize)
}

pub fn sys_sched_setscheduler(task: &Task, tid: i32, policy: i32, param: UserPtr<u32>) -> Result<usize> {
    if policy < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = param.read()?;
    set_policy(task, &*find(task, tid)?, policy as u32, priority)
}

pub fn sys_sched_getparam(task: &Task, tid: i32, param: UserPtr<u32>) -> Result<usize> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    param.write(find(task, tid)?.sched.priority.load(Ordering::Relaxed))?;
    Ok(0)
}

pub fn sys_sched_setparam(task: &Task, tid: i32, param: UserPtr<u32>) -> Result<usize> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = param.read()?;
    let target = find(task, tid)?;
    set_policy(task, &target, target.sched.policy.load(Ordering::Relaxed), priority)
}

/// `struct sched_attr` of the first version: size and policy, flags, nice and priority, runtime, deadline, period.
type SchedAttr = [u64; 6];

pub fn sys_sched_getattr(task: &Task, tid: i32, out: UserPtr<SchedAttr>, size: u32, flags: u32) -> Result<usize> {
    if out.is_null() || !(48..=4096).contains(&size) || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let target = find(task, tid)?;
    let policy = target.sched.policy.load(Ordering::Relaxed) & !RESET_ON_FORK;
    let nice = target.sched.nice() as i32 as u32;
    let priority = target.sched.priority.load(Ordering::Relaxed);
    out.write([48 | u64::from(policy) << 32, 0, u64::from(nice) | u64::from(priority) << 32, 0, 0, 0])?;
    Ok(0)
}

pub fn sys_sched_setattr(task: &Task, tid: i32, attr: UserPtr<SchedAttr>, flags: u32) -> Result<usize> {
    if attr.is_null() || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let [size_and_policy, _, nice_and_priority, ..] = attr.read()?;
    let (policy, nice, priority) = ((size_and_policy >> 32) as u32, nice_and_priority as i32, (nice_and_priority >> 32) as u32);
    let target = find(task, tid)?;
    set_policy(task, &target, policy, priority)?;
    if policy == linux::SCHED_NORMAL || policy == linux::SCHED_BATCH {
        set_nice(task, &target, nice)?;
    }
    Ok(0)
}

pub fn sys_sched_get_priority_max(_task: &Task, policy: u32) -> Result<usize> {
    Ok(priorities(policy)?.1 as usize)
}

pub fn sys_sched_get_priority_min(_task: &Task, policy: u32) -> Result<usize> {
    Ok(priorities(policy)?.0 as usize)
}

pub fn sys_sched_rr_get_interval(task: &Task, tid: i32, out: UserPtr<Timespec>) -> Result<usize> {
    find(task, tid)?;
    out.write(Timespec::from_ns(SLICE_NS))?;
    Ok(0)
}

/// Sets a nice value; a lower one than before needs a right or a limit (setpriority(2)).
fn set_nice(task: &Task, target: &Task, nice: i32) -> Result<()> {
    let nice = nice.clamp(-20, 19);
    check_owner(task, target)?;
    if nice < i32::from(target.sched.nice()) && (20 - nice) as u64 > task.limit(libos_core::task::Resource::Nice) {
        task.require(linux::CAP_SYS_NICE).map_err(|_| Errno::EACCES)?;
    }
    target.sched.set_nice(nice as i8);
    Ok(())
}

/// The tasks that `which` and `who` of getpriority(2) and ioprio_get(2) name; `first` is the number of the kind that means one task.
fn named(task: &Task, which: u32, who: i32, first: u32) -> Result<Vec<Arc<Task>>> {
    let found: Vec<Arc<Task>> = match which.wrapping_sub(first) {
        0 => table::task(if who == 0 { task.tid() } else { who }).into_iter().collect(),
        1 => {
            let group = if who == 0 { task.process.group() } else { who };
            table::tasks().into_iter().filter(|t| t.process.group() == group).collect()
        }
        2 => {
            let uid = if who == 0 { task.creds().uid } else { who as u32 };
            table::tasks().into_iter().filter(|t| t.creds().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

pub fn sys_getpriority(task: &Task, which: u32, who: i32) -> Result<usize> {
    // The call answers 20 - nice, so that errors are told apart; libc turns it back.
    let best = named(task, which, who, 0)?.iter().map(|t| 20 - i32::from(t.sched.nice())).max();
    best.map(|b| b as usize).ok_or(Errno::ESRCH)
}

pub fn sys_setpriority(task: &Task, which: u32, who: i32, nice: i32) -> Result<usize> {
    for target in named(task, which, who, 0)? {
        set_nice(task, &target, nice)?;
    }
    Ok(0)
}

pub fn sys_ioprio_get(task: &Task, which: u32, who: i32) -> Result<usize> {
    named(task, which, who, 1)?;
    // Class "none", the default priority 4.
    Ok(4)
}

pub fn sys_ioprio_set(task: &Task, which: u32, who: i32, priority: u32) -> Result<usize> {
    // Class above idle (3).
    if priority >> 13 > 3 {
        return Err(Errno::EINVAL);
    }
    named(task, which, who, 1)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_the_priorities_of_sched_7() {
        assert_eq!(priorities(linux::SCHED_NORMAL), Ok((0, 0)));
        assert_eq!(priorities(linux::SCHED_RR), Ok((1, 99)));
        assert_eq!(priorities(9), Err(Errno::EINVAL));
    }
}
