//! AF_UNIX sockets (unix(7)): streams, datagrams and sequenced packets between processes of this machine.
//!
//! A message goes straight into the receiver's queue; there is no protocol in between. Names are socket files (the file's inode holds on to the socket
//! that was bound to it), or byte strings in the abstract name space.
//!
//! Differences from Linux: files passed in a message that nobody receives, to a socket that is itself only in such a message, are never freed.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod name;
mod queue;
mod socket;

use alloc::sync::Arc;

use libos_core::abi::net as linux;
use libos_core::file::FileOps;
use libos_core::socket as core_socket;
use libos_core::{Errno, Result};

use socket::{Kind, UnixSocket};

libos_core::module! {
    name: unix,
    needs: [],
    init: init,
    syscalls: {},
}

/// `AF_UNIX` (unix(7); not in the exported headers).
pub(crate) const AF_UNIX: i32 = 1;

fn init() {
    core_socket::register(AF_UNIX, create, Some(create_pair));
}

fn kind(kind: i32, protocol: i32) -> Result<Kind> {
    // PF_UNIX is accepted as a protocol number by Linux.
    if protocol != 0 && protocol != AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind as u32 {
        linux::SOCK_STREAM => Ok(Kind::Stream),
        // SOCK_RAW is turned into a datagram socket, as Linux does.
        linux::SOCK_DGRAM | linux::SOCK_RAW => Ok(Kind::Datagram),
        linux::SOCK_SEQPACKET => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

fn create(socket_kind: i32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    Ok(UnixSocket::create(kind(socket_kind, protocol)?))
}

fn create_pair(socket_kind: i32, protocol: i32) -> Result<(Arc<dyn FileOps>, Arc<dyn FileOps>)> {
    let (a, b) = UnixSocket::create_pair(kind(socket_kind, protocol)?);
    Ok((a, b))
}
