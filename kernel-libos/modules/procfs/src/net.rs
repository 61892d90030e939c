//! /proc/net: interfaces and routes (proc(5)).
//!
//! Differences from Linux: it is a directory and no link to `self/net`, because there is one network for all; nobody counts packets, so the counters of
//! `dev` are 0.

use core::net::IpAddr;

use libos_core::interfaces::{self, Interface};

use crate::text::Text;

/// An IPv4 address as a word in memory, which is how `route` prints it.
fn word(address: [u8; 4]) -> u32 {
    u32::from_le_bytes(address)
}

fn mask(prefix_len: u8) -> u32 {
    !u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0)
}

pub fn dev(text: &mut Text) {
    text.bytes(b"Inter-|   Receive                                                |  Transmit\n");
    text.bytes(
        b" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for interface in interfaces::list() {
        text.part(format_args!("{:>6}:", interface.name));
        text.bytes(
            b"       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n",
        );
    }
}

fn line(text: &mut Text, interface: &Interface, to: u32, gateway: u32, flags: u32, mask: u32) {
    let name = interface.name;
    text.part(format_args!("{name}\t{to:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t0\t{mask:08X}\t0\t0\t0\n"));
}

pub fn route(text: &mut Text) {
    text.bytes(b"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n");
    for interface in interfaces::list().iter().filter(|i| !i.is_loopback) {
        // RTF_UP and RTF_GATEWAY.
        if let Some(IpAddr::V4(gateway)) = interface.gateway {
            line(text, interface, 0, word(gateway.octets()), 3, 0);
        }
        for (address, prefix_len) in &interface.addresses {
            if let IpAddr::V4(own) = address {
                let mask = mask(*prefix_len);
                line(text, interface, word((own.to_bits() & mask).to_be_bytes()), 0, 1, word(mask.to_be_bytes()));
            }
        }
    }
}

pub fn if_inet6(text: &mut Text) {
    for interface in interfaces::list() {
        for (address, prefix_len) in &interface.addresses {
            if let IpAddr::V6(own) = address {
                let is_link_local = own.segments()[0] & 0xffc0 == 0xfe80;
                // IPV6_ADDR_LOOPBACK, IPV6_ADDR_LINKLOCAL or global; IFA_F_PERMANENT.
                let scope = if interface.is_loopback {
                    0x10
                } else if is_link_local {
                    0x20
                } else {
                    0
                };
                let (bits, index, name) = (own.to_bits(), interface.index, interface.name);
                text.part(format_args!("{bits:032x} {index:02x} {prefix_len:02x} {scope:02x} 80 {name:>8}\n"));
            }
        }
    }
}
