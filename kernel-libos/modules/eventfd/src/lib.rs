//! Event counters: eventfd(2).
//!
//! A 64-bit counter: write(2) adds to it, read(2) takes it all (or 1 with `EFD_SEMAPHORE`) and blocks while it is 0.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: eventfd,
    needs: [fd],
    syscalls: { eventfd => sys_eventfd, eventfd2 => sys_eventfd2 },
}

/// `EFD_SEMAPHORE` (<linux/eventfd.h>); the other flags are those of open(2).
const SEMAPHORE: u32 = 1;

/// The counter never gets here: writes that would reach it block (eventfd(2)).
const FULL: u64 = u64::MAX;

fn sys_eventfd(task: &Task, initial: u32) -> Result<usize> {
    sys_eventfd2(task, initial, 0)
}

fn sys_eventfd2(task: &Task, initial: u32, flags: u32) -> Result<usize> {
    let status = OpenFlags::from_bits_retain(flags & !SEMAPHORE);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(status) {
        return Err(Errno::EINVAL);
    }
    let counter =
        Counter { value: SpinLock::new(u64::from(initial)), is_semaphore: flags & SEMAPHORE != 0, changed: Arc::new(WaitQueue::new()) };
    let file = OpenFile::new(Arc::new(counter), status | OpenFlags::RDWR, None);
    task.install(file, status.contains(OpenFlags::CLOEXEC))
}

struct Counter {
    value: SpinLock<u64>,
    is_semaphore: bool,
    changed: Arc<WaitQueue>,
}

impl Counter {
    fn take(&self) -> Option<u64> {
        let mut value = self.value.lock();
        if *value == 0 {
            return None;
        }
        let taken = if self.is_semaphore { 1 } else { *value };
        *value -= taken;
        Some(taken)
    }

    fn add(&self, more: u64) -> Option<()> {
        let mut value = self.value.lock();
        let sum = value.checked_add(more).filter(|sum| *sum < FULL)?;
        *value = sum;
        Some(())
    }

    /// Tries at once, then sleeps unless the description does not block.
    fn attempt<T>(&self, file: &OpenFile, mut step: impl FnMut() -> Option<T>) -> Result<T> {
        let value = match step() {
            Some(value) => value,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => self.changed.wait(step)?,
        };
        self.changed.wake_all();
        Ok(value)
    }
}

impl FileOps for Counter {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = self.attempt(file, || self.take())?;
        dst.push(&taken.to_le_bytes())
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if src.pull(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let more = u64::from_le_bytes(bytes);
        if more == FULL {
            return Err(Errno::EINVAL);
        }
        self.attempt(file, || self.add(more))?;
        Ok(8)
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.changed);
        let value = *self.value.lock();
        let mut events = PollEvents::empty();
        if value > 0 {
            events |= PollEvents::READABLE;
        }
        if value < FULL - 1 {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64> {
        // There is no offset, and asking for one is no error (Linux, `noop_llseek`).
        Ok(0)
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(String::from("anon_inode:[eventfd]"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(value: u64, is_semaphore: bool) -> Counter {
        Counter { value: SpinLock::new(value), is_semaphore, changed: Arc::new(WaitQueue::new()) }
    }

    #[test]
    fn reads_take_all_or_one() {
        let (plain, semaphore) = (counter(3, false), counter(3, true));
        assert_eq!((plain.take(), plain.take()), (Some(3), None));
        assert_eq!((semaphore.take(), semaphore.take(), *semaphore.value.lock()), (Some(1), Some(1), 1));
    }

    #[test]
    fn the_counter_stays_below_its_end() {
        let counter = counter(5, false);
        assert_eq!(counter.add(FULL - 5), None);
        assert_eq!(counter.add(FULL - 6), Some(()));
        assert_eq!(counter.add(1), None);
        assert_eq!(counter.take(), Some(FULL - 1));
    }
}
