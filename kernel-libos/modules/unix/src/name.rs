//! `struct sockaddr_un`: socket files and the abstract name space (unix(7), "Address format").
//!
//! ```text
//! 0 family(1)   2 path, NUL-terminated or up to the address's length     a socket file
//!               2 NUL, then any bytes up to the address's length         an abstract name
//!               (nothing)                                                unnamed
//! ```

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::socket::SockAddr;
use libos_core::sync::SpinLock;
use libos_core::vfs::permission::{self, Want};
use libos_core::vfs::{self};
use libos_core::{Errno, Result, Task};

use crate::AF_UNIX;
use crate::socket::UnixSocket;

/// Bytes of `sun_path`.
const PATH_BYTES: usize = 108;

/// A decoded address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// No name: asks bind(2) for a generated abstract one.
    Unnamed,
    /// A path, without its NUL.
    Path(Vec<u8>),
    /// The bytes after the first NUL.
    Abstract(Vec<u8>),
}

/// Decodes an address.
///
/// # Errors
/// `EINVAL` for another family or a length that no address has.
pub fn decode(address: &SockAddr) -> Result<Name> {
    let bytes = address.bytes();
    if bytes.len() < 2 || bytes.len() > 2 + PATH_BYTES || i32::from(address.family()) != AF_UNIX {
        return Err(Errno::EINVAL);
    }
    Ok(match &bytes[2..] {
        [] => Name::Unnamed,
        [0, rest @ ..] => Name::Abstract(rest.to_vec()),
        path => Name::Path(path.split(|&b| b == 0).next().unwrap_or_default().to_vec()),
    })
}

/// Encodes an address.
pub fn encode(name: &Name) -> SockAddr {
    let mut bytes = (AF_UNIX as u16).to_ne_bytes().to_vec();
    match name {
        Name::Unnamed => {}
        Name::Abstract(rest) => {
            bytes.push(0);
            bytes.extend_from_slice(rest);
        }
        Name::Path(path) => {
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
    }
    SockAddr::from_bytes(&bytes)
}

static ABSTRACT: SpinLock<BTreeMap<Vec<u8>, Weak<UnixSocket>>> = SpinLock::new(BTreeMap::new());

/// Gives a socket a name; returns the name it got.
///
/// # Errors
/// `EADDRINUSE`; as mknod(2) for a path.
pub fn bind(task: &Task, socket: &Arc<UnixSocket>, name: Name) -> Result<Name> {
    match name {
        Name::Path(path) => {
            let mode = linux::S_IFSOCK | 0o777;
            let place = vfs::ops::create(task, linux::AT_FDCWD, &path, mode, 0, b"").map_err(|e| match e {
                Errno::EEXIST => Errno::EADDRINUSE,
                other => other,
            })?;
            let slot = place.inode().attachment().ok_or(Errno::EOPNOTSUPP)?;
            // The file keeps only a weak reference: when the socket is closed, connecting to the file is refused.
            *slot.lock() = Some(Arc::new(Arc::downgrade(socket)));
            Ok(Name::Path(path))
        }
        Name::Abstract(bytes) => {
            let mut names = ABSTRACT.lock();
            if names.get(&bytes).is_some_and(|s| s.strong_count() > 0) {
                return Err(Errno::EADDRINUSE);
            }
            names.insert(bytes.clone(), Arc::downgrade(socket));
            Ok(Name::Abstract(bytes))
        }
        Name::Unnamed => {
            // Autobind: five hexadecimal digits (unix(7)).
            let mut names = ABSTRACT.lock();
            for number in 0u32..0x10_0000 {
                let bytes = alloc::format!("{number:05x}").into_bytes();
                if names.get(&bytes).is_none_or(|s| s.strong_count() == 0) {
                    names.insert(bytes.clone(), Arc::downgrade(socket));
                    return Ok(Name::Abstract(bytes));
                }
            }
            Err(Errno::ENOSPC)
        }
    }
}

/// Forgets an abstract name.
pub fn unbind(name: &Name) {
    if let Name::Abstract(bytes) = name {
        let removed = ABSTRACT.lock().remove(bytes);
        drop(removed);
    }
}

/// Finds the socket behind a name.
///
/// # Errors
/// `ECONNREFUSED` when nobody has the name; for paths as path_resolution(7), and `EACCES` without write permission.
pub fn find(task: &Task, name: &Name) -> Result<Arc<UnixSocket>> {
    match name {
        Name::Unnamed => Err(Errno::EINVAL),
        Name::Abstract(bytes) => ABSTRACT.lock().get(bytes).and_then(Weak::upgrade).ok_or(Errno::ECONNREFUSED),
        Name::Path(path) => {
            let place = vfs::lookup(task, path)?;
            let attributes = place.inode().attributes()?;
            permission::check(&task.creds(), attributes, Want::WRITE)?;
            let attached = place.inode().attachment().and_then(|slot| slot.lock().clone()).ok_or(Errno::ECONNREFUSED)?;
            attached.downcast_ref::<Weak<UnixSocket>>().and_then(Weak::upgrade).ok_or(Errno::ECONNREFUSED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_encoding() {
        for name in [Name::Unnamed, Name::Path(b"/run/x.sock".to_vec()), Name::Abstract(b"a\0b".to_vec()), Name::Abstract(vec![])] {
            assert_eq!(decode(&encode(&name)), Ok(name));
        }
        let long = Name::Path(vec![b'x'; PATH_BYTES]);
        assert_eq!(decode(&SockAddr::from_bytes(&[&[1, 0][..], &[b'x'; PATH_BYTES]].concat())), Ok(long));
        assert_eq!(decode(&SockAddr::from_bytes(&[2, 0, b'x'])), Err(Errno::EINVAL));
        assert_eq!(decode(&SockAddr::from_bytes(&[1])), Err(Errno::EINVAL));
    }
}
