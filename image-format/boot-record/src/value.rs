//! The values that are more than a string or a number: mounts, the network, ports, flags, with their byte forms.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Switches of the kernel itself; unknown bits are ignored by the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// Print system calls on the console as strace(1) does.
    pub const TRACE: Flags = Flags(1);
    /// Print the kernel's own debugging messages.
    pub const DEBUG: Flags = Flags(1 << 1);

    /// Returns whether all bits of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits of both.
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// How a mount is used; unknown bits are ignored by the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountFlags(pub u32);

impl MountFlags {
    /// The source is never written.
    pub const READ_ONLY: MountFlags = MountFlags(1);
    /// Writes go to memory, above the source, and are gone at shutdown.
    pub const RAM_OVERLAY: MountFlags = MountFlags(1 << 1);
    /// A missing source is no error: the mount is left out.
    pub const OPTIONAL: MountFlags = MountFlags(1 << 2);
    /// An empty file system gets a copy of the directory that it is mounted on.
    pub const INITIAL_CONTENT: MountFlags = MountFlags(1 << 3);

    /// Returns whether all bits of `other` are set.
    pub const fn contains(self, other: MountFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits of both.
    pub const fn union(self, other: MountFlags) -> MountFlags {
        MountFlags(self.0 | other.0)
    }
}

/// Where the bytes of a mounted file system are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountSource<'a> {
    /// The initrd when the monitor passed one, else the first virtio block device.
    Auto,
    /// The initrd.
    Initrd,
    /// The n-th virtio block device, from 0.
    Disk(u32),
    /// A name that the file system interprets: a 9p or virtiofs tag, or nothing at all (`tmpfs`, `proc`).
    Named(&'a [u8]),
}

/// One mount. Byte form: u32 source kind (0 auto, 1 initrd, 2 disk, 3 named), u32 disk number (0 unless disk), u32 [`MountFlags`], then four strings
/// (source name, target, file system type, options), each a u32 length and that many bytes, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount<'a> {
    /// What is mounted.
    pub source: MountSource<'a>,
    /// Where: an absolute path.
    pub target: &'a [u8],
    /// `ext4`, `tmpfs`, `proc`, ...; empty when the kernel should find out.
    pub fstype: &'a [u8],
    /// Comma-separated options of the file system (`size=64m`); may be empty.
    pub options: &'a [u8],
    /// How it is used.
    pub flags: MountFlags,
}

impl Mount<'static> {
    /// The usual root: the initrd or the first disk, never written, with a RAM overlay above.
    pub const ROOT: Mount<'static> = Mount {
        source: MountSource::Auto,
        target: b"/",
        fstype: b"",
        options: b"",
        flags: MountFlags::READ_ONLY.union(MountFlags::RAM_OVERLAY),
    };
}

impl<'a> Mount<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Mount<'a>> {
        let mut rest = bytes;
        let kind = take_u32(&mut rest)?;
        let disk = take_u32(&mut rest)?;
        let flags = MountFlags(take_u32(&mut rest)?);
        let name = take_text(&mut rest)?;
        let target = take_text(&mut rest)?;
        let fstype = take_text(&mut rest)?;
        let options = take_text(&mut rest)?;
        let source = match kind {
            0 => MountSource::Auto,
            1 => MountSource::Initrd,
            2 => MountSource::Disk(disk),
            3 => MountSource::Named(name),
            _ => return None,
        };
        let is_canonical = (kind == 2 || disk == 0) && (kind == 3 || name.is_empty());
        (is_canonical && rest.is_empty() && target.first() == Some(&b'/')).then_some(Mount { source, target, fstype, options, flags })
    }
}

/// How the first network interface gets its address. Byte form: u8 kind (0 none, 1 DHCP, 2 static); static goes on with u8 prefix length, u8 address
/// length, u8 gateway length (4, 16, or for the gateway 0), the address, the gateway, both in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// No interface is configured but loopback.
    None,
    /// By DHCP.
    Dhcp,
    /// By this record. Name servers are [`crate::BootRecord::dns`].
    Static {
        /// Own address.
        address: IpAddr,
        /// Length of the network's prefix in bits: at most 32 or 128.
        prefix_len: u8,
        /// Where other networks are, of the same family as the address.
        gateway: Option<IpAddr>,
    },
}

impl Network {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Network> {
        match bytes {
            [0] => Some(Network::None),
            [1] => Some(Network::Dhcp),
            [2, prefix_len, address_len, gateway_len, addresses @ ..] => {
                let (address, gateway) = addresses.split_at_checked(usize::from(*address_len))?;
                let address = parse_ip(address)?;
                let gateway = match gateway_len {
                    0 if gateway.is_empty() => None,
                    0 => return None,
                    n if usize::from(*n) == gateway.len() => Some(parse_ip(gateway)?),
                    _ => return None,
                };
                let max = if address.is_ipv4() { 32 } else { 128 };
                let is_one_family = gateway.is_none_or(|g| g.is_ipv4() == address.is_ipv4());
                (*prefix_len <= max && is_one_family).then_some(Network::Static { address, prefix_len: *prefix_len, gateway })
            }
            _ => None,
        }
    }
}

/// A transport protocol; the number is the IP protocol number (IANA, "Protocol Numbers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

/// A port that the program is said to listen on (`EXPOSE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Port number.
    pub port: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

impl Port {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Port> {
        let [a, b, protocol, 0] = *bytes else { return None };
        let protocol = match protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => return None,
        };
        Some(Port { port: u16::from_le_bytes([a, b]), protocol })
    }
}

/// Reads an address of 4 or 16 bytes in network order.
pub(crate) fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
        _ => None,
    }
}

/// Takes a little-endian u32 off the front.
pub(crate) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*head))
}

/// Takes a length-prefixed string without NUL off the front.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_u32(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    (!head.contains(&0)).then_some(head)
}
