//! Who waits for which word: hash buckets of waiters in the order of their arrival.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};

use libos_core::arch::addr::USER_END;
use libos_core::sync::SpinLock;
use libos_core::task::sched;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

/// What identifies a word: page source and offset, or address space and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    space: usize,
    offset: u64,
}

const BUCKETS: usize = 64;

impl Key {
    /// The key of a word in the current task's memory.
    ///
    /// # Errors
    /// `EINVAL` when the address is not aligned; `EFAULT` outside the program's half, and for a word that is not private also when nothing is mapped there,
    /// since its page is what identifies it.
    pub fn of(task: &Task, addr: usize, is_private: bool) -> Result<Key> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if addr >= USER_END {
            return Err(Errno::EFAULT);
        }
        if !is_private {
            UserPtr::<u32>::new(addr).read()?;
        }
        let mm = task.mm();
        let shared = if is_private { None } else { mm.shared_key(addr) };
        let (space, offset) = shared.unwrap_or((Arc::as_ptr(&mm) as usize, addr as u64));
        Ok(Key { space, offset })
    }

    fn bucket(self) -> usize {
        // Words lie close together, spaces far apart: multiply to spread both (Fibonacci hashing).
        let mixed = (self.offset >> 2).wrapping_add(self.space as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 58) as usize % BUCKETS
    }
}

/// Why a waiter was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Woken {
    /// Somebody woke it, or handed it the lock.
    Granted = 1,
    /// The lock may be free: look again.
    Retry = 2,
}

/// A task that waits for a word.
pub struct Waiter {
    pub task: Arc<Task>,
    /// Where it is queued now; FUTEX_REQUEUE changes it.
    key: SpinLock<Key>,
    bitset: u32,
    woken: AtomicU8,
}

impl Waiter {
    /// Why it was woken, if it was.
    pub fn woken(&self) -> Option<Woken> {
        match self.woken.load(Ordering::Acquire) {
            0 => None,
            2 => Some(Woken::Retry),
            _ => Some(Woken::Granted),
        }
    }

    /// Wakes it; it is no longer in the table.
    pub fn wake(&self, why: Woken) {
        self.woken.store(why as u8, Ordering::Release);
        sched::wake(&self.task);
    }
}

static TABLE: [SpinLock<Vec<Arc<Waiter>>>; BUCKETS] = [const { SpinLock::new(Vec::new()) }; BUCKETS];

/// Adds the current task.
///
/// # Errors
/// `ENOMEM`.
pub fn add(key: Key, bitset: u32) -> Result<Arc<Waiter>> {
    let waiter = Arc::new(Waiter { task: libos_core::task::current(), key: SpinLock::new(key), bitset, woken: AtomicU8::new(0) });
    let mut bucket = TABLE[key.bucket()].lock();
    bucket.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    bucket.push(waiter.clone());
    Ok(waiter)
}

/// Removes a waiter, wherever it is queued by now. Nothing happens when it was woken.
pub fn remove(waiter: &Arc<Waiter>) {
    loop {
        let key = *waiter.key.lock();
        let mut bucket = TABLE[key.bucket()].lock();
        // It may have been moved before its bucket was locked.
        if *waiter.key.lock() != key {
            continue;
        }
        let removed = bucket.iter().position(|w| Arc::ptr_eq(w, waiter)).map(|at| bucket.remove(at));
        drop(bucket);
        drop(removed);
        return;
    }
}

/// Takes the longest waiter for a word out of the table.
pub fn take_first(key: Key) -> Option<Arc<Waiter>> {
    let mut bucket = TABLE[key.bucket()].lock();
    let at = bucket.iter().position(|w| *w.key.lock() == key)?;
    Some(bucket.remove(at))
}

/// Wakes up to `count` waiters whose bits meet `bitset`; returns how many.
pub fn wake(key: Key, count: usize, bitset: u32, why: Woken) -> usize {
    let mut woken = 0;
    while woken < count {
        let waiter = {
            let mut bucket = TABLE[key.bucket()].lock();
            let at = bucket.iter().position(|w| w.bitset & bitset != 0 && *w.key.lock() == key);
            at.map(|at| bucket.remove(at))
        };
        let Some(waiter) = waiter else { break };
        waiter.wake(why);
        woken += 1;
    }
    woken
}

/// Moves up to `count` waiters from one word to another; returns how many.
pub fn requeue(from: Key, to: Key, count: usize) -> usize {
    let mut moved = 0;
    while moved < count {
        let mut bucket = TABLE[from.bucket()].lock();
        let Some(at) = bucket.iter().position(|w| *w.key.lock() == from) else { break };
        moved += 1;
        if from.bucket() == to.bucket() {
            let waiter = bucket.remove(at);
            *waiter.key.lock() = to;
            bucket.push(waiter);
            continue;
        }
        // The buckets are locked in the order of their numbers, so that two movers cannot wait for each other.
        drop(bucket);
        let (mut low, mut high) = (TABLE[from.bucket().min(to.bucket())].lock(), TABLE[from.bucket().max(to.bucket())].lock());
        let (source, target) = if from.bucket() < to.bucket() { (&mut *low, &mut *high) } else { (&mut *high, &mut *low) };
        let Some(at) = source.iter().position(|w| *w.key.lock() == from) else { break };
        if target.try_reserve(1).is_err() {
            break;
        }
        let waiter = source.remove(at);
        *waiter.key.lock() = to;
        target.push(waiter);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_words_spread_over_the_buckets() {
        let mut used = [false; BUCKETS];
        for i in 0..256u64 {
            let key = Key { space: 0xffff_8000_0123_4560, offset: 0x7fff_0000 + i * 4 };
            used[key.bucket()] = true;
        }
        assert!(used.iter().filter(|u| **u).count() > BUCKETS * 3 / 4);
    }
}
