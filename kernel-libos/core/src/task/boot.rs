//! The first tasks: the boot context, which becomes the idle task, and the thread that becomes process 1.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::Result;

use super::limits::Limits;
use super::sched::{SchedState, Start};
use super::signal::SignalHandlers;
use super::{Credentials, Process, Task, TaskParts, cpu, sched, table};
use crate::file::FdTable;

/// Makes the boot context a task, so that there is a current one. `memory_bytes` decides how many tasks there may be.
///
/// # Errors
/// None today: without memory for this the allocator ends the machine.
pub(crate) fn make_idle_task(memory_bytes: u64) -> Result<()> {
    table::set_memory(memory_bytes);
    let idle = Task::new(TaskParts {
        tid: 0,
        process: table::make_kernel_process(),
        mm: None,
        files: None,
        fs: None,
        creds: Arc::new(Credentials::initial(0, 0, Vec::new())),
        name: *b"idle\0\0\0\0\0\0\0\0\0\0\0\0",
        sched: SchedState::boot(),
        is_idle: true,
    });
    cpu::adopt_boot_context(idle);
    Ok(())
}

/// Makes process 1: a thread of the kernel that `f` turns into a program.
///
/// # Errors
/// `ENOMEM`.
pub(crate) fn spawn_first_process(f: impl FnOnce() + Send + 'static) -> Result<()> {
    let tid = table::with(|t| t.choose_tid())?;
    let process = Process::new(tid, 0, tid, tid, Limits::initial(table::max_tasks()), Arc::new(SignalHandlers::new()));
    let task = Task::new(TaskParts {
        tid,
        process: Arc::new(process),
        mm: None,
        files: Some(Arc::new(FdTable::new())),
        fs: None,
        creds: Arc::new(Credentials::initial(0, 0, Vec::new())),
        name: *b"init\0\0\0\0\0\0\0\0\0\0\0\0",
        sched: SchedState::new(Start::Kernel(Box::new(f)), true)?,
        is_idle: false,
    });
    table::with(|t| t.add(&task))?;
    sched::start(task);
    Ok(())
}
