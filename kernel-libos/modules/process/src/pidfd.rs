//! Process file descriptors: pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFile, OpenFlags, RawFd};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::task::signal::{self, SigInfo, set};
use libos_core::task::{Process, Resource, table};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

struct PidFd {
    process: Arc<Process>,
}

impl FileOps for PidFd {
    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.process.exit_events);
        if self.process.thread_count() == 0 { PollEvents::READABLE } else { PollEvents::empty() }
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(String::from("anon_inode:[pidfd]"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Gives a process a descriptor; always close-on-exec (pidfd_open(2)).
pub fn install(task: &Task, process: Arc<Process>, is_nonblocking: bool) -> Result<RawFd> {
    let flags = OpenFlags::RDWR | if is_nonblocking { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    let file = OpenFile::new(Arc::new(PidFd { process }), flags, None);
    task.files().insert(file, true, 0, task.limit(Resource::NoFile))
}

/// The process behind a descriptor.
pub fn process_of(task: &Task, fd: RawFd) -> Result<Arc<Process>> {
    let file = task.files().get(fd)?;
    file.ops.as_any().downcast_ref::<PidFd>().map(|p| p.process.clone()).ok_or(Errno::EBADF)
}

pub fn sys_pidfd_open(task: &Task, pid: i32, flags: u32) -> Result<usize> {
    if pid <= 0 || flags & !linux::O_NONBLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    // A thread that is not the first of its process has no pidfd (pidfd_open(2)).
    let process = match table::process(pid) {
        Ok(process) => process,
        Err(_) if table::task(pid).is_ok() => return Err(Errno::EINVAL),
        Err(errno) => return Err(errno),
    };
    install(task, process, flags != 0).map(|fd| fd as usize)
}

pub fn sys_pidfd_send_signal(task: &Task, fd: RawFd, signo: u32, info: UserPtr<[u64; 16]>, flags: u32) -> Result<usize> {
    let process = process_of(task, fd)?;
    if flags != 0 || signo > set::MAX {
        return Err(Errno::EINVAL);
    }
    if process.is_zombie() && table::process(process.pid).is_err() {
        return Err(Errno::ESRCH);
    }
    let given = match info.non_null() {
        Some(info) => {
            let raw = info.read()?;
            let given = SigInfo::from_user(signo, &raw);
            if raw[0] as u32 != signo {
                return Err(Errno::EINVAL);
            }
            if process.pid != task.pid() && (given.code >= 0 || given.code == linux::SI_TKILL) {
                return Err(Errno::EPERM);
            }
            given
        }
        None => SigInfo::user(signo, linux::SI_USER as i32, task.pid(), task.creds().uid),
    };
    signal::may_signal(task, &process, signo)?;
    if signo != 0 {
        signal::send_to_process(&process, given)?;
    }
    Ok(0)
}

pub fn sys_pidfd_getfd(task: &Task, fd: RawFd, target: RawFd, flags: u32) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let process = process_of(task, fd)?;
    let other = process.main_thread().ok_or(Errno::ESRCH)?;
    // As ptrace(2): the same user, or CAP_SYS_PTRACE.
    let (from, to) = (task.creds(), other.creds());
    if (from.fsuid != to.euid || from.fsuid != to.suid || from.fsuid != to.uid) && !from.has_capability(linux::CAP_SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    let file = other.files().get(target)?;
    task.install(file, true)
}
