//! Transport checksums when the device takes part in them.
//!
//! Sending: the device sums the segment, so the checksum field must hold the sum of the pseudo header (virtio 1.2, 5.1.6.2.1). Receiving: a device that
//! does not vouch for a packet leaves the verification to us.

use libos_core::device::TxChecksum;
use smoltcp::wire::{IpAddress, TcpPacket, UdpPacket};

use crate::classify::{Class, Segment};

/// Offsets of the checksum field in a TCP and a UDP header (RFC 9293, RFC 768).
const TCP_FIELD: usize = 16;
const UDP_FIELD: usize = 6;

/// Prepares a packet whose checksum the device will complete.
pub fn offload(packet: &mut [u8], class: Class) -> TxChecksum {
    let (segment, field, protocol) = match class {
        Class::Tcp { segment, .. } => (segment, TCP_FIELD, 6),
        Class::Udp(segment) => (segment, UDP_FIELD, 17),
        Class::Other => return TxChecksum::Done,
    };
    let sum = pseudo_header_sum(&segment, protocol);
    packet[segment.transport + field..segment.transport + field + 2].copy_from_slice(&sum.to_be_bytes());
    TxChecksum::Device { start: segment.transport as u16, offset: field as u16 }
}

/// Whether the checksum of a received packet is right; packets without one of ours are the stack's business.
pub fn verify(packet: &[u8], class: Class) -> bool {
    match class {
        Class::Tcp { segment, .. } => {
            let bytes = &packet[segment.transport..segment.transport + segment.len];
            TcpPacket::new_unchecked(bytes).verify_checksum(&segment.from.addr, &segment.to.addr)
        }
        Class::Udp(segment) => {
            let bytes = &packet[segment.transport..segment.transport + segment.len];
            UdpPacket::new_unchecked(bytes).verify_checksum(&segment.from.addr, &segment.to.addr)
        }
        Class::Other => true,
    }
}

/// The ones' complement sum, not inverted, of addresses, protocol and length (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo_header_sum(segment: &Segment, protocol: u32) -> u16 {
    let add = |sum: u32, addr: &IpAddress| match addr {
        IpAddress::Ipv4(a) => words(sum, &a.octets()),
        IpAddress::Ipv6(a) => words(sum, &a.octets()),
    };
    let mut sum = add(add(protocol + segment.len as u32, &segment.from.addr), &segment.to.addr);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn words(sum: u32, bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).fold(sum, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])))
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::IpEndpoint;

    use super::*;

    #[test]
    fn the_device_completes_what_offload_prepared() {
        let from = IpEndpoint::new(IpAddress::v4(10, 0, 2, 15), 80);
        let to = IpEndpoint::new(IpAddress::v4(192, 168, 200, 2), 40_000);
        let mut packet = [0u8; 27];
        packet[0..2].copy_from_slice(&80u16.to_be_bytes());
        packet[2..4].copy_from_slice(&40_000u16.to_be_bytes());
        packet[12] = 0x50;
        packet[20..].copy_from_slice(b"payload");
        let segment = Segment { from, to, transport: 0, len: packet.len() };
        let class = Class::Tcp { segment, opens: false };
        assert_eq!(offload(&mut packet, class), TxChecksum::Device { start: 0, offset: 16 });
        // What the device does: sum everything from `start`, invert, store.
        let mut sum = words(0, &packet) + (u32::from(packet[26]) << 8);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        packet[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        assert!(verify(&packet, class));
        packet[26] ^= 1;
        assert!(!verify(&packet, class));
    }
}
