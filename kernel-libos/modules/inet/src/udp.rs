//! Datagram sockets.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering::Relaxed;

use libos_core::abi::net as linux;
use libos_core::file::{FileOps, OpenFile};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::socket::{Control, MsgFlags, Received, Shutdown, SockAddr, Socket, SocketOptions};
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result};
use smoltcp::socket::udp;
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

use crate::AF_INET6;
use crate::address::{self, Target};
use crate::ancillary;
use crate::options::IpOptions;
use crate::ports::{Claim, ClaimId};
use crate::stack::{self, DatagramId};
use crate::tcp::wait_for_address;

/// Linux's default for `SO_RCVBUF`.
const BUFFER_BYTES: u32 = 212_992;
/// What smoltcp keeps for a socket in each direction.
const QUEUE_BYTES: usize = 65_536;
const QUEUE_PACKETS: usize = 64;
/// Largest payload: a 16-bit length less the UDP and IPv4 headers.
const MAX_PAYLOAD: usize = 65_507;
/// Without fragmentation a datagram must fit into one Ethernet packet: 1500 less IPv4 and UDP headers.
const MAX_CARD_PAYLOAD: usize = 1472;
const FIONREAD: u32 = libos_core::abi::ioctl::FIONREAD;

struct Inner {
    bound: Option<(DatagramId, u16, ClaimId)>,
    local: Target,
    peer: Option<IpEndpoint>,
    read_shut: bool,
    write_shut: bool,
}

/// A datagram socket.
pub struct UdpSocket {
    family: i32,
    inner: SpinLock<Inner>,
    options: SocketOptions,
    ip: IpOptions,
    unbound_events: Arc<WaitQueue>,
}

impl UdpSocket {
    /// Returns an unbound socket.
    ///
    /// # Errors
    /// None today; buffers are allocated when it is bound.
    pub fn create(family: i32) -> Result<Arc<UdpSocket>> {
        let inner = Inner { bound: None, local: Target { addr: None, port: 0 }, peer: None, read_shut: false, write_shut: false };
        Ok(Arc::new(UdpSocket {
            family,
            inner: SpinLock::new(inner),
            options: SocketOptions::new(BUFFER_BYTES),
            ip: IpOptions::default(),
            unbound_events: Arc::new(WaitQueue::new()),
        }))
    }

    fn id(&self) -> Option<DatagramId> {
        self.inner.lock().bound.map(|(id, _, _)| id)
    }

    /// Binds to an address and port; 0 is any.
    fn bind_to(&self, target: Target) -> Result<DatagramId> {
        let mut inner = self.inner.lock();
        if inner.bound.is_some() {
            return Err(Errno::EINVAL);
        }
        let is_dual = self.family == AF_INET6 && !self.ip.v6_only.load(Relaxed);
        let claim = Claim {
            addr: target.addr,
            family: self.family,
            is_dual,
            reuse_address: self.options.reuse_address.load(Relaxed),
            reuse_port: self.options.reuse_port.load(Relaxed),
            is_listening: true,
        };
        let socket = udp::Socket::new(buffer()?, buffer()?);
        let (port, claim, id) = stack::with(|s| {
            if target.addr.is_some_and(|a| !s.is_local(&a)) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            let (port, claim) = s.udp_ports.claim(target.port, claim, true)?;
            let local = IpListenEndpoint { addr: target.addr, port };
            Ok((port, claim, s.add_datagram(socket, local, self.family, is_dual)))
        })?;
        inner.bound = Some((id, port, claim));
        inner.local = Target { addr: target.addr, port };
        drop(inner);
        self.unbound_events.wake_all();
        Ok(id)
    }

    /// The bound socket, bound to an ephemeral port if it was not (udp(7)).
    fn bound(&self) -> Result<DatagramId> {
        match self.id() {
            Some(id) => Ok(id),
            None => self.bind_to(Target { addr: None, port: 0 }),
        }
    }
}

fn buffer() -> Result<udp::PacketBuffer<'static>> {
    let mut payload = Vec::new();
    payload.try_reserve_exact(QUEUE_BYTES).map_err(|_| Errno::ENOBUFS)?;
    payload.resize(QUEUE_BYTES, 0);
    Ok(udp::PacketBuffer::new(alloc::vec![udp::PacketMetadata::EMPTY; QUEUE_PACKETS], payload))
}

impl FileOps for UdpSocket {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _: u64) -> Result<usize> {
        self.receive(file, dst, MsgFlags::empty()).map(|r| r.len)
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, _: u64) -> Result<usize> {
        self.send(file, src, MsgFlags::empty(), None, Vec::new())
    }

    fn poll(&self, _: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        let (id, read_shut, write_shut) = {
            let inner = self.inner.lock();
            (inner.bound.map(|b| b.0), inner.read_shut, inner.write_shut)
        };
        let mut events = PollEvents::WRITABLE;
        match id {
            None => table.add(&self.unbound_events),
            Some(id) => {
                table.add(&stack::with(|s| s.datagram(id).events.clone()));
                if stack::with(|s| s.datagram(id).socket().can_recv()) {
                    events |= PollEvents::READABLE;
                }
            }
        }
        if read_shut {
            events |= PollEvents::READABLE | PollEvents::RDHUP;
            if write_shut {
                events |= PollEvents::HUP;
            }
        }
        events
    }

    fn ioctl(&self, _: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        if request != FIONREAD {
            return libos_core::interfaces::ioctl(request, arg);
        }
        // The size of the next datagram (udp(7)).
        let next = self.id().map_or(0, |id| stack::with(|s| s.datagram(id).socket().peek().map_or(0, |(data, _)| data.len())));
        UserPtr::<i32>::new(arg).write(next as i32).map(|()| 0)
    }

    fn stat(&self) -> Result<libos_core::vfs::Stat> {
        Ok(libos_core::socket::stat())
    }

    fn release(&self, _: &OpenFile) {
        let bound = self.inner.lock().bound.take();
        if let Some((id, port, claim)) = bound {
            stack::with(|s| {
                s.remove_datagram(id);
                s.udp_ports.release(port, claim);
            });
        }
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self)
    }

    fn anonymous_name(&self) -> Option<alloc::string::String> {
        Some(libos_core::socket::name(self as *const UdpSocket as usize))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Socket for UdpSocket {
    fn options(&self) -> &SocketOptions {
        &self.options
    }

    fn kind(&self) -> (i32, i32, i32) {
        (self.family, linux::SOCK_DGRAM as i32, linux::IPPROTO_UDP as i32)
    }

    fn bind(&self, addr: &SockAddr) -> Result<()> {
        self.bind_to(address::decode(self.family, addr)?).map(drop)
    }

    fn connect(&self, _: &OpenFile, addr: &SockAddr) -> Result<()> {
        // AF_UNSPEC dissolves the association (connect(2)).
        if addr.family() == 0 {
            self.inner.lock().peer = None;
            if let Some(id) = self.id() {
                stack::with(|s| s.datagram(id).peer = None);
            }
            return Ok(());
        }
        let target = address::decode(self.family, addr)?;
        let peer = IpEndpoint::new(target.addr.unwrap_or(IpAddress::v4(127, 0, 0, 1)), target.port);
        wait_for_address()?;
        let (_, source) = stack::with(|s| s.route(&peer.addr))?;
        let id = self.bound()?;
        let mut inner = self.inner.lock();
        inner.peer = Some(peer);
        // The source address shows in getsockname(2) from now on; getaddrinfo(3) sorts by it.
        let local = inner.local.addr.unwrap_or(source);
        inner.local.addr = Some(local);
        drop(inner);
        stack::with(|s| s.datagram(id).peer = Some(peer));
        Ok(())
    }

    fn send(&self, file: &OpenFile, src: &mut IoSrc<'_>, flags: MsgFlags, to: Option<&SockAddr>, control: Vec<Control>) -> Result<usize> {
        let wish = ancillary::wish(&control)?;
        let (peer, write_shut, local) = {
            let inner = self.inner.lock();
            (inner.peer, inner.write_shut, inner.local)
        };
        if write_shut {
            return Err(Errno::EPIPE);
        }
        let to = match to {
            Some(addr) => {
                let target = address::decode(self.family, addr)?;
                IpEndpoint::new(target.addr.unwrap_or(IpAddress::v4(127, 0, 0, 1)), target.port)
            }
            None => peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        if to.port == 0 {
            return Err(Errno::EINVAL);
        }
        wait_for_address()?;
        let (link, source) = stack::with(|s| s.route(&to.addr))?;
        let limit = if link == stack::LinkId::Card { MAX_CARD_PAYLOAD } else { MAX_PAYLOAD };
        if src.remaining() > limit {
            return Err(Errno::EMSGSIZE);
        }
        let payload = src.pull_all()?;
        let id = self.bound()?;
        let events = stack::with(|s| s.datagram(id).events.clone());
        if wish.source.is_some_and(|a| a.version() != to.addr.version() || !stack::with(|s| s.is_local(&a))) {
            return Err(Errno::EINVAL);
        }
        let class = wish.class.unwrap_or_else(|| self.ip.class());
        let meta = udp::UdpMetadata {
            endpoint: to,
            local_address: wish.source.or(local.addr.filter(|a| a.version() == to.addr.version())).or(Some(source)),
            meta: Default::default(),
        };
        let ttl = wish.hops.unwrap_or(self.ip.ttl.load(Relaxed) as u8);
        let attempt = || {
            stack::with(|s| {
                let socket = s.datagram(id).socket();
                socket.set_hop_limit((ttl != 0).then_some(ttl));
                let result = match socket.send_slice(&payload, meta) {
                    Ok(()) => Ok(payload.len()),
                    Err(udp::SendError::BufferFull) => return None,
                    Err(udp::SendError::Unaddressable) => Err(Errno::EINVAL),
                };
                s.send_datagram(id, link, class);
                Some(result)
            })
        };
        match attempt() {
            Some(result) => result,
            None if file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT) => Err(Errno::EAGAIN),
            None => events.wait_until(self.options.send_deadline(), attempt)?.unwrap_or(Err(Errno::EAGAIN)),
        }
    }

    fn receive(&self, file: &OpenFile, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Received> {
        let id = match self.id() {
            Some(id) => id,
            None if file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT) => return Err(Errno::EAGAIN),
            // Nothing can arrive before it is bound, which another thread may do.
            None => self.unbound_events.wait_until(self.options.receive_deadline(), || self.id())?.ok_or(Errno::EAGAIN)?,
        };
        let attempt = || {
            stack::with(|s| {
                let socket = s.datagram(id).socket();
                if flags.contains(MsgFlags::PEEK) {
                    socket.peek().ok().map(|(data, meta)| (data.to_vec(), *meta))
                } else {
                    socket.recv().ok().map(|(data, meta)| (data.to_vec(), meta))
                }
            })
        };
        let first = attempt();
        let (data, meta) = match first {
            Some(datagram) => datagram,
            None if self.inner.lock().read_shut => return Ok(Received::default()),
            None if file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT) => return Err(Errno::EAGAIN),
            None => {
                let events = stack::with(|s| s.datagram(id).events.clone());
                let shut = || self.inner.lock().read_shut;
                let answer = events.wait_until(self.options.receive_deadline(), || match attempt() {
                    Some(datagram) => Some(Some(datagram)),
                    None => shut().then_some(None),
                })?;
                match answer {
                    Some(Some(datagram)) => datagram,
                    Some(None) => return Ok(Received::default()),
                    None => return Err(Errno::EAGAIN),
                }
            }
        };
        let moved = if data.is_empty() { 0 } else { dst.push(&data)? };
        let is_truncated = moved < data.len();
        Ok(Received {
            len: if flags.contains(MsgFlags::TRUNC) { data.len() } else { moved },
            from: Some(address::encode_endpoint(self.family, meta.endpoint)),
            flags: if is_truncated { linux::MSG_TRUNC } else { 0 },
            control: ancillary::received(self.ip.wanted(), self.family, meta.meta, meta.endpoint.addr, meta.local_address),
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let id = {
            let mut inner = self.inner.lock();
            if inner.peer.is_none() {
                return Err(Errno::ENOTCONN);
            }
            inner.read_shut |= how != Shutdown::Write;
            inner.write_shut |= how != Shutdown::Read;
            inner.bound.map(|b| b.0)
        };
        if let Some(id) = id {
            let events = stack::with(|s| s.datagram(id).events.clone());
            events.wake_all();
        }
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        let local = self.inner.lock().local;
        Ok(address::encode(self.family, local.addr, local.port))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        let peer = self.inner.lock().peer.ok_or(Errno::ENOTCONN)?;
        Ok(address::encode_endpoint(self.family, peer))
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.ip.set(self.family, level, name, value).unwrap_or(Err(Errno::ENOPROTOOPT))
    }

    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        self.ip.get(self.family, level, name).unwrap_or(Err(Errno::ENOPROTOOPT))
    }
}
