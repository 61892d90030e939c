//! epoll(7): epoll_create(2), epoll_ctl(2), epoll_wait(2) and their relatives.
//!
//! Each watched description is an `Item`, which joins the file's wait queues once, when it is added. A wake-up puts the item on the instance's
//! ready list; epoll_wait takes items from the list and asks each file what holds now, so the cost of a wait is that of the ready files, not of all. An item
//! that is level-triggered goes back to the end of the list after it was reported and leaves it when it is found not ready.
//!
//! Items do not keep descriptions open: a description that goes away tells the instance (`file::Watcher`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod instance;
mod item;

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags, RawFd};
use libos_core::poll::PollEvents;
use libos_core::task::signal::{self, SigSet};
use libos_core::time::{Timespec, monotonic_ns};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use instance::Epoll;

libos_core::module! {
    name: epoll,
    needs: [fd],
    syscalls: {
        epoll_create => sys_epoll_create,
        epoll_create1 => sys_epoll_create1,
        epoll_ctl => sys_epoll_ctl,
        epoll_wait => sys_epoll_wait,
        epoll_pwait => sys_epoll_pwait,
        epoll_pwait2 => sys_epoll_pwait2,
    },
}

fn sys_epoll_create(task: &Task, size: i32) -> Result<usize> {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    sys_epoll_create1(task, 0)
}

fn sys_epoll_create1(task: &Task, flags: u32) -> Result<usize> {
    if flags & !linux::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    task.install(OpenFile::new(Epoll::new(), OpenFlags::RDWR, None), flags != 0)
}

/// Events that may come with `EPOLLEXCLUSIVE` (epoll_ctl(2)).
const WITH_EXCLUSIVE: u32 =
    linux::EPOLLIN | linux::EPOLLOUT | linux::EPOLLERR | linux::EPOLLHUP | linux::EPOLLWAKEUP | linux::EPOLLET | linux::EPOLLEXCLUSIVE;

fn sys_epoll_ctl(task: &Task, epoll_fd: RawFd, operation: u32, fd: RawFd, event: UserPtr<linux::epoll_event>) -> Result<usize> {
    let needs_event = operation != linux::EPOLL_CTL_DEL;
    let event = if needs_event { Some(event.read()?) } else { None };
    let (events, data) = event.map_or((0, 0), |event| (event.events, event.data));
    let files = task.files();
    let epoll_file = files.get(epoll_fd)?;
    let file = files.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let is_file = matches!(file.stat()?.mode & linux::S_IFMT, linux::S_IFREG | linux::S_IFDIR);
    if is_file {
        // Files that are always ready have nothing to tell (epoll_ctl(2), EPERM).
        return Err(Errno::EPERM);
    }
    let epoll = epoll_file.ops.as_any().downcast_ref::<Epoll>().ok_or(Errno::EINVAL)?;
    if alloc::sync::Arc::ptr_eq(&epoll_file, &file) {
        return Err(Errno::EINVAL);
    }
    if events & linux::EPOLLEXCLUSIVE != 0 {
        let is_epoll = file.ops.as_any().is::<Epoll>();
        if operation == linux::EPOLL_CTL_MOD || is_epoll || events & !WITH_EXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
    }
    match operation {
        linux::EPOLL_CTL_ADD => epoll.add(fd, &file, events, data),
        linux::EPOLL_CTL_MOD => epoll.modify(fd, &file, events, data),
        linux::EPOLL_CTL_DEL => epoll.remove(fd, &file),
        _ => Err(Errno::EINVAL),
    }?;
    Ok(0)
}

fn sys_epoll_wait(task: &Task, fd: RawFd, events: UserPtr<linux::epoll_event>, max: i32, timeout_ms: i32) -> Result<usize> {
    let timeout_ns = u64::try_from(timeout_ms).ok().map(|ms| ms * 1_000_000);
    wait(task, fd, events, max, timeout_ns, None)
}

fn sys_epoll_pwait(
    task: &Task,
    fd: RawFd,
    events: UserPtr<linux::epoll_event>,
    max: i32,
    timeout_ms: i32,
    mask: UserPtr<u64>,
    mask_size: usize,
) -> Result<usize> {
    let timeout_ns = u64::try_from(timeout_ms).ok().map(|ms| ms * 1_000_000);
    wait(task, fd, events, max, timeout_ns, read_mask(mask, mask_size)?)
}

fn sys_epoll_pwait2(
    task: &Task,
    fd: RawFd,
    events: UserPtr<linux::epoll_event>,
    max: i32,
    timeout: UserPtr<[i64; 2]>,
    mask: UserPtr<u64>,
    mask_size: usize,
) -> Result<usize> {
    let timeout_ns = match timeout.non_null() {
        None => None,
        Some(timeout) => {
            let [sec, nsec] = timeout.read()?;
            Some(Timespec { sec, nsec }.to_ns()?)
        }
    };
    wait(task, fd, events, max, timeout_ns, read_mask(mask, mask_size)?)
}

/// A signal mask argument: null is none; a `sigset_t` of the kernel has 8 bytes.
fn read_mask(mask: UserPtr<u64>, size: usize) -> Result<Option<SigSet>> {
    if !mask.is_null() && size != 8 {
        return Err(Errno::EINVAL);
    }
    mask.non_null().map(|mask| mask.read().map(SigSet)).transpose()
}

/// Most events per call: `INT_MAX` bytes of them (Linux, `EP_MAX_EVENTS`).
const MAX_EVENTS: i32 = i32::MAX / size_of::<linux::epoll_event>() as i32;

fn wait(
    task: &Task,
    fd: RawFd,
    out: UserPtr<linux::epoll_event>,
    max: i32,
    timeout_ns: Option<u64>,
    mask: Option<SigSet>,
) -> Result<usize> {
    if max <= 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    let file = task.files().get(fd)?;
    let epoll = file.ops.as_any().downcast_ref::<Epoll>().ok_or(Errno::EINVAL)?;
    let deadline = timeout_ns.map(|ns| monotonic_ns().saturating_add(ns));
    let result = signal::with_mask(task, mask, || epoll.wait(deadline, max as usize, out));
    // Never restarted, whatever the handler says (signal(7)).
    result.map_err(|errno| if errno == Errno::ERESTARTSYS { Errno::EINTR } else { errno })
}

/// Bits that are reported whether asked for or not.
const ALWAYS: PollEvents = PollEvents::ERR.union(PollEvents::HUP);
