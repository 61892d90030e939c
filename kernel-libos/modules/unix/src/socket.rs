//! The socket itself, for all three kinds.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering::Relaxed;

use libos_core::abi::net as linux;
use libos_core::file::{FileOps, OpenFile};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::socket::{Control, MsgFlags, Received, Shutdown, SockAddr, Socket, SocketOptions};
use libos_core::sync::SpinLock;
use libos_core::task::{self, Task, wait::WaitQueue};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result};

use crate::AF_UNIX;
use crate::name::{self, Name};
use crate::queue::{Message, Queue};

/// Linux's default for `SO_SNDBUF`.
const BUFFER_BYTES: u32 = 212_992;
/// Most bytes of a stream that one queue entry holds.
const STREAM_CHUNK: usize = 32 * 1024;
const FIONREAD: u32 = libos_core::abi::ioctl::FIONREAD;
/// `net.core.somaxconn`.
const MAX_BACKLOG: i32 = 4096;

/// `SOCK_STREAM`, `SOCK_DGRAM`, `SOCK_SEQPACKET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Stream,
    /// Messages without connection.
    Datagram,
    /// Messages with connection.
    SeqPacket,
}

enum State {
    Idle,
    Listening {
        backlog: usize,
        ready: VecDeque<Arc<UnixSocket>>,
    },
    /// The other side; dead once it is closed. For a datagram socket the default destination.
    Connected(Weak<UnixSocket>),
}

struct Inner {
    state: State,
    name: Name,
    queue: Queue,
    read_shut: bool,
    write_shut: bool,
    /// The other side closed with unread data in its queue.
    was_reset: bool,
    peer_credentials: Option<(i32, u32, u32)>,
}

/// A socket.
pub struct UnixSocket {
    /// Set once, right after creation, so that a method that has only `&self` can hand out references.
    me: Weak<UnixSocket>,
    kind: Kind,
    inner: SpinLock<Inner>,
    options: SocketOptions,
    /// Woken when there is something to read, a connection to accept, or the other side is gone.
    events: Arc<WaitQueue>,
    /// Woken when this socket's queue has room again; senders wait here.
    room: Arc<WaitQueue>,
}

/// Process, user and group.
type Ids = (i32, u32, u32);

fn own_credentials(task: &Task) -> Ids {
    let creds = task.creds();
    (task.process.pid, creds.euid, creds.egid)
}

impl UnixSocket {
    /// Returns an unnamed, unconnected socket.
    pub fn create(kind: Kind) -> Arc<UnixSocket> {
        let inner = Inner {
            state: State::Idle,
            name: Name::Unnamed,
            queue: Queue::new(),
            read_shut: false,
            write_shut: false,
            was_reset: false,
            peer_credentials: None,
        };
        Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kind,
            inner: SpinLock::new(inner),
            options: SocketOptions::new(BUFFER_BYTES),
            events: Arc::new(WaitQueue::new()),
            room: Arc::new(WaitQueue::new()),
        })
    }

    /// Returns two sockets connected to each other.
    pub fn create_pair(kind: Kind) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
        let (a, b) = (UnixSocket::create(kind), UnixSocket::create(kind));
        let credentials = task::with_current(own_credentials);
        for (one, other) in [(&a, &b), (&b, &a)] {
            let mut inner = one.inner.lock();
            inner.state = State::Connected(Arc::downgrade(other));
            inner.peer_credentials = Some(credentials);
        }
        (a, b)
    }

    fn me(&self) -> Arc<UnixSocket> {
        self.me.upgrade().expect("a method runs on a live socket")
    }

    fn peer(&self) -> Option<Arc<UnixSocket>> {
        match &self.inner.lock().state {
            State::Connected(peer) => peer.upgrade(),
            _ => None,
        }
    }

    fn is_connection(&self) -> bool {
        self.kind != Kind::Datagram
    }

    fn limit(&self) -> usize {
        self.options.send_buffer.load(Relaxed) as usize
    }

    fn is_nonblocking(file: &OpenFile, flags: MsgFlags) -> bool {
        file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT)
    }

    /// Connects a stream or packet socket to a listener: makes the other end and puts it into the listener's queue.
    fn connect_to_listener(&self, file: &OpenFile, target: &Arc<UnixSocket>) -> Result<()> {
        let credentials = task::with_current(own_credentials);
        let me = self.me();
        let attempt = || {
            let mut listener = target.inner.lock();
            let name = listener.name.clone();
            let listener_credentials = listener.peer_credentials;
            let State::Listening { backlog, ready } = &mut listener.state else { return Some(Err(Errno::ECONNREFUSED)) };
            if ready.len() > *backlog {
                return None;
            }
            let other = UnixSocket::create(self.kind);
            {
                let mut inner = other.inner.lock();
                inner.state = State::Connected(Arc::downgrade(&me));
                inner.name = name;
                inner.peer_credentials = Some(credentials);
            }
            ready.push_back(other.clone());
            Some(Ok((other, listener_credentials)))
        };
        if !matches!(self.inner.lock().state, State::Idle) {
            return Err(Errno::EISCONN);
        }
        let (other, listener_credentials) = match attempt() {
            Some(result) => result?,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => target.room.wait_until(self.options.send_deadline(), attempt)?.ok_or(Errno::EAGAIN)??,
        };
        {
            let mut inner = self.inner.lock();
            inner.state = State::Connected(Arc::downgrade(&other));
            inner.peer_credentials = listener_credentials;
        }
        target.events.wake_one();
        self.events.wake_all();
        Ok(())
    }

    /// Puts a message, or as much of a stream's bytes as there is room for, into the queue of `to`. `None` when there is no room.
    fn deliver(&self, to: &Arc<UnixSocket>, message: &mut Option<Message>) -> Option<Result<usize>> {
        let limit = self.limit();
        let mut inner = to.inner.lock();
        if inner.read_shut {
            return Some(Err(Errno::EPIPE));
        }
        let len = message.as_ref().map_or(0, |m| m.data.len());
        // A message larger than what is left still fits into an empty queue.
        if inner.queue.room(limit) < len && !inner.queue.is_empty() || inner.queue.room(limit) == 0 {
            return None;
        }
        inner.queue.push(message.take().expect("delivered once"));
        drop(inner);
        to.events.wake_all();
        Some(Ok(len))
    }

    fn deliver_waiting(&self, file: &OpenFile, flags: MsgFlags, to: &Arc<UnixSocket>, message: Message) -> Result<usize> {
        let mut message = Some(message);
        match self.deliver(to, &mut message) {
            Some(result) => result,
            None if Self::is_nonblocking(file, flags) => Err(Errno::EAGAIN),
            None => to
                .room
                .wait_until(self.options.send_deadline(), || {
                    // The other side may be closed, or ours shut, while we wait.
                    let is_cut = self.is_connection() && to.inner.lock().read_shut || self.inner.lock().write_shut;
                    if is_cut { Some(Err(Errno::EPIPE)) } else { self.deliver(to, &mut message) }
                })?
                .unwrap_or(Err(Errno::EAGAIN)),
        }
    }

    /// Splits control messages into files and credentials.
    fn decode_control(&self, control: Vec<Control>) -> Result<(Vec<Arc<OpenFile>>, Ids)> {
        let mut files = Vec::new();
        let mut credentials = task::with_current(own_credentials);
        for item in control {
            match item {
                Control::Rights(more) => files.extend(more),
                Control::Credentials(pid, uid, gid) => {
                    let is_own = credentials == (pid, uid, gid);
                    let may_claim = task::with_current(|t| t.creds().euid == 0);
                    if !is_own && !may_claim {
                        return Err(Errno::EPERM);
                    }
                    credentials = (pid, uid, gid);
                }
                Control::Other(..) => return Err(Errno::EINVAL),
            }
        }
        Ok((files, credentials))
    }

    /// Wakes everybody who may wait for this socket or for what it does to the other side.
    fn wake_both(&self, peer: Option<&Arc<UnixSocket>>) {
        self.events.wake_all();
        self.room.wake_all();
        if let Some(peer) = peer {
            peer.events.wake_all();
            peer.room.wake_all();
        }
    }

    /// Whether there will be nothing more to read.
    fn is_at_end(&self, inner: &Inner) -> bool {
        if inner.read_shut {
            return true;
        }
        match &inner.state {
            State::Connected(peer) if self.is_connection() => peer.upgrade().is_none_or(|p| p.is_closed_for(self)),
            _ => false,
        }
    }

    /// Whether the other side, `self`, will send nothing more to `_to`. Its lock is only tried: it is asked with another socket's lock held, and the
    /// two would otherwise wait for each other. When it is taken, the answer is asked for again on the wake-up that follows.
    fn is_closed_for(&self, _to: &UnixSocket) -> bool {
        self.inner.try_lock().is_some_and(|inner| inner.write_shut)
    }
}

impl FileOps for UnixSocket {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _: u64) -> Result<usize> {
        self.receive(file, dst, MsgFlags::empty()).map(|r| r.len)
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, _: u64) -> Result<usize> {
        let result = self.send(file, src, MsgFlags::empty(), None, Vec::new());
        if result == Err(Errno::EPIPE) && self.kind == Kind::Stream {
            task::signal::send_to_current(libos_core::abi::general::SIGPIPE);
        }
        result
    }

    fn poll(&self, _: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.events);
        let peer = self.peer();
        if let Some(peer) = &peer {
            table.add(&peer.room);
        }
        let mut events = PollEvents::empty();
        let is_connected = {
            let inner = self.inner.lock();
            if let State::Listening { ready, .. } = &inner.state {
                return if ready.is_empty() { PollEvents::empty() } else { PollEvents::READABLE };
            }
            let is_connected = matches!(inner.state, State::Connected(_));
            let at_end = self.is_at_end(&inner);
            if !inner.queue.is_empty() || at_end {
                events |= PollEvents::READABLE;
            }
            if at_end {
                events |= PollEvents::RDHUP;
            }
            let is_hung_up = self.is_connection() && (!is_connected || peer.is_none() || (inner.read_shut && inner.write_shut));
            if is_hung_up {
                events |= PollEvents::HUP;
            }
            is_connected
        };
        let is_writable = match (&peer, is_connected) {
            // Linux: writable while at most a quarter of the buffer is in use (`unix_writable`).
            (Some(peer), _) => peer.inner.lock().queue.room(self.limit()) * 4 >= self.limit(),
            (None, true) => true,
            (None, false) => !self.is_connection() || self.kind == Kind::Stream,
        };
        if is_writable {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    fn ioctl(&self, _: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        if request != FIONREAD {
            return libos_core::interfaces::ioctl(request, arg);
        }
        let count = {
            let inner = self.inner.lock();
            match (&inner.state, self.kind) {
                (State::Listening { .. }, _) => return Err(Errno::EINVAL),
                (_, Kind::Stream) => inner.queue.unread_bytes(),
                _ => inner.queue.front().map_or(0, |m| m.data.len()),
            }
        };
        UserPtr::<i32>::new(arg).write(count as i32).map(|()| 0)
    }

    fn stat(&self) -> Result<libos_core::vfs::Stat> {
        Ok(libos_core::socket::stat())
    }

    fn release(&self, _: &OpenFile) {
        let peer = self.peer();
        let (state, dropped, name) = {
            let mut inner = self.inner.lock();
            inner.read_shut = true;
            inner.write_shut = true;
            let name = core::mem::replace(&mut inner.name, Name::Unnamed);
            (core::mem::replace(&mut inner.state, State::Idle), inner.queue.drain(), name)
        };
        name::unbind(&name);
        if self.is_connection()
            && let Some(peer) = &peer
            && !dropped.is_empty()
        {
            peer.inner.lock().was_reset = true;
        }
        if let State::Listening { ready, .. } = state {
            for waiting in ready {
                // Nobody accepted them: the connecting side finds the connection closed.
                let other = waiting.peer();
                {
                    let mut inner = waiting.inner.lock();
                    inner.read_shut = true;
                    inner.write_shut = true;
                }
                waiting.wake_both(other.as_ref());
            }
        }
        self.wake_both(peer.as_ref());
        // Files in transit are closed here, outside every lock.
        drop(dropped);
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self)
    }

    fn anonymous_name(&self) -> Option<alloc::string::String> {
        Some(libos_core::socket::name(self as *const UnixSocket as usize))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Socket for UnixSocket {
    fn options(&self) -> &SocketOptions {
        &self.options
    }

    fn kind(&self) -> (i32, i32, i32) {
        let kind = match self.kind {
            Kind::Stream => linux::SOCK_STREAM,
            Kind::Datagram => linux::SOCK_DGRAM,
            Kind::SeqPacket => linux::SOCK_SEQPACKET,
        };
        (AF_UNIX, kind as i32, 0)
    }

    fn bind(&self, addr: &SockAddr) -> Result<()> {
        let name = name::decode(addr)?;
        if self.inner.lock().name != Name::Unnamed {
            return Err(Errno::EINVAL);
        }
        let name = task::with_current(|t| name::bind(t, &self.me(), name))?;
        self.inner.lock().name = name;
        Ok(())
    }

    fn connect(&self, file: &OpenFile, addr: &SockAddr) -> Result<()> {
        if addr.family() == 0 && !self.is_connection() {
            self.inner.lock().state = State::Idle;
            return Ok(());
        }
        let target = task::with_current(|t| name::find(t, &name::decode(addr)?))?;
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if self.is_connection() {
            return self.connect_to_listener(file, &target);
        }
        self.inner.lock().state = State::Connected(Arc::downgrade(&target));
        Ok(())
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        if !self.is_connection() {
            return Err(Errno::EOPNOTSUPP);
        }
        let limit = if backlog < 0 { MAX_BACKLOG } else { backlog.min(MAX_BACKLOG) } as usize;
        let credentials = task::with_current(own_credentials);
        let mut inner = self.inner.lock();
        if inner.name == Name::Unnamed {
            return Err(Errno::EINVAL);
        }
        match &mut inner.state {
            State::Connected(_) => return Err(Errno::EINVAL),
            State::Listening { backlog, .. } => *backlog = limit,
            State::Idle => inner.state = State::Listening { backlog: limit, ready: VecDeque::new() },
        }
        // What SO_PEERCRED tells those who connect: who called listen(2).
        inner.peer_credentials = Some(credentials);
        Ok(())
    }

    fn accept(&self, file: &OpenFile) -> Result<(Arc<dyn FileOps>, SockAddr)> {
        if !self.is_connection() {
            return Err(Errno::EOPNOTSUPP);
        }
        let take = || match &mut self.inner.lock().state {
            State::Listening { ready, .. } => ready.pop_front().map(Ok),
            _ => Some(Err(Errno::EINVAL)),
        };
        let new = match take() {
            Some(result) => result?,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => self.events.wait_until(self.options.receive_deadline(), take)?.ok_or(Errno::EAGAIN)??,
        };
        self.room.wake_all();
        let peer_name = new.peer().map_or(Name::Unnamed, |p| p.inner.lock().name.clone());
        Ok((new, name::encode(&peer_name)))
    }

    fn send(&self, file: &OpenFile, src: &mut IoSrc<'_>, flags: MsgFlags, to: Option<&SockAddr>, control: Vec<Control>) -> Result<usize> {
        let (mut files, credentials) = self.decode_control(control)?;
        let (own_name, write_shut, is_connected) = {
            let inner = self.inner.lock();
            (inner.name.clone(), inner.write_shut, matches!(inner.state, State::Connected(_)))
        };
        if write_shut {
            return Err(Errno::EPIPE);
        }
        let target = match to {
            Some(_) if self.is_connection() => return Err(if is_connected { Errno::EISCONN } else { Errno::EOPNOTSUPP }),
            Some(addr) => {
                let target = task::with_current(|t| name::find(t, &name::decode(addr)?))?;
                if target.kind != self.kind {
                    return Err(Errno::EPROTOTYPE);
                }
                target
            }
            None if !is_connected => return Err(Errno::ENOTCONN),
            None => self.peer().ok_or(if self.is_connection() { Errno::EPIPE } else { Errno::ECONNREFUSED })?,
        };
        let message = |data, files| Message { data, taken: 0, files, credentials, from: own_name.clone() };
        if self.kind != Kind::Stream {
            if src.remaining() > self.limit() {
                return Err(Errno::EMSGSIZE);
            }
            let message = message(src.pull_all()?, files);
            return self.deliver_waiting(file, flags, &target, message).map_err(|e| match e {
                // A datagram receiver that is closed refuses; it does not break a pipe.
                Errno::EPIPE if self.kind == Kind::Datagram => Errno::ECONNREFUSED,
                other => other,
            });
        }
        let mut sent = 0;
        while src.remaining() > 0 {
            let mut data = Vec::new();
            let want = src.remaining().min(STREAM_CHUNK);
            data.try_reserve_exact(want).map_err(|_| Errno::ENOBUFS)?;
            data.resize(want, 0);
            let result = src.pull(&mut data).and_then(|pulled| {
                data.truncate(pulled);
                if pulled == 0 {
                    return Ok(0);
                }
                let result = self.deliver_waiting(file, flags, &target, message(data, core::mem::take(&mut files)));
                if result.is_err() {
                    src.unpull(pulled);
                }
                result
            });
            match result {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(_) if sent > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }

    fn receive(&self, file: &OpenFile, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Received> {
        if self.kind == Kind::SeqPacket && !matches!(self.inner.lock().state, State::Connected(_)) {
            return Err(Errno::ENOTCONN);
        }
        if self.kind == Kind::Stream && matches!(self.inner.lock().state, State::Idle | State::Listening { .. }) {
            return Err(Errno::EINVAL);
        }
        let deadline = self.options.receive_deadline();
        let wait = |dst_is_empty: bool| -> Result<bool> {
            // True when there is a message, false at the end.
            let look = || {
                let mut inner = self.inner.lock();
                if !inner.queue.is_empty() {
                    return Some(Ok(true));
                }
                if core::mem::take(&mut inner.was_reset) {
                    return Some(Err(Errno::ECONNRESET));
                }
                self.is_at_end(&inner).then_some(Ok(false))
            };
            match look() {
                Some(result) => result,
                None if !dst_is_empty && !flags.contains(MsgFlags::WAITALL) => Ok(false),
                None if Self::is_nonblocking(file, flags) => Err(Errno::EAGAIN),
                None => self.events.wait_until(deadline, look)?.unwrap_or(Err(Errno::EAGAIN)),
            }
        };
        if self.kind == Kind::Stream { self.receive_stream(dst, flags, &wait) } else { self.receive_message(dst, flags, &wait) }
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let peer = self.peer();
        if peer.is_none() && !matches!(self.inner.lock().state, State::Connected(_)) {
            return Err(Errno::ENOTCONN);
        }
        {
            let mut inner = self.inner.lock();
            inner.read_shut |= how != Shutdown::Write;
            inner.write_shut |= how != Shutdown::Read;
        }
        self.wake_both(peer.as_ref());
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        Ok(name::encode(&self.inner.lock().name))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        let name = peer.inner.lock().name.clone();
        Ok(name::encode(&name))
    }

    fn peer_credentials(&self) -> Result<(i32, u32, u32)> {
        // Without a peer Linux answers process 0 and user -1.
        Ok(self.inner.lock().peer_credentials.unwrap_or((0, u32::MAX, u32::MAX)))
    }

    fn is_listening(&self) -> bool {
        matches!(self.inner.lock().state, State::Listening { .. })
    }
}

impl UnixSocket {
    fn control(&self, files: Vec<Arc<OpenFile>>, credentials: (i32, u32, u32)) -> Vec<Control> {
        let mut control = Vec::new();
        if !files.is_empty() {
            control.push(Control::Rights(files));
        }
        if self.options.pass_credentials.load(Relaxed) {
            control.push(Control::Credentials(credentials.0, credentials.1, credentials.2));
        }
        control
    }

    fn receive_stream(&self, dst: &mut IoDst<'_>, flags: MsgFlags, wait: &dyn Fn(bool) -> Result<bool>) -> Result<Received> {
        let mut received = Received::default();
        let mut first_credentials = None;
        let mut skip = 0;
        while dst.remaining() > 0 {
            match wait(received.len == 0) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if received.len > 0 => break,
                Err(e) => return Err(e),
            }
            let piece = {
                let inner = self.inner.lock();
                // When peeking, the bytes already copied are still in the queue.
                let mut skipped = skip;
                let mut piece = None;
                for message in inner.queue.iter() {
                    if skipped < message.rest().len() {
                        let bytes = &message.rest()[skipped..];
                        let count = bytes.len().min(dst.remaining());
                        piece = Some((bytes[..count].to_vec(), message.credentials, !message.files.is_empty()));
                        break;
                    }
                    skipped -= message.rest().len();
                }
                piece
            };
            let Some((bytes, credentials, has_files)) = piece else { break };
            // Bytes of different senders, or before and after a message with files, are never merged (unix(7), "SCM_RIGHTS").
            if first_credentials.is_some_and(|c| c != credentials) && self.options.pass_credentials.load(Relaxed) {
                break;
            }
            if has_files && received.len > 0 {
                break;
            }
            first_credentials = Some(credentials);
            let moved = dst.push(&bytes)?;
            received.len += moved;
            if flags.contains(MsgFlags::PEEK) {
                skip += moved;
            } else {
                let files = self.inner.lock().queue.take(moved);
                if let Some(peer) = self.peer() {
                    peer.room.wake_all();
                }
                self.room.wake_all();
                if !files.is_empty() {
                    received.control = self.control(files, credentials);
                    return Ok(received);
                }
            }
            if moved < bytes.len() {
                break;
            }
        }
        if let Some(credentials) = first_credentials {
            received.control = self.control(Vec::new(), credentials);
        }
        Ok(received)
    }

    fn receive_message(&self, dst: &mut IoDst<'_>, flags: MsgFlags, wait: &dyn Fn(bool) -> Result<bool>) -> Result<Received> {
        let message = loop {
            if !wait(true)? {
                return Ok(Received::default());
            }
            let mut inner = self.inner.lock();
            let message = if flags.contains(MsgFlags::PEEK) {
                inner.queue.front().map(|m| Message {
                    data: m.data.clone(),
                    taken: 0,
                    files: m.files.clone(),
                    credentials: m.credentials,
                    from: m.from.clone(),
                })
            } else {
                inner.queue.pop()
            };
            // Another reader may have been faster.
            if let Some(message) = message {
                break message;
            }
        };
        self.room.wake_all();
        let moved = if message.data.is_empty() { 0 } else { dst.push(&message.data)? };
        let is_truncated = moved < message.data.len();
        let from = (self.kind == Kind::Datagram && message.from != Name::Unnamed).then(|| name::encode(&message.from));
        Ok(Received {
            len: if flags.contains(MsgFlags::TRUNC) { message.data.len() } else { moved },
            from,
            flags: if is_truncated { linux::MSG_TRUNC } else { 0 },
            control: self.control(message.files, message.credentials),
        })
    }
}
