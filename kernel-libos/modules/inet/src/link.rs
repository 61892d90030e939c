//! A smoltcp interface on top of a network card, or of nothing (loopback).
//!
//! smoltcp pulls packets out of a device and looks at all sockets for each of them. Here it is handed one packet and the one socket it belongs to
//! ([`Link::ingress`]), or one socket that wants to send ([`Link::egress`]).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::device::{NetDevice, TxChecksum};
use libos_core::time;
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{self, Checksum, Device, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress};

use crate::{ancillary, checksum, classify};

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;
/// How long to wait for room in the card's ring; after that the card is broken or its host is very busy.
const FULL_RING_NS: u64 = 2_000_000;
/// Linux's loopback MTU.
const LOOPBACK_MTU: usize = 65_536;

/// Where packets go to and come from.
enum Port {
    Card(Arc<dyn NetDevice>),
    /// Packets sent and not yet received.
    Loopback(VecDeque<Vec<u8>>),
}

/// An interface and its port.
pub struct Link {
    /// Addresses, routes, neighbours.
    pub interface: Interface,
    phy: Phy,
}

struct Phy {
    port: Port,
    capabilities: DeviceCapabilities,
    /// Whether the card completes and verifies transport checksums.
    offloads: bool,
    /// Traffic class of what is being sent. smoltcp has none, and hands a packet's number to the device for IPv4 only.
    class: u8,
}

impl Link {
    /// Returns the loopback link, without addresses.
    pub fn loopback(seed: u64) -> Box<Link> {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = LOOPBACK_MTU;
        // Nothing is damaged between a memory and itself.
        capabilities.checksum.ipv4 = Checksum::None;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.udp = Checksum::None;
        Link::new(Phy { port: Port::Loopback(VecDeque::new()), capabilities, offloads: false, class: 0 }, HardwareAddress::Ip, seed)
    }

    /// Returns the link of a card, without addresses.
    pub fn card(device: Arc<dyn NetDevice>, seed: u64) -> Box<Link> {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = device.mtu() + ETHERNET_HEADER;
        let offloads = device.can_checksum();
        if offloads {
            capabilities.checksum.tcp = Checksum::None;
            capabilities.checksum.udp = Checksum::None;
        }
        let mac = EthernetAddress(device.mac());
        Link::new(Phy { port: Port::Card(device), capabilities, offloads, class: 0 }, HardwareAddress::Ethernet(mac), seed)
    }

    /// An interface is 2 KB and its making copies it: a frame of its own, which is gone before anything else needs the kernel stack.
    #[inline(never)]
    fn new(mut phy: Phy, address: HardwareAddress, seed: u64) -> Box<Link> {
        let mut config = Config::new(address);
        config.random_seed = seed;
        let interface = Interface::new(config, &mut OnePacket { packet: None, phy: &mut phy }, Instant::ZERO);
        Box::new(Link { interface, phy })
    }

    /// Hands one packet to the sockets of a set.
    pub fn ingress(&mut self, now: Instant, packet: &[u8], sockets: &mut SocketSet<'static>) {
        let mut device = OnePacket { packet: Some(packet), phy: &mut self.phy };
        self.interface.poll_ingress_single(now, &mut device, sockets);
    }

    /// Lets the sockets of a set send what they have. Returns when they want to be asked again; `None` is never.
    pub fn egress(&mut self, now: Instant, sockets: &mut SocketSet<'static>) -> Option<Instant> {
        loop {
            // The question is cheaper than an attempt to send, and its answer is needed anyway.
            let next = self.interface.poll_at(now, sockets);
            if next.is_none_or(|at| at > now) {
                return next;
            }
            let mut device = OnePacket { packet: None, phy: &mut self.phy };
            if self.interface.poll_egress(now, &mut device, sockets) == PollResult::None {
                return self.interface.poll_at(now, sockets);
            }
        }
    }

    /// [`Link::egress`] with a traffic class.
    pub fn egress_with_class(&mut self, now: Instant, sockets: &mut SocketSet<'static>, class: u8) {
        self.phy.class = class;
        self.egress(now, sockets);
        self.phy.class = 0;
    }

    /// Looks at a packet's headers.
    pub fn classify(&self, packet: &[u8]) -> classify::Class {
        match self.phy.port {
            Port::Card(_) => classify::ethernet(packet),
            Port::Loopback(_) => classify::ip(packet, 0),
        }
    }

    /// Whether a received packet that the card does not vouch for must be verified before smoltcp sees it.
    pub fn trusts_card(&self) -> bool {
        self.phy.offloads
    }

    /// The card, if this is not loopback.
    pub fn device(&self) -> Option<Arc<dyn NetDevice>> {
        match &self.phy.port {
            Port::Card(device) => Some(device.clone()),
            Port::Loopback(_) => None,
        }
    }

    /// Takes the next packet that the loopback link sent to itself.
    pub fn take_looped(&mut self) -> Option<Vec<u8>> {
        match &mut self.phy.port {
            Port::Loopback(queue) => queue.pop_front(),
            Port::Card(_) => None,
        }
    }

    /// Tells the card about everything sent since the last call.
    pub fn flush(&self) {
        if let Port::Card(device) = &self.phy.port {
            device.flush();
        }
    }
}

impl Phy {
    /// Bytes before the IP header.
    fn header(&self) -> usize {
        match self.port {
            Port::Card(_) => ETHERNET_HEADER,
            Port::Loopback(_) => 0,
        }
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut fill = Some(fill);
        let mut result = None;
        match &mut self.port {
            Port::Loopback(queue) => {
                let mut packet = alloc::vec![0; len];
                result = fill.take().map(|fill| fill(&mut packet));
                queue.push_back(packet);
            }
            Port::Card(device) => {
                let offloads = self.offloads;
                let mut write = |packet: &mut [u8]| {
                    result = fill.take().map(|fill| fill(packet));
                    if offloads { checksum::offload(packet, classify::ethernet(packet)) } else { TxChecksum::Done }
                };
                if !device.transmit(len, &mut write) {
                    // A full ring, as after many handshakes at once. The device empties it within microseconds once it is told; a lost packet would
                    // cost its connection a second.
                    device.flush();
                    let give_up = time::monotonic_ns() + FULL_RING_NS;
                    while !device.transmit(len, &mut write) && time::monotonic_ns() < give_up {
                        core::hint::spin_loop();
                    }
                }
            }
        }
        match (result, fill) {
            (Some(result), _) => result,
            // Still no room: the packet is lost, as on any wire, and TCP repeats it.
            (None, Some(fill)) => fill(&mut alloc::vec![0; len]),
            (None, None) => unreachable!("the writer ran and left no result"),
        }
    }
}

/// The device smoltcp sees: at most one packet to receive.
struct OnePacket<'a> {
    packet: Option<&'a [u8]>,
    phy: &'a mut Phy,
}

struct Rx<'a>(&'a [u8], PacketMeta);
struct Tx<'a>(&'a mut Phy);

impl phy::RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }

    fn meta(&self) -> PacketMeta {
        self.1
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let (header, class) = (self.0.header(), self.0.class);
        self.0.send(len, |packet| {
            let result = f(packet);
            ancillary::set_class(packet.get_mut(header..).unwrap_or_default(), class);
            result
        })
    }
}

impl Device for OnePacket<'_> {
    type RxToken<'b>
        = Rx<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Tx<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        let packet = self.packet.take()?;
        let header = self.phy.header();
        let meta = ancillary::of_packet(packet.get(header..).unwrap_or_default(), header > 0);
        Some((Rx(packet, meta), Tx(self.phy)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(self.phy))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.phy.capabilities.clone()
    }
}
