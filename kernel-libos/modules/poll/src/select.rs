//! select(2) and pselect6(2): the same over bit sets.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use libos_core::file::OpenFile;
use libos_core::poll::{PollEvents, wait_ready};
use libos_core::task::Resource;
use libos_core::task::signal;
use libos_core::time::Timeval;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::{deadline, find, read_mask, read_timespec, ready, write_rest};

/// What makes a descriptor readable, writable and exceptional for select(2) ("Correspondence between select() and poll() notifications").
const READ: PollEvents = PollEvents::READABLE.union(PollEvents::RDBAND).union(PollEvents::HUP).union(PollEvents::ERR);
const WRITE: PollEvents = PollEvents::WRITABLE.union(PollEvents::WRBAND).union(PollEvents::ERR);
const EXCEPT: PollEvents = PollEvents::PRI;

/// Bits of descriptors, in words of 64.
type Set = Vec<u64>;

pub fn sys_select(
    task: &Task,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<[i64; 2]>,
) -> Result<usize> {
    let timeout_ns = match timeout.non_null() {
        None => None,
        Some(timeout) => {
            let [sec, usec] = timeout.read()?;
            // More than a second of microseconds is carried over (Linux, `kern_select`).
            let (sec, usec) = (sec.saturating_add(usec / 1_000_000), usec % 1_000_000);
            Some(Timeval { sec, usec }.to_ns()?)
        }
    };
    let deadline = deadline(timeout_ns);
    let result = select(task, count, [read, write, except], deadline);
    write_rest(timeout, deadline, 1000);
    result
}

pub fn sys_pselect6(
    task: &Task,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<[i64; 2]>,
    mask: UserPtr<[usize; 2]>,
) -> Result<usize> {
    let timeout_ns = read_timespec(timeout)?;
    // The sixth argument points to a pointer and a size, for want of a seventh.
    let mask = match mask.non_null() {
        None => None,
        Some(mask) => {
            let [addr, size] = mask.read()?;
            read_mask(UserPtr::new(addr), size)?
        }
    };
    let deadline = deadline(timeout_ns);
    let result = signal::with_mask(task, mask, || select(task, count, [read, write, except], deadline));
    write_rest(timeout, deadline, 1);
    result
}

struct Watched {
    fd: usize,
    file: Arc<OpenFile>,
    wanted: [bool; 3],
}

fn select(task: &Task, count: i32, user: [UserPtr<u64>; 3], deadline: Option<u64>) -> Result<usize> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    // Descriptors beyond the limit cannot be open; Linux cuts at the size of the table.
    let count = count.min(usize::try_from(task.limit(Resource::NoFile)).unwrap_or(usize::MAX)).min(1 << 20);
    let words = count.div_ceil(64);
    let mut asked: [Set; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for (set, user) in asked.iter_mut().zip(user) {
        if let Some(user) = user.non_null() {
            set.try_reserve_exact(words).map_err(|_| Errno::ENOMEM)?;
            for i in 0..words {
                set.push(user.index(i).read()?);
            }
        }
    }
    let has = |set: &Set, fd: usize| set.get(fd / 64).is_some_and(|word| word >> (fd % 64) & 1 == 1);
    let mut watched = Vec::new();
    for fd in 0..count {
        let wanted = [has(&asked[0], fd), has(&asked[1], fd), has(&asked[2], fd)];
        if wanted.contains(&true) {
            watched.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            watched.push(Watched { fd, file: find(task, fd as i32).ok_or(Errno::EBADF)?, wanted });
        }
    }
    let mut found: [Set; 3] = [vec![0; words], vec![0; words], vec![0; words]];
    let total = wait_ready(deadline, |table| {
        let mut total = 0;
        for entry in &watched {
            let events = ready(Some(&entry.file), PollEvents::all(), table);
            for (i, mask) in [READ, WRITE, EXCEPT].into_iter().enumerate() {
                if entry.wanted[i] && events.intersects(mask) {
                    found[i][entry.fd / 64] |= 1 << (entry.fd % 64);
                    total += 1;
                }
            }
        }
        (total > 0).then_some(total)
    })?;
    for (set, user) in found.iter().zip(user) {
        if let Some(user) = user.non_null() {
            for (i, word) in set.iter().enumerate() {
                user.index(i).write(*word)?;
            }
        }
    }
    Ok(total.unwrap_or(0))
}
