//! The network stack's one shared structure: links, connections, listeners, datagram sockets, ports, timers.
//!
//! Every entry runs as: take the lock, do something, then [`Stack::settle`]: deliver what loopback sent to itself, tell the card, set the timer. Nothing
//! in here blocks, allocates for a program without a limit, or touches user memory, so the card's interrupt calls it directly.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use core::net::IpAddr;
use hashbrown::HashMap;

use libos_core::interfaces::Interface;
use libos_core::sync::SpinLock;
use libos_core::task::wait::{WaitQueue, Wake, wait_in};
use libos_core::{Errno, Result, device, mm, time};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use crate::classify::{Class, Segment};
use crate::config::Dhcp;
use crate::link::Link;
use crate::ports::{ClaimId, Ports};
use crate::{AF_INET6, checksum, config};

/// How long a connection whose program closed it may take to finish (`tcp_fin_timeout` of Linux).
const DETACHED_NS: u64 = 60_000_000_000;
/// Timer key of everything that is no flow: DHCP.
const MISC: usize = usize::MAX;

/// One of the two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkId {
    /// `lo`.
    Loopback,
    /// `eth0`.
    Card,
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FlowKey {
    local: IpEndpoint,
    remote: IpEndpoint,
}

/// A place in one of the tables below.
pub type FlowId = usize;
/// Likewise.
pub type ListenerId = usize;
/// Likewise.
pub type DatagramId = usize;

/// A TCP connection.
pub struct Flow {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    link: LinkId,
    key: FlowKey,
    /// Woken on every change that a program can see.
    pub events: Arc<WaitQueue>,
    /// Where it goes once established, until accept(2) takes it.
    listener: Option<ListenerId>,
    /// Whether it was ever established.
    pub is_open: bool,
    /// Whether no descriptor refers to it any more.
    is_detached: bool,
    /// Why it ended, if not in order; taken once.
    pub error: Option<Errno>,
    /// Whether our side has ended it on purpose.
    closing: bool,
    deadline: Option<u64>,
    /// Its one entry in [`Stack::deadlines`]. It may be too early, never too late: a deadline that moves back, as with every acknowledgement, leaves it.
    queued: Option<u64>,
    give_up_at: Option<u64>,
    claim: Option<(u16, ClaimId)>,
    seen: Seen,
}

/// What a program could see when it was last told.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: tcp::State,
    received: usize,
    is_writable: bool,
}

impl Flow {
    /// The smoltcp socket.
    pub fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Own address.
    pub fn local(&self) -> IpEndpoint {
        self.key.local
    }

    /// The peer's address.
    pub fn remote(&self) -> IpEndpoint {
        self.key.remote
    }

    /// Whether there is room for a good piece of data: a third of the buffer, as Linux has it (`sk_stream_is_writeable`).
    pub fn is_writable(&mut self) -> bool {
        let socket = self.socket();
        let room = socket.send_capacity() - socket.send_queue();
        socket.may_send() && room * 3 >= socket.send_capacity()
    }

    fn look(&mut self) -> Seen {
        let is_writable = self.is_writable();
        let socket = self.socket();
        Seen { state: socket.state(), received: socket.recv_queue(), is_writable }
    }
}

/// A listening socket.
pub struct Listener {
    addr: Option<IpAddress>,
    port: u16,
    family: i32,
    is_dual: bool,
    /// Most connections that wait for accept(2), handshakes included.
    pub backlog: usize,
    /// Connections in the handshake.
    opening: usize,
    /// Connections to be accepted.
    pub ready: VecDeque<FlowId>,
    /// Woken when one arrives.
    pub events: Arc<WaitQueue>,
}

/// A UDP socket.
pub struct Datagram {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// Bound address and port.
    pub local: IpListenEndpoint,
    /// Only datagrams from here are received (connect(2)).
    pub peer: Option<IpEndpoint>,
    family: i32,
    is_dual: bool,
    /// Woken on arrival.
    pub events: Arc<WaitQueue>,
}

impl Datagram {
    /// The smoltcp socket.
    pub fn socket(&mut self) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// Everything.
pub struct Stack {
    loopback: Box<Link>,
    card: Option<Box<Link>>,
    flows: Slab<Flow>,
    by_key: HashMap<FlowKey, FlowId>,
    listeners: Slab<Listener>,
    listeners_by_port: HashMap<u16, Vec<ListenerId>>,
    datagrams: Slab<Datagram>,
    datagrams_by_port: HashMap<u16, Vec<DatagramId>>,
    /// TCP ports.
    pub tcp_ports: Ports,
    /// UDP ports.
    pub udp_ports: Ports,
    /// No sockets: what goes here is answered by the interface itself (ARP, echo) or refused.
    nobody: SocketSet<'static>,
    dhcp: Option<Dhcp>,
    deadlines: BTreeSet<(u64, usize)>,
    armed: Option<(u64, time::TimerId)>,
    /// Whether something was sent or a deadline moved since [`Stack::settle`]; most calls only look.
    is_unsettled: bool,
    /// Woken when the card got its address.
    pub configured: Arc<WaitQueue>,
}

static STACK: SpinLock<Option<Box<Stack>>> = SpinLock::new(None);

/// Runs `f` on the stack and then everything that follows from it. The first call makes the stack: a program that never uses the network does not pay
/// for it.
pub fn with<R>(f: impl FnOnce(&mut Stack) -> R) -> R {
    let mut guard = STACK.lock();
    let (stack, is_new) = match &mut *guard {
        Some(stack) => (stack, false),
        none => (none.insert(Stack::boxed()), true),
    };
    let result = f(stack);
    if stack.is_unsettled {
        stack.settle();
    }
    drop(guard);
    if is_new {
        start_card();
    }
    result
}

/// Lets the card deliver to the new stack. Outside the stack's lock: the driver may deliver what it has at once.
#[inline(never)]
fn start_card() {
    if let Some(card) = device::DEVICES.lock().net.first().cloned() {
        card.set_handler(Arc::new(on_interrupt));
        // The answer to what starting has sent may be there already.
        on_interrupt();
    }
}

/// The card has packets, or room for more.
fn on_interrupt() {
    let mut guard = STACK.lock();
    if let Some(stack) = &mut *guard {
        stack.receive_all();
        stack.settle();
    }
}

/// The stack's entry in the kernel's timer queue.
struct TimerFired;

impl Wake for TimerFired {
    fn wake(&self) {
        let mut guard = STACK.lock();
        if let Some(stack) = &mut *guard {
            stack.armed = None;
            stack.run_timers();
            stack.settle();
        }
    }
}

fn now() -> Instant {
    Instant::from_micros((time::monotonic_ns() / 1000) as i64)
}

/// How long the machine waits at its end for what programs have sent.
const DRAIN_NS: u64 = 2_000_000_000;
/// How often it looks.
const DRAIN_STEP_NS: u64 = 2_000_000;

/// Lets what programs have sent reach the other side before the machine is turned off: on Linux the kernel outlives the program and does the same.
pub fn drain() {
    let give_up_at = time::monotonic_ns() + DRAIN_NS;
    let never = WaitQueue::new();
    let is_pending = || STACK.lock().as_mut().is_some_and(|stack| stack.is_sending());
    while is_pending() && time::monotonic_ns() < give_up_at {
        // Packets and timers come as interrupts meanwhile; nobody wakes this queue.
        let _ = wait_in(&[&never], Some(time::monotonic_ns() + DRAIN_STEP_NS), false, || None::<()>);
    }
}

impl Stack {
    /// Whether a peer outside the machine has not acknowledged everything yet.
    fn is_sending(&mut self) -> bool {
        let ids: Vec<FlowId> = self.flows.iter().filter(|(_, f)| f.link == LinkId::Card && f.is_open).map(|(id, _)| id).collect();
        ids.into_iter().any(|id| {
            let socket = self.flow(id).socket();
            let is_closing = matches!(socket.state(), tcp::State::FinWait1 | tcp::State::LastAck | tcp::State::Closing);
            socket.send_queue() > 0 && socket.state() != tcp::State::Closed || is_closing
        })
    }

    /// Makes the stack out of line: its value must not widen the frame of every call that could be the first.
    #[inline(never)]
    fn boxed() -> Box<Stack> {
        Box::new(Stack::new())
    }

    fn new() -> Stack {
        let random = [libos_core::arch::rng::entropy_mix(), libos_core::arch::rng::entropy_mix()];
        let seed = random[0];
        let mut loopback = Link::loopback(seed);
        loopback.interface.update_ip_addrs(|addrs| {
            let _ = addrs.push(IpCidr::new(IpAddress::v4(127, 0, 0, 1), 8));
            let _ = addrs.push(IpCidr::new(IpAddress::v6(0, 0, 0, 0, 0, 0, 0, 1), 128));
        });
        let card = device::DEVICES.lock().net.first().cloned();
        let card = card.map(|device| Link::card(device, seed.rotate_left(17)));
        let mut stack = Stack {
            loopback,
            card,
            flows: Slab::new(),
            by_key: HashMap::default(),
            listeners: Slab::new(),
            listeners_by_port: HashMap::default(),
            datagrams: Slab::new(),
            datagrams_by_port: HashMap::default(),
            tcp_ports: Ports::default(),
            udp_ports: Ports::default(),
            nobody: SocketSet::new(Vec::new()),
            dhcp: None,
            deadlines: BTreeSet::new(),
            armed: None,
            is_unsettled: true,
            configured: Arc::new(WaitQueue::new()),
        };
        stack.tcp_ports.seed(random[1] as u16);
        stack.udp_ports.seed((random[1] >> 16) as u16);
        if stack.card.is_some() {
            match config::settings() {
                config::Settings::None => {}
                config::Settings::Dhcp => stack.dhcp = Some(Dhcp::new()),
                config::Settings::Static { cidr, gateway } => stack.configure(&[cidr], gateway),
            }
            stack.after_misc();
        }
        stack
    }

    /// Gives the card its addresses and default route.
    fn configure(&mut self, cidrs: &[IpCidr], gateway: Option<IpAddress>) {
        let Some(card) = &mut self.card else { return };
        card.interface.update_ip_addrs(|addrs| {
            addrs.clear();
            addrs.extend(cidrs.iter().copied().take(4));
        });
        let routes = card.interface.routes_mut();
        match gateway {
            Some(IpAddress::Ipv4(v4)) => drop(routes.add_default_ipv4_route(v4)),
            Some(IpAddress::Ipv6(v6)) => drop(routes.add_default_ipv6_route(v6)),
            None => drop(routes.remove_default_ipv4_route()),
        }
        // A connection to our own address goes over loopback.
        self.loopback.interface.update_ip_addrs(|addrs| {
            addrs.truncate(2);
            addrs.extend(
                cidrs.iter().map(|cidr| IpCidr::new(cidr.address(), if matches!(cidr, IpCidr::Ipv4(_)) { 32 } else { 128 })).take(4),
            );
        });
        self.configured.wake_all();
    }

    /// Whether the card has an address, or never will.
    pub fn is_configured(&self) -> bool {
        self.card.as_ref().is_none_or(|card| !card.interface.ip_addrs().is_empty()) || self.dhcp.is_none()
    }

    /// The links as programs see them.
    pub fn interfaces(&mut self) -> Vec<Interface> {
        let addresses = |link: &Link| -> Vec<(IpAddr, u8)> {
            link.interface.ip_addrs().iter().map(|cidr| (cidr.address().into(), cidr.prefix_len())).collect()
        };
        let lo = Interface {
            index: 1,
            name: "lo",
            mac: [0; 6],
            mtu: 65536,
            is_loopback: true,
            // The loopback link answers for the card's addresses, too; they are the card's all the same.
            addresses: addresses(&self.loopback).into_iter().filter(|(address, _)| address.is_loopback()).collect(),
            gateway: None,
        };
        let mut all = Vec::from([lo]);
        if let Some(card) = &mut self.card {
            let mut gateway = None;
            card.interface.routes_mut().update(|routes| {
                gateway = routes.iter().find(|r| r.cidr.prefix_len() == 0).map(|r| r.via_router.into());
            });
            let (mac, mtu) = card.device().map_or(([0; 6], 1500), |device| (device.mac(), device.mtu() as u32));
            all.push(Interface { index: 2, name: "eth0", mac, mtu, is_loopback: false, addresses: addresses(card), gateway });
        }
        all
    }

    /// Which link reaches a destination, and the source address to use.
    ///
    /// # Errors
    /// `ENETUNREACH`.
    pub fn route(&self, to: &IpAddress) -> Result<(LinkId, IpAddress)> {
        let is_loopback = match to {
            IpAddress::Ipv4(v4) => v4.is_loopback(),
            IpAddress::Ipv6(v6) => v6.is_loopback(),
        };
        if is_loopback || self.loopback.interface.has_ip_addr(*to) {
            return Ok((LinkId::Loopback, *to));
        }
        let card = self.card.as_ref().ok_or(Errno::ENETUNREACH)?;
        match (to, card.interface.ipv4_addr()) {
            (IpAddress::Ipv4(_), None) => return Err(Errno::ENETUNREACH),
            (IpAddress::Ipv6(_), _) if card.interface.ipv6_addr().is_none() => return Err(Errno::ENETUNREACH),
            _ => {}
        }
        card.interface.get_source_address(to).map(|from| (LinkId::Card, from)).ok_or(Errno::ENETUNREACH)
    }

    /// Whether bind(2) may use an address.
    pub fn is_local(&self, addr: &IpAddress) -> bool {
        let is_loopback = matches!(addr, IpAddress::Ipv4(v4) if v4.is_loopback());
        is_loopback || self.loopback.interface.has_ip_addr(*addr)
    }

    // --- Connections ---

    /// A connection by its id; ids stay valid until [`Stack::detach`].
    pub fn flow(&mut self, id: FlowId) -> &mut Flow {
        self.flows.get_mut(id).expect("a socket holds its connection")
    }

    /// Starts a connection (connect(2)).
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when the pair of endpoints is in use.
    pub fn connect(&mut self, link: LinkId, local: IpEndpoint, remote: IpEndpoint, claim: Option<(u16, ClaimId)>) -> Result<FlowId> {
        let key = FlowKey { local, remote };
        if self.by_key.contains_key(&key) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let id = self.add_flow(link, key, None, |_| Ok(()))?;
        let flow = self.flows.get_mut(id).expect("just added");
        flow.claim = claim;
        let interface = match link {
            LinkId::Loopback => &mut self.loopback.interface,
            LinkId::Card => &mut self.card.as_mut().expect("routed there").interface,
        };
        let socket = flow.sockets.get_mut::<tcp::Socket>(flow.handle);
        if socket.connect(interface.context(), remote, local).is_err() {
            self.remove_flow(id);
            return Err(Errno::EADDRNOTAVAIL);
        }
        flow.seen.state = tcp::State::SynSent;
        self.after_flow(id);
        Ok(id)
    }

    fn add_flow(
        &mut self,
        link: LinkId,
        key: FlowKey,
        listener: Option<ListenerId>,
        prepare: impl FnOnce(&mut tcp::Socket<'static>) -> Result<()>,
    ) -> Result<FlowId> {
        let bytes = buffer_bytes();
        let buffer = || -> Result<tcp::SocketBuffer<'static>> {
            let mut buffer = Vec::new();
            buffer.try_reserve_exact(bytes).map_err(|_| Errno::ENOBUFS)?;
            buffer.resize(bytes, 0);
            Ok(tcp::SocketBuffer::new(buffer))
        };
        let mut socket = tcp::Socket::new(buffer()?, buffer()?);
        prepare(&mut socket)?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let id = self.flows.insert(Flow {
            sockets,
            handle,
            link,
            key,
            events: Arc::new(WaitQueue::new()),
            listener,
            is_open: false,
            is_detached: false,
            error: None,
            closing: false,
            deadline: None,
            queued: None,
            give_up_at: None,
            claim: None,
            seen: Seen { state: tcp::State::Listen, received: 0, is_writable: false },
        });
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// Ends our side of a connection (shutdown(2)).
    pub fn close_flow(&mut self, id: FlowId) {
        let flow = self.flow(id);
        flow.closing = true;
        flow.socket().close();
        self.after_flow(id);
    }

    /// The last descriptor of a connection is gone. `abort` sends a reset instead of finishing in order.
    pub fn detach(&mut self, id: FlowId, abort: bool) {
        let flow = self.flow(id);
        flow.is_detached = true;
        flow.closing = true;
        if abort {
            flow.socket().abort();
        } else {
            flow.socket().close();
        }
        flow.give_up_at = Some(time::monotonic_ns() + DETACHED_NS);
        self.after_flow(id);
    }

    /// After a program has read from a connection. The peer hears of the room only when much of the buffer was in use, `queued` bytes of it: a window
    /// that was open stays open.
    pub fn after_read(&mut self, id: FlowId, queued: usize) {
        let flow = self.flow(id);
        if queued * 2 >= flow.socket().recv_capacity() {
            self.after_flow(id);
        } else {
            // What arrives next is news, even if it is as much as there was before.
            flow.seen.received = flow.socket().recv_queue();
        }
    }

    /// Sends what a connection has to send and draws the consequences of its state.
    pub fn after_flow(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        self.is_unsettled = true;
        let now = now();
        let link = match flow.link {
            LinkId::Loopback => &mut self.loopback,
            LinkId::Card => self.card.as_mut().expect("the flow came from there"),
        };
        let wanted = link.egress(now, &mut flow.sockets).map(|at| at.total_micros() as u64 * 1000);
        let wanted = [wanted, flow.give_up_at].into_iter().flatten().min();
        flow.deadline = wanted;
        if let Some(new) = wanted
            && flow.queued.is_none_or(|queued| new < queued)
        {
            if let Some(old) = flow.queued.replace(new) {
                self.deadlines.remove(&(old, id));
            }
            self.deadlines.insert((new, id));
        }

        let before = flow.seen;
        let mut seen = flow.look();
        if flow.is_detached && seen.received > 0 {
            // Data that nobody will ever read is answered by a reset, so that its sender does not fill the window and wait (RFC 2525, 2.17).
            flow.socket().abort();
            link.egress(now, &mut flow.sockets);
            seen = flow.look();
        }
        flow.seen = seen;
        let is_established = !matches!(seen.state, tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Closed);
        if is_established && !flow.is_open {
            flow.is_open = true;
            if let Some(listener) = flow.listener.and_then(|l| self.listeners.get_mut(l)) {
                listener.opening -= 1;
                listener.ready.push_back(id);
                listener.events.wake_one();
            }
        }
        if seen.state == tcp::State::Closed && before.state != tcp::State::Closed {
            if !flow.is_open && flow.listener.is_some() {
                // The handshake came to nothing; nobody has seen it.
                if let Some(listener) = flow.listener.and_then(|l| self.listeners.get_mut(l)) {
                    listener.opening -= 1;
                }
                self.remove_flow(id);
                return;
            }
            // After FIN from both sides the end is in order; before, it was a reset or a timeout.
            let in_order = matches!(before.state, tcp::State::LastAck | tcp::State::TimeWait | tcp::State::Closing);
            if !in_order && !flow.is_detached {
                let timed_out = flow.deadline.is_some_and(|d| d <= time::monotonic_ns());
                flow.error = Some(match (flow.is_open, timed_out) {
                    (_, true) => Errno::ETIMEDOUT,
                    (true, false) => Errno::ECONNRESET,
                    (false, false) => Errno::ECONNREFUSED,
                });
            }
        }
        if seen != before {
            flow.events.wake_all();
        }
        let is_over = matches!(seen.state, tcp::State::Closed | tcp::State::TimeWait);
        if flow.is_detached && is_over {
            self.remove_flow(id);
        }
    }

    fn remove_flow(&mut self, id: FlowId) {
        let Some(flow) = self.flows.remove(id) else { return };
        self.by_key.remove(&flow.key);
        if let Some(queued) = flow.queued {
            self.deadlines.remove(&(queued, id));
        }
        if let Some((port, claim)) = flow.claim {
            self.tcp_ports.release(port, claim);
        }
    }

    // --- Listeners ---

    /// A listener by its id; ids stay valid until [`Stack::remove_listener`].
    pub fn listener(&mut self, id: ListenerId) -> &mut Listener {
        self.listeners.get_mut(id).expect("a socket holds its listener")
    }

    /// Starts to listen.
    pub fn add_listener(&mut self, addr: Option<IpAddress>, port: u16, family: i32, is_dual: bool, backlog: usize) -> ListenerId {
        let events = Arc::new(WaitQueue::new());
        let id = self.listeners.insert(Listener { addr, port, family, is_dual, backlog, opening: 0, ready: VecDeque::new(), events });
        self.listeners_by_port.entry(port).or_default().push(id);
        id
    }

    /// Takes the next connection of a listener.
    pub fn accept(&mut self, id: ListenerId) -> Option<FlowId> {
        let flow = self.listener(id).ready.pop_front()?;
        self.flow(flow).listener = None;
        Some(flow)
    }

    /// Stops to listen; connections nobody accepted are reset.
    pub fn remove_listener(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.remove(id) else { return };
        if let Some(ids) = self.listeners_by_port.get_mut(&listener.port) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.listeners_by_port.remove(&listener.port);
            }
        }
        let orphans: Vec<FlowId> = self.flows.iter().filter(|(_, f)| f.listener == Some(id)).map(|(i, _)| i).collect();
        for flow in orphans {
            self.flow(flow).listener = None;
            self.detach(flow, true);
        }
    }

    /// The listener for a connection to `to`: an exact address before a wildcard; among several of one port (`SO_REUSEPORT`) the peer's hash decides.
    fn find_listener(&self, segment: &Segment) -> Option<ListenerId> {
        let ids = self.listeners_by_port.get(&segment.to.port)?;
        let matching = |exact: bool| {
            ids.iter().copied().filter(move |&id| {
                self.listeners.get(id).is_some_and(|l| match l.addr {
                    Some(addr) => exact && addr == segment.to.addr,
                    None => !exact && covers(l.family, l.is_dual, &segment.to.addr),
                })
            })
        };
        for exact in [true, false] {
            let count = matching(exact).count();
            if count > 0 {
                return matching(exact).nth(usize::from(segment.from.port) % count);
            }
        }
        None
    }

    // --- Datagrams ---

    /// A UDP socket by its id; ids stay valid until [`Stack::remove_datagram`].
    pub fn datagram(&mut self, id: DatagramId) -> &mut Datagram {
        self.datagrams.get_mut(id).expect("a socket holds its datagram socket")
    }

    /// Adds a bound UDP socket.
    pub fn add_datagram(&mut self, mut socket: udp::Socket<'static>, local: IpListenEndpoint, family: i32, is_dual: bool) -> DatagramId {
        // The address is matched here, so that smoltcp takes whatever it is handed.
        let bound = socket.bind(IpListenEndpoint { addr: None, port: local.port });
        debug_assert!(bound.is_ok(), "a new socket with a port can be bound");
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let events = Arc::new(WaitQueue::new());
        let id = self.datagrams.insert(Datagram { sockets, handle, local, peer: None, family, is_dual, events });
        self.datagrams_by_port.entry(local.port).or_default().push(id);
        id
    }

    /// Removes a UDP socket.
    pub fn remove_datagram(&mut self, id: DatagramId) {
        // What was sent but waits for a neighbour's address goes out now or not at all.
        if let Some(datagram) = self.datagrams.remove(id)
            && let Some(ids) = self.datagrams_by_port.get_mut(&datagram.local.port)
        {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.datagrams_by_port.remove(&datagram.local.port);
            }
        }
    }

    /// Sends what a UDP socket has to send over the link that reaches `to`.
    pub fn send_datagram(&mut self, id: DatagramId, link: LinkId, class: u8) {
        let Some(datagram) = self.datagrams.get_mut(id) else { return };
        self.is_unsettled = true;
        let link = match link {
            LinkId::Loopback => &mut self.loopback,
            LinkId::Card => match &mut self.card {
                Some(card) => card,
                None => return,
            },
        };
        link.egress_with_class(now(), &mut datagram.sockets, class);
    }

    fn find_datagram(&self, segment: &Segment) -> Option<DatagramId> {
        let ids = self.datagrams_by_port.get(&segment.to.port)?;
        let score = |d: &Datagram| {
            let addr = match d.local.addr {
                Some(addr) if addr == segment.to.addr => 1,
                None if covers(d.family, d.is_dual, &segment.to.addr) => 0,
                _ => return None,
            };
            match d.peer {
                Some(peer) if peer == segment.from => Some(addr + 2),
                None => Some(addr),
                Some(_) => None,
            }
        };
        // The last of equals wins, as the newest socket does on Linux.
        ids.iter().filter_map(|&id| Some((score(self.datagrams.get(id)?)?, id))).max_by_key(|&(score, _)| score).map(|(_, id)| id)
    }

    // --- Packets and time ---

    fn receive_all(&mut self) {
        let Some(device) = self.card.as_ref().and_then(|card| card.device()) else { return };
        while device.receive(&mut |packet, is_verified| self.ingress(LinkId::Card, packet, is_verified)) {}
    }

    fn ingress(&mut self, link_id: LinkId, packet: &[u8], is_verified: bool) {
        let now = now();
        let class = {
            let link = self.link(link_id);
            let class = link.classify(packet);
            if link.trusts_card() && !is_verified && !checksum::verify(packet, class) {
                return;
            }
            class
        };
        match class {
            Class::Tcp { segment, opens } => {
                let key = FlowKey { local: segment.to, remote: segment.from };
                let known = self.by_key.get(&key).copied();
                match known.or_else(|| if opens { self.open(link_id, key, &segment) } else { None }) {
                    Some(id) => {
                        let Some(flow) = self.flows.get_mut(id) else { return };
                        let link = match link_id {
                            LinkId::Loopback => &mut self.loopback,
                            LinkId::Card => self.card.as_mut().expect("the packet came from there"),
                        };
                        link.ingress(now, packet, &mut flow.sockets);
                        self.after_flow(id);
                    }
                    // A full backlog drops the SYN, and the peer tries again (listen(2)); without a listener the interface answers with a reset.
                    None if opens && self.find_listener(&segment).is_some() => {}
                    None => self.ingress_nobody(link_id, now, packet),
                }
            }
            Class::Udp(segment) if segment.to.port == 68 && self.dhcp.is_some() => {
                if let (Some(dhcp), Some(card)) = (&mut self.dhcp, &mut self.card) {
                    card.ingress(now, packet, dhcp.sockets());
                }
                self.after_misc();
            }
            Class::Udp(segment) => match self.find_datagram(&segment) {
                Some(id) => {
                    let Some(datagram) = self.datagrams.get_mut(id) else { return };
                    let link = match link_id {
                        LinkId::Loopback => &mut self.loopback,
                        LinkId::Card => self.card.as_mut().expect("the packet came from there"),
                    };
                    link.ingress(now, packet, &mut datagram.sockets);
                    datagram.events.wake_all();
                }
                None => self.ingress_nobody(link_id, now, packet),
            },
            Class::Other => {
                self.ingress_nobody(link_id, now, packet);
                self.neighbour_may_be_known(link_id);
            }
        }
    }

    fn link(&mut self, id: LinkId) -> &mut Link {
        match id {
            LinkId::Loopback => &mut self.loopback,
            LinkId::Card => self.card.as_mut().expect("only a card's packets name it"),
        }
    }

    fn ingress_nobody(&mut self, link_id: LinkId, now: Instant, packet: &[u8]) {
        let mut nobody = core::mem::replace(&mut self.nobody, SocketSet::new(Vec::new()));
        self.link(link_id).ingress(now, packet, &mut nobody);
        self.nobody = nobody;
    }

    /// Makes the connection that a SYN asks for, when a listener has room for it.
    fn open(&mut self, link: LinkId, key: FlowKey, segment: &Segment) -> Option<FlowId> {
        let listener_id = self.find_listener(segment)?;
        let listener = self.listeners.get(listener_id)?;
        if listener.opening + listener.ready.len() >= listener.backlog {
            return None;
        }
        let endpoint = IpListenEndpoint { addr: Some(key.local.addr), port: key.local.port };
        let prepare = |socket: &mut tcp::Socket<'static>| socket.listen(endpoint).map_err(|_| Errno::EINVAL);
        let id = self.add_flow(link, key, Some(listener_id), prepare).ok()?;
        self.listeners.get_mut(listener_id)?.opening += 1;
        Some(id)
    }

    /// An ARP or neighbour answer may be what connections and datagrams waited for.
    fn neighbour_may_be_known(&mut self, link_id: LinkId) {
        let waiting: Vec<FlowId> = self.flows.iter().filter(|(_, f)| f.link == link_id && f.deadline.is_some()).map(|(id, _)| id).collect();
        for id in waiting {
            self.after_flow(id);
        }
        let waiting: Vec<DatagramId> = self.datagrams.iter().map(|(id, _)| id).collect();
        for id in waiting {
            if self.datagrams.get_mut(id).is_some_and(|d| d.socket().send_queue() > 0) {
                self.send_datagram(id, link_id, 0);
            }
        }
    }

    fn run_timers(&mut self) {
        let now_ns = time::monotonic_ns();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now_ns
        {
            self.deadlines.pop_first();
            if id == MISC {
                self.after_misc();
                continue;
            }
            let Some(flow) = self.flows.get_mut(id) else { continue };
            flow.queued = None;
            match flow.deadline {
                // It has moved since.
                Some(later) if later > now_ns => {
                    flow.queued = Some(later);
                    self.deadlines.insert((later, id));
                    continue;
                }
                None => continue,
                Some(_) => {}
            }
            flow.deadline = None;
            if flow.give_up_at.is_some_and(|at| at <= now_ns) {
                flow.give_up_at = None;
                flow.socket().abort();
            }
            self.after_flow(id);
        }
    }

    /// Lets DHCP send, and uses what it learned.
    fn after_misc(&mut self) {
        let (Some(dhcp), Some(card)) = (&mut self.dhcp, &mut self.card) else { return };
        let now = now();
        let next = card.egress(now, dhcp.sockets()).map(|at| at.total_micros() as u64 * 1000);
        let event = dhcp.event();
        self.deadlines.retain(|&(_, id)| id != MISC);
        if let Some(next) = next {
            // A lease that cannot be had is asked for again and again, but not in a busy loop.
            self.deadlines.insert((next.max(time::monotonic_ns() + 1_000_000), MISC));
        }
        if let Some(lease) = event {
            self.configure(lease.cidr.as_slice(), lease.gateway);
        }
    }

    /// Delivers what loopback sent to itself, tells the card what was queued, and sets the timer.
    fn settle(&mut self) {
        self.is_unsettled = false;
        while let Some(packet) = self.loopback.take_looped() {
            self.ingress(LinkId::Loopback, &packet, true);
        }
        if let Some(card) = &self.card {
            card.flush();
        }
        let Some(&(next, _)) = self.deadlines.first() else { return };
        if self.armed.as_ref().is_none_or(|(armed, _)| next < *armed) {
            if let Some((_, old)) = self.armed.take() {
                time::cancel_timer(old);
            }
            self.armed = Some((next, time::start_timer(next, Arc::new(TimerFired))));
        }
    }
}

/// Whether a wildcard socket of a family takes packets to an address.
fn covers(family: i32, is_dual: bool, addr: &IpAddress) -> bool {
    match addr {
        IpAddress::Ipv4(_) => family != AF_INET6 || is_dual,
        IpAddress::Ipv6(_) => family == AF_INET6,
    }
}

/// Bytes of a connection's receive buffer, and of its send buffer: a 256th of the memory that is free, so that many connections fit into little.
fn buffer_bytes() -> usize {
    let (free_pages, _) = mm::frame::count();
    (free_pages * mm::PAGE_SIZE / 256).clamp(4096, 65_536).next_power_of_two()
}

/// A vector whose places are reused.
struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    const fn new() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }

    fn insert(&mut self, value: T) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(value);
                place
            }
            None => {
                self.places.push(Some(value));
                self.places.len() - 1
            }
        }
    }

    fn remove(&mut self, place: usize) -> Option<T> {
        let value = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(value)
    }

    fn get(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.as_ref()
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place)?.as_mut()
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.places.iter().enumerate().filter_map(|(i, v)| Some((i, v.as_ref()?)))
    }
}
