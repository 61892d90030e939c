//! execve(2) as far as the process is concerned: what `exec` calls once the new program's memory is ready.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use libos_abi::{Errno, Result};

use super::signal::AltStack;
use super::signal::send;
use super::signal::set::SIGCHLD;
use super::{Task, cpu, exit, table};
use crate::arch::UserFrame;
use crate::arch::fpu::FpuState;
use crate::exec::Loaded;

/// Ends all other threads of the current process and gives the current one the process id. After this, the old program cannot go on.
///
/// # Errors
/// `EAGAIN` when the process ends or another thread is in execve(2) already.
pub fn become_only_thread(task: &Task) -> Result<()> {
    let process = &task.process;
    {
        let mut shared = process.signals.lock();
        if shared.exiting.is_some() || shared.executing {
            return Err(Errno::EAGAIN);
        }
        let threads = process.threads.lock();
        if threads.len() > 1 {
            shared.executing = true;
            for thread in threads.iter().filter(|t| !core::ptr::eq(Arc::as_ptr(t), task)) {
                thread.signals.thread.lock().kill = true;
                send::alert(thread, true);
            }
        }
    }
    process.exit_events.wait_uninterruptible(|| (process.thread_count() == 1).then_some(()));
    process.signals.lock().executing = false;
    if task.tid() != process.pid {
        let me = task.arc().ok_or(Errno::ESRCH)?;
        table::with(|t| t.rename_task(&me, process.pid));
    }
    Ok(())
}

/// Puts the current process into its new program: memory, registers, name, credentials, signal handlers, descriptors. [`become_only_thread`] came before;
/// nothing can fail any more.
pub fn replace(task: &Task, loaded: Loaded, frame: &mut UserFrame) {
    let process = &task.process;
    let Loaded { mm, entry, stack_pointer, name, creds, is_secure } = loaded;
    exit::give_up_memory(task, Some(mm));
    *frame = UserFrame::new_user(entry, stack_pointer);

    // Another process may share the table (clone without `CLONE_THREAD`); its handlers stay.
    let handlers = process.handlers();
    // One reference is the process's, one ours.
    let handlers = if Arc::strong_count(&handlers) > 2 { Arc::new(handlers.duplicate()) } else { handlers };
    handlers.reset();
    let old = core::mem::replace(&mut *process.handlers.lock(), handlers);
    drop(old);
    task.signals.set_alt_stack(AltStack::default());
    let restart = task.signals.take_restart();
    drop(restart);

    let files = task.files();
    if Arc::strong_count(&files) > 2 {
        task.set_files(Arc::new(files.duplicate()));
    }
    let closed = task.files().drain(true);
    drop(closed);

    for extension in process.extensions() {
        extension.on_exec();
    }
    *task.name.lock() = name;
    if is_secure {
        task.parent_death_signal.store(0, Ordering::Relaxed);
    }
    process.dumpable.store(u32::from(!is_secure), Ordering::Relaxed);
    task.set_creds(creds);
    process.has_execed.store(true, Ordering::Relaxed);
    process.exit_signal.store(SIGCHLD, Ordering::Relaxed);
    task.clear_child_tid.store(0, Ordering::Relaxed);
    cpu::set_fs_base(task, 0);
    cpu::set_gs_base(task, 0);
    if let Some(clean) = FpuState::try_new() {
        clean.load_user(frame);
    }
}
