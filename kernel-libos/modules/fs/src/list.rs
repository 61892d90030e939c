//! getdents(2).

use alloc::vec::Vec;

use libos_core::file::RawFd;
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

/// Bytes of entries that one call returns at most; more only means more calls.
const MOST: usize = 64 * 1024;

/// Bytes of `struct linux_dirent64` before the name: inode, offset, length, type (getdents(2)).
const HEADER_64: usize = 19;

/// Bytes of `struct linux_dirent` before the name; its type is in the last byte of the entry.
const HEADER: usize = 18;

pub fn sys_getdents64(task: &Task, fd: RawFd, out: UserPtr<u8>, size: u32) -> Result<usize> {
    list(task, fd, out, size, HEADER_64 + 1)
}

pub fn sys_getdents(task: &Task, fd: RawFd, out: UserPtr<u8>, size: u32) -> Result<usize> {
    list(task, fd, out, size, HEADER + 2)
}

fn list(task: &Task, fd: RawFd, out: UserPtr<u8>, size: u32, beside_name: usize) -> Result<usize> {
    let file = task.files().get(fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    let room = (size as usize).min(MOST);
    let mut bytes: Vec<u8> = Vec::new();
    let mut is_too_small = false;
    // Collected first and copied out last: a directory may not be called back from a page fault on the program's memory.
    file.ops.read_dir(&file, &mut |entry| {
        let len = (beside_name + entry.name.len()).next_multiple_of(8);
        if bytes.len() + len > room || bytes.try_reserve(len).is_err() {
            is_too_small = bytes.is_empty();
            return false;
        }
        let end = bytes.len() + len;
        bytes.extend_from_slice(&entry.ino.to_le_bytes());
        bytes.extend_from_slice(&entry.next.to_le_bytes());
        bytes.extend_from_slice(&(len as u16).to_le_bytes());
        if beside_name == HEADER_64 + 1 {
            bytes.push(entry.kind);
        }
        bytes.extend_from_slice(entry.name);
        bytes.resize(end, 0);
        if beside_name != HEADER_64 + 1 {
            bytes[end - 1] = entry.kind;
        }
        true
    })?;
    if is_too_small {
        return Err(Errno::EINVAL);
    }
    UserSlice::from_parts(out, bytes.len())?.write_from(&bytes)?;
    Ok(bytes.len())
}
