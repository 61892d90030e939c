//! The socket: whatever is sent to the kernel is answered into the socket's own queue.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};

use libos_core::abi::net as linux;
use libos_core::file::{FileOps, OpenFile};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::socket::{Control, MsgFlags, Received, Shutdown, SockAddr, Socket, SocketOptions};
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::{Errno, Result, interfaces};

use crate::{AF_NETLINK, route};

/// Interfaces, addresses, routes; and the kernel's device events, of which there are none.
const ROUTE: i32 = 0;
const KOBJECT_UEVENT: i32 = 15;

/// Answers that wait at most; more mean that nobody reads them.
const QUEUE_MAX: usize = 64;

/// Longest request.
const REQUEST_MAX: usize = 65536;

pub struct NetlinkSocket {
    options: SocketOptions,
    kind: i32,
    protocol: i32,
    /// The port id, 0 until it has one.
    port: AtomicU32,
    queue: SpinLock<VecDeque<Vec<u8>>>,
    arrived: Arc<WaitQueue>,
}

pub fn create(kind: i32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    if !matches!(kind as u32, linux::SOCK_RAW | linux::SOCK_DGRAM) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if !matches!(protocol, ROUTE | KOBJECT_UEVENT) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(Arc::new(NetlinkSocket {
        options: SocketOptions::new(212_992),
        kind,
        protocol,
        port: 0.into(),
        queue: SpinLock::new(VecDeque::new()),
        arrived: Arc::new(WaitQueue::new()),
    }))
}

/// `struct sockaddr_nl`: family, padding, port id, groups.
fn address(port: u32) -> SockAddr {
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&(AF_NETLINK as u16).to_ne_bytes());
    bytes[4..8].copy_from_slice(&port.to_ne_bytes());
    SockAddr::from_bytes(&bytes)
}

fn port_of(addr: &SockAddr) -> Result<u32> {
    if i32::from(addr.family()) != AF_NETLINK || addr.bytes().len() < 12 {
        return Err(Errno::EINVAL);
    }
    addr.bytes()[4..].first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

impl NetlinkSocket {
    /// Ids count from above all process ids, so that no program's own choice meets one.
    fn own_port(&self) -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(0x4000_0000);
        if self.port.load(Ordering::Relaxed) == 0 {
            self.port.store(NEXT.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        self.port.load(Ordering::Relaxed)
    }
}

impl FileOps for NetlinkSocket {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _: u64) -> Result<usize> {
        self.receive(file, dst, MsgFlags::empty()).map(|r| r.len)
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, _: u64) -> Result<usize> {
        self.send(file, src, MsgFlags::empty(), None, Vec::new())
    }

    fn poll(&self, _: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.arrived);
        if self.queue.lock().is_empty() { PollEvents::WRITABLE } else { PollEvents::WRITABLE | PollEvents::READABLE }
    }

    fn ioctl(&self, _: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        interfaces::ioctl(request, arg)
    }

    fn stat(&self) -> Result<libos_core::vfs::Stat> {
        Ok(libos_core::socket::stat())
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self)
    }

    fn anonymous_name(&self) -> Option<alloc::string::String> {
        Some(libos_core::socket::name(self as *const NetlinkSocket as usize))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Socket for NetlinkSocket {
    fn options(&self) -> &SocketOptions {
        &self.options
    }

    fn kind(&self) -> (i32, i32, i32) {
        (AF_NETLINK, self.kind, self.protocol)
    }

    fn bind(&self, addr: &SockAddr) -> Result<()> {
        match port_of(addr)? {
            0 => {
                self.own_port();
            }
            port => self.port.store(port, Ordering::Relaxed),
        }
        Ok(())
    }

    fn connect(&self, _: &OpenFile, addr: &SockAddr) -> Result<()> {
        // The kernel is port 0, and there is nobody else.
        if port_of(addr)? == 0 { Ok(()) } else { Err(Errno::ECONNREFUSED) }
    }

    fn send(&self, _: &OpenFile, src: &mut IoSrc<'_>, _: MsgFlags, to: Option<&SockAddr>, _: Vec<Control>) -> Result<usize> {
        if to.map(port_of).transpose()?.is_some_and(|port| port != 0) {
            return Err(Errno::ECONNREFUSED);
        }
        if src.remaining() > REQUEST_MAX {
            return Err(Errno::EMSGSIZE);
        }
        let request = src.pull_all()?;
        if self.protocol == ROUTE {
            let answer = route::answer(&request, self.own_port(), &interfaces::list());
            if !answer.is_empty() {
                let mut queue = self.queue.lock();
                if queue.len() >= QUEUE_MAX {
                    return Err(Errno::ENOBUFS);
                }
                queue.push_back(answer);
                drop(queue);
                self.arrived.wake_all();
            }
        }
        Ok(request.len())
    }

    fn receive(&self, file: &OpenFile, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Received> {
        let peeks = flags.contains(MsgFlags::PEEK);
        let take = || {
            let mut queue = self.queue.lock();
            if peeks { queue.front().cloned() } else { queue.pop_front() }
        };
        let message = if file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT) {
            take().ok_or(Errno::EAGAIN)?
        } else {
            self.arrived.wait_until(self.options.receive_deadline(), take)?.ok_or(Errno::EAGAIN)?
        };
        let moved = dst.push(&message)?;
        let is_cut = moved < message.len();
        Ok(Received {
            len: if flags.contains(MsgFlags::TRUNC) { message.len() } else { moved },
            from: Some(address(0)),
            flags: if is_cut { MsgFlags::TRUNC.bits() } else { 0 },
            control: Vec::new(),
        })
    }

    fn shutdown(&self, _: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn local_address(&self) -> Result<SockAddr> {
        Ok(address(self.port.load(Ordering::Relaxed)))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        Ok(address(0))
    }

    fn set_option(&self, level: i32, _name: i32, _value: &[u8]) -> Result<()> {
        // SOL_NETLINK: groups to join, extended errors, packet information. Nothing ever comes of them.
        if level == 270 { Ok(()) } else { Err(Errno::ENOPROTOOPT) }
    }
}
