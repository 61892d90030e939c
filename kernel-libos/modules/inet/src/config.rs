//! How the card gets its address: from the boot record, or from a DHCP server.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use libos_core::abi::general::AT_FDCWD;
use libos_core::file::OpenFlags;
use libos_core::io::IoSrc;
use libos_core::vfs::{self, OpenHow};
use libos_core::{Task, command_line, start};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{IpAddress, IpCidr};
use ukc_boot_record::Network;

/// What the boot record asks for.
pub enum Settings {
    /// The card stays without an address.
    None,
    /// Ask a DHCP server.
    Dhcp,
    /// This address, and the router for everything else.
    Static {
        /// Address and prefix length.
        cidr: IpCidr,
        /// Router.
        gateway: Option<IpAddress>,
    },
}

/// Reads the kernel command line, then the boot record.
pub fn settings() -> Settings {
    if let Some(given) = given_address() {
        return Settings::Static { cidr: given.cidr, gateway: given.gateway };
    }
    match start::boot_record().map_or(Network::None, |record| record.network) {
        Network::None => Settings::None,
        Network::Dhcp => Settings::Dhcp,
        Network::Static { address, prefix_len, gateway } => {
            Settings::Static { cidr: IpCidr::new(address.into(), prefix_len), gateway: gateway.map(IpAddress::from) }
        }
    }
}

/// `ukc.ip=ADDRESS/PREFIX[:GATEWAY[:DNS]]` of the kernel command line.
#[derive(Debug, PartialEq, Eq)]
struct Given {
    cidr: IpCidr,
    gateway: Option<IpAddress>,
    dns: Option<Ipv4Addr>,
}

fn given_address() -> Option<Given> {
    command_line::words(start::command_line()).find_map(|word| {
        let word = core::str::from_utf8(word).ok()?;
        // urunc's two dialects have an address as well: the first in our form, the second in Linux'.
        match word.strip_prefix("ukc.ip=").or_else(|| word.strip_prefix("netdev.ip=")) {
            Some(given) => parse_given(given),
            None => parse_linux(word.strip_prefix("ip=")?),
        }
    })
}

/// `ADDRESS:SERVER:GATEWAY:MASK:HOST:DEVICE:AUTOCONF[:DNS]` (Linux, Documentation/admin-guide/nfs/nfsroot.rst, "ip=").
fn parse_linux(text: &str) -> Option<Given> {
    let parts: Vec<Option<Ipv4Addr>> = text.split(':').map(|part| part.parse().ok()).collect();
    let part = |index: usize| parts.get(index).copied().flatten();
    let prefix_len = part(3).map_or(24, |mask| mask.to_bits().leading_ones() as u8);
    let cidr = IpCidr::new(IpAddress::Ipv4(part(0)?), prefix_len);
    Some(Given { cidr, gateway: part(2).map(IpAddress::Ipv4), dns: part(7) })
}

fn parse_given(text: &str) -> Option<Given> {
    let mut parts = text.split(':');
    let (address, prefix_len) = parts.next()?.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix_len: u8 = prefix_len.parse().ok().filter(|&len| len <= 32)?;
    let mut next = || parts.next().filter(|part| !part.is_empty()).map(|part| part.parse::<Ipv4Addr>().ok());
    let (gateway, dns) = (next(), next());
    Some(Given {
        cidr: IpCidr::new(IpAddress::Ipv4(address), prefix_len),
        gateway: gateway.flatten().map(IpAddress::Ipv4),
        dns: dns.flatten(),
    })
}

/// Writes /etc/resolv.conf (resolv.conf(5)) with the name servers that the command line or the boot record give, as a container runtime does. Without
/// any, or without an /etc to write to, the image's own file stays.
pub fn write_resolv_conf(task: &Task) {
    let mut text = String::new();
    let mut add = |server: IpAddr| text.push_str(&alloc::format!("nameserver {server}\n"));
    match given_address() {
        Some(given) => given.dns.into_iter().for_each(|v4| add(IpAddr::V4(v4))),
        None => start::boot_record().iter().flat_map(|record| record.dns()).for_each(add),
    }
    if text.is_empty() {
        return;
    }
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::TRUNC;
    let how = OpenHow { flags, mode: 0o644, ..OpenHow::existing(flags) };
    // Names then resolve only as far as the image's file goes; that is no reason not to start.
    if let Ok(file) = vfs::open_at(task, AT_FDCWD, b"/etc/resolv.conf", how) {
        let _ = file.write(&mut IoSrc::kernel(text.as_bytes()));
    }
}

/// A DHCP client (RFC 2131).
pub struct Dhcp {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

/// What the server gave, or took back.
pub struct Lease {
    /// Address; `None` when there is none any more.
    pub cidr: Option<IpCidr>,
    /// Router.
    pub gateway: Option<IpAddress>,
}

impl Dhcp {
    /// Returns a client that has not sent anything yet.
    pub fn new() -> Dhcp {
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(dhcpv4::Socket::new());
        Dhcp { sockets, handle }
    }

    /// Its socket, alone in a set.
    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// What has changed since the last call.
    pub fn event(&mut self) -> Option<Lease> {
        match self.sockets.get_mut::<dhcpv4::Socket>(self.handle).poll()? {
            dhcpv4::Event::Deconfigured => Some(Lease { cidr: None, gateway: None }),
            dhcpv4::Event::Configured(config) => {
                Some(Lease { cidr: Some(IpCidr::Ipv4(config.address)), gateway: config.router.map(IpAddress::Ipv4) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_the_form_of_linux() {
        let given = parse_linux("10.4.0.2::10.4.0.1:255.255.240.0:urunc:eth0:off").unwrap();
        assert_eq!(
            given,
            Given { cidr: IpCidr::new(IpAddress::v4(10, 4, 0, 2), 20), gateway: Some(IpAddress::v4(10, 4, 0, 1)), dns: None }
        );
        assert_eq!(parse_linux("dhcp"), None);
        assert_eq!(parse_linux("10.4.0.2:::::::1.1.1.1").unwrap().dns, Some(Ipv4Addr::new(1, 1, 1, 1)));
    }

    #[test]
    fn addresses_on_the_command_line() {
        let ip = |a, b, c, d| IpAddress::v4(a, b, c, d);
        let given = |gateway, dns| Some(Given { cidr: IpCidr::new(ip(10, 0, 2, 15), 24), gateway, dns });
        for (text, expected) in [
            ("10.0.2.15/24", given(None, None)),
            ("10.0.2.15/24:10.0.2.2", given(Some(ip(10, 0, 2, 2)), None)),
            ("10.0.2.15/24:10.0.2.2:10.0.2.3", given(Some(ip(10, 0, 2, 2)), Some(Ipv4Addr::new(10, 0, 2, 3)))),
            ("10.0.2.15/24::10.0.2.3", given(None, Some(Ipv4Addr::new(10, 0, 2, 3)))),
            ("10.0.2.15", None),
            ("10.0.2.15/33", None),
            ("x/24", None),
        ] {
            assert_eq!(parse_given(text), expected, "{text}");
        }
    }
}
