//! Stream sockets.
//!
//! Bytes pass through a buffer of this module between the stack, which is locked with interrupts off, and the program's memory, which may have to be
//! paged in.

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
use libos_core::{Errno, Result, time};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;
use smoltcp::wire::IpEndpoint;

use crate::AF_INET6;
use crate::address;
use crate::options::{IpOptions, TcpOptions};
use crate::ports::{Claim, ClaimId};
use crate::stack::{self, FlowId, ListenerId};

/// Bytes moved at once between the stack and a program.
const CHUNK: usize = 16 * 1024;
/// How long connect(2) waits for the card to get an address.
const CONFIGURE_NS: u64 = 10_000_000_000;
/// When an unanswered connect(2) gives up: about what `tcp_syn_retries` = 6 amounts to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);
/// Linux's default for `SO_RCVBUF`.
const BUFFER_BYTES: u32 = 131_072;
/// `FIONREAD` (ioctl_tty(2)) and `SIOCOUTQ`.
const FIONREAD: u32 = libos_core::abi::ioctl::FIONREAD;
const SIOCOUTQ: u32 = 0x5411;
/// `net.core.somaxconn`.
const MAX_BACKLOG: i32 = 4096;

/// What a stream socket is at the moment.
#[derive(Clone, Copy)]
enum State {
    /// Neither connected nor listening; perhaps bound.
    Idle,
    Listening(ListenerId),
    /// Connecting, connected, or ended.
    Connected(FlowId),
}

struct Inner {
    state: State,
    local: address::Target,
    claim: Option<(u16, ClaimId)>,
    read_shut: bool,
    write_shut: bool,
    /// connect(2) was answered with `EINPROGRESS` and has not been asked again.
    in_progress: bool,
}

/// A stream socket.
pub struct TcpSocket {
    family: i32,
    inner: SpinLock<Inner>,
    options: SocketOptions,
    ip: IpOptions,
    tcp: TcpOptions,
    /// Stands in until there is a connection or a listener with a queue of its own.
    idle_events: Arc<WaitQueue>,
}

impl TcpSocket {
    /// Returns a socket that is neither bound nor connected.
    pub fn create(family: i32) -> Arc<dyn FileOps> {
        let inner = Inner {
            state: State::Idle,
            local: address::Target { addr: None, port: 0 },
            claim: None,
            read_shut: false,
            write_shut: false,
            in_progress: false,
        };
        Arc::new(TcpSocket::with(family, inner, TcpOptions::default()))
    }

    fn with(family: i32, inner: Inner, tcp: TcpOptions) -> TcpSocket {
        TcpSocket {
            family,
            inner: SpinLock::new(inner),
            options: SocketOptions::new(BUFFER_BYTES),
            ip: IpOptions::default(),
            tcp,
            idle_events: Arc::new(WaitQueue::new()),
        }
    }

    fn state(&self) -> State {
        self.inner.lock().state
    }

    /// The connection.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn flow(&self) -> Result<FlowId> {
        match self.state() {
            State::Connected(id) => Ok(id),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn is_dual(&self) -> bool {
        self.family == AF_INET6 && !self.ip.v6_only.load(Relaxed)
    }

    fn claim(&self, addr: Option<smoltcp::wire::IpAddress>) -> Claim {
        Claim {
            addr,
            family: self.family,
            is_dual: self.is_dual(),
            reuse_address: self.options.reuse_address.load(Relaxed),
            reuse_port: self.options.reuse_port.load(Relaxed),
            is_listening: false,
        }
    }

    /// Applies what setsockopt(2) set to a connection.
    fn apply_options(&self, socket: &mut tcp::Socket<'static>) {
        socket.set_nagle_enabled(self.tcp.cork.load(Relaxed) || !self.tcp.no_delay.load(Relaxed));
        let keep_alive = self.options.keep_alive.load(Relaxed).then(|| Duration::from_secs(self.tcp.keep_idle_seconds()));
        socket.set_keep_alive(keep_alive);
        let ttl = self.ip.ttl.load(Relaxed);
        if ttl != 0 {
            socket.set_hop_limit(Some(ttl as u8));
        }
    }

    fn options_changed(&self) {
        if let State::Connected(id) = self.state() {
            stack::with(|s| {
                self.apply_options(s.flow(id).socket());
                s.after_flow(id);
            });
        }
    }

    fn nonblocking(&self, file: &OpenFile, flags: MsgFlags) -> bool {
        file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT)
    }

    /// What is woken when a connection changes.
    fn events(id: FlowId) -> Arc<WaitQueue> {
        stack::with(|s| s.flow(id).events.clone())
    }

    /// Takes the error that ended a connection: the first caller gets it (`SO_ERROR`).
    fn flow_error(id: FlowId) -> Option<Errno> {
        stack::with(|s| s.flow(id).error.take())
    }

    /// Waits until a connect(2) under way has an answer.
    fn finish_connect(&self, id: FlowId, events: &WaitQueue) -> Result<()> {
        let answer = events.wait_until(self.options.send_deadline(), || {
            stack::with(|s| {
                let flow = s.flow(id);
                if let Some(error) = flow.error.take() {
                    return Some(Err(error));
                }
                flow.is_open.then_some(Ok(()))
            })
        })?;
        self.inner.lock().in_progress = false;
        let answer = answer.unwrap_or(Err(Errno::EINPROGRESS));
        if answer.is_err_and(|e| e != Errno::EINPROGRESS) {
            self.forget_flow(id);
        }
        answer
    }

    /// After a connection attempt failed, the socket may be connected again.
    fn forget_flow(&self, id: FlowId) {
        self.inner.lock().state = State::Idle;
        stack::with(|s| s.detach(id, true));
    }
}

/// Waits until the card has an address, if it is about to get one.
pub(crate) fn wait_for_address() -> Result<()> {
    let (is_configured, events) = stack::with(|s| (s.is_configured(), s.configured.clone()));
    if !is_configured {
        let deadline = Some(time::monotonic_ns() + CONFIGURE_NS);
        events.wait_until(deadline, || stack::with(|s| s.is_configured()).then_some(()))?;
    }
    Ok(())
}

impl FileOps for TcpSocket {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _: u64) -> Result<usize> {
        self.receive(file, dst, MsgFlags::empty()).map(|r| r.len)
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, _: u64) -> Result<usize> {
        let result = self.send(file, src, MsgFlags::empty(), None, Vec::new());
        if result == Err(Errno::EPIPE) {
            libos_core::task::signal::send_to_current(libos_core::abi::general::SIGPIPE);
        }
        result
    }

    fn poll(&self, _: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        let (state, read_shut, write_shut) = {
            let inner = self.inner.lock();
            (inner.state, inner.read_shut, inner.write_shut)
        };
        match state {
            State::Idle => {
                table.add(&self.idle_events);
                // What Linux answers for a socket that was never connected.
                PollEvents::OUT | PollEvents::WRNORM | PollEvents::HUP
            }
            State::Listening(id) => {
                table.add(&stack::with(|s| s.listener(id).events.clone()));
                if stack::with(|s| s.listener(id).ready.is_empty()) { PollEvents::empty() } else { PollEvents::READABLE }
            }
            State::Connected(id) => {
                table.add(&Self::events(id));
                stack::with(|s| {
                    let flow = s.flow(id);
                    let (is_open, has_error, is_writable) = (flow.is_open, flow.error.is_some(), flow.is_writable());
                    let socket = flow.socket();
                    let mut events = PollEvents::empty();
                    if !is_open && !has_error && socket.state() != tcp::State::Closed {
                        return events;
                    }
                    let no_more_input = !socket.may_recv() || read_shut;
                    let is_closed = socket.state() == tcp::State::Closed || (no_more_input && write_shut);
                    if socket.can_recv() || no_more_input {
                        events |= PollEvents::READABLE;
                    }
                    if no_more_input {
                        events |= PollEvents::RDHUP;
                    }
                    if is_writable || !socket.may_send() {
                        events |= PollEvents::WRITABLE;
                    }
                    if is_closed {
                        events |= PollEvents::HUP;
                    }
                    if has_error {
                        events |= PollEvents::ERR;
                    }
                    events
                })
            }
        }
    }

    fn ioctl(&self, _: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        let value = match (request, self.state()) {
            (FIONREAD, State::Listening(_)) => return Err(Errno::EINVAL),
            (FIONREAD, State::Connected(id)) => stack::with(|s| s.flow(id).socket().recv_queue()),
            (SIOCOUTQ, State::Connected(id)) => stack::with(|s| s.flow(id).socket().send_queue()),
            (FIONREAD | SIOCOUTQ, _) => 0,
            _ => return libos_core::interfaces::ioctl(request, arg),
        };
        UserPtr::<i32>::new(arg).write(value as i32).map(|()| 0)
    }

    fn stat(&self) -> Result<libos_core::vfs::Stat> {
        Ok(libos_core::socket::stat())
    }

    fn release(&self, _: &OpenFile) {
        let (state, claim) = {
            let mut inner = self.inner.lock();
            (core::mem::replace(&mut inner.state, State::Idle), inner.claim.take())
        };
        stack::with(|s| {
            match state {
                State::Idle => {}
                State::Listening(id) => s.remove_listener(id),
                State::Connected(id) => {
                    // Unread data means that the peer must learn that it was lost (RFC 2525, 2.17); SO_LINGER with 0 seconds asks for it.
                    let abort = s.flow(id).socket().can_recv() || self.options.linger.load(Relaxed) == 0;
                    s.detach(id, abort);
                }
            }
            if let Some((port, id)) = claim {
                s.tcp_ports.release(port, id);
            }
        });
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self)
    }

    fn anonymous_name(&self) -> Option<alloc::string::String> {
        Some(libos_core::socket::name(self as *const TcpSocket as usize))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Socket for TcpSocket {
    fn options(&self) -> &SocketOptions {
        &self.options
    }

    fn kind(&self) -> (i32, i32, i32) {
        (self.family, linux::SOCK_STREAM as i32, linux::IPPROTO_TCP as i32)
    }

    fn bind(&self, addr: &SockAddr) -> Result<()> {
        let target = address::decode(self.family, addr)?;
        let mut inner = self.inner.lock();
        if !matches!(inner.state, State::Idle) || inner.claim.is_some() {
            return Err(Errno::EINVAL);
        }
        let claim = self.claim(target.addr);
        let (port, id) = stack::with(|s| {
            if target.addr.is_some_and(|a| !s.is_local(&a)) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            s.tcp_ports.claim(target.port, claim, false)
        })?;
        inner.local = address::Target { addr: target.addr, port };
        inner.claim = Some((port, id));
        Ok(())
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        // Linux adds one to the backlog (`sk_acceptq_is_full`), and takes a negative one for the largest.
        let backlog = if backlog < 0 { MAX_BACKLOG } else { backlog.min(MAX_BACKLOG) } as usize + 1;
        let mut inner = self.inner.lock();
        match inner.state {
            State::Listening(id) => {
                stack::with(|s| s.listener(id).backlog = backlog);
                return Ok(());
            }
            State::Connected(_) => return Err(Errno::EINVAL),
            State::Idle => {}
        }
        let (claim, local, is_dual) = (inner.claim, inner.local, self.is_dual());
        let (port, claim, id) = stack::with(|s| {
            let (port, claim) = match claim {
                Some(claim) => claim,
                None => s.tcp_ports.claim(0, self.claim(local.addr), false)?,
            };
            s.tcp_ports.listen(port, claim)?;
            Ok((port, claim, s.add_listener(local.addr, port, self.family, is_dual, backlog)))
        })?;
        inner.local.port = port;
        inner.claim = Some((port, claim));
        inner.state = State::Listening(id);
        Ok(())
    }

    fn accept(&self, file: &OpenFile) -> Result<(Arc<dyn FileOps>, SockAddr)> {
        let State::Listening(id) = self.state() else { return Err(Errno::EINVAL) };
        let take = || stack::with(|s| s.accept(id));
        let flow = match take() {
            Some(flow) => flow,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => {
                let events = stack::with(|s| s.listener(id).events.clone());
                events.wait_until(self.options.receive_deadline(), take)?.ok_or(Errno::EAGAIN)?
            }
        };
        let (local, remote) = stack::with(|s| (s.flow(flow).local(), s.flow(flow).remote()));
        let inner = Inner {
            state: State::Connected(flow),
            local: address::Target { addr: Some(local.addr), port: local.port },
            claim: None,
            read_shut: false,
            write_shut: false,
            in_progress: false,
        };
        let new = TcpSocket::with(self.family, inner, self.tcp.inherit());
        new.options.keep_alive.store(self.options.keep_alive.load(Relaxed), Relaxed);
        new.options.linger.store(self.options.linger.load(Relaxed), Relaxed);
        stack::with(|s| new.apply_options(s.flow(flow).socket()));
        Ok((Arc::new(new), address::encode_endpoint(self.family, remote)))
    }

    fn connect(&self, file: &OpenFile, addr: &SockAddr) -> Result<()> {
        match self.state() {
            State::Listening(_) => return Err(Errno::EISCONN),
            State::Connected(id) => {
                let (is_open, error, events) = stack::with(|s| {
                    let flow = s.flow(id);
                    (flow.is_open, flow.error.take(), flow.events.clone())
                });
                let was_in_progress = core::mem::take(&mut self.inner.lock().in_progress);
                return match (error, is_open) {
                    (Some(error), _) => {
                        self.forget_flow(id);
                        Err(error)
                    }
                    // The answer to a non-blocking connect(2) is asked for once (connect(2), `EISCONN` after it).
                    (None, true) if was_in_progress => Ok(()),
                    (None, true) => Err(Errno::EISCONN),
                    (None, false) if file.is_nonblocking() => {
                        self.inner.lock().in_progress = true;
                        Err(Errno::EALREADY)
                    }
                    (None, false) => self.finish_connect(id, &events),
                };
            }
            State::Idle => {}
        }
        let target = address::decode(self.family, addr)?;
        // Connecting to the wildcard reaches this machine (ip(7)).
        let remote = match target.addr {
            Some(addr) => IpEndpoint::new(addr, target.port),
            None => IpEndpoint::new(smoltcp::wire::IpAddress::v4(127, 0, 0, 1), target.port),
        };
        if remote.port == 0 {
            return Err(Errno::ECONNREFUSED);
        }
        wait_for_address()?;
        let (bound, claim) = {
            let inner = self.inner.lock();
            (inner.local, inner.claim)
        };
        let (id, events) = stack::with(|s| {
            let (link, source) = s.route(&remote.addr)?;
            // A bound port stays the socket's claim; an ephemeral one is the connection's and ends with it.
            let (port, own_claim) = match claim {
                Some((port, _)) => (port, None),
                None => {
                    let (port, id) = s.tcp_ports.claim(0, self.claim(None), false)?;
                    (port, Some((port, id)))
                }
            };
            let local = IpEndpoint::new(bound.addr.unwrap_or(source), port);
            let id = match s.connect(link, local, remote, own_claim) {
                Ok(id) => id,
                Err(e) => {
                    if let Some((port, id)) = own_claim {
                        s.tcp_ports.release(port, id);
                    }
                    return Err(e);
                }
            };
            let flow = s.flow(id);
            flow.socket().set_timeout(Some(CONNECT_TIMEOUT));
            self.apply_options(flow.socket());
            Ok((id, flow.events.clone()))
        })?;
        {
            let mut inner = self.inner.lock();
            inner.state = State::Connected(id);
            inner.in_progress = true;
        }
        self.idle_events.wake_all();
        if file.is_nonblocking() {
            // Over loopback the answer may be there already; Linux says EINPROGRESS all the same, except for a refusal.
            if let Some(error) = Self::flow_error(id) {
                self.forget_flow(id);
                return Err(error);
            }
            return Err(Errno::EINPROGRESS);
        }
        self.finish_connect(id, &events)
    }

    fn send(&self, file: &OpenFile, src: &mut IoSrc<'_>, flags: MsgFlags, _: Option<&SockAddr>, _: Vec<Control>) -> Result<usize> {
        let id = match self.state() {
            // The address of a connected stream is ignored, as Linux does; POSIX would allow EISCONN.
            State::Connected(id) => id,
            _ => return Err(Errno::EPIPE),
        };
        if self.inner.lock().write_shut {
            return Err(Errno::EPIPE);
        }
        let deadline = self.options.send_deadline();
        let mut sent = 0;
        let mut chunk = Vec::new();
        while src.remaining() > 0 {
            let want = src.remaining().min(CHUNK);
            chunk.try_reserve(want).map_err(|_| Errno::ENOBUFS)?;
            chunk.resize(want, 0);
            let pulled = match src.pull(&mut chunk) {
                Ok(0) => break,
                Ok(pulled) => pulled,
                Err(e) => return if sent > 0 { Ok(sent) } else { Err(e) },
            };
            let mut offset = 0;
            while offset < pulled {
                // `None` is "no room yet"; a connection that is still being made has none either.
                let attempt = || {
                    stack::with(|s| {
                        let flow = s.flow(id);
                        if let Some(error) = flow.error.take() {
                            return Some(Err(error));
                        }
                        if !flow.is_open {
                            return None;
                        }
                        let count = match flow.socket().send_slice(&chunk[offset..pulled]) {
                            Ok(0) => return None,
                            Ok(count) => count,
                            Err(_) => return Some(Err(Errno::EPIPE)),
                        };
                        s.after_flow(id);
                        Some(Ok(count))
                    })
                };
                let result = match attempt() {
                    Some(result) => result,
                    None if self.nonblocking(file, flags) => Err(Errno::EAGAIN),
                    None => match Self::events(id).wait_until(deadline, attempt) {
                        Ok(result) => result.unwrap_or(Err(Errno::EAGAIN)),
                        Err(interrupted) => Err(interrupted),
                    },
                };
                match result {
                    Ok(count) => {
                        offset += count;
                        sent += count;
                    }
                    Err(e) => {
                        src.unpull(pulled - offset);
                        return if sent > 0 { Ok(sent) } else { Err(e) };
                    }
                }
            }
        }
        Ok(sent)
    }

    fn receive(&self, file: &OpenFile, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Received> {
        let id = self.flow()?;
        if dst.remaining() == 0 {
            return Ok(Received::default());
        }
        if self.inner.lock().read_shut {
            return Ok(Received::default());
        }
        let deadline = self.options.receive_deadline();
        let peek = flags.contains(MsgFlags::PEEK);
        let wait_all = flags.contains(MsgFlags::WAITALL) && !peek;
        let mut total = 0;
        loop {
            let want = dst.remaining().min(CHUNK);
            // `None` is "nothing yet"; an empty answer is the end of the stream.
            let attempt = || {
                stack::with(|s| {
                    let flow = s.flow(id);
                    let (error, is_open) = (flow.error, flow.is_open);
                    let socket = flow.socket();
                    if socket.can_recv() {
                        let mut chunk = Vec::new();
                        let queued = socket.recv_queue();
                        let count = want.min(queued);
                        if chunk.try_reserve_exact(count).is_err() {
                            return Some(Err(Errno::ENOBUFS));
                        }
                        chunk.resize(count, 0);
                        let got = if peek { socket.peek_slice(&mut chunk) } else { socket.recv_slice(&mut chunk) };
                        chunk.truncate(got.unwrap_or(0));
                        if !peek {
                            s.after_read(id, queued);
                        }
                        return Some(Ok(chunk));
                    }
                    if let Some(error) = error {
                        s.flow(id).error = None;
                        return Some(Err(error));
                    }
                    let is_over = is_open && !socket.may_recv() || socket.state() == tcp::State::Closed;
                    is_over.then(|| Ok(Vec::new()))
                })
            };
            let result = match attempt() {
                Some(result) => result,
                None if total > 0 && !wait_all => break,
                None if self.nonblocking(file, flags) => Err(Errno::EAGAIN),
                None => {
                    let is_shut = || self.inner.lock().read_shut.then(|| Ok(Vec::new()));
                    match Self::events(id).wait_until(deadline, || attempt().or_else(is_shut)) {
                        Ok(result) => result.unwrap_or(Err(Errno::EAGAIN)),
                        Err(interrupted) => Err(interrupted),
                    }
                }
            };
            let chunk = match result {
                Ok(chunk) => chunk,
                Err(_) if total > 0 => break,
                Err(e) => return Err(e),
            };
            if chunk.is_empty() {
                break;
            }
            // MSG_TRUNC on a stream throws the bytes away (tcp(7)).
            let moved = if flags.contains(MsgFlags::TRUNC) { chunk.len() } else { dst.push(&chunk)? };
            total += moved;
            if moved < chunk.len() || peek || dst.remaining() == 0 || flags.contains(MsgFlags::TRUNC) {
                break;
            }
        }
        Ok(Received { len: total, ..Received::default() })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let id = match self.state() {
            State::Connected(id) => id,
            // shutdown(2) on a listener stops it on Linux: accept(2) then answers EINVAL.
            State::Listening(id) if how != Shutdown::Write => {
                let events = stack::with(|s| {
                    let events = s.listener(id).events.clone();
                    s.remove_listener(id);
                    events
                });
                self.inner.lock().state = State::Idle;
                events.wake_all();
                return Ok(());
            }
            _ => return Err(Errno::ENOTCONN),
        };
        {
            let mut inner = self.inner.lock();
            inner.read_shut |= how != Shutdown::Write;
            inner.write_shut |= how != Shutdown::Read;
        }
        let events = stack::with(|s| {
            if how != Shutdown::Read {
                s.close_flow(id);
            }
            s.flow(id).events.clone()
        });
        events.wake_all();
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        let (state, local) = {
            let inner = self.inner.lock();
            (inner.state, inner.local)
        };
        Ok(match state {
            State::Connected(id) => address::encode_endpoint(self.family, stack::with(|s| s.flow(id).local())),
            _ => address::encode(self.family, local.addr, local.port),
        })
    }

    fn peer_address(&self) -> Result<SockAddr> {
        let id = self.flow()?;
        stack::with(|s| {
            let flow = s.flow(id);
            let is_connected = flow.is_open && flow.socket().state() != tcp::State::Closed;
            if is_connected { Ok(address::encode_endpoint(self.family, flow.remote())) } else { Err(Errno::ENOTCONN) }
        })
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if let Some(result) = self.ip.set(self.family, level, name, value) {
            result?;
        } else if level == linux::IPPROTO_TCP as i32 {
            self.tcp.set(name, value)?;
        } else {
            return Err(Errno::ENOPROTOOPT);
        }
        self.options_changed();
        Ok(())
    }

    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        if let Some(result) = self.ip.get(self.family, level, name) {
            return result;
        }
        if level != linux::IPPROTO_TCP as i32 {
            return Err(Errno::ENOPROTOOPT);
        }
        if name as u32 == linux::TCP_INFO {
            // `struct tcp_info` up to its byte fields: the state is all that programs look at.
            let mut info = alloc::vec![0; 104];
            info[0] = match self.state() {
                State::Idle => 7,
                State::Listening(_) => 10,
                State::Connected(id) => stack::with(|s| linux_state(s.flow(id).socket().state())),
            };
            return Ok(info);
        }
        self.tcp.get(name)
    }

    fn is_listening(&self) -> bool {
        matches!(self.state(), State::Listening(_))
    }

    fn take_error(&self) -> Option<Errno> {
        match self.state() {
            State::Connected(id) => Self::flow_error(id),
            _ => None,
        }
    }
}

/// The numbers of `TCP_ESTABLISHED` and its fellows (include/net/tcp_states.h).
fn linux_state(state: tcp::State) -> u8 {
    match state {
        tcp::State::Established => 1,
        tcp::State::SynSent => 2,
        tcp::State::SynReceived => 3,
        tcp::State::FinWait1 => 4,
        tcp::State::FinWait2 => 5,
        tcp::State::TimeWait => 6,
        tcp::State::Closed => 7,
        tcp::State::CloseWait => 8,
        tcp::State::LastAck => 9,
        tcp::State::Listen => 10,
        tcp::State::Closing => 11,
    }
}
