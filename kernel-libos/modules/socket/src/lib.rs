//! The socket system calls: socket(2), bind(2), send(2), recv(2), getsockopt(2) and their relatives.
//!
//! Arguments → [`Socket`] methods → answers. What a socket is, is the family's business (`unix`, `inet`); this module knows addresses only as bytes.
//!
//! Differences from Linux: `MSG_OOB` and `MSG_ERRQUEUE` find nothing; `SO_ATTACH_FILTER` and `SO_BINDTODEVICE` are refused.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod message;
mod options;

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::abi::net as linux;
use libos_core::file::{FileOps, OpenFile, OpenFlags, RawFd};
use libos_core::io::{IoDst, IoSrc};
use libos_core::socket::{self, MsgFlags, Shutdown, SockAddr, Socket};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: socket,
    needs: [fd, inet, netlink, unix],
    syscalls: {
        socket => sys_socket,
        socketpair => sys_socketpair,
        bind => sys_bind,
        listen => sys_listen,
        accept => sys_accept,
        accept4 => sys_accept4,
        connect => sys_connect,
        getsockname => sys_getsockname,
        getpeername => sys_getpeername,
        sendto => sys_sendto,
        recvfrom => sys_recvfrom,
        sendmsg => message::sys_sendmsg,
        recvmsg => message::sys_recvmsg,
        sendmmsg => message::sys_sendmmsg,
        recvmmsg => message::sys_recvmmsg,
        shutdown => sys_shutdown,
        setsockopt => options::sys_setsockopt,
        getsockopt => options::sys_getsockopt,
    },
}

/// `SOCK_CLOEXEC` and `SOCK_NONBLOCK` (socket(2)) have the numbers of the `O_` flags.
const TYPE_FLAGS: i32 = (OpenFlags::CLOEXEC.bits() | OpenFlags::NONBLOCK.bits()) as i32;

/// Looks a descriptor up and calls `f` with the socket behind it.
fn with_socket<R>(task: &Task, fd: RawFd, f: impl FnOnce(&OpenFile, &dyn Socket) -> Result<R>) -> Result<R> {
    let file = task.files().get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let socket = file.ops.as_socket().ok_or(Errno::ENOTSOCK)?;
    f(&file, socket)
}

/// Splits the type argument into type and flags.
fn split_type(kind: i32) -> Result<(i32, OpenFlags)> {
    let flags = OpenFlags::from_bits_retain((kind & TYPE_FLAGS) as u32);
    let kind = kind & !TYPE_FLAGS;
    // `SOCK_TYPE_MASK` of Linux is 0xf: bits above it that are no flags are invalid.
    if kind & !0xf != 0 { Err(Errno::EINVAL) } else { Ok((kind, flags)) }
}

fn install(task: &Task, ops: Arc<dyn FileOps>, flags: OpenFlags) -> Result<usize> {
    let file = OpenFile::new(ops, OpenFlags::RDWR | (flags & OpenFlags::NONBLOCK), None);
    task.install(file, flags.contains(OpenFlags::CLOEXEC))
}

fn sys_socket(task: &Task, family: i32, kind: i32, protocol: i32) -> Result<usize> {
    let (kind, flags) = split_type(kind)?;
    install(task, socket::create(family, kind, protocol)?, flags)
}

fn sys_socketpair(task: &Task, family: i32, kind: i32, protocol: i32, fds: UserPtr<[RawFd; 2]>) -> Result<usize> {
    let (kind, flags) = split_type(kind)?;
    let (a, b) = socket::create_pair(family, kind, protocol)?;
    let first = install(task, a, flags)? as RawFd;
    let result = install(task, b, flags).and_then(|second| match fds.write([first, second as RawFd]) {
        Ok(()) => Ok(0),
        Err(e) => {
            drop(task.files().remove(second as RawFd));
            Err(e)
        }
    });
    if result.is_err() {
        drop(task.files().remove(first));
    }
    result
}

fn sys_bind(task: &Task, fd: RawFd, addr: UserPtr<u8>, len: u32) -> Result<usize> {
    with_socket(task, fd, |_, socket| socket.bind(&SockAddr::read(addr, len)?).map(|()| 0))
}

fn sys_listen(task: &Task, fd: RawFd, backlog: i32) -> Result<usize> {
    with_socket(task, fd, |_, socket| socket.listen(backlog).map(|()| 0))
}

fn sys_accept(task: &Task, fd: RawFd, addr: UserPtr<u8>, len: UserPtr<u32>) -> Result<usize> {
    sys_accept4(task, fd, addr, len, 0)
}

fn sys_accept4(task: &Task, fd: RawFd, addr: UserPtr<u8>, len: UserPtr<u32>, flags: i32) -> Result<usize> {
    if flags & !TYPE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    with_socket(task, fd, |file, socket| {
        let (ops, peer) = socket.accept(file)?;
        let new = install(task, ops, OpenFlags::from_bits_retain(flags as u32))?;
        if let Err(e) = peer.write(addr, len) {
            drop(task.files().remove(new as RawFd));
            return Err(e);
        }
        Ok(new)
    })
}

fn sys_connect(task: &Task, fd: RawFd, addr: UserPtr<u8>, len: u32) -> Result<usize> {
    with_socket(task, fd, |file, socket| socket.connect(file, &SockAddr::read(addr, len)?).map(|()| 0))
}

fn sys_getsockname(task: &Task, fd: RawFd, addr: UserPtr<u8>, len: UserPtr<u32>) -> Result<usize> {
    with_socket(task, fd, |_, socket| write_address(&socket.local_address()?, addr, len))
}

fn sys_getpeername(task: &Task, fd: RawFd, addr: UserPtr<u8>, len: UserPtr<u32>) -> Result<usize> {
    with_socket(task, fd, |_, socket| write_address(&socket.peer_address()?, addr, len))
}

/// Unlike accept(2), these two require the pointers.
fn write_address(address: &SockAddr, addr: UserPtr<u8>, len: UserPtr<u32>) -> Result<usize> {
    len.read()?;
    if addr.is_null() {
        return Err(Errno::EFAULT);
    }
    address.write(addr, len).map(|()| 0)
}

fn sys_sendto(task: &Task, fd: RawFd, buf: UserPtr<u8>, len: usize, flags: u32, to: UserPtr<u8>, to_len: u32) -> Result<usize> {
    with_socket(task, fd, |file, socket| {
        let to = if to.is_null() { None } else { Some(SockAddr::read(to, to_len)?) };
        let mut src = IoSrc::user(UserSlice::from_parts(buf, len)?);
        send(file, socket, &mut src, MsgFlags::from_bits_retain(flags), to.as_ref(), Vec::new())
    })
}

/// Sends, and raises SIGPIPE for a stream whose other side is gone, unless `MSG_NOSIGNAL` (send(2), `EPIPE`).
fn send(
    file: &OpenFile,
    socket: &dyn Socket,
    src: &mut IoSrc<'_>,
    flags: MsgFlags,
    to: Option<&SockAddr>,
    control: Vec<socket::Control>,
) -> Result<usize> {
    if flags.contains(MsgFlags::OOB) {
        return Err(Errno::EOPNOTSUPP);
    }
    let result = socket.send(file, src, flags, to, control);
    if result == Err(Errno::EPIPE) && !flags.contains(MsgFlags::NOSIGNAL) && socket.kind().1 == linux::SOCK_STREAM as i32 {
        libos_core::task::signal::send_to_current(libos_core::abi::general::SIGPIPE);
    }
    result
}

fn sys_recvfrom(
    task: &Task,
    fd: RawFd,
    buf: UserPtr<u8>,
    len: usize,
    flags: u32,
    from: UserPtr<u8>,
    from_len: UserPtr<u32>,
) -> Result<usize> {
    with_socket(task, fd, |file, socket| {
        let flags = MsgFlags::from_bits_retain(flags);
        refuse_special(flags)?;
        let mut dst = IoDst::user(UserSlice::from_parts(buf, len)?);
        let received = socket.receive(file, &mut dst, flags)?;
        if !from.is_null() {
            match received.from {
                Some(address) => address.write(from, from_len)?,
                // A connected stream has no source address to report.
                None => from_len.write(0)?,
            }
        }
        Ok(received.len)
    })
}

/// There is neither out-of-band data nor an error queue.
fn refuse_special(flags: MsgFlags) -> Result<()> {
    if flags.contains(MsgFlags::OOB) {
        Err(Errno::EINVAL)
    } else if flags.contains(MsgFlags::ERRQUEUE) {
        Err(Errno::EAGAIN)
    } else {
        Ok(())
    }
}

fn sys_shutdown(task: &Task, fd: RawFd, how: i32) -> Result<usize> {
    with_socket(task, fd, |_, socket| {
        let how = match how {
            0 => Shutdown::Read,
            1 => Shutdown::Write,
            2 => Shutdown::Both,
            _ => return Err(Errno::EINVAL),
        };
        socket.shutdown(how).map(|()| 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_argument_splits_into_type_and_flags() {
        let stream = linux::SOCK_STREAM as i32;
        assert_eq!(split_type(stream), Ok((stream, OpenFlags::empty())));
        let flags = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK;
        assert_eq!(split_type(stream | flags.bits() as i32), Ok((stream, flags)));
        assert_eq!(split_type(0x10), Err(Errno::EINVAL));
    }
}
