//! FUTEX_LOCK_PI and its relatives: a lock whose word holds the owner's thread id, with a bit for waiters.
//!
//! Programs take and leave a lock without contention by themselves; the kernel comes in when there are waiters. Leaving hands the lock to the one that
//! waits longest. The bit for waiters stays set on a handover even when nobody else waits: that costs one more call, and cannot lose anybody who joins just then.

use libos_core::abi::general as linux;
use libos_core::task::{table as tasks, wait::wait_in};
use libos_core::{Errno, Result, Task};

use crate::ops::{compare_exchange, load};
use crate::table::{self, Key, Woken};

const WAITERS: u32 = linux::FUTEX_WAITERS;
const OWNER_DIED: u32 = linux::FUTEX_OWNER_DIED;
const TID: u32 = linux::FUTEX_TID_MASK;

/// Takes the lock if nobody has it; returns the word otherwise.
fn attempt(addr: usize, tid: u32) -> Result<Option<u32>> {
    loop {
        let word = load(addr)?;
        if word & TID == tid {
            return Err(Errno::EDEADLK);
        }
        if word & TID != 0 {
            return Ok(Some(word));
        }
        // A dead owner's bit stays, for the program to see.
        if compare_exchange(addr, word, tid | word & (WAITERS | OWNER_DIED))? == word {
            return Ok(None);
        }
    }
}

/// FUTEX_TRYLOCK_PI.
pub fn try_lock(task: &Task, addr: usize) -> Result<usize> {
    match attempt(addr, task.tid() as u32)? {
        None => Ok(0),
        Some(_) => Err(Errno::EAGAIN),
    }
}

/// FUTEX_LOCK_PI.
pub fn lock(task: &Task, addr: usize, is_private: bool, deadline: Option<u64>) -> Result<usize> {
    let key = Key::of(task, addr, is_private)?;
    loop {
        let Some(word) = attempt(addr, task.tid() as u32)? else { return Ok(0) };
        tasks::task((word & TID) as i32)?;
        let waiter = table::add(key, u32::MAX)?;
        let marked = word | WAITERS;
        let result = match compare_exchange(addr, word, marked) {
            Ok(seen) if seen == word => wait_in(&[], deadline, true, || waiter.woken()),
            Ok(_) => Ok(Some(Woken::Retry)),
            Err(errno) => Err(errno),
        };
        table::remove(&waiter);
        match (waiter.woken(), result) {
            (Some(Woken::Granted), _) => return Ok(0),
            (_, Ok(Some(_))) | (Some(Woken::Retry), _) => {}
            (None, Ok(None)) => return Err(Errno::ETIMEDOUT),
            // Linux restarts it whatever the handler's flags.
            (None, Err(Errno::ERESTARTSYS)) => return Err(Errno::ERESTARTNOINTR),
            (None, Err(errno)) => return Err(errno),
        }
    }
}

/// FUTEX_UNLOCK_PI.
pub fn unlock(task: &Task, addr: usize, is_private: bool) -> Result<usize> {
    let key = Key::of(task, addr, is_private)?;
    let mut word = load(addr)?;
    if word & TID != task.tid() as u32 {
        return Err(Errno::EPERM);
    }
    let heir = table::take_first(key);
    let new = heir.as_ref().map_or(0, |w| w.task.tid() as u32 | WAITERS);
    loop {
        let seen = compare_exchange(addr, word, new)?;
        if seen == word {
            break;
        }
        word = seen;
    }
    match heir {
        Some(waiter) => waiter.wake(Woken::Granted),
        // Somebody may have joined between the look at the table and the change of the word.
        None => {
            table::wake(key, 1, u32::MAX, Woken::Retry);
        }
    }
    Ok(0)
}
