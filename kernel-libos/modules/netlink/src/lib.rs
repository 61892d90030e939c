//! AF_NETLINK sockets (netlink(7), rtnetlink(7)): which interfaces, addresses and routes there are; and the ioctls of netdevice(7) that ask the same.
//!
//! getifaddrs(3), Go's `net.Interfaces`, node's `os.networkInterfaces` and `ip addr` ask by netlink; older programs use ioctls on any socket. A request is
//! answered at once: the answer lies in the socket's queue when sendmsg(2) returns.
//!
//! | file | what it is for |
//! |---|---|
//! | `socket` | the socket: queue, port id |
//! | `route` | requests and answers of rtnetlink |
//! | `ioctl` | `SIOCGIF*` |
//!
//! Differences from Linux: nothing can be changed (`EPERM`), no event ever comes, and only `NETLINK_ROUTE` and `NETLINK_KOBJECT_UEVENT` exist.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod ioctl;
mod route;
mod socket;

use libos_core::{interfaces, socket as core_socket};

libos_core::module! {
    name: netlink,
    needs: [],
    init: init,
    syscalls: {},
}

/// `AF_NETLINK` (bits/socket.h).
pub(crate) const AF_NETLINK: i32 = 16;

fn init() {
    core_socket::register(AF_NETLINK, socket::create, None);
    interfaces::set_ioctl(ioctl::answer);
}
