//! Port numbers: which are taken, and ephemeral ones.

use hashbrown::HashMap;
use libos_core::{Errno, Result};
use smoltcp::wire::IpAddress;

/// `net.ipv4.ip_local_port_range` of Linux.
const EPHEMERAL: core::ops::RangeInclusive<u16> = 32_768..=60_999;

/// One socket's claim on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Local address, or all of them.
    pub addr: Option<IpAddress>,
    /// Whether it also claims, or only claims, IPv6.
    pub family: i32,
    /// An IPv6 wildcard that takes IPv4 too.
    pub is_dual: bool,
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// Whether it listens (TCP) or receives (UDP): such claims exclude each other even with `SO_REUSEADDR` for TCP.
    pub is_listening: bool,
}

/// A claim in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimId(u64);

/// The ports of one protocol.
#[derive(Default)]
pub struct Ports {
    claims: HashMap<u16, alloc::vec::Vec<(ClaimId, Claim)>>,
    next_id: u64,
    next_ephemeral: u16,
}

impl Ports {
    /// Claims a port; 0 asks for a free one of the ephemeral range. `shares_address` says whether `SO_REUSEADDR` on both sides allows two receivers
    /// (UDP) or only bound sockets that do not listen (TCP).
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub fn claim(&mut self, port: u16, claim: Claim, shares_address: bool) -> Result<(u16, ClaimId)> {
        if port != 0 {
            return self.claim_exactly(port, claim, shares_address).map(|id| (port, id));
        }
        let count = EPHEMERAL.end() - EPHEMERAL.start() + 1;
        for _ in 0..count {
            let port = EPHEMERAL.start() + self.next_ephemeral % count;
            self.next_ephemeral = (self.next_ephemeral + 1) % count;
            if !self.claims.contains_key(&port) {
                return self.claim_exactly(port, claim, shares_address).map(|id| (port, id));
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Starts the search for ephemeral ports at a random place.
    pub fn seed(&mut self, random: u16) {
        self.next_ephemeral = random;
    }

    fn claim_exactly(&mut self, port: u16, claim: Claim, shares_address: bool) -> Result<ClaimId> {
        let taken = self.claims.entry(port).or_default();
        if taken.iter().any(|(_, other)| conflicts(other, &claim, shares_address)) {
            return Err(Errno::EADDRINUSE);
        }
        let id = ClaimId(self.next_id);
        self.next_id += 1;
        taken.push((id, claim));
        Ok(id)
    }

    /// Turns a bound claim into a listening one (listen(2)).
    ///
    /// # Errors
    /// `EADDRINUSE` when another socket listens there.
    pub fn listen(&mut self, port: u16, id: ClaimId) -> Result<()> {
        let taken = self.claims.get_mut(&port).ok_or(Errno::EINVAL)?;
        let mut wanted = taken.iter().find(|(other, _)| *other == id).ok_or(Errno::EINVAL)?.1;
        wanted.is_listening = true;
        if taken.iter().any(|(other_id, other)| *other_id != id && other.is_listening && conflicts(other, &wanted, false)) {
            return Err(Errno::EADDRINUSE);
        }
        for (other, claim) in taken {
            if *other == id {
                *claim = wanted;
            }
        }
        Ok(())
    }

    /// Gives a claim back.
    pub fn release(&mut self, port: u16, id: ClaimId) {
        if let Some(taken) = self.claims.get_mut(&port) {
            taken.retain(|(other, _)| *other != id);
            if taken.is_empty() {
                self.claims.remove(&port);
            }
        }
    }
}

fn conflicts(a: &Claim, b: &Claim, shares_address: bool) -> bool {
    let families_meet = a.family == b.family || a.is_dual || b.is_dual;
    let addresses_meet = match (a.addr, b.addr) {
        (Some(a), Some(b)) => a == b,
        // A wildcard meets every address of a family it covers.
        _ => families_meet,
    };
    if !addresses_meet {
        return false;
    }
    let may_share =
        (a.reuse_port && b.reuse_port) || (a.reuse_address && b.reuse_address && (shares_address || !(a.is_listening && b.is_listening)));
    !may_share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AF_INET, AF_INET6};

    fn claim(addr: Option<IpAddress>) -> Claim {
        Claim { addr, family: AF_INET, is_dual: false, reuse_address: false, reuse_port: false, is_listening: false }
    }

    #[test]
    fn wildcards_and_equal_addresses_conflict() {
        let mut ports = Ports::default();
        let local = Some(IpAddress::v4(127, 0, 0, 1));
        let (_, id) = ports.claim(80, claim(local), false).unwrap();
        assert_eq!(ports.claim(80, claim(local), false), Err(Errno::EADDRINUSE));
        assert_eq!(ports.claim(80, claim(None), false), Err(Errno::EADDRINUSE));
        assert!(ports.claim(80, claim(Some(IpAddress::v4(10, 0, 0, 1))), false).is_ok());
        ports.release(80, id);
        assert!(ports.claim(80, claim(local), false).is_ok());
    }

    #[test]
    fn an_ipv6_wildcard_takes_ipv4_unless_v6only() {
        let v6 = |is_dual| Claim { family: AF_INET6, is_dual, ..claim(None) };
        let mut ports = Ports::default();
        ports.claim(80, v6(false), false).unwrap();
        assert!(ports.claim(80, claim(None), false).is_ok());
        ports.claim(81, v6(true), false).unwrap();
        assert_eq!(ports.claim(81, claim(None), false), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn reuse_address_allows_one_listener() {
        let mut ports = Ports::default();
        let reuse = Claim { reuse_address: true, ..claim(None) };
        let (_, first) = ports.claim(80, reuse, false).unwrap();
        let (_, second) = ports.claim(80, reuse, false).unwrap();
        assert_eq!(ports.listen(80, first), Ok(()));
        assert_eq!(ports.listen(80, second), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn ephemeral_ports_run_out() {
        let mut ports = Ports::default();
        let mut seen = std::collections::HashSet::new();
        for _ in EPHEMERAL {
            let (port, _) = ports.claim(0, claim(None), false).unwrap();
            assert!(EPHEMERAL.contains(&port) && seen.insert(port));
        }
        assert_eq!(ports.claim(0, claim(None), false), Err(Errno::EADDRINUSE));
    }
}
