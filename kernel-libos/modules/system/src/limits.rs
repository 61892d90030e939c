//! getrlimit(2), setrlimit(2), prlimit(2).

use libos_core::abi::general as linux;
use libos_core::task::limits::Limit;
use libos_core::task::{Process, Resource, table};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

fn resource(number: u32) -> Result<Resource> {
    Resource::ALL.get(number as usize).copied().ok_or(Errno::EINVAL)
}

/// `fs.nr_open`: the hard limit of open files cannot be above it.
const NR_OPEN: u64 = 1 << 20;

fn set(task: &Task, process: &Process, resource: Resource, words: [u64; 2]) -> Result<()> {
    let limit = Limit { soft: words[0], hard: words[1] };
    if resource == Resource::NoFile && limit.hard > NR_OPEN {
        return Err(Errno::EPERM);
    }
    process.set_limits(resource, limit, task.creds().has_capability(linux::CAP_SYS_RESOURCE))
}

fn words(limit: Limit) -> [u64; 2] {
    [limit.soft, limit.hard]
}

pub fn sys_getrlimit(task: &Task, number: u32, out: UserPtr<[u64; 2]>) -> Result<usize> {
    out.write(words(task.process.limits(resource(number)?)))?;
    Ok(0)
}

pub fn sys_setrlimit(task: &Task, number: u32, new: UserPtr<[u64; 2]>) -> Result<usize> {
    let new = new.read()?;
    set(task, &task.process, resource(number)?, new)?;
    Ok(0)
}

pub fn sys_prlimit64(task: &Task, pid: i32, number: u32, new: UserPtr<[u64; 2]>, old: UserPtr<[u64; 2]>) -> Result<usize> {
    let resource = resource(number)?;
    let new = match new.non_null() {
        Some(new) => Some(new.read()?),
        None => None,
    };
    let process = if pid == 0 || pid == task.pid() { task.process.clone() } else { other(task, pid)? };
    let before = process.limits(resource);
    if let Some(new) = new {
        set(task, &process, resource, new)?;
    }
    old.write_if_not_null(words(before))?;
    Ok(0)
}

/// Another process, if the caller may look at its limits: all its ids are the caller's, or the caller may override them (prlimit(2)).
fn other(task: &Task, pid: i32) -> Result<alloc::sync::Arc<Process>> {
    let target = table::task(pid)?;
    let (from, to) = (task.creds(), target.creds());
    let is_same =
        [to.uid, to.euid, to.suid].iter().all(|id| *id == from.uid) && [to.gid, to.egid, to.sgid].iter().all(|id| *id == from.gid);
    if is_same || from.has_capability(linux::CAP_SYS_RESOURCE) { Ok(target.process.clone()) } else { Err(Errno::EPERM) }
}
