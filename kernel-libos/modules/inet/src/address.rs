//! `struct sockaddr_in` and `sockaddr_in6` to smoltcp's endpoints and back.
//!
//! ```text
//! sockaddr_in   0 family(2)  2 port(be)  4 address(4)  8 zero(8)                          16 bytes
//! sockaddr_in6  0 family(10) 2 port(be)  4 flowinfo    8 address(16)  24 scope            28 bytes
//! ```
//!
//! Inside the module an IPv4 peer of an IPv6 socket is an IPv4 endpoint; only here it becomes `::ffff:a.b.c.d` (ipv6(7)).

use libos_core::socket::SockAddr;
use libos_core::{Errno, Result};
use smoltcp::wire::{IpAddress, IpEndpoint, Ipv4Address, Ipv6Address};

use crate::{AF_INET, AF_INET6};

/// An address and port as a program gave them; `addr` is `None` for the wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Address, unless unspecified.
    pub addr: Option<IpAddress>,
    /// Port, 0 for any.
    pub port: u16,
}

/// Decodes an address for a socket of `family`.
///
/// # Errors
/// `EINVAL` for short ones, `EAFNOSUPPORT` for another family.
pub fn decode(family: i32, address: &SockAddr) -> Result<Target> {
    let bytes = address.bytes();
    if bytes.len() < 4 {
        return Err(Errno::EINVAL);
    }
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match i32::from(address.family()) {
        AF_INET if family == AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8).filter(|_| bytes.len() >= 16).ok_or(Errno::EINVAL)?.try_into().expect("four bytes");
            let addr = Ipv4Address::from(octets);
            Ok(Target { addr: (!addr.is_unspecified()).then_some(IpAddress::Ipv4(addr)), port })
        }
        AF_INET6 if family == AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24).ok_or(Errno::EINVAL)?.try_into().expect("sixteen bytes");
            let addr = Ipv6Address::from(octets);
            let addr = match addr.to_ipv4_mapped() {
                Some(v4) => IpAddress::Ipv4(v4),
                None => IpAddress::Ipv6(addr),
            };
            Ok(Target { addr: (!addr.is_unspecified()).then_some(addr), port })
        }
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// Encodes an endpoint for a socket of `family`.
pub fn encode(family: i32, addr: Option<IpAddress>, port: u16) -> SockAddr {
    if family == AF_INET {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&(AF_INET as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        if let Some(IpAddress::Ipv4(v4)) = addr {
            bytes[4..8].copy_from_slice(&v4.octets());
        }
        return SockAddr::from_bytes(&bytes);
    }
    let mut bytes = [0; 28];
    bytes[..2].copy_from_slice(&(AF_INET6 as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    let octets = match addr {
        Some(IpAddress::Ipv4(v4)) => v4.to_ipv6_mapped().octets(),
        Some(IpAddress::Ipv6(v6)) => v6.octets(),
        None => [0; 16],
    };
    bytes[8..24].copy_from_slice(&octets);
    SockAddr::from_bytes(&bytes)
}

/// Encodes a full endpoint.
pub fn encode_endpoint(family: i32, endpoint: IpEndpoint) -> SockAddr {
    encode(family, Some(endpoint.addr), endpoint.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_both_families() {
        let v4 = IpAddress::v4(10, 0, 2, 15);
        let v6 = IpAddress::v6(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        for (family, addr) in [(AF_INET, Some(v4)), (AF_INET, None), (AF_INET6, Some(v4)), (AF_INET6, Some(v6)), (AF_INET6, None)] {
            assert_eq!(decode(family, &encode(family, addr, 8080)), Ok(Target { addr, port: 8080 }));
        }
    }

    #[test]
    fn wrong_families_and_lengths_are_refused() {
        assert_eq!(decode(AF_INET, &encode(AF_INET6, None, 1)), Err(Errno::EAFNOSUPPORT));
        assert_eq!(decode(AF_INET, &SockAddr::from_bytes(&[2, 0, 0, 80, 1, 2, 3, 4])), Err(Errno::EINVAL));
        assert_eq!(decode(AF_INET6, &SockAddr::from_bytes(&[10, 0, 0])), Err(Errno::EINVAL));
    }
}
