//! execve(2) and execveat(2).
//!
//! Strings are copied in, `core::exec` builds the new program's memory, `core::task::exec` puts the process into it. Up to that last step everything can
//! fail and the caller goes on as before.
//!
//! Differences from Linux: see `core::exec`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::dispatch::SyscallContext;
use libos_core::exec::{self, Strings, stack::STRING_MAX};
use libos_core::file::RawFd;
use libos_core::user::{UserPtr, UserStr};
use libos_core::vfs::{self, PathRef};
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: exec,
    needs: [],
    syscalls: {
        execve => sys_execve,
        execveat => sys_execveat,
    },
}

type StringTable = UserPtr<usize>;

fn sys_execve(task: &Task, context: &mut SyscallContext<'_>, path: UserStr, args: StringTable, env: StringTable) -> Result<usize> {
    let path = path.read_path()?;
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let place = vfs::lookup(task, &path)?;
    run(task, context, place, &path, args, env)
}

fn sys_execveat(
    task: &Task,
    context: &mut SyscallContext<'_>,
    dir_fd: RawFd,
    path: UserStr,
    args: StringTable,
    env: StringTable,
    flags: u32,
) -> Result<usize> {
    if flags & !(linux::AT_EMPTY_PATH | linux::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path()?;
    let place = if path.is_empty() {
        if flags & linux::AT_EMPTY_PATH == 0 {
            return Err(Errno::ENOENT);
        }
        // The descriptor itself is the program (fexecve(3)).
        task.files().get(dir_fd)?.path.clone().ok_or(Errno::EACCES)?
    } else {
        let follow = flags & linux::AT_SYMLINK_NOFOLLOW == 0;
        let place = vfs::lookup_at(task, dir_fd, &path, follow)?;
        if !follow && place.inode().attributes()?.is_symlink() {
            return Err(Errno::ELOOP);
        }
        place
    };
    run(task, context, place, &shown_path(dir_fd, &path), args, env)
}

/// The program's path as the program itself sees it (execveat(2), "NOTES").
fn shown_path(dir_fd: RawFd, path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') || dir_fd == linux::AT_FDCWD {
        return path.to_vec();
    }
    let mut shown = alloc::format!("/dev/fd/{dir_fd}").into_bytes();
    if !path.is_empty() {
        shown.push(b'/');
        shown.extend_from_slice(path);
    }
    shown
}

fn run(task: &Task, context: &mut SyscallContext<'_>, place: PathRef, path: &[u8], args: StringTable, env: StringTable) -> Result<usize> {
    let mut args = read_strings(args)?;
    let env = read_strings(env)?;
    if args.count() == 0 {
        // Programs take argv[0] for granted (Linux since 5.18).
        args.push(b"")?;
    }
    let loaded = exec::load(task, place, path, args, env)?;
    libos_core::task::exec::become_only_thread(task)?;
    // From here on there is no way back.
    libos_core::task::exec::replace(task, loaded, context.frame);
    Ok(0)
}

/// Reads a table of string pointers that ends with NULL; no table is an empty one (execve(2), NOTES).
fn read_strings(table: StringTable) -> Result<Strings> {
    let mut strings = Strings::default();
    if table.is_null() {
        return Ok(strings);
    }
    for i in 0.. {
        let string = table.index(i).read()?;
        if string == 0 {
            break;
        }
        strings.push(&UserStr::new(string).read(STRING_MAX, Errno::E2BIG)?)?;
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_the_program_sees_them() {
        assert_eq!(shown_path(5, b"/bin/sh"), b"/bin/sh");
        assert_eq!(shown_path(linux::AT_FDCWD, b"sh"), b"sh");
        assert_eq!(shown_path(5, b"sh"), b"/dev/fd/5/sh");
        assert_eq!(shown_path(5, b""), b"/dev/fd/5");
    }
}
