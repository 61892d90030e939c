//! poll(2), ppoll(2), select(2) and pselect6(2).
//!
//! The first look at the files registers nothing; only a call that must sleep joins their wait queues.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod select;

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags};
use libos_core::poll::{PollEvents, PollTable, wait_ready};
use libos_core::task::Resource;
use libos_core::task::signal::{self, SigSet};
use libos_core::time::{Timespec, monotonic_ns};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: poll,
    needs: [fd],
    syscalls: {
        poll => sys_poll,
        ppoll => sys_ppoll,
        select => select::sys_select,
        pselect6 => select::sys_pselect6,
    },
}

/// Events that are reported whether asked for or not (poll(2)).
const ALWAYS: PollEvents = PollEvents::ERR.union(PollEvents::HUP).union(PollEvents::NVAL);

/// What a descriptor has to say, among `wanted`.
fn ready(file: Option<&Arc<OpenFile>>, wanted: PollEvents, table: &mut PollTable<'_>) -> PollEvents {
    match file {
        Some(file) => file.ops.poll(file, table) & (wanted | ALWAYS),
        None => PollEvents::NVAL,
    }
}

/// The description for polling; `O_PATH` descriptors are not open in this sense.
fn find(task: &Task, fd: i32) -> Option<Arc<OpenFile>> {
    task.files().get(fd).ok().filter(|file| !file.flags().contains(OpenFlags::PATH))
}

/// The time at which a wait of that many nanoseconds ends.
fn deadline(timeout_ns: Option<u64>) -> Option<u64> {
    timeout_ns.map(|ns| monotonic_ns().saturating_add(ns))
}

/// A signal mask argument: null is none.
///
/// # Errors
/// `EINVAL` when the size is not that of a `sigset_t` of the kernel (8), `EFAULT`.
fn read_mask(mask: UserPtr<u64>, size: usize) -> Result<Option<SigSet>> {
    let Some(mask) = mask.non_null() else { return Ok(None) };
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    mask.read().map(|bits| Some(SigSet(bits)))
}

fn sys_poll(task: &Task, fds: UserPtr<linux::pollfd>, count: u32, timeout_ms: i32) -> Result<usize> {
    let timeout_ns = u64::try_from(timeout_ms).ok().map(|ms| ms * 1_000_000);
    poll(task, fds, count, deadline(timeout_ns))
}

fn sys_ppoll(
    task: &Task,
    fds: UserPtr<linux::pollfd>,
    count: u32,
    timeout: UserPtr<[i64; 2]>,
    mask: UserPtr<u64>,
    mask_size: usize,
) -> Result<usize> {
    let timeout_ns = read_timespec(timeout)?;
    let mask = read_mask(mask, mask_size)?;
    let deadline = deadline(timeout_ns);
    let result = signal::with_mask(task, mask, || poll(task, fds, count, deadline));
    write_rest(timeout, deadline, 1);
    result
}

fn read_timespec(timeout: UserPtr<[i64; 2]>) -> Result<Option<u64>> {
    let Some(timeout) = timeout.non_null() else { return Ok(None) };
    let [sec, nsec] = timeout.read()?;
    Timespec { sec, nsec }.to_ns().map(Some)
}

/// Writes the time that is left, as Linux does for the program's information; `unit_ns` is that of the second number. That it cannot be written is no error.
fn write_rest(timeout: UserPtr<[i64; 2]>, deadline: Option<u64>, unit_ns: u64) {
    if let (Some(timeout), Some(deadline)) = (timeout.non_null(), deadline) {
        let rest = deadline.saturating_sub(monotonic_ns());
        let _ = timeout.write([(rest / 1_000_000_000) as i64, (rest % 1_000_000_000 / unit_ns) as i64]);
    }
}

fn poll(task: &Task, fds: UserPtr<linux::pollfd>, count: u32, deadline: Option<u64>) -> Result<usize> {
    if u64::from(count) > task.limit(Resource::NoFile) {
        return Err(Errno::EINVAL);
    }
    let mut entries = UserSlice::from_parts(fds, count as usize)?.read_vec()?;
    let mut files = Vec::new();
    files.try_reserve_exact(entries.len()).map_err(|_| Errno::ENOMEM)?;
    files.extend(entries.iter().map(|entry| find(task, entry.fd)));
    let found = wait_ready(deadline, |table| {
        let mut found = 0;
        for (entry, file) in entries.iter_mut().zip(&files) {
            entry.revents = 0;
            // Negative descriptors are skipped (poll(2)).
            if entry.fd >= 0 {
                let wanted = PollEvents::from_bits_truncate(entry.events as u16 as u32);
                entry.revents = ready(file.as_ref(), wanted, table).bits() as i16;
                found += usize::from(entry.revents != 0);
            }
        }
        (found > 0).then_some(found)
    })?;
    for (i, entry) in entries.iter().enumerate() {
        // `revents` is the last two bytes of the eight.
        fds.index(i).field::<i16>(6).write(entry.revents)?;
    }
    Ok(found.unwrap_or(0))
}
