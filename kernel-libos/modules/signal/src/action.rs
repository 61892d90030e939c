//! Handlers, masks, the alternate stack, and the way back from handlers.

use libos_core::abi::general as linux;
use libos_core::dispatch::SyscallContext;
use libos_core::task::signal::frame::{self, SS_ONSTACK};
use libos_core::task::signal::{self, AltStack, SigSet, SignalAction, set};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

/// Every call takes the size of its sets, which must be this.
pub const SET_BYTES: usize = 8;

pub fn check_size(size: usize) -> Result<()> {
    if size == SET_BYTES { Ok(()) } else { Err(Errno::EINVAL) }
}

pub fn sys_rt_sigaction(task: &Task, signo: u32, new: UserPtr<[u64; 4]>, old: UserPtr<[u64; 4]>, size: usize) -> Result<usize> {
    check_size(size)?;
    let is_fixed = signo != 0 && signo <= set::MAX && SigSet::UNBLOCKABLE.contains(signo);
    if signo == 0 || signo > set::MAX || is_fixed && !new.is_null() {
        return Err(Errno::EINVAL);
    }
    let handlers = task.process.handlers();
    let before = handlers.get(signo);
    if let Some(new) = new.non_null() {
        let action = SignalAction::from_words(new.read()?);
        handlers.set(signo, action);
        if action.ignores(signo) {
            signal::discard_ignored(task, signo);
        }
    }
    old.write_if_not_null(before.to_words())?;
    Ok(0)
}

pub fn sys_rt_sigprocmask(task: &Task, how: u32, new: UserPtr<u64>, old: UserPtr<u64>, size: usize) -> Result<usize> {
    check_size(size)?;
    let before = task.signals.blocked();
    if let Some(new) = new.non_null() {
        let given = SigSet(new.read()?);
        signal::set_blocked(task, new_mask(how, before, given)?);
    }
    old.write_if_not_null(before.0)?;
    Ok(0)
}

fn new_mask(how: u32, before: SigSet, given: SigSet) -> Result<SigSet> {
    match how {
        linux::SIG_BLOCK => Ok(before.union(given)),
        linux::SIG_UNBLOCK => Ok(before.minus(given)),
        linux::SIG_SETMASK => Ok(given),
        _ => Err(Errno::EINVAL),
    }
}

pub fn sys_rt_sigpending(task: &Task, out: UserPtr<u64>, size: usize) -> Result<usize> {
    // Smaller sets are allowed here (Linux).
    if size > SET_BYTES {
        return Err(Errno::EINVAL);
    }
    let set = signal::pending(task).0;
    if size == SET_BYTES {
        out.write(set)?;
    } else {
        for (i, byte) in set.to_le_bytes().into_iter().take(size).enumerate() {
            out.cast::<u8>().index(i).write(byte)?;
        }
    }
    Ok(0)
}

pub fn sys_rt_sigreturn(task: &Task, context: &mut SyscallContext<'_>) -> Result<usize> {
    match frame::pop(task, context.frame) {
        Ok(rax) => Ok(rax as usize),
        Err(_) => {
            signal::deliver::force_signal(set::SIGSEGV);
            Ok(0)
        }
    }
}

pub fn sys_sigaltstack(task: &Task, context: &mut SyscallContext<'_>, new: UserPtr<[u64; 3]>, old: UserPtr<[u64; 3]>) -> Result<usize> {
    let before = task.signals.alt_stack();
    // With SS_AUTODISARM the stack counts as free even while it is in use.
    let is_on_it = before.contains(context.frame.rsp as usize) && !before.autodisarm;
    if let Some(new) = new.non_null() {
        let words = new.read()?;
        if is_on_it {
            return Err(Errno::EPERM);
        }
        task.signals.set_alt_stack(AltStack::from_words(words)?);
    }
    let flags = before.flags() | if is_on_it { SS_ONSTACK } else { 0 };
    old.write_if_not_null([before.base as u64, u64::from(flags), before.size as u64])?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_change_as_sigprocmask_2_says() {
        let (before, given) = (SigSet(0b0110), SigSet(0b0011));
        assert_eq!(new_mask(linux::SIG_BLOCK, before, given), Ok(SigSet(0b0111)));
        assert_eq!(new_mask(linux::SIG_UNBLOCK, before, given), Ok(SigSet(0b0100)));
        assert_eq!(new_mask(linux::SIG_SETMASK, before, given), Ok(given));
        assert_eq!(new_mask(3, before, given), Err(Errno::EINVAL));
    }
}
