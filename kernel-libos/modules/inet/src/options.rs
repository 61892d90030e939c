//! setsockopt(2) at the levels `IPPROTO_IP`, `IPPROTO_IPV6` and `IPPROTO_TCP` (ip(7), ipv6(7), tcp(7)).
//!
//! Values that smoltcp has no use for are kept, so that a program reads back what it set; options that would change what a program receives and are not
//! implemented are refused.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use libos_core::abi::net as linux;
use libos_core::socket::option_int as int;
use libos_core::{Errno, Result};

use crate::AF_INET6;
use crate::ancillary::Wanted;

const IPPROTO_IP: i32 = linux::IPPROTO_IP as i32;
const IPPROTO_IPV6: i32 = linux::IPPROTO_IPV6 as i32;

/// Options of the network layer.
#[derive(Default)]
pub struct IpOptions {
    /// `IPV6_V6ONLY`.
    pub v6_only: AtomicBool,
    /// `IP_TTL`, `IPV6_UNICAST_HOPS`; 0 is the default, 64.
    pub ttl: AtomicU32,
    tos: AtomicU32,
    mtu_discover: AtomicU32,
    receive_error: AtomicBool,
    no_port: AtomicBool,
    free_bind: AtomicBool,
    wanted: AtomicU32,
}

impl IpOptions {
    /// setsockopt(2); `None` for a level that is not the network layer's.
    pub fn set(&self, family: i32, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        match level {
            IPPROTO_IP => Some(self.set_v4(name as u32, value)),
            IPPROTO_IPV6 if family == AF_INET6 => Some(self.set_v6(name as u32, value)),
            IPPROTO_IPV6 => Some(Err(Errno::ENOPROTOOPT)),
            _ => None,
        }
    }

    /// getsockopt(2), likewise.
    pub fn get(&self, family: i32, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
        let value = match level {
            IPPROTO_IP => self.get_v4(name as u32),
            IPPROTO_IPV6 if family == AF_INET6 => self.get_v6(name as u32),
            IPPROTO_IPV6 => Err(Errno::ENOPROTOOPT),
            _ => return None,
        };
        Some(value.map(|v| v.to_ne_bytes().to_vec()))
    }

    fn set_v4(&self, name: u32, value: &[u8]) -> Result<()> {
        // Byte-sized values are allowed for IPPROTO_IP (ip(7)).
        let value = match value {
            [] => return Err(Errno::EINVAL),
            [b] => u32::from(*b),
            _ => int(value)? as u32,
        };
        match name {
            linux::IP_TOS => self.tos.store(value & 0xff, Relaxed),
            linux::IP_TTL => self.set_ttl(value)?,
            linux::IP_MTU_DISCOVER => self.mtu_discover.store(value, Relaxed),
            linux::IP_RECVERR => self.receive_error.store(value != 0, Relaxed),
            linux::IP_BIND_ADDRESS_NO_PORT => self.no_port.store(value != 0, Relaxed),
            linux::IP_FREEBIND => self.free_bind.store(value != 0, Relaxed),
            linux::IP_PKTINFO => self.want(Wanted::INFO_V4, value != 0),
            linux::IP_RECVTTL => self.want(Wanted::TTL, value != 0),
            linux::IP_RECVTOS => self.want(Wanted::TOS, value != 0),
            linux::IP_MULTICAST_TTL | linux::IP_MULTICAST_LOOP => {}
            linux::IP_TRANSPARENT => return Err(Errno::EPERM),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn set_v6(&self, name: u32, value: &[u8]) -> Result<()> {
        let value = int(value)?;
        match name {
            linux::IPV6_V6ONLY => self.v6_only.store(value != 0, Relaxed),
            linux::IPV6_UNICAST_HOPS => self.set_ttl(if value == -1 { 64 } else { value as u32 })?,
            linux::IPV6_TCLASS => self.tos.store(value as u32 & 0xff, Relaxed),
            linux::IPV6_RECVERR => self.receive_error.store(value != 0, Relaxed),
            linux::IPV6_MTU_DISCOVER => self.mtu_discover.store(value as u32, Relaxed),
            linux::IPV6_RECVPKTINFO => self.want(Wanted::INFO_V6, value != 0),
            linux::IPV6_RECVHOPLIMIT => self.want(Wanted::HOP_LIMIT, value != 0),
            linux::IPV6_RECVTCLASS => self.want(Wanted::CLASS, value != 0),
            linux::IPV6_MULTICAST_HOPS | linux::IPV6_MULTICAST_LOOP => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn want(&self, what: Wanted, is_on: bool) {
        if is_on {
            self.wanted.fetch_or(what.bits(), Relaxed)
        } else {
            self.wanted.fetch_and(!what.bits(), Relaxed)
        };
    }

    /// Which ancillary data recvmsg(2) delivers.
    pub fn wanted(&self) -> Wanted {
        Wanted::from_bits_retain(self.wanted.load(Relaxed))
    }

    fn wants(&self, what: Wanted) -> i32 {
        self.wanted().contains(what).into()
    }

    /// `IP_TOS`, `IPV6_TCLASS`.
    pub fn class(&self) -> u8 {
        self.tos.load(Relaxed) as u8
    }

    fn set_ttl(&self, value: u32) -> Result<()> {
        if !(1..=255).contains(&value) {
            return Err(Errno::EINVAL);
        }
        self.ttl.store(value, Relaxed);
        Ok(())
    }

    fn ttl(&self) -> i32 {
        match self.ttl.load(Relaxed) {
            0 => 64,
            ttl => ttl as i32,
        }
    }

    fn get_v4(&self, name: u32) -> Result<i32> {
        Ok(match name {
            linux::IP_TOS => self.tos.load(Relaxed) as i32,
            linux::IP_TTL => self.ttl(),
            linux::IP_MTU_DISCOVER => self.mtu_discover.load(Relaxed) as i32,
            linux::IP_RECVERR => self.receive_error.load(Relaxed).into(),
            linux::IP_BIND_ADDRESS_NO_PORT => self.no_port.load(Relaxed).into(),
            linux::IP_FREEBIND => self.free_bind.load(Relaxed).into(),
            linux::IP_PKTINFO => self.wants(Wanted::INFO_V4),
            linux::IP_RECVTTL => self.wants(Wanted::TTL),
            linux::IP_RECVTOS => self.wants(Wanted::TOS),
            linux::IP_TRANSPARENT => 0,
            linux::IP_MTU => 1500,
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }

    fn get_v6(&self, name: u32) -> Result<i32> {
        Ok(match name {
            linux::IPV6_V6ONLY => self.v6_only.load(Relaxed).into(),
            linux::IPV6_UNICAST_HOPS => self.ttl(),
            linux::IPV6_TCLASS => self.tos.load(Relaxed) as i32,
            linux::IPV6_RECVERR => self.receive_error.load(Relaxed).into(),
            linux::IPV6_MTU_DISCOVER => self.mtu_discover.load(Relaxed) as i32,
            linux::IPV6_RECVPKTINFO => self.wants(Wanted::INFO_V6),
            linux::IPV6_RECVHOPLIMIT => self.wants(Wanted::HOP_LIMIT),
            linux::IPV6_RECVTCLASS => self.wants(Wanted::CLASS),
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }
}

/// Options of TCP; times in seconds, 0 is Linux's default.
#[derive(Default)]
pub struct TcpOptions {
    /// `TCP_NODELAY`.
    pub no_delay: AtomicBool,
    /// `TCP_CORK`: while set, only full segments are sent.
    pub cork: AtomicBool,
    /// `TCP_KEEPIDLE`.
    pub keep_idle: AtomicU32,
    keep_interval: AtomicU32,
    keep_count: AtomicU32,
    /// `TCP_USER_TIMEOUT`, in milliseconds.
    pub user_timeout: AtomicU32,
    defer_accept: AtomicU32,
    fast_open: AtomicU32,
    quick_ack: AtomicBool,
}

/// Linux's defaults (tcp(7)).
const KEEP_IDLE: u32 = 7200;
const KEEP_INTERVAL: u32 = 75;
const KEEP_COUNT: u32 = 9;

impl TcpOptions {
    /// setsockopt(2).
    pub fn set(&self, name: i32, value: &[u8]) -> Result<()> {
        if name as u32 == linux::TCP_CONGESTION {
            let name = value.split(|&b| b == 0).next().unwrap_or_default();
            return if name == b"reno" || name == b"cubic" { Ok(()) } else { Err(Errno::ENOENT) };
        }
        let value = int(value)?;
        let positive = |max: i32| if (1..=max).contains(&value) { Ok(value as u32) } else { Err(Errno::EINVAL) };
        match name as u32 {
            linux::TCP_NODELAY => self.no_delay.store(value != 0, Relaxed),
            linux::TCP_CORK => self.cork.store(value != 0, Relaxed),
            linux::TCP_KEEPIDLE => self.keep_idle.store(positive(32_767)?, Relaxed),
            linux::TCP_KEEPINTVL => self.keep_interval.store(positive(32_767)?, Relaxed),
            linux::TCP_KEEPCNT => self.keep_count.store(positive(127)?, Relaxed),
            linux::TCP_USER_TIMEOUT => self.user_timeout.store(value.max(0) as u32, Relaxed),
            linux::TCP_DEFER_ACCEPT => self.defer_accept.store(value.max(0) as u32, Relaxed),
            linux::TCP_FASTOPEN => self.fast_open.store(value.max(0) as u32, Relaxed),
            linux::TCP_QUICKACK => self.quick_ack.store(value != 0, Relaxed),
            linux::TCP_SYNCNT | linux::TCP_LINGER2 | linux::TCP_WINDOW_CLAMP | linux::TCP_MAXSEG | linux::TCP_NOTSENT_LOWAT => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// getsockopt(2).
    pub fn get(&self, name: i32) -> Result<Vec<u8>> {
        let or = |value: &AtomicU32, default: u32| match value.load(Relaxed) {
            0 => default,
            value => value,
        };
        let value = match name as u32 {
            linux::TCP_NODELAY => self.no_delay.load(Relaxed).into(),
            linux::TCP_CORK => self.cork.load(Relaxed).into(),
            linux::TCP_KEEPIDLE => or(&self.keep_idle, KEEP_IDLE),
            linux::TCP_KEEPINTVL => or(&self.keep_interval, KEEP_INTERVAL),
            linux::TCP_KEEPCNT => or(&self.keep_count, KEEP_COUNT),
            linux::TCP_USER_TIMEOUT => self.user_timeout.load(Relaxed),
            linux::TCP_DEFER_ACCEPT => self.defer_accept.load(Relaxed),
            linux::TCP_FASTOPEN => self.fast_open.load(Relaxed),
            linux::TCP_QUICKACK => self.quick_ack.load(Relaxed).into(),
            linux::TCP_MAXSEG => 1460,
            linux::TCP_CONGESTION => return Ok(b"reno\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }

    /// A copy for an accepted connection, which inherits its listener's options.
    pub fn inherit(&self) -> TcpOptions {
        let copy = |value: &AtomicU32| AtomicU32::new(value.load(Relaxed));
        TcpOptions {
            no_delay: self.no_delay.load(Relaxed).into(),
            cork: self.cork.load(Relaxed).into(),
            keep_idle: copy(&self.keep_idle),
            keep_interval: copy(&self.keep_interval),
            keep_count: copy(&self.keep_count),
            user_timeout: copy(&self.user_timeout),
            ..TcpOptions::default()
        }
    }

    /// `TCP_KEEPIDLE` in seconds.
    pub fn keep_idle_seconds(&self) -> u64 {
        match self.keep_idle.load(Relaxed) {
            0 => KEEP_IDLE.into(),
            seconds => seconds.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AF_INET;

    #[test]
    fn set_values_are_read_back() {
        let tcp = TcpOptions::default();
        for (name, value) in [(linux::TCP_NODELAY, 1u32), (linux::TCP_KEEPIDLE, 30), (linux::TCP_USER_TIMEOUT, 5000)] {
            tcp.set(name as i32, &value.to_ne_bytes()).unwrap();
            assert_eq!(tcp.get(name as i32), Ok(value.to_ne_bytes().to_vec()));
        }
        assert_eq!(tcp.set(linux::TCP_KEEPCNT as i32, &0u32.to_ne_bytes()), Err(Errno::EINVAL));
        assert_eq!(tcp.set(linux::TCP_CONGESTION as i32, b"bbr\0"), Err(Errno::ENOENT));
    }

    #[test]
    fn levels_belong_to_families() {
        let ip = IpOptions::default();
        let one = 1u32.to_ne_bytes();
        assert_eq!(ip.set(AF_INET, IPPROTO_IPV6, linux::IPV6_V6ONLY as i32, &one), Some(Err(Errno::ENOPROTOOPT)));
        assert_eq!(ip.set(AF_INET6, IPPROTO_IPV6, linux::IPV6_V6ONLY as i32, &one), Some(Ok(())));
        assert_eq!(ip.set(AF_INET, 255, 1, &one), None);
        assert_eq!(ip.set(AF_INET, IPPROTO_IP, linux::IP_TTL as i32, &[0]), Some(Err(Errno::EINVAL)));
    }
}
