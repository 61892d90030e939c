//! What a thread owes when it ends: the locks on its robust list are marked, and who waits for its end is woken.
//!
//! ```text
//! struct robust_list_head { next, futex_offset, list_op_pending }   (get_robust_list(2); Documentation/locking/robust-futex-ABI.rst)
//! ```
//!
//! The list is a ring through the program's memory; each entry plus the offset is the address of a futex word. Bit 0 of a pointer says that the lock is one of
//! priority inheritance. All of it is only a claim: bad addresses end the walk, and so do more than 2048 entries.

use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::task::{exit, table as tasks};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::ops::{compare_exchange, load};
use crate::table::{self, Key, Woken};

/// `sizeof(struct robust_list_head)`.
const HEAD_BYTES: usize = 24;
/// `ROBUST_LIST_LIMIT`.
const LIMIT: usize = 2048;

pub fn sys_set_robust_list(task: &Task, head: usize, len: usize) -> Result<usize> {
    if len != HEAD_BYTES {
        return Err(Errno::EINVAL);
    }
    task.robust_list.store(head, Ordering::Relaxed);
    Ok(0)
}

pub fn sys_get_robust_list(task: &Task, tid: i32, head: UserPtr<usize>, len: UserPtr<usize>) -> Result<usize> {
    let found = if tid == 0 { task.robust_list.load(Ordering::Relaxed) } else { of_other(task, tid)? };
    len.write(HEAD_BYTES)?;
    head.write(found)?;
    Ok(0)
}

fn of_other(task: &Task, tid: i32) -> Result<usize> {
    let other = tasks::task(tid)?;
    let (from, to) = (task.creds(), other.creds());
    if from.fsuid != to.euid && !from.has_capability(linux::CAP_SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    Ok(other.robust_list.load(Ordering::Relaxed))
}

/// Called when a thread ends or executes another program, while its memory is still there.
pub fn thread_ends(task: &Task) {
    // A bad list ends the walk; there is nobody to tell.
    let _ = walk(task);
    if let Some(addr) = exit::clear_child_tid(task)
        && let Ok(key) = Key::of(task, addr, false)
    {
        table::wake(key, 1, u32::MAX, Woken::Granted);
    }
}

fn walk(task: &Task) -> Result<()> {
    let head = task.robust_list.load(Ordering::Relaxed);
    if head == 0 {
        return Ok(());
    }
    let [first, offset, pending] = UserPtr::<[usize; 3]>::new(head).read()?;
    let mut entry = first;
    for _ in 0..LIMIT {
        let at = entry & !1;
        if at == head {
            break;
        }
        // Read before the lock is given up: its next owner may change the entry.
        let next = UserPtr::<usize>::new(at).read();
        // The one under way is handled at the end, once.
        if at != pending & !1 {
            release(task, at.wrapping_add(offset), entry & 1 != 0, false)?;
        }
        entry = next?;
    }
    if pending & !1 != 0 {
        release(task, (pending & !1).wrapping_add(offset), pending & 1 != 0, true)?;
    }
    Ok(())
}

/// Marks a lock of the dead thread and wakes one waiter (Linux, `handle_futex_death`).
fn release(task: &Task, addr: usize, is_pi: bool, is_pending: bool) -> Result<()> {
    let key = Key::of(task, addr, false)?;
    let mut word = load(addr)?;
    loop {
        // It may have died between leaving the lock and waking the next one.
        if is_pending && !is_pi && word == 0 {
            table::wake(key, 1, u32::MAX, Woken::Granted);
            return Ok(());
        }
        if word & linux::FUTEX_TID_MASK != task.tid() as u32 {
            return Ok(());
        }
        let seen = compare_exchange(addr, word, word & linux::FUTEX_WAITERS | linux::FUTEX_OWNER_DIED)?;
        if seen == word {
            break;
        }
        word = seen;
    }
    if word & linux::FUTEX_WAITERS != 0 {
        table::wake(key, 1, u32::MAX, if is_pi { Woken::Retry } else { Woken::Granted });
    }
    Ok(())
}
