//! wait4(2) and waitid(2).

use libos_core::abi::general as linux;
use libos_core::task::process::rusage_words;
use libos_core::task::reap::{self, WaitOptions, Waited, Which};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

fn store_usage(usage: UserPtr<[u64; 18]>, waited: &Waited) -> Result<()> {
    usage.write_if_not_null(rusage_words(waited.times_ns.0, waited.times_ns.1, 0, 0, 0, 0))
}

pub fn sys_wait4(task: &Task, pid: i32, status: UserPtr<i32>, options: WaitOptions, usage: UserPtr<[u64; 18]>) -> Result<usize> {
    let allowed =
        WaitOptions::NOHANG | WaitOptions::STOPPED | WaitOptions::CONTINUED | WaitOptions::NOTHREAD | WaitOptions::ALL | WaitOptions::CLONE;
    if !allowed.contains(options) {
        return Err(Errno::EINVAL);
    }
    let which = match pid {
        // -INT_MIN is no process group.
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(task.process.group()),
        p if p < 0 => Which::Group(-p),
        p => Which::Pid(p),
    };
    let Some(waited) = reap::wait(task, which, options | WaitOptions::EXITED)? else { return Ok(0) };
    status.write_if_not_null(waited.status)?;
    store_usage(usage, &waited)?;
    Ok(waited.pid as usize)
}

/// The first 32 bytes of `siginfo_t` for a child.
fn child_info(waited: Option<&Waited>) -> [u64; 4] {
    let Some(waited) = waited else { return [0; 4] };
    let (code, status) = reap::child_code(waited.status);
    let pid_and_uid = u64::from(waited.pid as u32) | u64::from(waited.uid) << 32;
    [u64::from(linux::SIGCHLD), u64::from(code), pid_and_uid, u64::from(status as u32)]
}

pub fn sys_waitid(
    task: &Task,
    kind: u32,
    id: i32,
    info: UserPtr<[u64; 4]>,
    options: WaitOptions,
    usage: UserPtr<[u64; 18]>,
) -> Result<usize> {
    const P_ALL: u32 = 0;
    const P_PID: u32 = 1;
    const P_PGID: u32 = 2;
    const P_PIDFD: u32 = 3;
    if !options.intersects(WaitOptions::EXITED | WaitOptions::STOPPED | WaitOptions::CONTINUED) {
        return Err(Errno::EINVAL);
    }
    let which = match kind {
        P_ALL => Which::Any,
        P_PID if id > 0 => Which::Pid(id),
        P_PGID if id == 0 => Which::Group(task.process.group()),
        P_PGID if id > 0 => Which::Group(id),
        P_PIDFD if id >= 0 => Which::Pid(crate::pidfd::process_of(task, id)?.pid),
        _ => return Err(Errno::EINVAL),
    };
    let waited = reap::wait(task, which, options)?;
    info.write_if_not_null(child_info(waited.as_ref()))?;
    if let Some(waited) = &waited {
        store_usage(usage, waited)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siginfo_of_a_child_has_its_status() {
        let waited = Waited { pid: 7, uid: 1000, status: 0x300, times_ns: (0, 0) };
        assert_eq!(child_info(Some(&waited)), [17, 1, 7 | 1000 << 32, 3]);
        assert_eq!(child_info(None), [0; 4]);
    }
}
