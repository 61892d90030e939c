//! Sockets: the trait that address families implement, and what all of them share.
//!
//! The module `socket` has the system calls; it finds the family of socket(2) in the registry here and talks to what it made through [`Socket`]. A family
//! (`inet`, `unix`) is a module of its own that registers itself at boot.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use bitflags::bitflags;
use libos_abi::net as linux;
use libos_abi::{Errno, Result};

use crate::file::{FileOps, OpenFile};
use crate::io::{IoDst, IoSrc};
use crate::sync::SpinLock;
use crate::user::{UserPtr, UserSlice};

/// Longest socket address: `sizeof(struct sockaddr_storage)`.
pub const ADDRESS_MAX: usize = 128;

/// A socket address as programs pass it: a family number and bytes that only the family understands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SockAddr {
    bytes: [u8; ADDRESS_MAX],
    len: u8,
}

impl SockAddr {
    /// Returns the address with these bytes, the family first.
    ///
    /// # Panics
    /// When there are more than [`ADDRESS_MAX`].
    pub fn from_bytes(src: &[u8]) -> SockAddr {
        let mut bytes = [0; ADDRESS_MAX];
        bytes[..src.len()].copy_from_slice(src);
        SockAddr { bytes, len: src.len() as u8 }
    }

    /// Copies an address in.
    ///
    /// # Errors
    /// `EINVAL` for a length that no address has, `EFAULT`.
    pub fn read(addr: UserPtr<u8>, len: u32) -> Result<SockAddr> {
        let len = usize::try_from(len).ok().filter(|&len| len <= ADDRESS_MAX).ok_or(Errno::EINVAL)?;
        let mut out = SockAddr { bytes: [0; ADDRESS_MAX], len: len as u8 };
        UserSlice::from_parts(addr, len)?.read_to(&mut out.bytes[..len])?;
        Ok(out)
    }

    /// Copies the address out as accept(2) does: no more than fits, and the full length. A null pointer asks for nothing.
    ///
    /// # Errors
    /// `EINVAL` for a negative buffer length, `EFAULT`.
    pub fn write(&self, addr: UserPtr<u8>, len: UserPtr<u32>) -> Result<()> {
        if addr.is_null() {
            return Ok(());
        }
        let room = len.read()?;
        if room as i32 <= -1 {
            return Err(Errno::EINVAL);
        }
        let count = self.bytes().len().min(room as usize);
        UserSlice::from_parts(addr, count)?.write_from(&self.bytes[..count])?;
        len.write(self.len as u32)
    }

    /// The bytes, the family first.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The family, or `AF_UNSPEC` when there are no two bytes.
    pub fn family(&self) -> u16 {
        match self.bytes() {
            [a, b, ..] => u16::from_ne_bytes([*a, *b]),
            _ => 0,
        }
    }
}

bitflags! {
    /// `MSG_*` of send(2) and recv(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MsgFlags: u32 {
        const OOB = linux::MSG_OOB;
        const PEEK = linux::MSG_PEEK;
        const CTRUNC = linux::MSG_CTRUNC;
        const TRUNC = linux::MSG_TRUNC;
        const DONTWAIT = linux::MSG_DONTWAIT;
        const EOR = linux::MSG_EOR;
        const WAITALL = linux::MSG_WAITALL;
        const NOSIGNAL = linux::MSG_NOSIGNAL;
        const MORE = linux::MSG_MORE;
        const ERRQUEUE = linux::MSG_ERRQUEUE;
        /// Not in the exported headers: include/linux/socket.h.
        const WAITFORONE = 0x1_0000;
        const CMSG_CLOEXEC = linux::MSG_CMSG_CLOEXEC;
    }
}

/// Ancillary data of a message (cmsg(3), unix(7)).
pub enum Control {
    /// `SCM_RIGHTS`: open files.
    Rights(Vec<Arc<OpenFile>>),
    /// `SCM_CREDENTIALS`: process, user, group.
    Credentials(i32, u32, u32),
    /// Anything else: level, type, data.
    Other(i32, i32, Vec<u8>),
}

/// What a receive returned besides the bytes it moved.
#[derive(Default)]
pub struct Received {
    /// Bytes moved, or the datagram's full length with `MSG_TRUNC` asked for.
    pub len: usize,
    /// Where it came from, for datagrams.
    pub from: Option<SockAddr>,
    /// `MSG_TRUNC`, `MSG_CTRUNC`, ... to report.
    pub flags: u32,
    /// Ancillary data.
    pub control: Vec<Control>,
}

/// Which directions shutdown(2) ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// `SHUT_RD`.
    Read,
    /// `SHUT_WR`.
    Write,
    /// `SHUT_RDWR`.
    Both,
}

/// What a socket does besides being a file. The defaults are those of a socket that cannot.
pub trait Socket: FileOps {
    /// Options every family has.
    fn options(&self) -> &SocketOptions;

    /// `AF_*`, `SOCK_*` and protocol, as `SO_DOMAIN`, `SO_TYPE` and `SO_PROTOCOL` report them.
    fn kind(&self) -> (i32, i32, i32);

    /// bind(2).
    fn bind(&self, addr: &SockAddr) -> Result<()>;

    /// connect(2); blocks unless the file is non-blocking (`EINPROGRESS`, `EAGAIN`).
    fn connect(&self, file: &OpenFile, addr: &SockAddr) -> Result<()>;

    /// listen(2).
    fn listen(&self, backlog: i32) -> Result<()> {
        let _ = backlog;
        Err(Errno::EOPNOTSUPP)
    }

    /// accept(2): the new connection and its peer.
    fn accept(&self, file: &OpenFile) -> Result<(Arc<dyn FileOps>, SockAddr)> {
        let _ = file;
        Err(Errno::EOPNOTSUPP)
    }

    /// Sends from `src`; `to` is the destination of a datagram. SIGPIPE is the caller's business: this answers `EPIPE`.
    fn send(&self, file: &OpenFile, src: &mut IoSrc<'_>, flags: MsgFlags, to: Option<&SockAddr>, control: Vec<Control>) -> Result<usize>;

    /// Receives to `dst`.
    fn receive(&self, file: &OpenFile, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Received>;

    /// shutdown(2).
    fn shutdown(&self, how: Shutdown) -> Result<()>;

    /// getsockname(2).
    fn local_address(&self) -> Result<SockAddr>;

    /// getpeername(2).
    fn peer_address(&self) -> Result<SockAddr>;

    /// setsockopt(2) for levels other than `SOL_SOCKET`.
    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let _ = (level, name, value);
        Err(Errno::ENOPROTOOPT)
    }

    /// getsockopt(2) for levels other than `SOL_SOCKET`.
    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        let _ = (level, name);
        Err(Errno::ENOPROTOOPT)
    }

    /// `SO_PEERCRED`: process, user and group of the other side.
    fn peer_credentials(&self) -> Result<(i32, u32, u32)> {
        Err(Errno::ENOPROTOOPT)
    }

    /// Whether listen(2) was called (`SO_ACCEPTCONN`).
    fn is_listening(&self) -> bool {
        false
    }

    /// Takes the pending error (`SO_ERROR`).
    fn take_error(&self) -> Option<Errno> {
        let error = self.options().error.swap(0, Ordering::Relaxed);
        (error != 0).then_some(Errno(error as u16))
    }
}

/// `SOL_SOCKET` options (socket(7)). Sizes are in bytes; times in nanoseconds, 0 is never.
#[allow(missing_docs, reason = "socket(7) describes each")]
#[derive(Default)]
pub struct SocketOptions {
    pub reuse_address: AtomicBool,
    pub reuse_port: AtomicBool,
    pub keep_alive: AtomicBool,
    pub broadcast: AtomicBool,
    pub pass_credentials: AtomicBool,
    pub out_of_band_inline: AtomicBool,
    pub timestamp: AtomicBool,
    pub receive_timeout_ns: AtomicU64,
    pub send_timeout_ns: AtomicU64,
    pub receive_buffer: AtomicU32,
    pub send_buffer: AtomicU32,
    pub receive_low_water: AtomicU32,
    pub priority: AtomicU32,
    pub mark: AtomicU32,
    /// `SO_LINGER`: -1 is off, else seconds.
    pub linger: AtomicI32,
    /// Pending asynchronous error, 0 is none.
    pub error: AtomicI32,
}

impl SocketOptions {
    /// Returns the defaults, with buffers of a size in bytes as Linux reports them.
    pub fn new(buffer_bytes: u32) -> SocketOptions {
        SocketOptions {
            receive_buffer: buffer_bytes.into(),
            send_buffer: buffer_bytes.into(),
            receive_low_water: 1.into(),
            linger: (-1).into(),
            ..SocketOptions::default()
        }
    }

    /// When a receive that starts now must give up: `None` is never.
    pub fn receive_deadline(&self) -> Option<u64> {
        deadline(self.receive_timeout_ns.load(Ordering::Relaxed))
    }

    /// When a send that starts now must give up: `None` is never.
    pub fn send_deadline(&self) -> Option<u64> {
        deadline(self.send_timeout_ns.load(Ordering::Relaxed))
    }
}

fn deadline(timeout_ns: u64) -> Option<u64> {
    (timeout_ns != 0).then(|| crate::time::monotonic_ns().saturating_add(timeout_ns))
}

/// Makes sockets of a family: type without flags, and protocol.
pub type Create = fn(kind: i32, protocol: i32) -> Result<Arc<dyn FileOps>>;

/// Makes a connected pair (socketpair(2)).
pub type CreatePair = fn(kind: i32, protocol: i32) -> Result<(Arc<dyn FileOps>, Arc<dyn FileOps>)>;

struct Family {
    number: i32,
    create: Create,
    create_pair: Option<CreatePair>,
}

static FAMILIES: SpinLock<Vec<Family>> = SpinLock::new(Vec::new());

/// Makes a family known; called from a module's init function.
pub fn register(number: i32, create: Create, create_pair: Option<CreatePair>) {
    FAMILIES.lock().push(Family { number, create, create_pair });
}

/// Makes a socket.
///
/// # Errors
/// `EAFNOSUPPORT` for a family that is not in this kernel; else the family's.
pub fn create(family: i32, kind: i32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    let create = FAMILIES.lock().iter().find(|f| f.number == family).map(|f| f.create);
    create.ok_or(Errno::EAFNOSUPPORT)?(kind, protocol)
}

/// Makes a connected pair.
///
/// # Errors
/// `EAFNOSUPPORT`, and `EOPNOTSUPP` for families without pairs.
pub fn create_pair(family: i32, kind: i32, protocol: i32) -> Result<(Arc<dyn FileOps>, Arc<dyn FileOps>)> {
    let create = FAMILIES.lock().iter().find(|f| f.number == family).map(|f| f.create_pair);
    create.ok_or(Errno::EAFNOSUPPORT)?.ok_or(Errno::EOPNOTSUPP)?(kind, protocol)
}

/// What fstat(2) reports for a socket without a name in a file system.
pub fn stat() -> crate::vfs::Stat {
    crate::vfs::Stat { mode: libos_abi::general::S_IFSOCK | 0o777, ..crate::vfs::Stat::anonymous() }
}

/// The name of a socket in /proc/self/fd; `id` tells it from others.
pub fn name(id: usize) -> alloc::string::String {
    let mut name = alloc::string::String::from("socket:[");
    let mut buffer = [0; crate::arch::console::DIGITS];
    crate::arch::console::digits((id >> 4 & 0xff_ffff) as u64, 10, &mut buffer).iter().for_each(|&digit| name.push(char::from(digit)));
    name.push(']');
    name
}

/// The value of an option that is a C `int` (setsockopt(2)); longer values are read as far as they are needed.
///
/// # Errors
/// `EINVAL` for fewer than four bytes.
pub fn option_int(bytes: &[u8]) -> Result<i32> {
    match bytes {
        [a, b, c, d, ..] => Ok(i32::from_ne_bytes([*a, *b, *c, *d])),
        _ => Err(Errno::EINVAL),
    }
}
