//! The process table: which tasks and processes exist, who is whose parent, groups and sessions.
//!
//! One lock guards the relations between processes; the numbers themselves are atomics in [`Process`], so that getppid(2) needs no lock. The tables are
//! sorted vectors: new ids are nearly always the largest, and looking one up is a binary search.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use libos_abi::{Errno, Result};

use super::limits::Limits;
use super::signal::SignalHandlers;
use super::{Process, Task, Tid};
use crate::sync::SpinLock;

/// Ids are below this (`/proc/sys/kernel/pid_max`, Linux' default).
pub const PID_MAX: Tid = 32768;

/// Ids below this are not used again after the first round, as on Linux.
const RESERVED_PIDS: Tid = 300;

/// Everything that has an id.
pub struct Table {
    /// Processes, zombies too, by id.
    processes: Vec<Arc<Process>>,
    /// Tasks, by id; the first thread of a process stays until the process ends.
    tasks: Vec<Arc<Task>>,
    kernel_threads: Vec<Arc<Task>>,
    kernel_process: Option<Arc<Process>>,
    last: Tid,
}

static TABLE: SpinLock<Table> =
    SpinLock::new(Table { processes: Vec::new(), tasks: Vec::new(), kernel_threads: Vec::new(), kernel_process: None, last: 0 });

/// Most tasks there may be; set at boot from the size of memory.
static MAX_TASKS: AtomicU64 = AtomicU64::new(64);

/// Tasks created since boot (/proc/stat).
static CREATED: AtomicU64 = AtomicU64::new(0);

/// The id given out last (/proc/loadavg).
static LAST_PID: AtomicI32 = AtomicI32::new(0);

/// Most tasks there may be (`/proc/sys/kernel/threads-max`): kernel stacks take at most an eighth of memory, as on Linux.
pub fn max_tasks() -> u64 {
    MAX_TASKS.load(Ordering::Relaxed)
}

/// Tasks created since boot, and the id given out last.
pub fn created() -> (u64, Tid) {
    (CREATED.load(Ordering::Relaxed), LAST_PID.load(Ordering::Relaxed))
}

pub(super) fn set_memory(bytes: u64) {
    let tasks = bytes / (8 * super::cpu::STACK_BYTES as u64);
    MAX_TASKS.store(tasks.clamp(16, PID_MAX as u64 - 1), Ordering::Relaxed);
}

/// Makes the process that kernel threads belong to; it has no id and is in no list.
pub(super) fn make_kernel_process() -> Arc<Process> {
    let process = Arc::new(Process::new(0, 0, 0, 0, Limits::initial(max_tasks()), Arc::new(SignalHandlers::new())));
    TABLE.lock().kernel_process = Some(process.clone());
    process
}

pub(super) fn kernel_process() -> Arc<Process> {
    TABLE.lock().kernel_process.clone().expect("made at boot")
}

/// Calls `f` with the table locked.
pub(super) fn with<R>(f: impl FnOnce(&mut Table) -> R) -> R {
    f(&mut TABLE.lock())
}

/// Finds a process, zombies too.
///
/// # Errors
/// `ESRCH`.
pub fn process(pid: Tid) -> Result<Arc<Process>> {
    TABLE.lock().process(pid).ok_or(Errno::ESRCH)
}

/// Finds a task.
///
/// # Errors
/// `ESRCH`.
pub fn task(tid: Tid) -> Result<Arc<Task>> {
    TABLE.lock().task(tid).ok_or(Errno::ESRCH)
}

/// All processes in the order of their ids, zombies too.
pub fn processes() -> Vec<Arc<Process>> {
    TABLE.lock().processes.clone()
}

/// All tasks of programs in the order of their ids.
pub fn tasks() -> Vec<Arc<Task>> {
    TABLE.lock().tasks.clone()
}

/// The processes of a group.
pub fn group(group: Tid) -> Vec<Arc<Process>> {
    TABLE.lock().processes.iter().filter(|p| p.group() == group).cloned().collect()
}

/// The processes of a session.
pub fn session(session: Tid) -> Vec<Arc<Process>> {
    TABLE.lock().processes.iter().filter(|p| p.session() == session).cloned().collect()
}

/// Puts a process, the caller's or a child of it, into a process group (setpgid(2)).
///
/// # Errors
/// `ESRCH` when it is neither, `EACCES` when the child has executed a program, `EPERM` across sessions, for session leaders and for groups that do not exist.
pub fn set_group(caller: &Process, pid: Tid, group: Tid) -> Result<()> {
    with(|t| {
        let process = t.process(pid).filter(|p| !p.is_zombie()).ok_or(Errno::ESRCH)?;
        if pid != caller.pid {
            if process.parent() != caller.pid {
                return Err(Errno::ESRCH);
            }
            if process.session() != caller.session() {
                return Err(Errno::EPERM);
            }
            if process.has_execed.load(Ordering::Relaxed) {
                return Err(Errno::EACCES);
            }
        }
        let exists = group == pid || t.processes.iter().any(|p| p.group() == group && p.session() == process.session());
        if process.session() == pid || !exists {
            return Err(Errno::EPERM);
        }
        process.group.store(group, Ordering::Relaxed);
        Ok(())
    })
}

/// Makes a process the leader of a new session and group (setsid(2)).
///
/// # Errors
/// `EPERM` when it leads a group.
pub fn new_session(process: &Process) -> Result<Tid> {
    with(|t| {
        if t.processes.iter().any(|p| p.group() == process.pid) {
            return Err(Errno::EPERM);
        }
        process.session.store(process.pid, Ordering::Relaxed);
        process.group.store(process.pid, Ordering::Relaxed);
        Ok(process.pid)
    })
}

pub(super) fn add_kernel_thread(task: Arc<Task>) -> Result<()> {
    TABLE.lock().add_kernel_thread(task)
}

impl Table {
    /// Finds a process.
    pub fn process(&self, pid: Tid) -> Option<Arc<Process>> {
        self.processes.binary_search_by_key(&pid, |p| p.pid).ok().map(|i| self.processes[i].clone())
    }

    /// Finds a task.
    pub fn task(&self, tid: Tid) -> Option<Arc<Task>> {
        self.tasks.binary_search_by_key(&tid, |t| t.tid()).ok().map(|i| self.tasks[i].clone())
    }

    /// All processes.
    pub fn processes(&self) -> &[Arc<Process>] {
        &self.processes
    }

    /// Chooses an id that no task, group or session has.
    ///
    /// # Errors
    /// `EAGAIN` when there are too many tasks.
    pub fn choose_tid(&mut self) -> Result<Tid> {
        if self.tasks.len().max(self.processes.len()) as u64 >= max_tasks() {
            return Err(Errno::EAGAIN);
        }
        for _ in 0..PID_MAX {
            self.last = if self.last + 1 >= PID_MAX { RESERVED_PIDS } else { self.last + 1 };
            let id = self.last;
            if self.task(id).is_none() && !self.processes.iter().any(|p| p.pid == id || p.group() == id || p.session() == id) {
                LAST_PID.store(id, Ordering::Relaxed);
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Adds a task, and its process when this is the first thread.
    ///
    /// # Errors
    /// `ENOMEM`; then nothing was added.
    pub fn add(&mut self, task: &Arc<Task>) -> Result<()> {
        self.tasks.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        super::sched::reserve(self.tasks.len() + self.kernel_threads.len() + 2)?;
        let mut threads = task.process.threads.lock();
        threads.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        if task.tid() == task.process.pid {
            self.processes.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            let at = self.processes.partition_point(|p| p.pid < task.process.pid);
            self.processes.insert(at, task.process.clone());
        }
        threads.push(task.clone());
        drop(threads);
        let at = self.tasks.partition_point(|t| t.tid() < task.tid());
        self.tasks.insert(at, task.clone());
        CREATED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn add_kernel_thread(&mut self, task: Arc<Task>) -> Result<()> {
        self.kernel_threads.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        super::sched::reserve(self.tasks.len() + self.kernel_threads.len() + 2)?;
        self.kernel_threads.push(task);
        Ok(())
    }

    /// Removes a task from the list of tasks.
    pub fn remove_task(&mut self, tid: Tid) -> Option<Arc<Task>> {
        self.tasks.binary_search_by_key(&tid, |t| t.tid()).ok().map(|i| self.tasks.remove(i))
    }

    /// Puts a task back under another id (execve(2) by a thread that is not the first).
    pub fn rename_task(&mut self, task: &Arc<Task>, tid: Tid) {
        let old = self.remove_task(task.tid());
        drop(old);
        task.tid.store(tid, Ordering::Relaxed);
        let at = self.tasks.partition_point(|t| t.tid() < tid);
        self.tasks.insert(at, task.clone());
    }

    /// Removes a process that was waited for.
    pub fn remove_process(&mut self, pid: Tid) -> Option<Arc<Process>> {
        self.processes.binary_search_by_key(&pid, |p| p.pid).ok().map(|i| self.processes.remove(i))
    }

    /// Removes a kernel thread.
    pub fn remove_kernel_thread(&mut self, task: &Task) -> Option<Arc<Task>> {
        self.kernel_threads.iter().position(|t| core::ptr::eq(Arc::as_ptr(t), task)).map(|i| self.kernel_threads.swap_remove(i))
    }

    /// Tasks whose real user id is `uid` (`RLIMIT_NPROC`).
    pub fn count_of_user(&self, uid: u32) -> usize {
        self.tasks.iter().filter(|t| t.creds().uid == uid).count()
    }

    /// Whether a process group has no member whose parent is in another group of the same session (POSIX, "orphaned process group"): its members cannot
    /// be stopped from the terminal, as nobody could continue them. `without` is left out of the count.
    pub fn is_orphaned_group(&self, group: Tid, without: Option<Tid>) -> bool {
        !self.processes.iter().any(|p| {
            p.group() == group
                && Some(p.pid) != without
                && !p.is_zombie()
                && self
                    .process(p.parent())
                    .is_some_and(|parent| parent.pid != 0 && parent.group() != group && parent.session() == p.session())
        })
    }
}
