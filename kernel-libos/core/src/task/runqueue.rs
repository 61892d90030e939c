//! Who runs next: a queue by virtual run time.
//!
//! Each task's virtual run time advances with the CPU time it uses, the slower the higher its weight, and the one that is furthest behind runs next. A
//! task that slept comes back at most half a slice behind the others, so that it runs soon but cannot starve them (the idea of Linux' CFS).

use alloc::collections::BinaryHeap;
use alloc::collections::TryReserveError;
use core::cmp::Ordering;

/// Nanoseconds a task may run while others wait.
pub const SLICE_NS: u64 = 4_000_000;

/// How far behind the running task a woken one must be to replace it at once.
pub const WAKE_GRANULARITY_NS: u64 = 1_000_000;

struct Entry<T> {
    vruntime: u64,
    /// Equals run in the order of arrival.
    sequence: u64,
    value: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    // The heap gives the greatest first, so the order is reversed.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.vruntime, other.sequence).cmp(&(self.vruntime, self.sequence))
    }
}

/// Tasks that could run, the one furthest behind first.
pub struct RunQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
    /// Virtual time of the CPU: the largest one at which a task was taken.
    now: u64,
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        RunQueue::new()
    }
}

impl<T> RunQueue<T> {
    /// Returns an empty queue.
    pub const fn new() -> RunQueue<T> {
        RunQueue { heap: BinaryHeap::new(), sequence: 0, now: 0 }
    }

    /// Makes room for `count` entries, so that adding one never allocates.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn reserve(&mut self, count: usize) -> Result<(), TryReserveError> {
        self.heap.try_reserve(count.saturating_sub(self.heap.len()))
    }

    /// Adds a task.
    pub fn push(&mut self, vruntime: u64, value: T) {
        self.sequence += 1;
        self.heap.push(Entry { vruntime, sequence: self.sequence, value });
    }

    /// Takes the task that runs next.
    pub fn pop(&mut self) -> Option<T> {
        let entry = self.heap.pop()?;
        self.now = self.now.max(entry.vruntime);
        Some(entry.value)
    }

    /// Virtual run time of the task that would run next.
    pub fn peek(&self) -> Option<u64> {
        self.heap.peek().map(|e| e.vruntime)
    }

    /// The virtual run time with which a task that slept, or is new, enters.
    pub fn entry_time(&self, vruntime: u64) -> u64 {
        vruntime.max(self.now.saturating_sub(SLICE_NS / 2))
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Number of tasks that wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

/// Weight of a nice value: each step is about 25 %, nice 0 is 1024 (Linux, `sched_prio_to_weight`).
pub fn weight(nice: i8) -> u64 {
    const WEIGHTS: [u32; 40] = [
        88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277,
        1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
    ];
    u64::from(WEIGHTS[(i32::from(nice) + 20).clamp(0, 39) as usize])
}

/// Virtual time that `run_ns` of CPU time are for a weight.
pub fn scaled(run_ns: u64, weight: u64) -> u64 {
    run_ns.saturating_mul(1024) / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs tasks of the given weights for whole slices and returns how many each got.
    fn shares(weights: &[u64], slices: usize) -> Vec<usize> {
        let mut q = RunQueue::new();
        for task in 0..weights.len() {
            q.push(0, (task, 0u64));
        }
        let mut got = vec![0; weights.len()];
        for _ in 0..slices {
            let (task, vruntime) = q.pop().expect("all are runnable");
            got[task] += 1;
            let vruntime = vruntime + scaled(SLICE_NS, weights[task]);
            q.push(vruntime, (task, vruntime));
        }
        got
    }

    #[test]
    fn equals_share_equally_and_weights_count() {
        assert_eq!(shares(&[1024, 1024, 1024], 300), [100, 100, 100]);
        let got = shares(&[weight(0), weight(5)], 4000);
        let ratio = got[0] as f64 / got[1] as f64;
        assert!((2.9..3.2).contains(&ratio), "{got:?}");
    }

    #[test]
    fn a_sleeper_comes_first_but_not_from_the_past() {
        let mut q = RunQueue::new();
        q.push(100 * SLICE_NS, 'a');
        q.push(101 * SLICE_NS, 'b');
        assert_eq!(q.pop(), Some('a'));
        let entry = q.entry_time(0);
        assert_eq!(entry, 100 * SLICE_NS - SLICE_NS / 2);
        q.push(entry, 'c');
        assert_eq!(q.pop(), Some('c'));
        assert_eq!(q.entry_time(200 * SLICE_NS), 200 * SLICE_NS);
    }

    #[test]
    fn equals_run_in_the_order_of_arrival() {
        let mut q = RunQueue::new();
        for c in "abc".chars() {
            q.push(7, c);
        }
        assert_eq!((q.pop(), q.pop(), q.pop(), q.pop()), (Some('a'), Some('b'), Some('c'), None));
    }
}
