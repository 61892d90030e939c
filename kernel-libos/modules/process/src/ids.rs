//! Process ids, groups, sessions.

use core::sync::atomic::Ordering;

use libos_core::task::{Process, table};
use libos_core::{Errno, Result, Task};

pub fn sys_getpid(task: &Task) -> Result<usize> {
    Ok(task.pid() as usize)
}

pub fn sys_gettid(task: &Task) -> Result<usize> {
    Ok(task.tid() as usize)
}

pub fn sys_getppid(task: &Task) -> Result<usize> {
    Ok(task.process.parent() as usize)
}

fn of<R>(task: &Task, pid: i32, f: impl FnOnce(&Process) -> R) -> Result<R> {
    if pid == 0 { Ok(f(&task.process)) } else { table::process(pid).map(|p| f(&p)) }
}

pub fn sys_getpgid(task: &Task, pid: i32) -> Result<usize> {
    of(task, pid, Process::group).map(|g| g as usize)
}

pub fn sys_getpgrp(task: &Task) -> Result<usize> {
    Ok(task.process.group() as usize)
}

pub fn sys_setpgid(task: &Task, pid: i32, group: i32) -> Result<usize> {
    let pid = if pid == 0 { task.pid() } else { pid };
    let group = if group == 0 { pid } else { group };
    if group < 0 {
        return Err(Errno::EINVAL);
    }
    table::set_group(&task.process, pid, group)?;
    Ok(0)
}

pub fn sys_getsid(task: &Task, pid: i32) -> Result<usize> {
    of(task, pid, Process::session).map(|s| s as usize)
}

pub fn sys_setsid(task: &Task) -> Result<usize> {
    table::new_session(&task.process).map(|s| s as usize)
}

pub fn sys_set_tid_address(task: &Task, addr: usize) -> Result<usize> {
    task.clear_child_tid.store(addr, Ordering::Relaxed);
    Ok(task.tid() as usize)
}
