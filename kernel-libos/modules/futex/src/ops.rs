//! futex(2): waiting, waking, moving waiters.

use alloc::boxed::Box;

use libos_core::abi::general as linux;
use libos_core::arch::user;
use libos_core::task::wait::wait_in;
use libos_core::time::{Timespec, monotonic_ns, wall_offset_ns};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::pi;
use crate::table::{self, Key, Woken};

const ALL_BITS: u32 = linux::FUTEX_BITSET_MATCH_ANY;

/// Reads a word; may page it in.
pub fn load(addr: usize) -> Result<u32> {
    user::load_u32(addr).map_err(|_| Errno::EFAULT)
}

/// Replaces a word if it is `old`; returns what it was.
pub fn compare_exchange(addr: usize, old: u32, new: u32) -> Result<u32> {
    user::cmpxchg_u32(addr, old, new).map_err(|_| Errno::EFAULT)
}

pub fn sys_futex(task: &Task, addr: usize, op: u32, value: u32, timeout: usize, addr2: usize, value3: u32) -> Result<usize> {
    let is_private = op & linux::FUTEX_PRIVATE_FLAG != 0;
    let is_realtime = op & linux::FUTEX_CLOCK_REALTIME != 0;
    let command = op & !(linux::FUTEX_PRIVATE_FLAG | linux::FUTEX_CLOCK_REALTIME);
    if is_realtime && !matches!(command, linux::FUTEX_WAIT | linux::FUTEX_WAIT_BITSET | linux::FUTEX_LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    let key = || Key::of(task, addr, is_private);
    // Where there is no timeout, the register holds a number.
    let count2 = timeout as i32;
    match command {
        linux::FUTEX_WAIT => {
            let deadline = read_timeout(timeout)?.map(|t| monotonic_ns().saturating_add(t));
            wait(task, addr, is_private, value, ALL_BITS, deadline)
        }
        linux::FUTEX_WAIT_BITSET => {
            let deadline = read_timeout(timeout)?.map(|t| if is_realtime { t.saturating_sub(wall_offset_ns()) } else { t });
            if value3 == 0 {
                return Err(Errno::EINVAL);
            }
            wait(task, addr, is_private, value, value3, deadline)
        }
        linux::FUTEX_WAKE => Ok(table::wake(key()?, count(value), ALL_BITS, Woken::Granted)),
        linux::FUTEX_WAKE_BITSET if value3 == 0 => Err(Errno::EINVAL),
        linux::FUTEX_WAKE_BITSET => Ok(table::wake(key()?, count(value), value3, Woken::Granted)),
        linux::FUTEX_REQUEUE | linux::FUTEX_CMP_REQUEUE => {
            if (value as i32) < 0 || count2 < 0 {
                return Err(Errno::EINVAL);
            }
            let (from, to) = (key()?, Key::of(task, addr2, is_private)?);
            if command == linux::FUTEX_CMP_REQUEUE && load(addr)? != value3 {
                return Err(Errno::EAGAIN);
            }
            let woken = table::wake(from, value as usize, ALL_BITS, Woken::Granted);
            let moved = table::requeue(from, to, count2 as usize);
            // FUTEX_REQUEUE counts only those woken (futex(2), "RETURN VALUE").
            Ok(if command == linux::FUTEX_REQUEUE { woken } else { woken + moved })
        }
        linux::FUTEX_WAKE_OP => {
            let (first, second) = (key()?, Key::of(task, addr2, is_private)?);
            let wakes_second = apply(value3, addr2)?;
            let woken = table::wake(first, count(value), ALL_BITS, Woken::Granted);
            Ok(woken + if wakes_second { table::wake(second, count(count2 as u32), ALL_BITS, Woken::Granted) } else { 0 })
        }
        linux::FUTEX_LOCK_PI => pi::lock(task, addr, is_private, read_timeout(timeout)?.map(|t| t.saturating_sub(wall_offset_ns()))),
        linux::FUTEX_LOCK_PI2 => {
            let deadline = read_timeout(timeout)?.map(|t| if is_realtime { t.saturating_sub(wall_offset_ns()) } else { t });
            pi::lock(task, addr, is_private, deadline)
        }
        linux::FUTEX_TRYLOCK_PI => pi::try_lock(task, addr),
        linux::FUTEX_UNLOCK_PI => pi::unlock(task, addr, is_private),
        _ => Err(Errno::ENOSYS),
    }
}

/// How many to wake: Linux wakes one even when asked for none, and takes the number as signed.
fn count(value: u32) -> usize {
    (value as i32).max(1) as usize
}

fn read_timeout(addr: usize) -> Result<Option<u64>> {
    match UserPtr::<Timespec>::new(addr).non_null() {
        Some(timeout) => timeout.read()?.to_ns().map(Some),
        None => Ok(None),
    }
}

/// Sleeps while the word is `value`, until somebody wakes it.
fn wait(task: &Task, addr: usize, is_private: bool, value: u32, bitset: u32, deadline: Option<u64>) -> Result<usize> {
    let key = Key::of(task, addr, is_private)?;
    let waiter = table::add(key, bitset)?;
    let result = match load(addr) {
        Ok(now) if now == value => wait_in(&[], deadline, true, || waiter.woken()),
        Ok(_) => Err(Errno::EAGAIN),
        Err(errno) => Err(errno),
    };
    table::remove(&waiter);
    // Whoever woke it counts on it, whatever else ended the wait.
    if waiter.woken().is_some() {
        return Ok(0);
    }
    match result {
        Ok(Some(_)) => Ok(0),
        Ok(None) => Err(Errno::ETIMEDOUT),
        Err(Errno::ERESTARTSYS) if deadline.is_some() => {
            let again = move |task: &Task| wait(task, addr, is_private, value, bitset, deadline);
            Err(task.signals.set_restart(Box::new(again)))
        }
        Err(errno) => Err(errno),
    }
}

/// The operation and comparison of FUTEX_WAKE_OP, decoded.
#[derive(Debug, PartialEq, Eq)]
struct WakeOp {
    operation: u32,
    operand: u32,
    comparison: u32,
    compared: i32,
}

impl WakeOp {
    /// Fields of four, four, twelve and twelve bits, from the top (futex(2), `FUTEX_OP`).
    fn decode(code: u32) -> WakeOp {
        let sign_extend = |bits: u32| ((bits << 20) as i32) >> 20;
        let operation = code >> 28 & 7;
        let operand = sign_extend(code >> 12 & 0xfff) as u32;
        let operand = if code >> 28 & 8 != 0 { 1u32.wrapping_shl(operand & 31) } else { operand };
        WakeOp { operation, operand, comparison: code >> 24 & 15, compared: sign_extend(code & 0xfff) }
    }

    fn apply(&self, old: u32) -> Option<u32> {
        Some(match self.operation {
            linux::FUTEX_OP_SET => self.operand,
            linux::FUTEX_OP_ADD => old.wrapping_add(self.operand),
            linux::FUTEX_OP_OR => old | self.operand,
            linux::FUTEX_OP_ANDN => old & !self.operand,
            linux::FUTEX_OP_XOR => old ^ self.operand,
            _ => return None,
        })
    }

    fn compare(&self, old: u32) -> Option<bool> {
        let old = old as i32;
        Some(match self.comparison {
            linux::FUTEX_OP_CMP_EQ => old == self.compared,
            linux::FUTEX_OP_CMP_NE => old != self.compared,
            linux::FUTEX_OP_CMP_LT => old < self.compared,
            linux::FUTEX_OP_CMP_LE => old <= self.compared,
            linux::FUTEX_OP_CMP_GT => old > self.compared,
            linux::FUTEX_OP_CMP_GE => old >= self.compared,
            _ => return None,
        })
    }
}

/// Changes the second word of FUTEX_WAKE_OP; returns whether its waiters are to be woken.
fn apply(code: u32, addr: usize) -> Result<bool> {
    let op = WakeOp::decode(code);
    let mut old = load(addr)?;
    loop {
        let new = op.apply(old).ok_or(Errno::ENOSYS)?;
        let seen = compare_exchange(addr, old, new)?;
        if seen == old {
            return op.compare(old).ok_or(Errno::ENOSYS);
        }
        old = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FUTEX_OP` of the kernel's header.
    fn encode(operation: u32, operand: u32, comparison: u32, compared: u32) -> u32 {
        (operation & 15) << 28 | (comparison & 15) << 24 | (operand & 0xfff) << 12 | compared & 0xfff
    }

    #[test]
    fn wake_op_is_decoded_with_signs_and_shifts() {
        let op = WakeOp::decode(encode(linux::FUTEX_OP_ADD, 0xfff, linux::FUTEX_OP_CMP_GT, 1));
        assert_eq!((op.apply(5), op.compare(2), op.compare(1)), (Some(4), Some(true), Some(false)));
        let op = WakeOp::decode(encode(linux::FUTEX_OP_OR | 8, 5, linux::FUTEX_OP_CMP_EQ, 0xffe));
        assert_eq!((op.apply(1), op.compare(-2i32 as u32)), (Some(33), Some(true)));
        let op = WakeOp::decode(encode(7, 0, 9, 0));
        assert_eq!((op.apply(1), op.compare(1)), (None, None));
    }

    #[test]
    fn asking_for_none_wakes_one() {
        assert_eq!((count(0), count(1), count(7), count(i32::MAX as u32), count(u32::MAX)), (1, 1, 7, i32::MAX as usize, 1));
    }
}
