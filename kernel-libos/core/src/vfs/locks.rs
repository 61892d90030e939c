//! Advisory locks: record locks of fcntl(2) (per process and per open file description), and flock(2).
//!
//! All locks of one inode are a list; ranges are half-open and end at `u64::MAX` for "to the end, however far". An owner is a descriptor table (POSIX record
//! locks: they go when the process closes *any* descriptor of the file) or a file description (OFD locks and flock: they go with the last reference).
//! flock(2) locks do not see record locks, as on Linux (flock(2), "NOTES").
//!
//! A wait for a POSIX lock that would close a circle of waiting owners answers `EDEADLK`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use libos_abi::{Errno, Result};

use crate::file::{FdTable, OpenFile};
use crate::sync::SpinLock;
use crate::task::wait::WaitQueue;

/// Which family of locks; families do not see each other, except that POSIX and OFD locks are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `F_SETLK` and `F_OFD_SETLK`.
    Record,
    /// flock(2).
    Whole,
}

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A descriptor table, by address.
    Table(usize),
    /// A file description, by address.
    Description(usize),
}

impl Owner {
    /// The owner of POSIX record locks.
    pub fn table(table: &FdTable) -> Owner {
        Owner::Table(core::ptr::from_ref(table) as usize)
    }

    /// The owner of OFD locks and of flock(2).
    pub fn description(file: &OpenFile) -> Owner {
        Owner::Description(core::ptr::from_ref(file) as usize)
    }
}

/// A lock on a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Who.
    pub owner: Owner,
    /// For `F_GETLK`: process id, or -1 for OFD locks.
    pub pid: i32,
    /// Exclusive rather than shared.
    pub is_write: bool,
    /// First byte.
    pub start: u64,
    /// Byte after the last one; `u64::MAX` is "to the end".
    pub end: u64,
}

#[derive(Default)]
struct FileLocks {
    record: Vec<Lock>,
    whole: Vec<Lock>,
}

impl FileLocks {
    fn family(&mut self, family: Family) -> &mut Vec<Lock> {
        match family {
            Family::Record => &mut self.record,
            Family::Whole => &mut self.whole,
        }
    }
}

struct State {
    /// By device and inode; a system has few locked files at a time.
    files: Vec<(Key, FileLocks)>,
    /// Who waits for whom, for the search for circles.
    waiting: Vec<(Owner, Owner)>,
}

static STATE: SpinLock<State> = SpinLock::new(State { files: Vec::new(), waiting: Vec::new() });
static RELEASED: WaitQueue = WaitQueue::new();
/// Locks in all; closing a file costs one look at this while there are none.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Device and inode number.
type Key = (u64, u64);

impl State {
    fn find(&mut self, key: Key) -> Option<&mut FileLocks> {
        self.files.iter_mut().find(|(at, _)| *at == key).map(|(_, locks)| locks)
    }
}

fn key(file: &OpenFile) -> Result<Key> {
    let stat = file.stat()?;
    // Files that are no inode (sockets) are told apart by address; their device number is no file system's.
    Ok(if stat.dev == super::inode::ANONYMOUS_DEV { (stat.dev, Arc::as_ptr(&file.ops).cast::<()>() as u64) } else { (stat.dev, stat.ino) })
}

/// Returns the first lock that stands in the way of `wanted`.
pub fn conflict(file: &OpenFile, family: Family, wanted: &Lock) -> Result<Option<Lock>> {
    let key = key(file)?;
    Ok(STATE.lock().find(key).and_then(|locks| find_conflict(locks.family(family), wanted)))
}

fn find_conflict(locks: &[Lock], wanted: &Lock) -> Option<Lock> {
    let overlaps = |lock: &&Lock| lock.start < wanted.end && wanted.start < lock.end;
    locks.iter().filter(overlaps).find(|lock| lock.owner != wanted.owner && (lock.is_write || wanted.is_write)).copied()
}

/// Takes a lock; the owner's locks on the same range change to it.
///
/// # Errors
/// `EAGAIN` when another owner is in the way and `wait` is not set; `EDEADLK`; `ERESTARTSYS`.
pub fn lock(file: &OpenFile, family: Family, wanted: Lock, wait: bool) -> Result<()> {
    let key = key(file)?;
    let attempt = || -> Option<Result<()>> {
        let mut state = STATE.lock();
        state.waiting.retain(|(waiter, _)| *waiter != wanted.owner);
        if state.find(key).is_none() {
            state.files.push((key, FileLocks::default()));
        }
        let State { files, waiting } = &mut *state;
        let locks = files.iter_mut().find(|(at, _)| *at == key)?.1.family(family);
        match find_conflict(locks, &wanted) {
            None => {
                let before = locks.len();
                set(locks, wanted.owner, wanted.start, wanted.end, Some(wanted));
                count_change(before, locks.len());
                Some(Ok(()))
            }
            Some(_) if !wait => Some(Err(Errno::EAGAIN)),
            Some(other) => {
                if family == Family::Record && matches!(wanted.owner, Owner::Table(_)) && closes_circle(waiting, wanted.owner, other.owner)
                {
                    return Some(Err(Errno::EDEADLK));
                }
                waiting.push((wanted.owner, other.owner));
                None
            }
        }
    };
    let result = RELEASED.wait(attempt);
    if wait {
        STATE.lock().waiting.retain(|(waiter, _)| *waiter != wanted.owner);
    }
    // A change from exclusive to shared may let others in.
    RELEASED.wake_all();
    result?
}

fn closes_circle(waiting: &[(Owner, Owner)], waiter: Owner, mut holder: Owner) -> bool {
    for _ in 0..=waiting.len() {
        if holder == waiter {
            return true;
        }
        match waiting.iter().find(|(w, _)| *w == holder) {
            Some((_, next)) => holder = *next,
            None => return false,
        }
    }
    false
}

/// Gives up the owner's locks on a range.
///
/// # Errors
/// `EIO`.
pub fn unlock(file: &OpenFile, family: Family, owner: Owner, start: u64, end: u64) -> Result<()> {
    let key = key(file)?;
    let mut state = STATE.lock();
    if let Some(locks) = state.find(key) {
        let list = locks.family(family);
        let before = list.len();
        set(list, owner, start, end, None);
        count_change(before, list.len());
        if locks.record.is_empty() && locks.whole.is_empty() {
            state.files.retain(|(at, _)| *at != key);
        }
    }
    drop(state);
    RELEASED.wake_all();
    Ok(())
}

fn count_change(before: usize, after: usize) {
    COUNT.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
}

/// Cuts `start..end` out of the owner's locks and puts `new` there, joined with neighbours of the same kind.
fn set(locks: &mut Vec<Lock>, owner: Owner, start: u64, end: u64, new: Option<Lock>) {
    let mut kept = Vec::with_capacity(locks.len() + 2);
    for lock in locks.drain(..) {
        if lock.owner != owner || lock.end <= start || end <= lock.start {
            kept.push(lock);
            continue;
        }
        if lock.start < start {
            kept.push(Lock { end: start, ..lock });
        }
        if end < lock.end {
            kept.push(Lock { start: end, ..lock });
        }
    }
    if let Some(mut new) = new {
        kept.retain(|lock| {
            let joins = lock.owner == owner && lock.is_write == new.is_write && lock.start <= new.end && new.start <= lock.end;
            if joins {
                new.start = new.start.min(lock.start);
                new.end = new.end.max(lock.end);
            }
            !joins
        });
        kept.push(new);
        kept.sort_by_key(|lock| lock.start);
    }
    *locks = kept;
}

/// A process closed a descriptor of a file: its POSIX locks on the file go.
pub(crate) fn descriptor_closed(table: &FdTable, file: &OpenFile) {
    if COUNT.load(Ordering::Relaxed) != 0 {
        let _ = unlock(file, Family::Record, Owner::table(table), 0, u64::MAX);
    }
}

/// The last reference to a description goes: its OFD and flock locks go.
pub(crate) fn description_closed(file: &OpenFile) {
    if COUNT.load(Ordering::Relaxed) != 0 {
        let owner = Owner::description(file);
        let _ = unlock(file, Family::Record, owner, 0, u64::MAX);
        let _ = unlock(file, Family::Whole, owner, 0, u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Owner::Table(1);
    const B: Owner = Owner::Table(2);

    fn held(owner: Owner, is_write: bool, start: u64, end: u64) -> Lock {
        Lock { owner, pid: 0, is_write, start, end }
    }

    #[test]
    fn unlocking_the_middle_splits_and_relocking_joins() {
        let mut locks = Vec::new();
        set(&mut locks, A, 0, 100, Some(held(A, true, 0, 100)));
        set(&mut locks, A, 40, 60, None);
        assert_eq!(locks, [held(A, true, 0, 40), held(A, true, 60, 100)]);
        set(&mut locks, A, 40, 60, Some(held(A, true, 40, 60)));
        assert_eq!(locks, [held(A, true, 0, 100)]);
        set(&mut locks, A, 10, 20, Some(held(A, false, 10, 20)));
        assert_eq!(locks, [held(A, true, 0, 10), held(A, false, 10, 20), held(A, true, 20, 100)]);
    }

    #[test]
    fn only_writers_and_other_owners_conflict() {
        let locks = [held(A, false, 0, 10), held(B, true, 20, u64::MAX)];
        assert_eq!(find_conflict(&locks, &held(B, false, 0, 10)), None);
        assert_eq!(find_conflict(&locks, &held(B, true, 9, 10)), Some(locks[0]));
        assert_eq!(find_conflict(&locks, &held(B, true, 10, 30)), None);
        assert_eq!(find_conflict(&locks, &held(A, false, 30, 31)), Some(locks[1]));
    }

    #[test]
    fn a_circle_of_waiters_is_seen() {
        let c = Owner::Table(3);
        assert!(closes_circle(&[(B, c), (c, A)], A, B));
        assert!(!closes_circle(&[(B, c)], A, B));
        // A circle that the asker is not part of must not hang the search.
        assert!(!closes_circle(&[(B, c), (c, B)], A, B));
    }
}
