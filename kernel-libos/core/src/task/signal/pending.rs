//! Signals that were sent and not yet taken, of one thread or of a whole process.
//!
//! A standard signal is pending once, however often it is sent, and keeps the details of the first; real-time signals queue in order (signal(7)).

use alloc::vec::Vec;

use libos_abi::general as linux;

use super::{SigInfo, SigSet, set::RT_MIN};

/// Pending signals.
#[derive(Default)]
pub struct Pending {
    /// Which; bits may be set without a queue entry, when there was no room for details.
    set: SigSet,
    /// Details, in the order of sending.
    queue: Vec<SigInfo>,
}

impl Pending {
    /// Nothing pending.
    pub const fn new() -> Pending {
        Pending { set: SigSet::EMPTY, queue: Vec::new() }
    }

    /// The signals pending.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Entries that count against `RLIMIT_SIGPENDING`.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Adds a signal. Returns false when it is a real-time signal and there is no room (`EAGAIN` for sigqueue(3)); `limit` is the number of entries
    /// allowed. A standard signal, and any that kill(2) sends, is never lost: without room it is pending without details.
    pub fn push(&mut self, info: SigInfo, limit: usize) -> bool {
        let signo = info.signo as u32;
        if info.code == linux::SI_TIMER
            && let Some(entry) = self.timer_entry(signo, info.timer_id())
        {
            // A timer has at most one signal pending and counts the others in it (timer_getoverrun(2)).
            entry.fields[0] = entry.fields[0].wrapping_add(1 << 32);
            return true;
        }
        if signo < RT_MIN && self.set.contains(signo) {
            return true;
        }
        let has_room = (self.queue.len() < limit || !info.is_from_user()) && self.queue.try_reserve(1).is_ok();
        if has_room {
            self.queue.push(info);
        } else if signo >= RT_MIN && info.is_from_user() && info.code != 0 {
            return false;
        }
        self.set = self.set.with(signo);
        true
    }

    fn timer_entry(&mut self, signo: u32, id: i32) -> Option<&mut SigInfo> {
        self.queue.iter_mut().find(|i| i.code == linux::SI_TIMER && i.signo as u32 == signo && i.timer_id() == id)
    }

    /// How often the timer `id` has expired since its pending signal was sent; `None` when none is pending.
    pub fn timer_overrun(&mut self, signo: u32, id: i32) -> Option<i32> {
        self.timer_entry(signo, id).map(|i| (i.fields[0] >> 32) as i32)
    }

    /// Takes the first signal among `wanted`.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signo = self.set.intersection(wanted).first()?;
        let mut details = self.queue.iter().enumerate().filter(|(_, i)| i.signo as u32 == signo).map(|(at, _)| at);
        let first = details.next();
        if details.next().is_none() {
            self.set = self.set.without(signo);
        }
        // Without details it counts as sent by kill(2) from nobody (Linux, collect_signal).
        Some(first.map_or_else(|| SigInfo::user(signo, 0, 0, 0), |at| self.queue.remove(at)))
    }

    /// Drops signals.
    pub fn discard(&mut self, signals: SigSet) {
        if !self.set.intersection(signals).is_empty() {
            self.set = self.set.minus(signals);
            self.queue.retain(|i| !signals.contains(i.signo as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(signo: u32, value: u64) -> SigInfo {
        SigInfo { signo: signo as i32, code: -1, fields: [0, value, 0, 0], ..SigInfo::default() }
    }
    const ALL: SigSet = SigSet(!0);

    #[test]
    fn standard_signals_merge_and_keep_the_first_details() {
        let mut p = Pending::new();
        assert!(p.push(SigInfo::user(10, 0, 1, 2), 9));
        assert!(p.push(SigInfo::user(10, 0, 5, 6), 9));
        assert_eq!(p.take(ALL).map(|i| i.pid()), Some(1));
        assert_eq!(p.take(ALL), None);
    }

    #[test]
    fn real_time_signals_queue_in_order_lowest_number_first() {
        let mut p = Pending::new();
        for (signo, value) in [(40, 1), (35, 2), (40, 3), (35, 4)] {
            assert!(p.push(queued(signo, value), 9));
        }
        let order: Vec<_> = core::iter::from_fn(|| p.take(ALL)).map(|i| (i.signo, i.fields[1])).collect();
        assert_eq!(order, [(35, 2), (35, 4), (40, 1), (40, 3)]);
        assert!(p.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_sigqueue_but_not_kill() {
        let mut p = Pending::new();
        assert!(p.push(queued(40, 1), 1));
        assert!(!p.push(queued(40, 2), 1));
        assert!(p.push(SigInfo::user(41, 0, 1, 1), 1));
        assert!(p.push(SigInfo::user(10, 0, 1, 1), 1));
        assert_eq!(p.len(), 1);
        assert_eq!(p.take(SigSet::of(&[41])).map(|i| i.pid()), Some(0));
        assert_eq!(p.set(), SigSet::of(&[10, 40]));
    }

    #[test]
    fn a_timer_has_one_signal_pending_and_counts() {
        let mut p = Pending::new();
        for _ in 0..3 {
            assert!(p.push(SigInfo::timer(40, 7, 0, 5), 9));
        }
        p.push(SigInfo::timer(40, 8, 0, 6), 9);
        assert_eq!((p.len(), p.timer_overrun(40, 7), p.timer_overrun(40, 9)), (2, Some(2), None));
        assert_eq!(p.take(ALL).map(|i| i.fields), Some([7 | 2 << 32, 5, 0, 0]));
    }

    #[test]
    fn only_wanted_signals_are_taken_or_discarded() {
        let mut p = Pending::new();
        p.push(queued(40, 1), 9);
        p.push(SigInfo::kernel(20), 9);
        assert_eq!(p.take(SigSet::of(&[15])), None);
        p.discard(SigSet::STOPPING);
        assert_eq!(p.set(), SigSet::of(&[40]));
        assert_eq!(p.len(), 1);
    }
}
