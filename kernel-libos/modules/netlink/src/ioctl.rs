//! The requests of netdevice(7) that only ask. A `struct ifreq` is a name of 16 bytes and a value of 24.

use core::net::IpAddr;

use libos_core::interfaces::{self, Interface};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result};

use crate::route;

const NAME: u32 = 0x8910;
const CONF: u32 = 0x8912;
const FLAGS: u32 = 0x8913;
const ADDRESS: u32 = 0x8915;
const BROADCAST: u32 = 0x8919;
const NETMASK: u32 = 0x891b;
const METRIC: u32 = 0x891d;
const MTU: u32 = 0x8921;
const HARDWARE: u32 = 0x8927;
const INDEX: u32 = 0x8933;
const QUEUE: u32 = 0x8942;
/// The first and the last `SIOCSIF*` request and its relatives, by which a program would change something.
const CHANGES: [u32; 12] = [0x890b, 0x890c, 0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x891e, 0x8922, 0x8923, 0x8924, 0x8943];

const REQUEST: usize = 40;
const VALUE: usize = 16;

fn v4(interface: &Interface) -> Result<([u8; 4], u8)> {
    let found = interface.addresses.iter().find_map(|(address, len)| match address {
        IpAddr::V4(v4) => Some((v4.octets(), *len)),
        IpAddr::V6(_) => None,
    });
    found.ok_or(Errno::EADDRNOTAVAIL)
}

/// A `struct sockaddr_in` without a port.
fn address(octets: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = octets;
    [2, 0, 0, 0, a, b, c, d]
}

/// Answers a request.
///
/// # Errors
/// `ENOTTY` for what is none of these, `ENODEV`, `EADDRNOTAVAIL`, `EPERM` for changes, `EFAULT`.
pub fn answer(request: u32, arg: usize) -> Result<usize> {
    if CHANGES.contains(&request) {
        return Err(Errno::EPERM);
    }
    if request == CONF {
        return list(arg);
    }
    if !matches!(request, NAME | FLAGS | ADDRESS | BROADCAST | NETMASK | METRIC | MTU | HARDWARE | INDEX | QUEUE) {
        return Err(Errno::ENOTTY);
    }
    let slice = UserSlice::<u8>::from_parts(UserPtr::new(arg), REQUEST)?;
    let mut bytes = [0; REQUEST];
    slice.read_to(&mut bytes)?;
    let all = interfaces::list();
    let index = u32::from_ne_bytes([bytes[VALUE], bytes[VALUE + 1], bytes[VALUE + 2], bytes[VALUE + 3]]);
    let name = bytes[..VALUE].split(|b| *b == 0).next().unwrap_or_default();
    let interface = all.iter().find(|i| if request == NAME { i.index == index } else { i.name.as_bytes() == name }).ok_or(Errno::ENODEV)?;
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    match request {
        NAME => {
            put(0, &[0; VALUE]);
            put(0, interface.name.as_bytes());
        }
        FLAGS => put(VALUE, &(route::flags(interface) as u16).to_ne_bytes()),
        ADDRESS => put(VALUE, &address(v4(interface)?.0)),
        BROADCAST => {
            let (own, len) = v4(interface)?;
            put(VALUE, &address(if interface.is_loopback { [0; 4] } else { route::broadcast(own, len) }));
        }
        NETMASK => put(VALUE, &address((!u32::MAX.checked_shr(v4(interface)?.1.into()).unwrap_or(0)).to_be_bytes())),
        METRIC => put(VALUE, &0u32.to_ne_bytes()),
        MTU => put(VALUE, &interface.mtu.to_ne_bytes()),
        HARDWARE => {
            put(VALUE, &(if interface.is_loopback { 772u16 } else { 1 }).to_ne_bytes());
            put(VALUE + 2, &interface.mac);
        }
        INDEX => put(VALUE, &interface.index.to_ne_bytes()),
        _ => put(VALUE, &1000u32.to_ne_bytes()),
    }
    slice.write_from(&bytes)?;
    Ok(0)
}

/// `SIOCGIFCONF`: a length and a pointer to requests that are filled in, one for each interface with an IPv4 address.
fn list(arg: usize) -> Result<usize> {
    let [room, pointer] = UserPtr::<[u64; 2]>::new(arg).read()?;
    // The length is an int; the upper half of the word is padding.
    let room = room as u32 as usize;
    let mut at = 0;
    for interface in interfaces::list() {
        let Ok((own, _)) = v4(&interface) else { continue };
        let mut bytes = [0; REQUEST];
        bytes[..interface.name.len()].copy_from_slice(interface.name.as_bytes());
        bytes[VALUE..VALUE + 8].copy_from_slice(&address(own));
        if pointer == 0 {
            at += REQUEST;
        } else if at + REQUEST <= room {
            UserSlice::<u8>::from_parts(UserPtr::new(pointer as usize + at), REQUEST)?.write_from(&bytes)?;
            at += REQUEST;
        }
    }
    UserPtr::<i32>::new(arg).write(at as i32)?;
    Ok(0)
}
