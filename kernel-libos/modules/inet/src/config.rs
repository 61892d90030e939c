//! How the card gets its address: from the boot record, or from a DHCP server.

use alloc::vec::Vec;

use libos_core::start;
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

/// Reads the boot record.
pub fn settings() -> Settings {
    match start::boot_record().map_or(Network::None, |record| record.network) {
        Network::None => Settings::None,
        Network::Dhcp => Settings::Dhcp,
        Network::Static { address, prefix_len, gateway } => {
            Settings::Static { cidr: IpCidr::new(address.into(), prefix_len), gateway: gateway.map(IpAddress::from) }
        }
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
