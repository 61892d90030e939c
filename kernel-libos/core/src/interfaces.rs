//! Network interfaces as programs see them: what the network module has, for those who show it (netlink, ioctls, /proc).

use alloc::vec::Vec;
use core::net::IpAddr;

use libos_abi::{Errno, Result};

use crate::sync::SpinLock;

/// An interface.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its number, from 1.
    pub index: u32,
    /// `lo`, `eth0`.
    pub name: &'static str,
    /// Hardware address; zeros for loopback.
    pub mac: [u8; 6],
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is loopback.
    pub is_loopback: bool,
    /// Addresses and their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Router for everything else.
    pub gateway: Option<IpAddr>,
}

/// What one module offers.
type Functions = (Option<fn() -> Vec<Interface>>, Option<fn(u32, usize) -> Result<usize>>);

static FUNCTIONS: SpinLock<Functions> = SpinLock::new((None, None));

/// Offers the list of interfaces.
pub fn set_list(list: fn() -> Vec<Interface>) {
    FUNCTIONS.lock().0 = Some(list);
}

/// The interfaces; none without a network module.
pub fn list() -> Vec<Interface> {
    let list = FUNCTIONS.lock().0;
    list.map_or_else(Vec::new, |list| list())
}

/// Offers the requests of netdevice(7).
pub fn set_ioctl(ioctl: fn(u32, usize) -> Result<usize>) {
    FUNCTIONS.lock().1 = Some(ioctl);
}

/// Answers a request that every socket takes (netdevice(7)).
///
/// # Errors
/// `ENOTTY` for requests that are none of them, `ENODEV`, `EFAULT`.
pub fn ioctl(request: u32, arg: usize) -> Result<usize> {
    let ioctl = FUNCTIONS.lock().1;
    ioctl.ok_or(Errno::ENOTTY)?(request, arg)
}
