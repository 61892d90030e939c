//! New processes and threads: clone(2) in all its forms.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::sched::{SchedState, Start};
use super::signal::AltStack;
use super::wait::WaitQueue;
use super::{Process, Resource, Task, TaskParts, Tid, cpu, table};
use crate::arch::UserFrame;
use crate::user::UserPtr;

bitflags! {
    /// `CLONE_*`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CloneFlags: u64 {
        const NEWTIME = linux::CLONE_NEWTIME as u64;
        const VM = linux::CLONE_VM as u64;
        const FS = linux::CLONE_FS as u64;
        const FILES = linux::CLONE_FILES as u64;
        const SIGHAND = linux::CLONE_SIGHAND as u64;
        const PIDFD = linux::CLONE_PIDFD as u64;
        const PTRACE = linux::CLONE_PTRACE as u64;
        const VFORK = linux::CLONE_VFORK as u64;
        const PARENT = linux::CLONE_PARENT as u64;
        const THREAD = linux::CLONE_THREAD as u64;
        const NEWNS = linux::CLONE_NEWNS as u64;
        const SYSVSEM = linux::CLONE_SYSVSEM as u64;
        const SETTLS = linux::CLONE_SETTLS as u64;
        const PARENT_SETTID = linux::CLONE_PARENT_SETTID as u64;
        const CHILD_CLEARTID = linux::CLONE_CHILD_CLEARTID as u64;
        const DETACHED = linux::CLONE_DETACHED as u64;
        const UNTRACED = linux::CLONE_UNTRACED as u64;
        const CHILD_SETTID = linux::CLONE_CHILD_SETTID as u64;
        const NEWCGROUP = linux::CLONE_NEWCGROUP as u64;
        const NEWUTS = linux::CLONE_NEWUTS as u64;
        const NEWIPC = linux::CLONE_NEWIPC as u64;
        const NEWUSER = linux::CLONE_NEWUSER as u64;
        const NEWPID = linux::CLONE_NEWPID as u64;
        const NEWNET = linux::CLONE_NEWNET as u64;
        const IO = linux::CLONE_IO as u64;
        const CLEAR_SIGHAND = linux::CLONE_CLEAR_SIGHAND;
        const INTO_CGROUP = linux::CLONE_INTO_CGROUP;
    }
}

impl CloneFlags {
    /// Those that ask for a new namespace.
    pub const NAMESPACES: CloneFlags = CloneFlags::NEWNS
        .union(CloneFlags::NEWCGROUP)
        .union(CloneFlags::NEWUTS)
        .union(CloneFlags::NEWIPC)
        .union(CloneFlags::NEWUSER)
        .union(CloneFlags::NEWPID)
        .union(CloneFlags::NEWNET);

    /// Checks combinations (clone(2), ERRORS).
    ///
    /// # Errors
    /// `EINVAL`; `EPERM` for namespaces, which need `CAP_SYS_ADMIN` and which there is only one of.
    pub fn check(self) -> Result<()> {
        let both = |a: CloneFlags, b: CloneFlags| self.intersects(a) && self.intersects(b);
        let without = |a: CloneFlags, b: CloneFlags| self.contains(a) && !self.contains(b);
        if without(Self::SIGHAND, Self::VM)
            || without(Self::THREAD, Self::SIGHAND)
            || both(Self::FS, Self::NEWNS | Self::NEWUSER)
            || both(Self::THREAD, Self::NEWUSER | Self::NEWPID)
            || both(Self::PIDFD, Self::THREAD | Self::DETACHED)
            || both(Self::CLEAR_SIGHAND, Self::SIGHAND)
            || both(Self::SYSVSEM, Self::NEWIPC)
        {
            return Err(Errno::EINVAL);
        }
        if self.intersects(Self::NAMESPACES) { Err(Errno::EPERM) } else { Ok(()) }
    }
}

/// What clone3(2) takes; the older calls are special cases.
#[derive(Debug, Clone, Copy)]
pub struct CloneArgs {
    /// Flags.
    pub flags: CloneFlags,
    /// Signal for the parent at the end; 0 is none.
    pub exit_signal: u32,
    /// Stack pointer of the child; 0 is the parent's.
    pub stack: usize,
    /// Thread pointer for `CLONE_SETTLS`.
    pub tls: usize,
    /// Where `CLONE_PARENT_SETTID` stores the id.
    pub parent_tid: usize,
    /// Where `CLONE_CHILD_SETTID` stores the id and `CLONE_CHILD_CLEARTID` clears it.
    pub child_tid: usize,
}

/// Tells a parent in vfork(2) that the child has given its memory back.
pub struct VforkDone {
    is_done: AtomicBool,
    waiters: WaitQueue,
}

impl VforkDone {
    pub(super) fn complete(&self) {
        self.is_done.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    fn wait(&self) {
        self.waiters.wait_uninterruptible(|| self.is_done.load(Ordering::Acquire).then_some(()));
    }
}

/// A task that does not run yet.
pub struct NewTask {
    task: Arc<Task>,
    args: CloneArgs,
    vfork: Option<Arc<VforkDone>>,
}

impl NewTask {
    /// Makes a task like the current one, whose registers are in `frame`.
    ///
    /// # Errors
    /// As clone(2).
    pub fn new(parent: &Task, frame: &UserFrame, args: CloneArgs) -> Result<NewTask> {
        let flags = args.flags;
        flags.check()?;
        if flags.contains(CloneFlags::PARENT) && parent.process.pid == 1 {
            return Err(Errno::EINVAL);
        }
        check_limit(parent)?;
        let tid = table::with(|t| t.choose_tid())?;

        let mut registers = frame.clone();
        registers.rax = 0;
        registers.orig_rax = u64::MAX;
        if args.stack != 0 {
            registers.rsp = args.stack as u64;
        }
        let sched = SchedState::new(Start::User(Box::new(registers)), true).map_err(|_| Errno::EAGAIN)?;
        let mm = parent.mm();
        let files = parent.files();
        let fs = parent.fs();
        let task = Task::new(TaskParts {
            tid,
            process: if flags.contains(CloneFlags::THREAD) { parent.process.clone() } else { new_process(parent, tid, &args) },
            mm: Some(if flags.contains(CloneFlags::VM) { mm } else { mm.fork()? }),
            files: Some(if flags.contains(CloneFlags::FILES) { files } else { Arc::new(files.duplicate()) }),
            fs: Some(if flags.contains(CloneFlags::FS) { fs } else { Arc::new(fs.duplicate()) }),
            creds: parent.creds(),
            name: *parent.name.lock(),
            sched,
            is_idle: false,
        });
        task.sched.inherit(&parent.sched);
        cpu::copy_vectors(&task);
        let (fs_base, gs_base) = cpu::bases(parent);
        task.sched.machine.set_bases(if flags.contains(CloneFlags::SETTLS) { args.tls } else { fs_base }, gs_base);
        task.signals.inherit(parent, flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK));
        if flags.contains(CloneFlags::CHILD_SETTID) {
            task.set_child_tid.store(args.child_tid, Ordering::Relaxed);
        }
        if flags.contains(CloneFlags::CHILD_CLEARTID) {
            task.clear_child_tid.store(args.child_tid, Ordering::Relaxed);
        }
        let vfork = flags.contains(CloneFlags::VFORK).then(|| Arc::new(VforkDone { is_done: false.into(), waiters: WaitQueue::new() }));
        task.vfork.lock().clone_from(&vfork);
        Ok(NewTask { task, args, vfork })
    }

    /// The process that the task belongs to.
    pub fn process(&self) -> &Arc<Process> {
        &self.task.process
    }

    /// Lets it run and returns its id; with `CLONE_VFORK` after it has executed another program or ended.
    ///
    /// # Errors
    /// `ENOMEM`; `ERESTARTNOINTR` when the process is about to end.
    pub fn start(self) -> Result<Tid> {
        let NewTask { task, args, vfork } = self;
        let tid = task.tid();
        if args.flags.contains(CloneFlags::PARENT_SETTID) {
            // Linux ignores a bad address here, too.
            let _ = UserPtr::<i32>::new(args.parent_tid).write(tid);
        }
        table::with(|t| {
            let shared = task.process.signals.lock();
            // A new thread of a process that ends or executes would be missed by whoever ends the others.
            if shared.exiting.is_some() || shared.executing {
                return Err(Errno::ERESTARTNOINTR);
            }
            t.add(&task)
        })?;
        super::sched::start(task);
        if let Some(done) = vfork {
            done.wait();
        }
        Ok(tid)
    }
}

fn new_process(parent: &Task, pid: Tid, args: &CloneArgs) -> Arc<Process> {
    let old = &parent.process;
    let (flags, handlers) = (args.flags, old.handlers());
    let handlers = if flags.contains(CloneFlags::SIGHAND) { handlers } else { Arc::new(handlers.duplicate()) };
    if flags.contains(CloneFlags::CLEAR_SIGHAND) {
        handlers.reset();
    }
    let is_sibling = flags.contains(CloneFlags::PARENT);
    let parent_pid = if is_sibling { old.parent() } else { old.pid };
    let new = Process::new(pid, parent_pid, old.group(), old.session(), old.limits.lock().clone(), handlers);
    let exit_signal = if is_sibling { old.exit_signal.load(Ordering::Relaxed) } else { args.exit_signal };
    new.exit_signal.store(exit_signal, Ordering::Relaxed);
    new.dumpable.store(old.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
    new.personality.store(old.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    Arc::new(new)
}

/// `RLIMIT_NPROC`: not for root, as on Linux; what memory allows is in `choose_tid`.
fn check_limit(parent: &Task) -> Result<()> {
    let creds = parent.creds();
    let is_exempt = creds.uid == 0 || creds.has_capability(linux::CAP_SYS_RESOURCE) || creds.has_capability(linux::CAP_SYS_ADMIN);
    if !is_exempt && table::with(|t| t.count_of_user(creds.uid)) as u64 >= parent.limit(Resource::NProc) {
        return Err(Errno::EAGAIN);
    }
    Ok(())
}

/// What a new task does in its own memory before its program runs.
pub(super) fn child_begins() {
    super::with_current(|task| {
        let addr = task.set_child_tid.swap(0, Ordering::Relaxed);
        if addr != 0 {
            // Linux ignores a bad address here, too.
            let _ = UserPtr::<i32>::new(addr).write(task.tid());
        }
    });
}

impl super::signal::TaskSignals {
    /// Starts with the mask of another task, and with its alternate stack unless the memory is shared.
    fn inherit(&self, parent: &Task, shares_memory: bool) {
        let alt = if shares_memory { AltStack::default() } else { parent.signals.alt_stack() };
        self.set_alt_stack(alt);
        self.start_with_mask(parent.signals.blocked());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_checked_as_clone_2_says() {
        use CloneFlags as F;
        for (flags, expected) in [
            (F::empty(), Ok(())),
            (F::VM | F::FS | F::FILES | F::SIGHAND | F::THREAD | F::SYSVSEM | F::SETTLS, Ok(())),
            (F::VM | F::VFORK, Ok(())),
            (F::SIGHAND, Err(Errno::EINVAL)),
            (F::THREAD | F::VM, Err(Errno::EINVAL)),
            (F::FS | F::NEWNS, Err(Errno::EINVAL)),
            (F::NEWNS, Err(Errno::EPERM)),
            (F::NEWUSER, Err(Errno::EPERM)),
            (F::PIDFD | F::THREAD | F::SIGHAND | F::VM, Err(Errno::EINVAL)),
            (F::CLEAR_SIGHAND | F::SIGHAND | F::VM, Err(Errno::EINVAL)),
        ] {
            assert_eq!(flags.check(), expected, "{flags:?}");
        }
    }
}
