//! The end of threads and processes: what they give back, who is told, who takes the orphans.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use libos_abi::general as linux;

use super::signal::action::{ActionFlags, IGNORE};
use super::signal::set::{SIGCHLD, SIGCONT, SIGHUP};
use super::signal::{self, SigInfo, send};
use super::{Process, Task, Tid, cpu, sched, table};
use crate::sync::SpinLock;
use crate::user::UserPtr;

/// Called by a task that ends, while it still has its memory: the futex module wakes who waits for it.
static MEMORY_HOOK: SpinLock<Option<fn(&Task)>> = SpinLock::new(None);

/// Called when the leader of a session ends: the terminal hangs up.
static SESSION_HOOK: SpinLock<Option<fn(Tid)>> = SpinLock::new(None);

/// Sets what a task does before it gives up its memory, in exit(2) and execve(2): robust futexes, the wake-up for pthread_join(3).
pub fn set_memory_hook(hook: fn(&Task)) {
    *MEMORY_HOOK.lock() = Some(hook);
}

/// Sets what happens when the leader of a session (whose id it gets) ends.
pub fn set_session_hook(hook: fn(Tid)) {
    *SESSION_HOOK.lock() = Some(hook);
}

/// Wait status of a process that calls exit(2) with a code (wait(2)).
pub const fn exited(code: i32) -> i32 {
    (code & 0xff) << 8
}

/// Ends all threads of the current process with a wait status. The first caller decides the status.
pub fn exit_group(status: i32) -> ! {
    let status = super::with_current(|task| {
        let mut shared = task.process.signals.lock();
        let status = *shared.exiting.get_or_insert(status);
        for thread in task.process.threads.lock().iter() {
            if !core::ptr::eq(Arc::as_ptr(thread), task) {
                send::alert(thread, true);
            }
        }
        status
    });
    exit_thread(status)
}

/// Ends the current thread; the last one ends the process. Nothing on the stack may own anything.
pub fn exit_thread(status: i32) -> ! {
    super::with_current(|task| {
        // With the first process the machine ends: taking its memory apart page by page would be for nothing.
        if task.process.pid != 1 || task.process.thread_count() > 1 {
            give_up_memory(task, None);
        }
        cpu::release_vectors(task);
        // Closing files may block, and must happen while the thread still counts as living.
        let files = task.files.lock().take();
        drop(files);
        let fs = task.fs.lock().take();
        drop(fs);
        leave_process(task, status);
    });
    super::with_current(|task| sched::die(task))
}

/// Ends a kernel thread.
pub(super) fn end_kernel_thread() -> ! {
    super::with_current(|task| {
        let task = table::with(|t| t.remove_kernel_thread(task));
        drop(task);
    });
    super::with_current(|task| sched::die(task))
}

/// Gives up the address space for another one, or for none: tells who waits for that, while the old memory is still there.
pub(super) fn give_up_memory(task: &Task, new: Option<Arc<crate::mm::AddressSpace>>) {
    if task.mm_opt().is_some() {
        let hook = *MEMORY_HOOK.lock();
        if let Some(hook) = hook {
            hook(task);
        } else {
            clear_child_tid(task);
        }
    }
    task.robust_list.store(0, Ordering::Relaxed);
    let old = core::mem::replace(&mut *task.mm.lock(), new.clone());
    cpu::load_address_space(new);
    drop(old);
    let vfork = task.vfork.lock().take();
    if let Some(done) = vfork {
        done.complete();
    }
}

/// Clears the word of `set_tid_address(2)` when somebody else can see it, and returns its address.
pub fn clear_child_tid(task: &Task) -> Option<usize> {
    let addr = task.clear_child_tid.swap(0, Ordering::Relaxed);
    // One for the task, one for whoever asks now: more means that the memory is shared.
    let is_shared = task.mm_opt().is_some_and(|mm| Arc::strong_count(&mm) > 2);
    if addr == 0 || !is_shared {
        return None;
    }
    // The program may have unmapped it; then nobody waits there.
    UserPtr::<i32>::new(addr).write(0).ok().map(|()| addr)
}

/// Takes the thread out of its process, and ends the process if it was the last.
fn leave_process(task: &Task, status: i32) {
    let process = task.process.clone();
    // The details for the parent need a living thread's credentials.
    let uid = task.creds().uid;
    process.exit_uid.store(uid, Ordering::Relaxed);
    if task.tid() == process.pid {
        process.first_thread_status.store(status, Ordering::Relaxed);
    }
    let is_last = {
        let shared = process.signals.lock();
        let mut threads = process.threads.lock();
        process.times.run_ns.fetch_add(task.sched.run_ns(), Ordering::Relaxed);
        process.times.system_ns.fetch_add(task.sched.system_ns(), Ordering::Relaxed);
        threads.retain(|t| !core::ptr::eq(Arc::as_ptr(t), task));
        drop(shared);
        threads.is_empty()
    };
    let own = table::with(|t| t.remove_task(task.tid()));
    drop(own);
    // A thread in execve(2) may wait for the others to go.
    process.exit_events.wake_all();
    if is_last {
        let status = process.signals.lock().exiting.unwrap_or(process.first_thread_status.load(Ordering::Relaxed));
        end_process(&process, status);
    }
}

fn end_process(process: &Arc<Process>, status: i32) {
    let extensions = process.take_extensions();
    for extension in &extensions {
        extension.on_exit();
    }
    drop(extensions);
    if process.pid == 1 {
        crate::start::first_process_ended(status);
    }
    if process.session() == process.pid {
        let hook = *SESSION_HOOK.lock();
        if let Some(hook) = hook {
            hook(process.session());
        }
    }
    abandon_children(process);
    hang_up_orphans(process);

    let exit_signal = process.exit_signal.load(Ordering::Relaxed);
    let parent = table::process(process.parent()).ok();
    let action = parent.as_ref().map(|p| p.handlers().get(SIGCHLD));
    let nobody_waits = exit_signal == SIGCHLD && action.is_none_or(|a| a.handler == IGNORE || a.flags.contains(ActionFlags::NOCLDWAIT));
    let reaped = table::with(|t| {
        process.status.lock().exited = Some(status);
        if nobody_waits { t.remove_process(process.pid) } else { None }
    });
    drop(reaped);
    process.exit_events.wake_all();
    if let Some(parent) = parent {
        let is_ignored = action.is_some_and(|a| a.handler == IGNORE);
        if exit_signal != 0 && !(exit_signal == SIGCHLD && is_ignored) {
            let (code, value) = super::reap::child_code(status);
            let mut info = send::child_info(process, code, value);
            info.signo = exit_signal as i32;
            // The kernel's signals are never refused.
            let _ = signal::send_to_process(&parent, info);
        }
        parent.child_events.wake_all();
    }
}

/// Gives the children to the nearest ancestor that takes orphans (`PR_SET_CHILD_SUBREAPER`), else to the first process.
fn abandon_children(process: &Arc<Process>) {
    let children: Vec<Arc<Process>> = table::with(|t| {
        let mut heir = t.process(process.parent());
        while let Some(p) = &heir {
            if p.pid == 1 || p.is_subreaper.load(Ordering::Relaxed) && p.thread_count() > 0 {
                break;
            }
            heir = t.process(p.parent());
        }
        let heir = heir.map_or(1, |p| p.pid);
        let children: Vec<_> = t.processes().iter().filter(|p| p.parent() == process.pid).cloned().collect();
        for child in &children {
            child.parent.store(heir, Ordering::Relaxed);
            // From a foreign parent only SIGCHLD may come (Linux, reparent_leader).
            child.exit_signal.store(SIGCHLD, Ordering::Relaxed);
        }
        children
    });
    for child in &children {
        for thread in child.threads() {
            let signo = thread.parent_death_signal.load(Ordering::Relaxed);
            if signo != 0 {
                // The kernel's signals are never refused.
                let _ = signal::send_to_task(&thread, SigInfo::user(signo, linux::SI_USER as i32, process.pid, process.exit_uid()));
            }
        }
        if let Ok(heir) = table::process(child.parent()) {
            if child.is_zombie() {
                reap_for_heir(child, &heir);
            }
            heir.child_events.wake_all();
        }
    }
}

/// A zombie got another parent: tell it, or let the zombie go when the new parent does not wait.
fn reap_for_heir(child: &Arc<Process>, heir: &Process) {
    let action = heir.handlers().get(SIGCHLD);
    if action.handler == IGNORE || action.flags.contains(ActionFlags::NOCLDWAIT) {
        let gone = table::with(|t| t.remove_process(child.pid));
        drop(gone);
    } else if let Some(status) = child.status().exited {
        let (code, value) = super::reap::child_code(status);
        let _ = signal::send_to_process(heir, send::child_info(child, code, value));
    }
}

/// Process groups that lose their last connection to the session, and have stopped members, get SIGHUP and SIGCONT (POSIX, _exit).
fn hang_up_orphans(process: &Process) {
    let groups: Vec<Tid> = table::with(|t| {
        let mut groups: Vec<Tid> = Vec::new();
        for p in t.processes() {
            let concerns = p.group() == process.group() || p.parent() == process.pid;
            let is_stopped = p.status().stopped.is_some() || p.signals.lock().stopped.is_some();
            if concerns && p.pid != process.pid && is_stopped && p.session() == process.session() && !groups.contains(&p.group()) {
                groups.push(p.group());
            }
        }
        groups.retain(|&g| t.is_orphaned_group(g, Some(process.pid)));
        groups
    });
    for group in groups {
        send::send_to_group(group, SIGHUP);
        send::send_to_group(group, SIGCONT);
    }
}
