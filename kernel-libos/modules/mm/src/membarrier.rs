//! membarrier(2).
//!
//! A thread in the kernel has passed a full barrier, and a thread that is not running passes one when it is switched to. The kernel runs on one CPU, so
//! every other thread is in one of these states and there is nothing left to do but to check the arguments.

use libos_core::{Errno, Result, Task};

/// `MEMBARRIER_CMD_*` of linux/membarrier.h.
const CMD_QUERY: u32 = 0;
const CMD_GLOBAL: u32 = 1;
const CMD_GLOBAL_EXPEDITED: u32 = 1 << 1;
const CMD_REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;
const CMD_PRIVATE_EXPEDITED: u32 = 1 << 3;
const CMD_REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
const CMD_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 5;
const CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 6;

const SUPPORTED: u32 = CMD_GLOBAL
    | CMD_GLOBAL_EXPEDITED
    | CMD_REGISTER_GLOBAL_EXPEDITED
    | CMD_PRIVATE_EXPEDITED
    | CMD_REGISTER_PRIVATE_EXPEDITED
    | CMD_PRIVATE_EXPEDITED_SYNC_CORE
    | CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;

pub(crate) fn sys_membarrier(_task: &Task, command: u32, flags: u32, _cpu: i32) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        CMD_QUERY => Ok(SUPPORTED as usize),
        command if command.is_power_of_two() && command & SUPPORTED != 0 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
