//! Tasks and processes.
//!
//! A [`Task`] is what the scheduler runs and what Linux calls a thread (gettid(2)); a [`Process`] is a thread group (getpid(2)). What clone(2) can
//! share lies behind an `Arc` of its own in the task: memory, descriptors, file-system context, signal handlers.
//!
//! | file | what it is for |
//! |---|---|
//! | `sched`, `runqueue`, `cpu`, `wait` | who runs; the switch; sleeping and waking |
//! | `process`, `table`, `limits`, `creds` | what a process has; who is whose parent; ids |
//! | `boot`, `clone`, `exit`, `reap`, `exec` | the life of a process |
//! | `signal` | sending, stopping, delivering |

pub(crate) mod boot;
pub mod clone;
pub mod cpu;
pub mod creds;
pub mod exec;
pub mod exit;
pub mod limits;
pub mod process;
pub mod reap;
pub mod runqueue;
pub mod sched;
pub mod signal;
pub mod table;
pub mod wait;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use libos_abi::{Errno, Result};

use crate::file::FdTable;
use crate::mm::AddressSpace;
use crate::sync::SpinLock;
use crate::vfs::FsContext;

pub use process::{Credentials, Process, Resource};

/// A thread id; the first thread's is the process id.
pub type Tid = i32;

/// A thread of a program, or of the kernel.
pub struct Task {
    tid: AtomicI32,
    /// The thread group.
    pub process: Arc<Process>,
    me: Weak<Task>,
    is_idle: bool,
    mm: SpinLock<Option<Arc<AddressSpace>>>,
    files: SpinLock<Option<Arc<FdTable>>>,
    fs: SpinLock<Option<Arc<FsContext>>>,
    creds: SpinLock<Arc<Credentials>>,
    /// What the scheduler keeps: kernel stack, saved context, state.
    pub sched: sched::SchedState,
    /// Blocked and pending signals, alternate stack.
    pub signals: signal::TaskSignals,
    /// `prctl(PR_SET_NAME)`: up to 15 bytes, NUL-padded.
    pub name: SpinLock<[u8; 16]>,
    /// `set_tid_address(2)`: cleared and woken as a futex at exit; 0 is none.
    pub clear_child_tid: AtomicUsize,
    /// Where the id is stored before the task first runs its program (`CLONE_CHILD_SETTID`); 0 is nowhere.
    set_child_tid: AtomicUsize,
    /// `set_robust_list(2)`: address of the list head; 0 is none.
    pub robust_list: AtomicUsize,
    /// `PR_SET_PDEATHSIG`; 0 is none.
    pub parent_death_signal: AtomicU32,
    /// Who waits in vfork(2) until this task has executed another program or ended.
    vfork: SpinLock<Option<Arc<clone::VforkDone>>>,
}

/// What a new task has from the start.
struct TaskParts {
    tid: Tid,
    process: Arc<Process>,
    mm: Option<Arc<AddressSpace>>,
    files: Option<Arc<FdTable>>,
    fs: Option<Arc<FsContext>>,
    creds: Arc<Credentials>,
    name: [u8; 16],
    sched: sched::SchedState,
    is_idle: bool,
}

impl Task {
    fn new(parts: TaskParts) -> Arc<Task> {
        Arc::new_cyclic(|me| Task {
            tid: parts.tid.into(),
            process: parts.process,
            me: me.clone(),
            is_idle: parts.is_idle,
            mm: SpinLock::new(parts.mm),
            files: SpinLock::new(parts.files),
            fs: SpinLock::new(parts.fs),
            creds: SpinLock::new(parts.creds),
            sched: parts.sched,
            signals: signal::TaskSignals::new(),
            name: SpinLock::new(parts.name),
            clear_child_tid: AtomicUsize::new(0),
            set_child_tid: AtomicUsize::new(0),
            robust_list: AtomicUsize::new(0),
            parent_death_signal: AtomicU32::new(0),
            vfork: SpinLock::new(None),
        })
    }

    /// Thread id (gettid(2)). It changes in one case: a thread that calls execve(2) takes over the process id.
    pub fn tid(&self) -> Tid {
        self.tid.load(Ordering::Relaxed)
    }

    /// Process id (getpid(2)).
    pub fn pid(&self) -> Tid {
        self.process.pid
    }

    /// A counted reference; `None` only while the task is being freed.
    pub fn arc(&self) -> Option<Arc<Task>> {
        self.me.upgrade()
    }

    /// The address space.
    ///
    /// # Panics
    /// For kernel threads and tasks that have ended, which have none: about others ask [`Task::mm_opt`].
    pub fn mm(&self) -> Arc<AddressSpace> {
        self.mm_opt().expect("a program has an address space")
    }

    /// The address space, unless this is a kernel thread or has ended.
    pub fn mm_opt(&self) -> Option<Arc<AddressSpace>> {
        self.mm.lock().clone()
    }

    /// The descriptor table; an empty one for kernel threads and tasks that have ended.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.lock().clone().unwrap_or_default()
    }

    /// Root directory, working directory and umask.
    ///
    /// # Panics
    /// For kernel threads and tasks that have ended: about others ask [`Task::fs_opt`].
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs_opt().expect("a program has a working directory")
    }

    /// Root directory, working directory and umask, unless this is a kernel thread or has ended.
    pub fn fs_opt(&self) -> Option<Arc<FsContext>> {
        self.fs.lock().clone()
    }

    /// Gives the task another file-system context: the first process when the root is mounted, unshare(2).
    pub fn set_fs(&self, fs: Arc<FsContext>) {
        let old = self.fs.lock().replace(fs);
        drop(old);
    }

    /// Gives the task another descriptor table (unshare(2), `close_range` with `CLOSE_RANGE_UNSHARE`).
    pub fn set_files(&self, files: Arc<FdTable>) {
        let old = self.files.lock().replace(files);
        drop(old);
    }

    /// User and group ids, capabilities.
    pub fn creds(&self) -> Arc<Credentials> {
        self.creds.lock().clone()
    }

    /// Changes the credentials of this thread (credentials(7)); libc broadcasts to the others.
    pub fn set_creds(&self, creds: Credentials) {
        let old = core::mem::replace(&mut *self.creds.lock(), Arc::new(creds));
        drop(old);
    }

    /// Soft limit of a resource (getrlimit(2)).
    pub fn limit(&self, resource: Resource) -> u64 {
        self.process.limit(resource)
    }

    /// Gives an open file the lowest free descriptor.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn install(&self, file: Arc<crate::file::OpenFile>, close_on_exec: bool) -> Result<usize> {
        self.files().insert(file, close_on_exec, 0, self.limit(Resource::NoFile)).map(|fd| fd as usize)
    }

    /// Whether the thread has an effective capability (capabilities(7)).
    ///
    /// # Errors
    /// `EPERM` when it has not.
    pub fn require(&self, capability: u32) -> Result<()> {
        if self.creds().has_capability(capability) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Sets the name that /proc/PID/comm shows: the first 15 bytes.
    pub fn set_name(&self, name: &[u8]) {
        let mut padded = [0; 16];
        let len = name.len().min(15);
        padded[..len].copy_from_slice(&name[..len]);
        *self.name.lock() = padded;
    }

    /// The name without its padding.
    pub fn name_bytes(&self) -> alloc::vec::Vec<u8> {
        self.name.lock().iter().copied().take_while(|&b| b != 0).collect()
    }
}

/// The running task.
pub fn current() -> Arc<Task> {
    with_current(|task| task.arc()).expect("the running task lives")
}

/// Calls `f` with the running task, without touching its reference count.
pub fn with_current<R>(f: impl FnOnce(&Task) -> R) -> R {
    let task = crate::arch::cpu::current().cast::<Task>();
    assert!(!task.is_null(), "no task runs yet");
    // SAFETY: `cpu::switch` keeps a counted reference in this pointer for as long as the task has the CPU, and `f` runs on the task's own stack, so the task
    // has the CPU whenever `f` does.
    f(unsafe { &*task })
}

/// Whether there is a running task: not in the first steps of the boot.
pub fn has_current() -> bool {
    !crate::arch::cpu::current().is_null()
}

/// Runs a function in a thread of the kernel's own. It has no program and no signals, and ends when the function returns.
///
/// # Errors
/// `ENOMEM`, `EAGAIN` when there are too many tasks.
pub fn spawn_kernel_thread(name: &str, f: impl FnOnce() + Send + 'static) -> Result<Arc<Task>> {
    let (process, creds) = with_current(|task| (task.process.clone(), task.creds()));
    let mut padded = [0; 16];
    let len = name.len().min(15);
    padded[..len].copy_from_slice(&name.as_bytes()[..len]);
    let task = Task::new(TaskParts {
        tid: 0,
        process: if process.pid == 0 { process } else { table::kernel_process() },
        mm: None,
        files: None,
        fs: None,
        creds,
        name: padded,
        sched: sched::SchedState::new(sched::Start::Kernel(Box::new(f)), false)?,
        is_idle: false,
    });
    table::add_kernel_thread(task.clone())?;
    sched::start(task.clone());
    Ok(task)
}

/// Counts a spin lock of this CPU.
#[inline]
pub(crate) fn spin_lock_taken() {
    #[cfg(ukc_kernel)]
    {
        let held = &crate::arch::cpu::this_cpu().spin_locks;
        held.store(held.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// Counts a spin lock of this CPU.
#[inline]
pub(crate) fn spin_lock_released() {
    #[cfg(ukc_kernel)]
    {
        let held = &crate::arch::cpu::this_cpu().spin_locks;
        held.store(held.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }
}

/// Spin locks that this CPU holds.
fn spin_locks_held() -> u32 {
    crate::arch::cpu::this_cpu().spin_locks.load(Ordering::Relaxed)
}
