//! A queue of deadlines: a binary heap whose entries can be cancelled by the handle that adding them returned.

use alloc::vec::Vec;

/// Names an entry until it expires or is cancelled; stale handles are harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

struct Slot<T> {
    generation: u32,
    /// Deadline, place in the heap, value; `None` when free.
    entry: Option<(u64, u32, T)>,
}

/// Deadlines with a value each, earliest first.
pub struct TimerQueue<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Slot numbers, a binary heap by deadline.
    heap: Vec<u32>,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        TimerQueue::new()
    }
}

impl<T> TimerQueue<T> {
    /// Returns an empty queue.
    pub const fn new() -> TimerQueue<T> {
        TimerQueue { slots: Vec::new(), free: Vec::new(), heap: Vec::new() }
    }

    /// Adds a deadline.
    pub fn add(&mut self, deadline: u64, value: T) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            self.slots.len() as u32 - 1
        });
        let at = self.heap.len();
        self.heap.push(slot);
        self.slots[slot as usize].entry = Some((deadline, at as u32, value));
        self.sift_up(at);
        TimerId { slot, generation: self.slots[slot as usize].generation }
    }

    /// Removes an entry and returns its value, unless it has expired or been cancelled.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let at = slot.entry.as_ref()?.1;
        Some(self.remove(at as usize))
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.heap.first().map(|&slot| self.deadline(slot))
    }

    /// Removes the earliest entry if its deadline is not after `now`.
    pub fn pop_expired(&mut self, now: u64) -> Option<T> {
        (self.next()? <= now).then(|| self.remove(0))
    }

    fn deadline(&self, slot: u32) -> u64 {
        self.slots[slot as usize].entry.as_ref().map_or(u64::MAX, |e| e.0)
    }

    fn remove(&mut self, at: usize) -> T {
        let slot = self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.place(at);
            // The one that came from the end may belong further down or further up.
            self.sift_down(at);
            self.sift_up(at);
        }
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        self.slots[slot as usize].entry.take().expect("heap entries are in use").2
    }

    fn place(&mut self, at: usize) {
        let slot = self.heap[at] as usize;
        if let Some(entry) = &mut self.slots[slot].entry {
            entry.1 = at as u32;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place(a);
        self.place(b);
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.deadline(self.heap[parent]) <= self.deadline(self.heap[at]) {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut child = 2 * at + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.deadline(self.heap[child + 1]) < self.deadline(self.heap[child]) {
                child += 1;
            }
            if self.deadline(self.heap[at]) <= self.deadline(self.heap[child]) {
                break;
            }
            self.swap(at, child);
            at = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_expire_in_order() {
        let mut q = TimerQueue::new();
        for d in [50u64, 10, 40, 30, 20, 10] {
            q.add(d, d);
        }
        assert_eq!(q.next(), Some(10));
        assert_eq!(q.pop_expired(9), None);
        let order: Vec<u64> = core::iter::from_fn(|| q.pop_expired(45)).collect();
        assert_eq!(order, [10, 10, 20, 30, 40]);
        assert_eq!(q.next(), Some(50));
    }

    #[test]
    fn handles_are_good_once() {
        let mut q = TimerQueue::new();
        let a = q.add(5, 'a');
        assert_eq!(q.cancel(a), Some('a'));
        assert_eq!(q.cancel(a), None);
        let b = q.add(6, 'b');
        assert_eq!(q.cancel(a), None, "the slot is used again, the handle is not");
        assert_eq!(q.pop_expired(6), Some('b'));
        assert_eq!(q.cancel(b), None);
        assert_eq!(q.next(), None);
    }

    #[test]
    fn any_mix_of_adding_and_cancelling_keeps_the_order() {
        // A small generator, so that the test is the same everywhere.
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let mut q = TimerQueue::new();
        let mut model: Vec<(u64, TimerId)> = Vec::new();
        for round in 0..5000 {
            if model.is_empty() || random() % 3 != 0 {
                let d = random() % 1000;
                model.push((d, q.add(d, d)));
            } else {
                let (d, id) = model.swap_remove(random() as usize % model.len());
                assert_eq!(q.cancel(id), Some(d), "round {round}");
            }
            assert_eq!(q.next(), model.iter().map(|m| m.0).min());
        }
        let mut left: Vec<u64> = model.iter().map(|m| m.0).collect();
        left.sort_unstable();
        assert_eq!(core::iter::from_fn(|| q.pop_expired(u64::MAX)).collect::<Vec<_>>(), left);
    }
}
