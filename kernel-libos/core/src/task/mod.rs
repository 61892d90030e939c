//! Tasks and processes.
//!
//! A [`Task`] is what the scheduler runs and what Linux calls a thread (gettid(2)); a [`Process`] is a thread group (getpid(2)). What clone(2) can
//! share lies behind an `Arc` of its own in the task: memory, descriptors, file-system context, signal handlers.

pub mod process;
pub mod sched;
pub mod signal;
pub mod wait;

use alloc::sync::Arc;

use libos_abi::{Errno, Result};

use crate::file::FdTable;
use crate::mm::AddressSpace;
use crate::sync::SpinLock;
use crate::vfs::FsContext;

pub use process::{Credentials, Process, Resource};

/// A thread id; the first thread's is the process id.
pub type Tid = i32;

/// A thread of a program.
pub struct Task {
    /// Thread id.
    pub tid: Tid,
    /// The thread group.
    pub process: Arc<Process>,
    mm: SpinLock<Arc<AddressSpace>>,
    files: SpinLock<Arc<FdTable>>,
    fs: SpinLock<Arc<FsContext>>,
    creds: SpinLock<Arc<Credentials>>,
    /// What the scheduler keeps: kernel stack, saved context, state.
    pub sched: sched::SchedState,
    /// Blocked and pending signals, alternate stack.
    pub signals: signal::TaskSignals,
    /// `prctl(PR_SET_NAME)`: up to 15 bytes, NUL-padded.
    pub name: SpinLock<[u8; 16]>,
    /// `set_tid_address(2)`: cleared and woken as a futex at exit; 0 is none.
    pub clear_child_tid: core::sync::atomic::AtomicUsize,
    /// `set_robust_list(2)`: address of the list head; 0 is none.
    pub robust_list: core::sync::atomic::AtomicUsize,
}

impl Task {
    /// The address space. Kernel threads have an empty one.
    pub fn mm(&self) -> Arc<AddressSpace> {
        self.mm.lock().clone()
    }

    /// The descriptor table.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.lock().clone()
    }

    /// Root directory, working directory and umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.lock().clone()
    }

    /// User and group ids, capabilities.
    pub fn creds(&self) -> Arc<Credentials> {
        self.creds.lock().clone()
    }

    /// Changes the credentials of this thread (credentials(7)); libc broadcasts to the others.
    pub fn set_creds(&self, creds: Credentials) {
        *self.creds.lock() = Arc::new(creds);
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

    /// Whether the effective user is root or has a capability (capabilities(7)).
    ///
    /// # Errors
    /// `EPERM` when it has not.
    pub fn require(&self, capability: u32) -> Result<()> {
        if self.creds().has_capability(capability) { Ok(()) } else { Err(Errno::EPERM) }
    }
}

/// The running task.
pub fn current() -> Arc<Task> {
    unimplemented!()
}

/// Calls `f` with the running task, without touching its reference count.
pub fn with_current<R>(f: impl FnOnce(&Task) -> R) -> R {
    f(&current())
}

/// Counts a spin lock of this CPU.
pub(crate) fn spin_lock_taken() {}

/// Counts a spin lock of this CPU.
pub(crate) fn spin_lock_released() {}
