//! TCP and UDP over IPv4 and IPv6: the families `AF_INET` and `AF_INET6`.
//!
//! The protocols are smoltcp's. Around them this module adds what a socket API needs: a table that finds a packet's connection by hash, so that the cost
//! of a packet does not grow with the number of connections; listeners with a queue; ports; blocking; readiness.
//!
//! ```text
//! system call ──> tcp, udp (FileOps + Socket) ──> stack: flow table, ports ──> link: smoltcp interface ──> NetDevice
//! interrupt ────────────────────────────────────> stack::ingress ──^
//! ```
//!
//! Everything behind `stack` is one structure under one spin lock: interrupts take it, and nothing in it blocks or touches user memory.
//!
//! Differences from Linux: no raw sockets, no multicast, no out-of-band data; a connection in TIME_WAIT is forgotten at once.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod ancillary;
mod checksum;
mod classify;
mod config;
mod link;
mod options;
mod ports;
mod stack;
mod tcp;
mod udp;

use alloc::sync::Arc;

use libos_core::abi::net as linux;
use libos_core::file::FileOps;
use libos_core::{Errno, Result, socket};

libos_core::module! {
    name: inet,
    needs: [virtio_net],
    init: init,
    syscalls: {},
}

/// `AF_INET` and `AF_INET6` (bits/socket.h; the exported kernel headers do not have them).
pub(crate) const AF_INET: i32 = 2;
pub(crate) const AF_INET6: i32 = 10;

fn init() {
    socket::register(AF_INET, create_v4, None);
    socket::register(AF_INET6, create_v6, None);
    libos_core::interfaces::set_list(|| stack::with(|s| s.interfaces()));
    libos_core::start::after_mount(config::write_resolv_conf);
    libos_core::start::at_shutdown(stack::drain);
}

fn create_v4(kind: i32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    create(AF_INET, kind, protocol)
}

fn create_v6(kind: i32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    create(AF_INET6, kind, protocol)
}

fn create(family: i32, kind: i32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    const TCP: i32 = linux::IPPROTO_TCP as i32;
    const UDP: i32 = linux::IPPROTO_UDP as i32;
    match (kind as u32, protocol) {
        (linux::SOCK_STREAM, 0 | TCP) => Ok(tcp::TcpSocket::create(family)),
        (linux::SOCK_DGRAM, 0 | UDP) => udp::UdpSocket::create(family).map(|s| s as Arc<dyn FileOps>),
        // Raw sockets need CAP_NET_RAW, which no process has here (packet(7), raw(7)).
        (linux::SOCK_RAW, _) => Err(Errno::EPERM),
        (linux::SOCK_STREAM | linux::SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}
