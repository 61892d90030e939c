//! What a process does about each signal (sigaction(2)).

use alloc::boxed::Box;

use bitflags::bitflags;
use libos_abi::general as linux;

use super::set::{self, Default as DefaultAction, SigSet};
use crate::sync::SpinLock;

bitflags! {
    /// `SA_*`; bits without meaning are kept, as Linux does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ActionFlags: u64 {
        const NOCLDSTOP = linux::SA_NOCLDSTOP as u64;
        const NOCLDWAIT = linux::SA_NOCLDWAIT as u64;
        const SIGINFO = linux::SA_SIGINFO as u64;
        const RESTORER = linux::SA_RESTORER as u64;
        const ONSTACK = linux::SA_ONSTACK as u64;
        const RESTART = linux::SA_RESTART as u64;
        const NODEFER = linux::SA_NODEFER as u64;
        const RESETHAND = linux::SA_RESETHAND as u64;
        const _ = !0;
    }
}

/// `SIG_DFL`.
pub const DEFAULT: usize = 0;
/// `SIG_IGN`.
pub const IGNORE: usize = 1;

/// What to do about one signal: `struct kernel_sigaction` in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SignalAction {
    /// Address of the handler, or [`DEFAULT`], or [`IGNORE`].
    pub handler: usize,
    /// Flags.
    pub flags: ActionFlags,
    /// Where the handler returns to: code that calls rt_sigreturn(2).
    pub restorer: usize,
    /// Blocked in addition while the handler runs.
    pub mask: SigSet,
}

impl SignalAction {
    /// `SIG_DFL` without flags.
    pub const DEFAULT: SignalAction = SignalAction { handler: DEFAULT, flags: ActionFlags::empty(), restorer: 0, mask: SigSet::EMPTY };

    /// As four words, for copying to and from programs.
    pub fn to_words(self) -> [u64; 4] {
        [self.handler as u64, self.flags.bits(), self.restorer as u64, self.mask.0]
    }

    /// From four words.
    pub fn from_words(words: [u64; 4]) -> SignalAction {
        SignalAction {
            handler: words[0] as usize,
            flags: ActionFlags::from_bits_retain(words[1]),
            restorer: words[2] as usize,
            mask: SigSet(words[3]).minus(SigSet::UNBLOCKABLE),
        }
    }

    /// Whether a program's function handles it.
    pub fn is_handler(&self) -> bool {
        self.handler > IGNORE
    }

    /// Whether the signal has no effect: ignored, or default and ignored by default.
    pub fn ignores(&self, signo: u32) -> bool {
        self.handler == IGNORE || self.handler == DEFAULT && set::default_of(signo) == DefaultAction::Ignore
    }
}

/// The actions of a process, one per signal; shared by clone(`CLONE_SIGHAND`).
pub struct SignalHandlers {
    // 2 KiB, in a box because most processes set a few: `None` is all default.
    actions: SpinLock<Option<Box<[SignalAction; 64]>>>,
}

impl core::default::Default for SignalHandlers {
    fn default() -> Self {
        SignalHandlers::new()
    }
}

impl SignalHandlers {
    /// All default.
    pub const fn new() -> SignalHandlers {
        SignalHandlers { actions: SpinLock::new(None) }
    }

    /// A copy (fork(2)).
    pub fn duplicate(&self) -> SignalHandlers {
        SignalHandlers { actions: SpinLock::new(self.actions.lock().clone()) }
    }

    /// The action for a signal.
    pub fn get(&self, signo: u32) -> SignalAction {
        self.actions.lock().as_ref().map_or(SignalAction::DEFAULT, |a| a[signo as usize - 1])
    }

    /// Changes the action for a signal.
    pub fn set(&self, signo: u32, action: SignalAction) {
        let mut actions = self.actions.lock();
        if actions.is_some() || action != SignalAction::DEFAULT {
            actions.get_or_insert_with(|| Box::new([SignalAction::DEFAULT; 64]))[signo as usize - 1] = action;
        }
    }

    /// Resets handlers to default (execve(2)), and with `ignored_too` also ignored signals (`CLONE_CLEAR_SIGHAND` keeps them).
    pub fn reset(&self) {
        if let Some(actions) = self.actions.lock().as_mut() {
            for action in actions.iter_mut() {
                let handler = if action.handler == IGNORE { IGNORE } else { DEFAULT };
                *action = SignalAction { handler, ..SignalAction::DEFAULT };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_keeps_what_is_ignored_and_nothing_else() {
        let handlers = SignalHandlers::new();
        handlers.set(10, SignalAction::from_words([0x1000, 4, 0x2000, !0]));
        handlers.set(12, SignalAction { handler: IGNORE, ..SignalAction::DEFAULT });
        assert!(!handlers.get(10).mask.contains(set::SIGKILL), "cannot be blocked");
        let copy = handlers.duplicate();
        handlers.reset();
        assert_eq!(handlers.get(10), SignalAction::DEFAULT);
        assert_eq!(handlers.get(12).handler, IGNORE);
        assert_eq!(copy.get(10).handler, 0x1000);
    }

    #[test]
    fn ignoring_depends_on_the_default() {
        assert!(SignalAction::DEFAULT.ignores(set::SIGCHLD));
        assert!(!SignalAction::DEFAULT.ignores(set::SIGTERM));
        assert!(!SignalAction::from_words([0x1000, 0, 0, 0]).ignores(set::SIGCHLD));
    }
}
