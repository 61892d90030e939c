//! sendmsg(2), recvmsg(2), and their multi-message forms: vectors of buffers, and ancillary data.
//!
//! `struct msghdr` as the kernel sees it on x86-64 (56 bytes), and a control message behind `msg_control`:
//!
//! ```text
//! msghdr   0 name*  8 namelen(u32)  16 iov*  24 iovlen(u64)  32 control*  40 controllen(u64)  48 flags(u32)
//! cmsghdr  0 len(u64, header included)  8 level(i32)  12 type(i32)  16 data, padded to 8
//! ```

use alloc::vec::Vec;

use libos_core::abi::general::UIO_MAXIOV;
use libos_core::abi::net as linux;
use libos_core::file::{OpenFile, RawFd};
use libos_core::io::{IoDst, IoSrc};
use libos_core::socket::{Control, MsgFlags, SockAddr, Socket};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task, time};

use crate::{refuse_special, send, with_socket};

const SOL_SOCKET: i32 = linux::SOL_SOCKET as i32;
const SCM_RIGHTS: i32 = linux::SCM_RIGHTS as i32;
const SCM_CREDENTIALS: i32 = linux::SCM_CREDENTIALS as i32;

/// `SCM_MAX_FD` of Linux (unix(7)).
const MAX_RIGHTS: usize = 253;
/// `net.core.optmem_max`: the most ancillary data one call may carry.
const MAX_CONTROL_BYTES: usize = 131_072;
/// Bytes of `struct mmsghdr`: a `msghdr` and a length, padded.
const MMSGHDR_BYTES: usize = 64;
/// `struct cmsghdr` without its data.
const CMSG_HEADER_BYTES: usize = 16;

/// The addresses in a `msghdr`.
struct Header {
    at: UserPtr<u8>,
    name: UserPtr<u8>,
    name_len: u32,
    pieces: Vec<UserSlice<u8>>,
    control: UserPtr<u8>,
    control_len: usize,
}

impl Header {
    fn read(at: UserPtr<u8>) -> Result<Header> {
        let piece_count = at.field::<usize>(24).read()?;
        if piece_count > UIO_MAXIOV as usize {
            return Err(Errno::EMSGSIZE);
        }
        let pieces = read_pieces(at.field::<usize>(16).read()?, piece_count)?;
        Ok(Header {
            at,
            name: UserPtr::new(at.field::<usize>(0).read()?),
            name_len: at.field::<u32>(8).read()?,
            pieces,
            control: UserPtr::new(at.field::<usize>(32).read()?),
            control_len: at.field::<usize>(40).read()?,
        })
    }
}

/// Reads an array of `struct iovec` (readv(2)).
fn read_pieces(addr: usize, count: usize) -> Result<Vec<UserSlice<u8>>> {
    let mut total = 0usize;
    let mut pieces = Vec::with_capacity(count);
    for [base, len] in UserSlice::<[usize; 2]>::new(addr, count).ok_or(Errno::EFAULT)?.read_vec()? {
        total = total.checked_add(len).filter(|&t| t <= isize::MAX as usize).ok_or(Errno::EINVAL)?;
        pieces.push(UserSlice::new(base, len).ok_or(Errno::EFAULT)?);
    }
    Ok(pieces)
}

pub(crate) fn sys_sendmsg(task: &Task, fd: RawFd, message: UserPtr<u8>, flags: u32) -> Result<usize> {
    with_socket(task, fd, |file, socket| send_one(task, file, socket, message, MsgFlags::from_bits_retain(flags)))
}

pub(crate) fn sys_recvmsg(task: &Task, fd: RawFd, message: UserPtr<u8>, flags: u32) -> Result<usize> {
    with_socket(task, fd, |file, socket| receive_one(task, file, socket, message, MsgFlags::from_bits_retain(flags)))
}

pub(crate) fn sys_sendmmsg(task: &Task, fd: RawFd, messages: UserPtr<u8>, count: u32, flags: u32) -> Result<usize> {
    with_socket(task, fd, |file, socket| {
        many(messages, count, |at, _| send_one(task, file, socket, at, MsgFlags::from_bits_retain(flags)), || false)
    })
}

pub(crate) fn sys_recvmmsg(
    task: &Task,
    fd: RawFd,
    messages: UserPtr<u8>,
    count: u32,
    flags: u32,
    timeout: UserPtr<[i64; 2]>,
) -> Result<usize> {
    let deadline = match timeout.non_null() {
        None => None,
        Some(timeout) => match timeout.read()? {
            [s, ns @ 0..=999_999_999] if s >= 0 => {
                Some(time::monotonic_ns().saturating_add((s as u64).saturating_mul(1_000_000_000)).saturating_add(ns as u64))
            }
            _ => return Err(Errno::EINVAL),
        },
    };
    let flags = MsgFlags::from_bits_retain(flags);
    with_socket(task, fd, |file, socket| {
        let receive = |at, index: u32| {
            let wait = if index > 0 && flags.contains(MsgFlags::WAITFORONE) { MsgFlags::DONTWAIT } else { MsgFlags::empty() };
            receive_one(task, file, socket, at, (flags - MsgFlags::WAITFORONE) | wait)
        };
        // The timeout is looked at only between messages (recvmmsg(2), "BUGS").
        many(messages, count, receive, || deadline.is_some_and(|d| time::monotonic_ns() >= d))
    })
}

/// Runs `one` for each element until it fails; a failure after the first is reported by the next call, as Linux does.
fn many(
    messages: UserPtr<u8>,
    count: u32,
    mut one: impl FnMut(UserPtr<u8>, u32) -> Result<usize>,
    mut is_over: impl FnMut() -> bool,
) -> Result<usize> {
    let count = count.min(UIO_MAXIOV);
    for index in 0..count {
        let at = messages.field::<u8>(index as usize * MMSGHDR_BYTES);
        let result = one(at, index).and_then(|len| at.field::<u32>(56).write(len as u32));
        match result {
            Err(e) if index == 0 => return Err(e),
            Err(_) => return Ok(index as usize),
            Ok(()) if is_over() => return Ok(index as usize + 1),
            Ok(()) => {}
        }
    }
    Ok(count as usize)
}

fn send_one(task: &Task, file: &OpenFile, socket: &dyn Socket, message: UserPtr<u8>, flags: MsgFlags) -> Result<usize> {
    let header = Header::read(message)?;
    let to = if header.name.is_null() || header.name_len == 0 { None } else { Some(SockAddr::read(header.name, header.name_len)?) };
    let control = read_control(task, &header)?;
    send(file, socket, &mut IoSrc::user_vec(&header.pieces), flags, to.as_ref(), control)
}

/// Decodes the control messages of a send.
fn read_control(task: &Task, header: &Header) -> Result<Vec<Control>> {
    if header.control.is_null() || header.control_len == 0 {
        return Ok(Vec::new());
    }
    if header.control_len > MAX_CONTROL_BYTES {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = alloc::vec![0; header.control_len];
    UserSlice::from_parts(header.control, header.control_len)?.read_to(&mut bytes)?;
    let mut out = Vec::new();
    for (level, kind, data) in parse_control(&bytes)? {
        if level != SOL_SOCKET {
            out.push(Control::Other(level, kind, data.to_vec()));
            continue;
        }
        match kind {
            SCM_RIGHTS => {
                if data.len() / 4 > MAX_RIGHTS {
                    return Err(Errno::EINVAL);
                }
                let fds = data.chunks_exact(4).map(|c| RawFd::from_ne_bytes([c[0], c[1], c[2], c[3]]));
                out.push(Control::Rights(fds.map(|fd| task.files().get(fd)).collect::<Result<_>>()?));
            }
            SCM_CREDENTIALS => {
                let word = |i: usize| -> Result<u32> {
                    let c = data.get(i * 4..i * 4 + 4).ok_or(Errno::EINVAL)?;
                    Ok(u32::from_ne_bytes([c[0], c[1], c[2], c[3]]))
                };
                out.push(Control::Credentials(word(0)? as i32, word(1)?, word(2)?));
            }
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(out)
}

/// Splits the bytes of `msg_control` into (level, type, data).
fn parse_control(bytes: &[u8]) -> Result<Vec<(i32, i32, &[u8])>> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while rest.len() >= CMSG_HEADER_BYTES {
        let mut len = [0; 8];
        len.copy_from_slice(&rest[..8]);
        let word = |i: usize| i32::from_ne_bytes([rest[i], rest[i + 1], rest[i + 2], rest[i + 3]]);
        let len = usize::from_ne_bytes(len);
        if len < CMSG_HEADER_BYTES || len > rest.len() {
            return Err(Errno::EINVAL);
        }
        out.push((word(8), word(12), &rest[CMSG_HEADER_BYTES..len]));
        rest = &rest[len.next_multiple_of(8).min(rest.len())..];
    }
    Ok(out)
}

fn receive_one(task: &Task, file: &OpenFile, socket: &dyn Socket, message: UserPtr<u8>, flags: MsgFlags) -> Result<usize> {
    refuse_special(flags)?;
    let header = Header::read(message)?;
    let mut received = socket.receive(file, &mut IoDst::user_vec(&header.pieces), flags)?;
    if !header.name.is_null() {
        match received.from {
            Some(address) => address.write(header.name, header.at.field(8))?,
            None => header.at.field::<u32>(8).write(0)?,
        }
    }
    let (control_len, truncated) = write_control(task, &header, core::mem::take(&mut received.control), flags)?;
    if truncated {
        received.flags |= linux::MSG_CTRUNC;
    }
    if flags.contains(MsgFlags::CMSG_CLOEXEC) {
        received.flags |= linux::MSG_CMSG_CLOEXEC;
    }
    header.at.field::<usize>(40).write(control_len)?;
    header.at.field::<u32>(48).write(received.flags)?;
    Ok(received.len)
}

/// Encodes control messages for the receiver; returns the bytes written and whether something did not fit.
fn write_control(task: &Task, header: &Header, control: Vec<Control>, flags: MsgFlags) -> Result<(usize, bool)> {
    let room = if header.control.is_null() { 0 } else { header.control_len };
    let mut out = Vec::new();
    let mut truncated = false;
    for item in control {
        match item {
            Control::Rights(files) => {
                let fits = room.saturating_sub(out.len() + CMSG_HEADER_BYTES) / 4;
                truncated |= files.len() > fits;
                let mut data = Vec::new();
                for file in files.into_iter().take(fits) {
                    match task.install(file, flags.contains(MsgFlags::CMSG_CLOEXEC)) {
                        Ok(fd) => data.extend_from_slice(&(fd as RawFd).to_ne_bytes()),
                        Err(_) => {
                            // Out of descriptors: what was passed so far stays, the rest is closed (unix(7)).
                            truncated = true;
                            break;
                        }
                    }
                }
                if !data.is_empty() {
                    append_control(&mut out, SOL_SOCKET, SCM_RIGHTS, &data);
                }
            }
            Control::Credentials(pid, uid, gid) => {
                let mut data = [0; 12];
                for (slot, value) in data.chunks_exact_mut(4).zip([pid as u32, uid, gid]) {
                    slot.copy_from_slice(&value.to_ne_bytes());
                }
                truncated |= !append_if_fits(&mut out, room, SOL_SOCKET, SCM_CREDENTIALS, &data);
            }
            Control::Other(level, kind, data) => truncated |= !append_if_fits(&mut out, room, level, kind, &data),
        }
    }
    // The padding of the last message may stick out of the buffer; Linux does not write it either.
    out.truncate(room);
    if !out.is_empty() {
        UserSlice::from_parts(header.control, out.len())?.write_from(&out)?;
    }
    Ok((out.len(), truncated))
}

fn append_if_fits(out: &mut Vec<u8>, room: usize, level: i32, kind: i32, data: &[u8]) -> bool {
    // Data that fits in part is delivered in part (`put_cmsg` of Linux).
    let Some(left) = room.checked_sub(out.len() + CMSG_HEADER_BYTES) else { return false };
    let count = data.len().min(left);
    append_control(out, level, kind, &data[..count]);
    count == data.len()
}

fn append_control(out: &mut Vec<u8>, level: i32, kind: i32, data: &[u8]) {
    out.extend_from_slice(&(CMSG_HEADER_BYTES + data.len()).to_ne_bytes());
    out.extend_from_slice(&level.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_survive_encoding() {
        let mut bytes = Vec::new();
        append_control(&mut bytes, 1, 1, &7u32.to_ne_bytes());
        append_control(&mut bytes, 41, 50, b"abcdefghi");
        assert_eq!(bytes.len(), 24 + 32);
        let parsed = parse_control(&bytes).unwrap();
        assert_eq!(parsed, [(1, 1, &7u32.to_ne_bytes()[..]), (41, 50, &b"abcdefghi"[..])]);
    }

    #[test]
    fn lying_control_lengths_are_refused() {
        let mut bytes = Vec::new();
        append_control(&mut bytes, 1, 1, &[1, 2, 3, 4]);
        for len in [0usize, 15, 25, usize::MAX] {
            bytes[..8].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(parse_control(&bytes), Err(Errno::EINVAL), "{len}");
        }
        assert_eq!(parse_control(&bytes[..15]), Ok(Vec::new()));
    }
}
