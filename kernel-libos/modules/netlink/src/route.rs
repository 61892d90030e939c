//! rtnetlink(7): requests → answers, as bytes.
//!
//! ```text
//! header: length u32 | type u16 | flags u16 | sequence u32 | port id u32       then a fixed part, then attributes: length u16 | type u16 | value
//! ```

use alloc::vec::Vec;
use core::net::IpAddr;

use libos_core::Errno;
use libos_core::interfaces::Interface;

const HEADER: usize = 16;

// Types (linux/netlink.h, linux/rtnetlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDR: u16 = 20;
const GET_ADDR: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

// Flags.
const MULTI: u16 = 2;
const ACK: u16 = 4;
const ROOT_OR_MATCH: u16 = 0x300;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_RUNNING, IFF_MULTICAST, IFF_LOWER_UP (netdevice(7)).
pub fn flags(interface: &Interface) -> u32 {
    0x1 | 0x40 | 0x1_0000 | if interface.is_loopback { 0x8 } else { 0x2 | 0x1000 }
}

/// The broadcast address of an IPv4 network.
pub fn broadcast(address: [u8; 4], prefix_len: u8) -> [u8; 4] {
    (u32::from_be_bytes(address) | u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0)).to_be_bytes()
}

fn octets(address: &IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    }
}

/// A message under construction.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32, port: u32) -> Message {
        let mut bytes = alloc::vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&port.to_ne_bytes());
        Message { bytes }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.put(&(4 + value.len() as u16).to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, out: &mut Vec<u8>) {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        out.append(&mut self.bytes);
    }
}

/// Answers all requests of a message from a program; `port` is the socket's id.
pub fn answer(request: &[u8], port: u32, interfaces: &[Interface]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = request;
    while rest.len() >= HEADER {
        let word = |at: usize| rest[at..].first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
        let half = |at: usize| rest[at..].first_chunk().map_or(0, |b| u16::from_ne_bytes(*b));
        let len = word(0) as usize;
        if !(HEADER..=rest.len()).contains(&len) {
            break;
        }
        one(&rest[..len], half(4), half(6), word(8), port, interfaces, &mut out);
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    out
}

fn one(request: &[u8], kind: u16, flags: u16, sequence: u32, port: u32, interfaces: &[Interface], out: &mut Vec<u8>) {
    let is_dump = flags & ROOT_OR_MATCH != 0;
    let family = request.get(HEADER).copied().unwrap_or(0);
    let new = |kind: u16| Message::new(kind, if is_dump { MULTI } else { 0 }, sequence, port);
    let before = out.len();
    let mut error = None;
    match kind {
        GET_LINK => {
            let index = request.get(HEADER + 4..HEADER + 8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
            let name = name_attribute(request);
            let is_wanted = |i: &&Interface| is_dump || i.index == index || name.is_some_and(|n| n == i.name.as_bytes());
            interfaces.iter().filter(is_wanted).for_each(|i| link(i, new(NEW_LINK), out));
            if out.len() == before && !is_dump {
                error = Some(Errno::ENODEV);
            }
        }
        GET_ADDR if is_dump => {
            for interface in interfaces {
                for (address, prefix_len) in &interface.addresses {
                    if family == 0 || octets(address).0 == family {
                        addr(interface, address, *prefix_len, new(NEW_ADDR), out);
                    }
                }
            }
        }
        GET_ROUTE if is_dump => {
            for interface in interfaces.iter().filter(|i| !i.is_loopback) {
                routes(interface, family, &new, out);
            }
        }
        GET_ADDR | GET_ROUTE => error = Some(Errno::EOPNOTSUPP),
        // NLMSG_NOOP and other control messages are ignored.
        0..16 => {}
        // Requests come in fours: new, delete, get, set.
        _ if kind % 4 != 2 => error = Some(Errno::EPERM),
        _ => error = Some(Errno::EOPNOTSUPP),
    }
    if error.is_none() && is_dump && matches!(kind, GET_LINK | GET_ADDR | GET_ROUTE) {
        let mut done = Message::new(DONE, MULTI, sequence, port);
        done.put(&0u32.to_ne_bytes());
        done.finish(out);
    } else if error.is_some() || flags & ACK != 0 {
        let mut message = Message::new(ERROR, 0, sequence, port);
        message.put(&error.map_or(0, |e| -i32::from(e.0)).to_ne_bytes());
        message.put(&request[..HEADER]);
        message.finish(out);
    }
}

/// The value of `IFLA_IFNAME` in a request for one interface.
fn name_attribute(request: &[u8]) -> Option<&[u8]> {
    let mut rest = request.get(HEADER + 16..)?;
    while rest.len() >= 4 {
        let (len, kind) = (usize::from(u16::from_ne_bytes([rest[0], rest[1]])), u16::from_ne_bytes([rest[2], rest[3]]));
        let value = rest.get(4..len)?;
        if kind == 3 {
            return value.split(|b| *b == 0).next();
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn link(interface: &Interface, mut message: Message, out: &mut Vec<u8>) {
    // ARPHRD_LOOPBACK, ARPHRD_ETHER.
    let hardware: u16 = if interface.is_loopback { 772 } else { 1 };
    message.put(&[0, 0]);
    message.put(&hardware.to_ne_bytes());
    message.put(&interface.index.to_ne_bytes());
    message.put(&flags(interface).to_ne_bytes());
    message.put(&0u32.to_ne_bytes());
    let mut name = interface.name.as_bytes().to_vec();
    name.push(0);
    message.attribute(3, &name);
    message.attribute(13, &1000u32.to_ne_bytes());
    // IFLA_OPERSTATE: unknown (0) for loopback, up (6).
    message.attribute(16, &[if interface.is_loopback { 0 } else { 6 }]);
    message.attribute(17, &[0]);
    message.attribute(4, &interface.mtu.to_ne_bytes());
    message.attribute(6, b"noqueue\0");
    message.attribute(1, &interface.mac);
    message.attribute(2, if interface.is_loopback { &[0; 6] } else { &[0xff; 6] });
    message.finish(out);
}

fn addr(interface: &Interface, address: &IpAddr, prefix_len: u8, mut message: Message, out: &mut Vec<u8>) {
    let (family, bytes) = octets(address);
    // RT_SCOPE_HOST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE.
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80);
    let scope = if interface.is_loopback {
        254
    } else if is_link_local {
        253
    } else {
        0
    };
    // IFA_F_PERMANENT.
    message.put(&[family, prefix_len, 0x80, scope]);
    message.put(&interface.index.to_ne_bytes());
    message.attribute(1, &bytes);
    if let Ok(v4) = <[u8; 4]>::try_from(&bytes[..]) {
        message.attribute(2, &v4);
        if !interface.is_loopback {
            message.attribute(4, &broadcast(v4, prefix_len));
        }
        let mut name = interface.name.as_bytes().to_vec();
        name.push(0);
        message.attribute(3, &name);
    }
    message.attribute(8, &0x80u32.to_ne_bytes());
    // IFA_CACHEINFO: valid for ever, and two times nobody keeps.
    message.attribute(6, &[[0xff; 8], [0; 8]].concat());
    message.finish(out);
}

fn routes(interface: &Interface, wanted: u8, new: &dyn Fn(u16) -> Message, out: &mut Vec<u8>) {
    let mut put = |to: Option<(&IpAddr, u8)>, gateway: Option<&IpAddr>, source: &IpAddr| {
        let (family, source) = octets(source);
        if wanted != 0 && wanted != family {
            return;
        }
        let mut message = new(NEW_ROUTE);
        // RT_TABLE_MAIN; RTPROT_BOOT or RTPROT_KERNEL; scope universe or link; RTN_UNICAST.
        let (protocol, scope) = if gateway.is_some() { (3, 0) } else { (2, 253) };
        message.put(&[family, to.map_or(0, |(_, len)| len), 0, 0, 254, protocol, scope, 1]);
        message.put(&0u32.to_ne_bytes());
        message.attribute(15, &254u32.to_ne_bytes());
        if let Some((network, _)) = to {
            message.attribute(1, &octets(network).1);
        }
        if let Some(gateway) = gateway {
            message.attribute(5, &octets(gateway).1);
        } else if family == AF_INET {
            message.attribute(7, &source);
        }
        message.attribute(4, &interface.index.to_ne_bytes());
        message.finish(out);
    };
    if let Some(gateway) = &interface.gateway {
        put(None, Some(gateway), gateway);
    }
    for (address, prefix_len) in &interface.addresses {
        put(Some((&network(address, *prefix_len), *prefix_len)), None, address);
    }
}

/// The network that an address is in.
pub fn network(address: &IpAddr, prefix_len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::MAX.checked_shr(prefix_len.into()).unwrap_or(0)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Vec<Interface> {
        let eth = Interface {
            index: 2,
            name: "eth0",
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            is_loopback: false,
            addresses: vec![("10.0.2.15".parse().unwrap(), 24), ("fe80::1".parse().unwrap(), 64)],
            gateway: Some("10.0.2.2".parse().unwrap()),
        };
        let lo = Interface {
            index: 1,
            name: "lo",
            mac: [0; 6],
            is_loopback: true,
            addresses: vec![("127.0.0.1".parse().unwrap(), 8)],
            gateway: None,
            ..eth.clone()
        };
        vec![lo, eth]
    }

    fn ask(kind: u16, flags: u16, body: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut message = Message::new(kind, flags, 7, 0);
        message.put(body);
        let mut request = Vec::new();
        message.finish(&mut request);
        let answer = answer(&request, 99, &interfaces());
        let mut rest = &answer[..];
        let mut out = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_ne_bytes(*rest.first_chunk().unwrap()) as usize;
            assert_eq!(rest[8..16], [7u32.to_ne_bytes(), 99u32.to_ne_bytes()].concat());
            out.push((u16::from_ne_bytes([rest[4], rest[5]]), rest[HEADER..len].to_vec()));
            rest = &rest[len..];
        }
        out
    }

    #[test]
    fn dumps_end_with_done() {
        let kinds = |found: Vec<(u16, Vec<u8>)>| found.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(ask(GET_LINK, 0x301, &[0])), [NEW_LINK, NEW_LINK, DONE]);
        assert_eq!(kinds(ask(GET_ADDR, 0x301, &[0])), [NEW_ADDR, NEW_ADDR, NEW_ADDR, DONE]);
        assert_eq!(kinds(ask(GET_ADDR, 0x301, &[AF_INET6])), [NEW_ADDR, DONE]);
        assert_eq!(kinds(ask(GET_ROUTE, 0x301, &[AF_INET])), [NEW_ROUTE, NEW_ROUTE, DONE]);
    }

    #[test]
    fn one_interface_and_what_is_refused() {
        let found = ask(GET_LINK, 1, &[[0u8; 4], 2u32.to_ne_bytes(), [0; 4], [0; 4]].concat());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1[4..8], 2u32.to_ne_bytes());
        let error = |found: Vec<(u16, Vec<u8>)>| i32::from_ne_bytes(*found[0].1.first_chunk().unwrap());
        assert_eq!(error(ask(GET_LINK, 1, &[0; 16])), -19);
        assert_eq!(error(ask(NEW_ADDR, 5, &[0; 8])), -1);
        assert!(answer(&[1, 2, 3], 1, &interfaces()).is_empty() && answer(&[0xff; 40], 1, &interfaces()).is_empty());
    }

    #[test]
    fn networks() {
        assert_eq!(network(&"10.1.2.3".parse().unwrap(), 20), "10.1.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(network(&"10.1.2.3".parse().unwrap(), 0), "0.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(network(&"fe80::1".parse().unwrap(), 64), "fe80::".parse::<IpAddr>().unwrap());
        assert_eq!(broadcast([10, 0, 2, 15], 24), [10, 0, 2, 255]);
    }
}
