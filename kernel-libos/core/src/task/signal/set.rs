//! Signal numbers, sets of them, and what each does by default (signal(7)).

use libos_abi::general as linux;

/// Number of signals; valid numbers are `1..=MAX`.
pub const MAX: u32 = 64;
/// First real-time signal: these queue, one entry per send (signal(7), "Real-time signals").
pub const RT_MIN: u32 = 32;

macro_rules! signals {
    ($($name:ident)*) => { $(
        #[allow(missing_docs, reason = "signal(7) describes each of them")]
        pub const $name: u32 = linux::$name;
    )* };
}
signals! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT
    SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
}

/// A set of signals, as `sigset_t` has it: bit `n - 1` is signal `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// The two that can be neither blocked, caught nor ignored.
    pub const UNBLOCKABLE: SigSet = SigSet::of(&[SIGKILL, SIGSTOP]);
    /// Those that a fault raises; they are delivered first, so that the handler sees the faulting registers.
    pub const SYNCHRONOUS: SigSet = SigSet::of(&[SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS]);
    /// Those that stop a process by default.
    pub const STOPPING: SigSet = SigSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
    /// Those that are ignored by default.
    pub const IGNORED: SigSet = SigSet::of(&[SIGCONT, SIGCHLD, SIGWINCH, SIGURG]);

    /// Returns the set of the numbers given, each in `1..=64`.
    pub const fn of(signals: &[u32]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << (signals[i] - 1);
            i += 1;
        }
        SigSet(bits)
    }

    /// Whether a signal is in the set.
    pub const fn contains(self, signo: u32) -> bool {
        self.0 >> (signo - 1) & 1 == 1
    }

    /// The set with a signal more.
    pub const fn with(self, signo: u32) -> SigSet {
        SigSet(self.0 | 1 << (signo - 1))
    }

    /// The set with a signal less.
    pub const fn without(self, signo: u32) -> SigSet {
        SigSet(self.0 & !(1 << (signo - 1)))
    }

    /// The signals in either.
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// The signals in both.
    pub const fn intersection(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// The signals in `self` and not in `other`.
    pub const fn minus(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The signal to deliver first: those of faults before others, then the lowest number (signal(7)).
    pub fn first(self) -> Option<u32> {
        let sync = self.intersection(SigSet::SYNCHRONOUS);
        let set = if sync.is_empty() { self } else { sync };
        (set.0 != 0).then(|| set.0.trailing_zeros() + 1)
    }

    /// The numbers in order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        let mut bits = self.0;
        core::iter::from_fn(move || {
            let signo = (bits != 0).then(|| bits.trailing_zeros() + 1)?;
            bits &= bits - 1;
            Some(signo)
        })
    }
}

/// What happens when a signal has no handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// Nothing.
    Ignore,
    /// The process stops.
    Stop,
    /// The process ends. No core is ever dumped, so what signal(7) calls `Core` is the same.
    Terminate,
}

/// Returns the default disposition (signal(7)). SIGCONT is `Ignore`: its effect happens when it is sent.
pub fn default_of(signo: u32) -> Default {
    if SigSet::IGNORED.contains(signo) {
        Default::Ignore
    } else if SigSet::STOPPING.contains(signo) {
        Default::Stop
    } else {
        Default::Terminate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_first_then_the_lowest_number() {
        assert_eq!(SigSet::of(&[SIGHUP, SIGSEGV, SIGBUS]).first(), Some(SIGBUS));
        assert_eq!(SigSet::of(&[SIGTERM, SIGINT, 40]).first(), Some(SIGINT));
        assert_eq!(SigSet::EMPTY.first(), None);
    }

    #[test]
    fn sets_list_their_members_in_order() {
        assert_eq!(SigSet::of(&[64, 1, 33]).iter().collect::<alloc::vec::Vec<_>>(), [1, 33, 64]);
        assert!(!SigSet::of(&[64]).without(64).contains(64));
        assert_eq!(SigSet::of(&[1, 2]).minus(SigSet::of(&[2])), SigSet::of(&[1]));
    }

    #[test]
    fn defaults_are_those_of_signal_7() {
        assert_eq!(default_of(SIGCHLD), Default::Ignore);
        assert_eq!(default_of(SIGTSTP), Default::Stop);
        assert_eq!(default_of(SIGTERM), Default::Terminate);
        assert_eq!(default_of(SIGABRT), Default::Terminate);
        assert_eq!(default_of(RT_MIN + 2), Default::Terminate);
    }
}
