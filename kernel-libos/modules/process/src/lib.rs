//! Processes and threads: fork(2), vfork(2), clone(2), clone3(2), _exit(2), wait4(2), waitid(2), ids, process groups, sessions, pidfds.
//!
//! Differences from Linux: there is one of each namespace, and asking for another is `EPERM` as for an unprivileged caller; `set_tid` of clone3(2) is
//! `EPERM`, `CLONE_INTO_CGROUP` is `EINVAL`; `CLONE_PTRACE` and `CLONE_IO` have no effect.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod ids;
mod pidfd;
mod wait;

use libos_core::abi::general as linux;
use libos_core::dispatch::SyscallContext;
use libos_core::task::clone::{CloneArgs, CloneFlags, NewTask};
use libos_core::task::exit;
use libos_core::task::signal::set::SIGCHLD;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: process,
    needs: [],
    syscalls: {
        exit => sys_exit,
        exit_group => sys_exit_group,
        fork => sys_fork,
        vfork => sys_vfork,
        clone => sys_clone,
        clone3 => sys_clone3: partial "set_tid is EPERM and CLONE_INTO_CGROUP is EINVAL",
        unshare => sys_unshare: partial "namespaces are EPERM",
        setns => sys_setns: partial "always EPERM",
        wait4 => wait::sys_wait4,
        waitid => wait::sys_waitid,
        getpid => ids::sys_getpid,
        gettid => ids::sys_gettid,
        getppid => ids::sys_getppid,
        getpgid => ids::sys_getpgid,
        getpgrp => ids::sys_getpgrp,
        setpgid => ids::sys_setpgid,
        getsid => ids::sys_getsid,
        setsid => ids::sys_setsid,
        set_tid_address => ids::sys_set_tid_address,
        pidfd_open => pidfd::sys_pidfd_open,
        pidfd_send_signal => pidfd::sys_pidfd_send_signal,
        pidfd_getfd => pidfd::sys_pidfd_getfd,
    },
}

fn sys_exit(_task: &Task, code: i32) -> Result<usize> {
    exit::exit_thread(exit::exited(code))
}

fn sys_exit_group(_task: &Task, code: i32) -> Result<usize> {
    exit::exit_group(exit::exited(code))
}

const NOTHING: CloneArgs = CloneArgs { flags: CloneFlags::empty(), exit_signal: SIGCHLD, stack: 0, tls: 0, parent_tid: 0, child_tid: 0 };

fn sys_fork(task: &Task, context: &mut SyscallContext<'_>) -> Result<usize> {
    start(task, context, NOTHING, None)
}

fn sys_vfork(task: &Task, context: &mut SyscallContext<'_>) -> Result<usize> {
    start(task, context, CloneArgs { flags: CloneFlags::VM | CloneFlags::VFORK, ..NOTHING }, None)
}

fn sys_clone(
    task: &Task,
    context: &mut SyscallContext<'_>,
    flags: u64,
    stack: usize,
    parent_tid: UserPtr<i32>,
    child_tid: usize,
    tls: usize,
) -> Result<usize> {
    // The low byte is the signal; bits without meaning are ignored (Linux masks with 32 bits).
    let exit_signal = (flags & 0xff) as u32;
    let flags = CloneFlags::from_bits_truncate(flags & 0xffff_ff00);
    if exit_signal > libos_core::task::signal::set::MAX || flags.contains(CloneFlags::PIDFD | CloneFlags::PARENT_SETTID) {
        return Err(Errno::EINVAL);
    }
    let args = CloneArgs { flags, exit_signal, stack, tls, parent_tid: parent_tid.addr(), child_tid };
    start(task, context, args, flags.contains(CloneFlags::PIDFD).then_some(parent_tid))
}

/// `struct clone_args` in words, up to its largest version.
const CLONE_ARGS_WORDS: usize = linux::CLONE_ARGS_SIZE_VER2 as usize / 8;

fn sys_clone3(task: &Task, context: &mut SyscallContext<'_>, args: UserPtr<u64>, size: usize) -> Result<usize> {
    let words = read_clone_args(args, size)?;
    let (args, pidfd) = decode_clone_args(&words)?;
    start(task, context, args, pidfd.map(UserPtr::new))
}

/// Copies the structure in: a shorter one is filled up with zeros, a longer one must be zero where we do not know it (clone3(2), `E2BIG`).
fn read_clone_args(args: UserPtr<u64>, size: usize) -> Result<[u64; CLONE_ARGS_WORDS]> {
    if size < linux::CLONE_ARGS_SIZE_VER0 as usize {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut words = [0; CLONE_ARGS_WORDS];
    for i in 0..size.div_ceil(8) {
        let word = args.index(i).read()?;
        match words.get_mut(i) {
            Some(slot) => *slot = word,
            None if word != 0 => return Err(Errno::E2BIG),
            None => {}
        }
    }
    Ok(words)
}

fn decode_clone_args(words: &[u64; CLONE_ARGS_WORDS]) -> Result<(CloneArgs, Option<usize>)> {
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _cgroup] = *words;
    let flags = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let no_signal = flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && exit_signal != 0;
    if exit_signal > u64::from(libos_core::task::signal::set::MAX)
        || no_signal
        || flags.intersects(CloneFlags::DETACHED | CloneFlags::INTO_CGROUP)
        || (stack == 0) != (stack_size == 0)
        || (set_tid == 0) != (set_tid_size == 0)
    {
        return Err(Errno::EINVAL);
    }
    if set_tid != 0 {
        return Err(Errno::EPERM);
    }
    let args = CloneArgs {
        flags,
        exit_signal: exit_signal as u32,
        stack: stack.wrapping_add(stack_size) as usize,
        tls: tls as usize,
        parent_tid: parent_tid as usize,
        child_tid: child_tid as usize,
    };
    Ok((args, flags.contains(CloneFlags::PIDFD).then_some(pidfd as usize)))
}

fn start(task: &Task, context: &SyscallContext<'_>, args: CloneArgs, pidfd: Option<UserPtr<i32>>) -> Result<usize> {
    let new = NewTask::new(task, context.frame, args)?;
    let fd = match pidfd {
        Some(ptr) => {
            let fd = pidfd::install(task, new.process().clone(), false)?;
            if let Err(errno) = ptr.write(fd) {
                drop(task.files().remove(fd));
                return Err(errno);
            }
            Some(fd)
        }
        None => None,
    };
    match new.start() {
        Ok(tid) => Ok(tid as usize),
        Err(errno) => {
            if let Some(fd) = fd {
                drop(task.files().remove(fd));
            }
            Err(errno)
        }
    }
}

fn sys_unshare(task: &Task, flags: u64) -> Result<usize> {
    let flags = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let allowed = CloneFlags::NAMESPACES
        | CloneFlags::FS
        | CloneFlags::FILES
        | CloneFlags::SYSVSEM
        | CloneFlags::VM
        | CloneFlags::SIGHAND
        | CloneFlags::THREAD;
    // Memory, handlers and the thread group cannot be left by one of several threads (unshare(2)).
    let whole_process = flags.intersects(CloneFlags::VM | CloneFlags::SIGHAND | CloneFlags::THREAD) && task.process.thread_count() > 1;
    if !allowed.contains(flags) || whole_process {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(CloneFlags::NAMESPACES) {
        return Err(Errno::EPERM);
    }
    if flags.contains(CloneFlags::FS) {
        task.set_fs(alloc::sync::Arc::new(task.fs().duplicate()));
    }
    if flags.contains(CloneFlags::FILES) {
        task.set_files(alloc::sync::Arc::new(task.files().duplicate()));
    }
    Ok(0)
}

fn sys_setns(task: &Task, fd: i32, _kind: i32) -> Result<usize> {
    task.files().get(fd)?;
    Err(Errno::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone3_arguments_are_checked() {
        let ok = [CloneFlags::VM.bits() | CloneFlags::PIDFD.bits(), 0x10, 0x20, 0x30, 17, 0x1000, 0x100, 0x40, 0, 0, 0];
        let (args, pidfd) = decode_clone_args(&ok).expect("valid");
        assert_eq!((args.stack, args.exit_signal, args.tls, args.child_tid, args.parent_tid), (0x1100, 17, 0x40, 0x20, 0x30));
        assert_eq!(pidfd, Some(0x10));
        for (at, value, errno) in [
            (0, 1 << 40, Errno::EINVAL),
            (0, CloneFlags::THREAD.bits(), Errno::EINVAL),
            (0, CloneFlags::INTO_CGROUP.bits(), Errno::EINVAL),
            (4, 65, Errno::EINVAL),
            (6, 0, Errno::EINVAL),
            (8, 1, Errno::EINVAL),
        ] {
            let mut words = ok;
            words[at] = value;
            assert_eq!(decode_clone_args(&words).err(), Some(errno), "{at}");
        }
    }
}
