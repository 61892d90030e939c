//! The calls that read and change user and group ids.

use libos_core::abi::general as linux;
use libos_core::task::Credentials;
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

use crate::change::{self, KEEP};

/// `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65536;

pub fn sys_getuid(task: &Task) -> Result<usize> {
    Ok(task.creds().uid as usize)
}

pub fn sys_geteuid(task: &Task) -> Result<usize> {
    Ok(task.creds().euid as usize)
}

pub fn sys_getgid(task: &Task) -> Result<usize> {
    Ok(task.creds().gid as usize)
}

pub fn sys_getegid(task: &Task) -> Result<usize> {
    Ok(task.creds().egid as usize)
}

fn write_three(out: [UserPtr<u32>; 3], values: [u32; 3]) -> Result<usize> {
    for (ptr, value) in out.into_iter().zip(values) {
        ptr.write(value)?;
    }
    Ok(0)
}

pub fn sys_getresuid(task: &Task, uid: UserPtr<u32>, euid: UserPtr<u32>, suid: UserPtr<u32>) -> Result<usize> {
    let creds = task.creds();
    write_three([uid, euid, suid], [creds.uid, creds.euid, creds.suid])
}

pub fn sys_getresgid(task: &Task, gid: UserPtr<u32>, egid: UserPtr<u32>, sgid: UserPtr<u32>) -> Result<usize> {
    let creds = task.creds();
    write_three([gid, egid, sgid], [creds.gid, creds.egid, creds.sgid])
}

pub fn sys_getgroups(task: &Task, size: i32, out: UserPtr<u32>) -> Result<usize> {
    let creds = task.creds();
    let count = creds.groups.len();
    if size < 0 || size != 0 && (size as usize) < count {
        return Err(Errno::EINVAL);
    }
    if size != 0 {
        for (i, group) in creds.groups.iter().enumerate() {
            out.index(i).write(*group)?;
        }
    }
    Ok(count)
}

pub fn sys_setgroups(task: &Task, size: i32, list: UserPtr<u32>) -> Result<usize> {
    task.require(linux::CAP_SETGID)?;
    let size = usize::try_from(size).ok().filter(|n| *n <= GROUPS_MAX).ok_or(Errno::EINVAL)?;
    let mut groups = UserSlice::from_parts(list, size)?.read_vec()?;
    groups.sort_unstable();
    task.set_creds(Credentials { groups, ..(*task.creds()).clone() });
    Ok(0)
}

fn apply(task: &Task, new: Result<Credentials>) -> Result<usize> {
    task.set_creds(new?);
    Ok(0)
}

fn valid(id: u32) -> Result<u32> {
    if id == KEEP { Err(Errno::EINVAL) } else { Ok(id) }
}

pub fn sys_setuid(task: &Task, uid: u32) -> Result<usize> {
    apply(task, change::set_uid(&task.creds(), valid(uid)?))
}

pub fn sys_setgid(task: &Task, gid: u32) -> Result<usize> {
    apply(task, change::set_gid(&task.creds(), valid(gid)?))
}

pub fn sys_setreuid(task: &Task, uid: u32, euid: u32) -> Result<usize> {
    apply(task, change::set_reuid(&task.creds(), uid, euid))
}

pub fn sys_setregid(task: &Task, gid: u32, egid: u32) -> Result<usize> {
    apply(task, change::set_regid(&task.creds(), gid, egid))
}

pub fn sys_setresuid(task: &Task, uid: u32, euid: u32, suid: u32) -> Result<usize> {
    apply(task, change::set_resuid(&task.creds(), uid, euid, suid))
}

pub fn sys_setresgid(task: &Task, gid: u32, egid: u32, sgid: u32) -> Result<usize> {
    apply(task, change::set_resgid(&task.creds(), gid, egid, sgid))
}

// The two that cannot fail answer the id before, whatever happens.

pub fn sys_setfsuid(task: &Task, uid: u32) -> Result<usize> {
    let creds = task.creds();
    if let Some(new) = change::set_fsuid(&creds, uid) {
        task.set_creds(new);
    }
    Ok(creds.fsuid as usize)
}

pub fn sys_setfsgid(task: &Task, gid: u32) -> Result<usize> {
    let creds = task.creds();
    if let Some(new) = change::set_fsgid(&creds, gid) {
        task.set_creds(new);
    }
    Ok(creds.fsgid as usize)
}
