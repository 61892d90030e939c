//! Ancillary data of datagrams: what recvmsg(2) tells about a packet and sendmsg(2) asks for one (ip(7), ipv6(7); RFC 3542, section 6).
//!
//! smoltcp carries one number beside each received packet ([`PacketMeta::id`]). It holds what its sockets cannot see of the IP header:
//!
//! ```text
//! bit 16 came through the card   bits 15-8 hop limit   bits 7-0 traffic class
//! ```

use alloc::vec::Vec;

use bitflags::bitflags;
use libos_core::abi::net as linux;
use libos_core::socket::Control;
use libos_core::{Errno, Result};
use smoltcp::phy::PacketMeta;
use smoltcp::wire::{IpAddress, Ipv4Address, Ipv6Address};

use crate::AF_INET;

const IPPROTO_IP: i32 = linux::IPPROTO_IP as i32;
const IPPROTO_IPV6: i32 = linux::IPPROTO_IPV6 as i32;
const FROM_CARD: u32 = 1 << 16;
/// Interface numbers, as if_nametoindex(3) has them: `lo` and `eth0`.
const LOOPBACK_INDEX: u32 = 1;
const CARD_INDEX: u32 = 2;

bitflags! {
    /// What a socket wants to hear of each datagram.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Wanted: u32 {
        /// `IP_PKTINFO`.
        const INFO_V4 = 1;
        /// `IP_RECVTTL`.
        const TTL = 2;
        /// `IP_RECVTOS`.
        const TOS = 4;
        /// `IPV6_RECVPKTINFO`.
        const INFO_V6 = 8;
        /// `IPV6_RECVHOPLIMIT`.
        const HOP_LIMIT = 16;
        /// `IPV6_RECVTCLASS`.
        const CLASS = 32;
    }
}

/// Returns what to keep of a packet that begins with its IP header.
pub fn of_packet(ip: &[u8], is_from_card: bool) -> PacketMeta {
    let mut meta = PacketMeta::default();
    let link = if is_from_card { FROM_CARD } else { 0 };
    meta.id = match ip {
        [first, tos, ..] if first >> 4 == 4 && ip.len() >= 20 => link | u32::from(ip[8]) << 8 | u32::from(*tos),
        [first, second, ..] if first >> 4 == 6 && ip.len() >= 40 => link | u32::from(ip[7]) << 8 | u32::from(first << 4 | second >> 4),
        _ => link,
    };
    meta
}

/// Puts a traffic class into a packet that begins with its IP header and has none.
pub fn set_class(ip: &mut [u8], class: u8) {
    if class == 0 {
        return;
    }
    match (ip.first().map(|first| first >> 4), ip.len()) {
        (Some(4), 20..) => {
            ip[1] = class;
            let old = u16::from_be_bytes([ip[10], ip[11]]);
            // Zero is "not computed": loopback does without. RFC 1624: HC' = ~(~HC + ~m + m'), where m had no class.
            if old != 0 {
                let sum = u32::from(!old) + u32::from(class);
                let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
        (Some(6), 2..) => {
            ip[0] = 0x60 | class >> 4;
            ip[1] = class << 4 | ip[1] & 0xf;
        }
        _ => {}
    }
}

/// Returns the control messages of a received datagram, in Linux's order.
pub fn received(wanted: Wanted, family: i32, meta: PacketMeta, source: IpAddress, local: Option<IpAddress>) -> Vec<Control> {
    let mut out = Vec::new();
    let index = if meta.id & FROM_CARD != 0 { CARD_INDEX } else { LOOPBACK_INDEX };
    let (hops, class) = (i32::from((meta.id >> 8) as u8), meta.id as u8);
    let mut push = |level: i32, kind: u32, data: &[u8]| out.push(Control::Other(level, kind as i32, data.to_vec()));
    let is_v4 = matches!(source, IpAddress::Ipv4(_));
    if family != AF_INET && wanted.contains(Wanted::INFO_V6) {
        let octets = match local {
            Some(IpAddress::Ipv6(addr)) => addr.octets(),
            Some(IpAddress::Ipv4(addr)) => addr.to_ipv6_mapped().octets(),
            None => [0; 16],
        };
        let mut info = [0; 20];
        info[..16].copy_from_slice(&octets);
        info[16..].copy_from_slice(&index.to_ne_bytes());
        push(IPPROTO_IPV6, linux::IPV6_PKTINFO, &info);
    }
    if !is_v4 {
        if wanted.contains(Wanted::HOP_LIMIT) {
            push(IPPROTO_IPV6, linux::IPV6_HOPLIMIT, &hops.to_ne_bytes());
        }
        if wanted.contains(Wanted::CLASS) {
            push(IPPROTO_IPV6, linux::IPV6_TCLASS, &i32::from(class).to_ne_bytes());
        }
        return out;
    }
    if wanted.contains(Wanted::INFO_V4) {
        let octets = match local {
            Some(IpAddress::Ipv4(addr)) => addr.octets(),
            _ => [0; 4],
        };
        let mut info = [0; 12];
        info[..4].copy_from_slice(&index.to_ne_bytes());
        info[4..8].copy_from_slice(&octets);
        info[8..].copy_from_slice(&octets);
        push(IPPROTO_IP, linux::IP_PKTINFO, &info);
    }
    if wanted.contains(Wanted::TTL) {
        push(IPPROTO_IP, linux::IP_TTL, &hops.to_ne_bytes());
    }
    if wanted.contains(Wanted::TOS) {
        push(IPPROTO_IP, linux::IP_TOS, &[class]);
    }
    out
}

/// What one sendmsg(2) asks for, besides the socket's options.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Source address.
    pub source: Option<IpAddress>,
    /// Hop limit.
    pub hops: Option<u8>,
    /// Traffic class.
    pub class: Option<u8>,
}

/// Decodes the control messages of a send.
///
/// # Errors
/// `EINVAL` for wrong lengths and values, and for messages of these levels that nobody knows (`ip_cmsg_send` of Linux).
pub fn wish(control: &[Control]) -> Result<Wish> {
    let mut wish = Wish::default();
    for item in control {
        let Control::Other(level, kind, data) = item else { continue };
        let int = || Ok(i32::from_ne_bytes(data.as_slice().try_into().map_err(|_| Errno::EINVAL)?));
        // -1 is the default (RFC 3542, 6.3 and 6.5).
        let byte = |value: i32, min: i32| match value {
            -1 => Ok(None),
            value if (min..=255).contains(&value) => Ok(Some(value as u8)),
            _ => Err(Errno::EINVAL),
        };
        match (*level, *kind as u32) {
            (IPPROTO_IP, linux::IP_TTL) => wish.hops = Some(u8::try_from(int()?).ok().filter(|&ttl| ttl > 0).ok_or(Errno::EINVAL)?),
            (IPPROTO_IP, linux::IP_TOS) => {
                let value = if let [tos] = data.as_slice() { i32::from(*tos) } else { int()? };
                wish.class = Some(u8::try_from(value).map_err(|_| Errno::EINVAL)?);
            }
            (IPPROTO_IP, linux::IP_PKTINFO) => {
                let info: &[u8; 12] = data.as_slice().try_into().map_err(|_| Errno::EINVAL)?;
                let addr = Ipv4Address::new(info[4], info[5], info[6], info[7]);
                wish.source = (!addr.is_unspecified()).then_some(IpAddress::Ipv4(addr));
            }
            (IPPROTO_IPV6, linux::IPV6_HOPLIMIT) => wish.hops = byte(int()?, 0)?,
            (IPPROTO_IPV6, linux::IPV6_TCLASS) => wish.class = byte(int()?, 0)?,
            (IPPROTO_IPV6, linux::IPV6_PKTINFO) => {
                let octets: [u8; 16] = data.get(..16).filter(|_| data.len() >= 20).ok_or(Errno::EINVAL)?.try_into().expect("sixteen bytes");
                let addr = Ipv6Address::from(octets);
                let source = addr.to_ipv4_mapped().map_or(IpAddress::Ipv6(addr), IpAddress::Ipv4);
                wish.source = (!addr.is_unspecified()).then_some(source);
            }
            (IPPROTO_IP | IPPROTO_IPV6, _) => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(header: &[u8]) -> u16 {
        let sum: u32 = header.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn the_class_survives_and_the_checksum_stays_right() {
        for class in [0, 1, 0x2e << 2, 255] {
            let mut v4 = [0x45, 0, 0, 28, 7, 9, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2];
            let sum = checksum(&v4);
            v4[10..12].copy_from_slice(&sum.to_be_bytes());
            set_class(&mut v4, class);
            assert_eq!(checksum(&v4), 0, "{class}");
            assert_eq!(of_packet(&v4, true).id, FROM_CARD | 64 << 8 | u32::from(class));
            let mut v6 = [0; 40];
            (v6[0], v6[1], v6[7]) = (0x60, 0x0a, 9);
            set_class(&mut v6, class);
            assert_eq!(of_packet(&v6, false).id, 9 << 8 | u32::from(class));
            assert_eq!((v6[0] >> 4, v6[1] & 0xf), (6, 0xa));
        }
        assert_eq!(of_packet(&[], false).id, 0);
    }

    #[test]
    fn wishes_are_checked() {
        let one = |level, kind: u32, data: &[u8]| wish(&[Control::Other(level, kind as i32, data.to_vec())]);
        assert_eq!(one(IPPROTO_IP, linux::IP_TTL, &7i32.to_ne_bytes()).map(|w| w.hops), Ok(Some(7)));
        assert_eq!(one(IPPROTO_IP, linux::IP_TTL, &0i32.to_ne_bytes()), Err(Errno::EINVAL));
        assert_eq!(one(IPPROTO_IPV6, linux::IPV6_TCLASS, &(-1i32).to_ne_bytes()), Ok(Wish::default()));
        assert_eq!(one(IPPROTO_IPV6, linux::IPV6_HOPLIMIT, &256i32.to_ne_bytes()), Err(Errno::EINVAL));
        assert_eq!(one(IPPROTO_IPV6, linux::IPV6_PKTINFO, &[0; 19]), Err(Errno::EINVAL));
        assert_eq!(one(IPPROTO_IPV6, 200, &[]), Err(Errno::EINVAL));
        assert_eq!(one(255, 1, &[]), Ok(Wish::default()));
    }
}
