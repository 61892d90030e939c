//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).
//!
//! A segment is `SharedMemory` with a key, an owner and times; attaching it is an ordinary shared mapping, so fork, exec, exit and munmap(2) need nothing
//! special. Who is attached is not counted but asked: every area that maps the segment holds a reference to it.
//!
//! Differences from Linux: no huge pages; the time of the last detach and its process are noted by shmdt(2) only, not when a process ends.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod control;
mod table;

use alloc::sync::Arc;

use libos_core::mm::{Limits, MapRequest, PAGE_SIZE, Placement, Protection, VmaFlags};
use libos_core::{Errno, Result, Task};

use table::{TABLE, now};

libos_core::module! {
    name: shm,
    needs: [mm],
    syscalls: {
        shmget => sys_shmget: partial "SHM_HUGETLB finds no huge pages",
        shmat => sys_shmat,
        shmdt => sys_shmdt,
        shmctl => control::sys_shmctl,
    },
}

// Numbers of linux/ipc.h and linux/shm.h.
const IPC_PRIVATE: i32 = 0;
const IPC_CREAT: u32 = 0o1000;
const IPC_EXCL: u32 = 0o2000;
const SHM_HUGETLB: u32 = 0o4000;
const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;

/// Permission bits of a request: read and write for the owner's place.
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const EXEC: u32 = 0o1;

fn sys_shmget(task: &Task, key: i32, size: usize, flags: u32) -> Result<usize> {
    let creds = task.creds();
    let mut table = TABLE.lock();
    table.purge();
    if key != IPC_PRIVATE
        && let Some(segment) = table.by_key(key)
    {
        if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
            return Err(Errno::EEXIST);
        }
        // The lowest permission bits asked for, wherever in the mode they stand (Linux, `ipcperms`).
        segment.check(&creds, (flags >> 6 | flags >> 3 | flags) & 0o7)?;
        if size > segment.size {
            return Err(Errno::EINVAL);
        }
        return Ok(segment.id as usize);
    }
    if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
        return Err(Errno::ENOENT);
    }
    if size == 0 || size > isize::MAX as usize {
        return Err(Errno::EINVAL);
    }
    if flags & SHM_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    table.create(&creds, task.pid(), key, size, flags & 0o777).map(|id| id as usize)
}

fn sys_shmat(task: &Task, id: i32, addr: usize, flags: u32) -> Result<usize> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let placement = match addr {
        0 if flags & SHM_REMAP != 0 => return Err(Errno::EINVAL),
        0 => Placement::Hint(0),
        addr if addr.is_multiple_of(PAGE_SIZE) => fixed(addr, flags),
        addr if flags & SHM_RND != 0 && addr >= PAGE_SIZE => fixed(addr - addr % PAGE_SIZE, flags),
        _ => return Err(Errno::EINVAL),
    };
    let mut protection = Protection::READ;
    let mut wanted = READ;
    let mut vma_flags = VmaFlags::SHARED | VmaFlags::MAY_EXEC;
    if flags & SHM_RDONLY == 0 {
        protection |= Protection::WRITE;
        wanted |= WRITE;
        vma_flags |= VmaFlags::MAY_WRITE;
    }
    if flags & SHM_EXEC != 0 {
        protection |= Protection::EXEC;
        wanted |= EXEC;
    }
    let (memory, size) = {
        let mut table = TABLE.lock();
        table.purge();
        let segment = table.by_id(id)?;
        segment.check(&task.creds(), wanted)?;
        (segment.memory.clone(), segment.size)
    };
    let request = MapRequest {
        placement,
        len_bytes: size,
        protection,
        flags: vma_flags,
        source: Some((memory.clone(), 0)),
        file: None,
        limits: Limits::of(task),
        populate: false,
    };
    let at = task.mm().map(request).map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })?;
    if let Some(segment) = TABLE.lock().by_memory(&*memory) {
        segment.attached_at = now();
        segment.last_pid = task.pid();
    }
    Ok(at)
}

fn fixed(addr: usize, flags: u32) -> Placement {
    if flags & SHM_REMAP != 0 { Placement::Fixed(addr) } else { Placement::FixedNoReplace(addr) }
}

fn sys_shmdt(task: &Task, addr: usize) -> Result<usize> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let memory = task.mm().source_starting_at(addr).ok_or(Errno::EINVAL)?;
    {
        let mut table = TABLE.lock();
        let segment = table.by_memory(&*memory).ok_or(Errno::EINVAL)?;
        segment.detached_at = now();
        segment.last_pid = task.pid();
    }
    task.mm().unmap_source(addr, &memory)?;
    drop(memory);
    // It may have been the last reference to a segment that was removed before.
    TABLE.lock().purge();
    Ok(0)
}

/// A segment as its pages.
type Memory = Arc<libos_core::mm::shared::SharedMemory>;
