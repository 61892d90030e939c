//! An epoll instance.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFile, RawFd, Watcher};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::sync::{Mutex, SpinLock};
use libos_core::time::monotonic_ns;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result};

use crate::item::{Item, Ready};

/// Instances that may watch one another in a chain (epoll_ctl(2), ELOOP).
const NESTING_MAX: usize = 5;

/// A descriptor number and the description it referred to when it was added: one description may be watched under several numbers, and a number may come
/// to mean another description.
type Key = (RawFd, usize);

fn key(fd: RawFd, file: &Arc<OpenFile>) -> Key {
    (fd, Arc::as_ptr(file) as usize)
}

/// The list of interests.
pub struct Epoll {
    me: Weak<Epoll>,
    items: SpinLock<BTreeMap<Key, Arc<Item>>>,
    ready: Arc<Ready>,
}

/// Additions look for circles of instances; one at a time, so that two of them cannot close one together.
static NESTING: Mutex<()> = Mutex::new(());

impl Epoll {
    pub fn new() -> Arc<Epoll> {
        Arc::new_cyclic(|me| Epoll { me: me.clone(), items: SpinLock::new(BTreeMap::new()), ready: Arc::new(Ready::new()) })
    }

    fn find(&self, fd: RawFd, file: &Arc<OpenFile>) -> Result<Arc<Item>> {
        self.items.lock().get(&key(fd, file)).cloned().ok_or(Errno::ENOENT)
    }

    pub fn add(&self, fd: RawFd, file: &Arc<OpenFile>, events: u32, data: u64) -> Result<()> {
        let _nesting = match file.ops.as_any().downcast_ref::<Epoll>() {
            Some(other) => {
                let guard = NESTING.lock();
                if other.depth_with(self, NESTING_MAX).is_none() {
                    return Err(Errno::ELOOP);
                }
                Some(guard)
            }
            None => None,
        };
        let item = Item::new(self.ready.clone(), file, events, data);
        let mut items = self.items.lock();
        if items.contains_key(&key(fd, file)) {
            return Err(Errno::EEXIST);
        }
        self.ready.reserve(items.len() + 1)?;
        items.insert(key(fd, file), item.clone());
        drop(items);
        let watcher: Weak<dyn Watcher> = self.me.clone();
        file.watch(watcher);
        item.register(file);
        Ok(())
    }

    pub fn modify(&self, fd: RawFd, file: &Arc<OpenFile>, events: u32, data: u64) -> Result<()> {
        let item = self.find(fd, file)?;
        if item.interest().has(linux::EPOLLEXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        item.modify(file, events, data);
        Ok(())
    }

    pub fn remove(&self, fd: RawFd, file: &Arc<OpenFile>) -> Result<()> {
        let item = self.items.lock().remove(&key(fd, file)).ok_or(Errno::ENOENT)?;
        item.unregister();
        Ok(())
    }

    /// Longest chain of instances below this one; `None` when it is longer than `max` or leads to `forbidden`.
    fn depth_with(&self, forbidden: &Epoll, max: usize) -> Option<usize> {
        if core::ptr::eq(self, forbidden) || max == 0 {
            return None;
        }
        let files: alloc::vec::Vec<Arc<OpenFile>> = self.items.lock().values().filter_map(|item| item.file.upgrade()).collect();
        let mut depth = 0;
        for file in files {
            if let Some(below) = file.ops.as_any().downcast_ref::<Epoll>() {
                depth = depth.max(below.depth_with(forbidden, max - 1)? + 1);
            }
        }
        Some(depth)
    }

    /// Moves events to the program, at most `max`; returns how many.
    fn collect(&self, max: usize, out: UserPtr<linux::epoll_event>) -> Result<usize> {
        let mut count = 0;
        // Items that go back to the list must not be seen twice in one call.
        for _ in 0..self.ready.len() {
            if count == max {
                break;
            }
            let Some(weak) = self.ready.pop() else { break };
            let Some(item) = weak.upgrade() else { continue };
            // First, so that a change after the look below brings it back.
            item.dequeued();
            let Some(file) = item.file.upgrade() else { continue };
            let events = item.events(&file);
            if events.is_empty() {
                continue;
            }
            let interest = item.interest();
            let event = linux::epoll_event { events: events.bits(), data: interest.data };
            if let Err(errno) = out.index(count).write(event) {
                item.requeue();
                return if count > 0 { Ok(count) } else { Err(errno) };
            }
            count += 1;
            if interest.has(linux::EPOLLONESHOT) {
                item.disable();
            } else if !interest.has(linux::EPOLLET) {
                item.requeue();
            }
        }
        Ok(count)
    }

    /// Waits for events until the deadline.
    ///
    /// # Errors
    /// `ERESTARTSYS` when a signal is to be delivered, `EFAULT`.
    pub fn wait(&self, deadline_ns: Option<u64>, max: usize, out: UserPtr<linux::epoll_event>) -> Result<usize> {
        loop {
            let count = self.collect(max, out)?;
            if count > 0 {
                // Others may wait for what is left.
                if self.ready.len() > 0 {
                    self.ready.queue.wake_one();
                }
                return Ok(count);
            }
            if deadline_ns.is_some_and(|deadline| deadline <= monotonic_ns()) {
                return Ok(0);
            }
            let woken = self.ready.queue.wait_until(deadline_ns, || (self.ready.len() > 0).then_some(()))?;
            if woken.is_none() {
                return Ok(0);
            }
        }
    }
}

impl Watcher for Epoll {
    fn file_released(&self, file: &OpenFile) {
        let address = core::ptr::from_ref(file) as usize;
        let mut gone = alloc::vec::Vec::new();
        self.items.lock().retain(|key, item| {
            let stays = key.1 != address;
            if !stays {
                gone.push(item.clone());
            }
            stays
        });
        gone.iter().for_each(|item| item.unregister());
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // Files hold the items through their queues as long as those are registered.
        for item in self.items.lock().values() {
            item.unregister();
        }
    }
}

impl FileOps for Epoll {
    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.ready.queue);
        // Being on the list only means to have been woken; what counts is what holds now.
        let is_ready = self.ready.snapshot().iter().filter_map(Weak::upgrade).any(|item| {
            let file = item.file.upgrade();
            file.is_some_and(|file| !item.events(&file).is_empty())
        });
        if is_ready { PollEvents::READABLE } else { PollEvents::empty() }
    }

    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64> {
        // There is no offset, and asking for one is no error (Linux, `noop_llseek`).
        Ok(0)
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(String::from("anon_inode:[eventpoll]"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
