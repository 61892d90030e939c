//! Which flow a packet belongs to, from its headers alone.

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpAddress, IpEndpoint, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

/// The addresses of a transport packet, and where its headers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub from: IpEndpoint,
    /// Receiver.
    pub to: IpEndpoint,
    /// Offset of the transport header in the packet.
    pub transport: usize,
    /// Length in bytes of the transport header and its payload.
    pub len: usize,
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// TCP; `opens` when it is a SYN without ACK.
    Tcp {
        /// Addresses.
        segment: Segment,
        /// Whether it asks for a new connection.
        opens: bool,
    },
    /// UDP.
    Udp(Segment),
    /// Anything else, malformed packets included: ARP, ICMP, fragments.
    Other,
}

/// Looks at an Ethernet frame.
pub fn ethernet(frame: &[u8]) -> Class {
    let Ok(packet) = EthernetFrame::new_checked(frame) else { return Class::Other };
    let header = EthernetFrame::<&[u8]>::header_len();
    match packet.ethertype() {
        EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 => ip(frame, header),
        _ => Class::Other,
    }
}

/// Looks at an IP packet that starts at `offset`.
pub fn ip(frame: &[u8], offset: usize) -> Class {
    let bytes = &frame[offset..];
    let (from, to, protocol, header, total) = match bytes.first().map(|b| b >> 4) {
        Some(4) => {
            let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return Class::Other };
            if packet.more_frags() || packet.frag_offset() != 0 {
                return Class::Other;
            }
            let header = usize::from(packet.header_len());
            (
                IpAddress::Ipv4(packet.src_addr()),
                IpAddress::Ipv4(packet.dst_addr()),
                packet.next_header(),
                header,
                usize::from(packet.total_len()),
            )
        }
        Some(6) => {
            let Ok(packet) = Ipv6Packet::new_checked(bytes) else { return Class::Other };
            (
                IpAddress::Ipv6(packet.src_addr()),
                IpAddress::Ipv6(packet.dst_addr()),
                packet.next_header(),
                packet.header_len(),
                packet.total_len(),
            )
        }
        _ => return Class::Other,
    };
    if total < header || total > bytes.len() {
        return Class::Other;
    }
    let payload = &bytes[header..total];
    let segment = |from_port, to_port| Segment {
        from: IpEndpoint::new(from, from_port),
        to: IpEndpoint::new(to, to_port),
        transport: offset + header,
        len: payload.len(),
    };
    match protocol {
        IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
            Ok(tcp) => Class::Tcp { segment: segment(tcp.src_port(), tcp.dst_port()), opens: tcp.syn() && !tcp.ack() && !tcp.rst() },
            Err(_) => Class::Other,
        },
        IpProtocol::Udp => match UdpPacket::new_checked(payload) {
            Ok(udp) => Class::Udp(segment(udp.src_port(), udp.dst_port())),
            Err(_) => Class::Other,
        },
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 40-byte IPv4 TCP SYN from 10.0.2.2:1000 to 10.0.2.15:80; checksums are not looked at here.
    fn syn() -> [u8; 40] {
        let mut p = [0u8; 40];
        p[0] = 0x45;
        p[3] = 40;
        p[9] = 6;
        p[12..16].copy_from_slice(&[10, 0, 2, 2]);
        p[16..20].copy_from_slice(&[10, 0, 2, 15]);
        p[20..24].copy_from_slice(&[0x03, 0xe8, 0, 80]);
        p[32] = 0x50;
        p[33] = 2;
        p
    }

    #[test]
    fn a_syn_is_found() {
        let Class::Tcp { segment, opens } = ip(&syn(), 0) else { panic!("TCP") };
        assert!(opens);
        assert_eq!(segment.from, IpEndpoint::new(IpAddress::v4(10, 0, 2, 2), 1000));
        assert_eq!(segment.to, IpEndpoint::new(IpAddress::v4(10, 0, 2, 15), 80));
        assert_eq!((segment.transport, segment.len), (20, 20));
    }

    #[test]
    fn cut_and_fragmented_packets_are_left_to_the_stack() {
        for len in 0..40 {
            assert_eq!(ip(&syn()[..len], 0), Class::Other, "{len}");
        }
        let mut fragment = syn();
        fragment[6] = 0x20;
        assert_eq!(ip(&fragment, 0), Class::Other);
    }
}
