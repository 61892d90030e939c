//! kill(2), tgkill(2), sigqueue(3).

use libos_core::abi::general as linux;
use libos_core::task::signal::{self, SigInfo, set};
use libos_core::task::{Process, table};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

fn check(signo: u32) -> Result<()> {
    if signo <= set::MAX { Ok(()) } else { Err(Errno::EINVAL) }
}

fn from(task: &Task, signo: u32, code: i32) -> SigInfo {
    SigInfo::user(signo, code, task.pid(), task.creds().uid)
}

/// Sends a signal, or only checks with signal 0.
fn send(task: &Task, process: &Process, info: SigInfo) -> Result<()> {
    signal::may_signal(task, process, info.signo as u32)?;
    if info.signo == 0 { Ok(()) } else { signal::send_to_process(process, info) }
}

pub fn sys_kill(task: &Task, pid: i32, signo: u32) -> Result<usize> {
    check(signo)?;
    let info = from(task, signo, linux::SI_USER as i32);
    if pid > 0 {
        send(task, &*table::process(pid)?, info)?;
        return Ok(0);
    }
    let targets = match pid {
        // Everybody but the first process and the caller.
        -1 => table::processes().into_iter().filter(|p| p.pid != 1 && p.pid != task.pid()).collect(),
        0 => table::group(task.process.group()),
        // -INT_MIN is no group.
        i32::MIN => return Err(Errno::ESRCH),
        group => table::group(-group),
    };
    // One success is enough; for -1 Linux does not count `EPERM` at all.
    let mut result = Err(Errno::ESRCH);
    for process in targets {
        match send(task, &process, info) {
            Ok(()) => result = Ok(0),
            Err(Errno::EPERM) if pid == -1 => {}
            Err(errno) if result.is_err() => result = Err(errno),
            Err(_) => {}
        }
    }
    result
}

fn send_to_thread(task: &Task, process: Option<i32>, tid: i32, info: SigInfo) -> Result<usize> {
    let target = table::task(tid)?;
    if process.is_some_and(|pid| pid != target.pid()) {
        return Err(Errno::ESRCH);
    }
    signal::may_signal(task, &target.process, info.signo as u32)?;
    if info.signo != 0 {
        signal::send_to_task(&target, info)?;
    }
    Ok(0)
}

pub fn sys_tkill(task: &Task, tid: i32, signo: u32) -> Result<usize> {
    check(signo)?;
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(task, None, tid, from(task, signo, linux::SI_TKILL))
}

pub fn sys_tgkill(task: &Task, pid: i32, tid: i32, signo: u32) -> Result<usize> {
    check(signo)?;
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(task, Some(pid), tid, from(task, signo, linux::SI_TKILL))
}

/// The details a program gives; it must not pretend to be the kernel or kill(2) towards others (rt_sigqueueinfo(2)).
fn given(task: &Task, pid: i32, signo: u32, info: UserPtr<[u64; 16]>) -> Result<SigInfo> {
    check(signo)?;
    let info = SigInfo::from_user(signo, &info.read()?);
    if (info.code >= 0 || info.code == linux::SI_TKILL) && pid != task.pid() {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

pub fn sys_rt_sigqueueinfo(task: &Task, pid: i32, signo: u32, info: UserPtr<[u64; 16]>) -> Result<usize> {
    let info = given(task, pid, signo, info)?;
    send(task, &*table::process(pid)?, info)?;
    Ok(0)
}

pub fn sys_rt_tgsigqueueinfo(task: &Task, pid: i32, tid: i32, signo: u32, info: UserPtr<[u64; 16]>) -> Result<usize> {
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = given(task, pid, signo, info)?;
    send_to_thread(task, Some(pid), tid, info)
}
