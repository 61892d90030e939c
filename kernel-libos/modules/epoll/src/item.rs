//! What an instance keeps for each watched description, and the list of those that may be ready.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use libos_core::abi::general as linux;
use libos_core::file::OpenFile;
use libos_core::poll::{PollEvents, PollTable, Registration};
use libos_core::sync::SpinLock;
use libos_core::task::wait::{WaitQueue, Wake};
use libos_core::{Errno, Result};

use crate::ALWAYS;

/// Items that were woken, in order, and who waits for one.
pub struct Ready {
    list: SpinLock<VecDeque<Weak<Item>>>,
    pub queue: Arc<WaitQueue>,
}

impl Ready {
    pub fn new() -> Ready {
        Ready { list: SpinLock::new(VecDeque::new()), queue: Arc::new(WaitQueue::new()) }
    }

    /// Makes room for `items` items, so that a wake-up, which may come in an interrupt, needs no memory.
    pub fn reserve(&self, items: usize) -> Result<()> {
        let mut list = self.list.lock();
        let more = items.saturating_sub(list.len());
        list.try_reserve(more).map_err(|_| Errno::ENOMEM)
    }

    pub fn len(&self) -> usize {
        self.list.lock().len()
    }

    pub fn pop(&self) -> Option<Weak<Item>> {
        self.list.lock().pop_front()
    }

    pub fn snapshot(&self) -> Vec<Weak<Item>> {
        self.list.lock().iter().cloned().collect()
    }
}

/// A watched description.
pub struct Item {
    me: Weak<Item>,
    pub file: Weak<OpenFile>,
    ready: Arc<Ready>,
    interest: SpinLock<Interest>,
    is_queued: AtomicBool,
    registrations: SpinLock<Vec<Registration>>,
}

/// What the program asked for.
#[derive(Clone, Copy)]
pub struct Interest {
    /// Event bits and the flags `EPOLLET`, `EPOLLONESHOT`, `EPOLLEXCLUSIVE`.
    pub events: u32,
    /// Given back with each event.
    pub data: u64,
    /// Reported once with `EPOLLONESHOT` and not armed again since.
    pub is_disabled: bool,
}

impl Interest {
    pub fn has(self, flag: u32) -> bool {
        self.events & flag != 0
    }

    fn wanted(self) -> PollEvents {
        if self.is_disabled { PollEvents::empty() } else { PollEvents::from_bits_truncate(self.events) | ALWAYS }
    }
}

impl Item {
    pub fn new(ready: Arc<Ready>, file: &Arc<OpenFile>, events: u32, data: u64) -> Arc<Item> {
        Arc::new_cyclic(|me| Item {
            me: me.clone(),
            file: Arc::downgrade(file),
            ready,
            interest: SpinLock::new(Interest { events, data, is_disabled: false }),
            is_queued: AtomicBool::new(false),
            registrations: SpinLock::new(Vec::new()),
        })
    }

    pub fn interest(&self) -> Interest {
        *self.interest.lock()
    }

    /// Joins the file's wait queues; queues the item when the file is ready already.
    pub fn register(self: &Arc<Item>, file: &OpenFile) {
        let wake: Arc<dyn Wake> = self.clone();
        let mut registrations = Vec::new();
        let mut table = if self.interest().has(linux::EPOLLEXCLUSIVE) {
            PollTable::register_exclusive(&wake, &mut registrations)
        } else {
            PollTable::register(&wake, &mut registrations)
        };
        let events = file.ops.poll(file, &mut table);
        *self.registrations.lock() = registrations;
        if events.intersects(self.interest().wanted()) {
            self.enqueue();
        }
    }

    /// Leaves the file's wait queues.
    pub fn unregister(&self) {
        let registrations = core::mem::take(&mut *self.registrations.lock());
        drop(registrations);
    }

    /// Changes what is asked for, and arms the item again.
    pub fn modify(&self, file: &OpenFile, events: u32, data: u64) {
        *self.interest.lock() = Interest { events, data, is_disabled: false };
        if file.ops.poll(file, &mut PollTable::query()).intersects(self.interest().wanted()) {
            self.enqueue();
        }
    }

    pub fn disable(&self) {
        self.interest.lock().is_disabled = true;
    }

    /// The item was taken from the list; wake-ups from now on put it there again.
    pub fn dequeued(&self) {
        self.is_queued.store(false, Ordering::Release);
    }

    /// What holds now of what was asked for.
    pub fn events(&self, file: &OpenFile) -> PollEvents {
        file.ops.poll(file, &mut PollTable::query()) & self.interest().wanted()
    }

    /// Puts the item at the end of the ready list without waking anybody.
    pub fn requeue(&self) -> bool {
        let is_new = !self.is_queued.swap(true, Ordering::AcqRel);
        if is_new {
            self.ready.list.lock().push_back(self.me.clone());
        }
        is_new
    }

    fn enqueue(&self) {
        if self.requeue() {
            self.ready.queue.wake_one();
        }
    }
}

impl Wake for Item {
    fn wake(&self) {
        if !self.interest.lock().is_disabled {
            self.enqueue();
        }
    }
}
