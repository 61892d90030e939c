//! Extended attributes: in the inode behind its fields, and in one block per inode.
//!
//! ```text
//! inode: | magic: u32 | entry | entry | 0: u32 |   free   | value | value |     value offsets count from the first entry
//! block: | 32-byte header | entry | entry | 0: u32 | free | value | value |     value offsets count from the block's start
//! entry: | name length: u8 | prefix: u8 | value offset: u16 | value inode: u32 | value length: u32 | hash: u32 | name, padded to 4 |
//! ```

use crate::dir::Malformed;
use crate::view::{get_u16, get_u32};

/// Magic number in inodes and blocks.
pub const MAGIC: u32 = 0xea02_0000;

/// Bytes before the entries in an inode.
pub const INODE_HEADER: usize = 4;

/// Bytes before the entries in a block.
pub const BLOCK_HEADER: usize = 32;

/// Bytes of an entry before its name.
pub const ENTRY_HEADER: usize = 16;

/// Prefixes that are stored as a number. The two access control lists are whole names.
pub const PREFIXES: [(u8, &[u8]); 6] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];

/// Splits a full name into the number of its prefix and the rest; `None` for a namespace that ext4 does not have.
pub fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|&(number, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        let is_whole = prefix.last() != Some(&b'.');
        (is_whole == rest.is_empty()).then_some((number, rest))
    })
}

/// Returns the prefix of a number.
pub fn prefix(number: u8) -> Option<&'static [u8]> {
    PREFIXES.iter().find(|(n, _)| *n == number).map(|(_, prefix)| *prefix)
}

/// An attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Number of the prefix.
    pub prefix: u8,
    /// The name after the prefix.
    pub name: &'a [u8],
    /// The value as stored; access control lists have a form of their own, see [`acl_to_linux`].
    pub value: &'a [u8],
}

/// Returns the attributes inside an inode, from [`crate::Inode::xattr_bytes`].
pub fn inode_entries(bytes: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Malformed>> {
    let area = if get_u32(bytes, 0) == MAGIC { bytes.get(INODE_HEADER..).unwrap_or_default() } else { &[] };
    entries(area, area)
}

/// Returns the attributes of a block.
pub fn block_entries(block: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Malformed>> {
    let area = if get_u32(block, 0) == MAGIC { block.get(BLOCK_HEADER..).unwrap_or_default() } else { &[] };
    entries(area, block)
}

/// Walks entries; value offsets count from the start of `base`. A value in an inode of its own (feature `ea_inode`) is malformed here.
pub fn entries<'a>(area: &'a [u8], base: &'a [u8]) -> impl Iterator<Item = Result<Entry<'a>, Malformed>> {
    let mut rest = area;
    core::iter::from_fn(move || {
        if rest.len() < 4 || get_u32(rest, 0) == 0 {
            return None;
        }
        match entry(rest, base) {
            Some((entry, tail)) => {
                rest = tail;
                Some(Ok(entry))
            }
            None => {
                rest = &[];
                Some(Err(Malformed))
            }
        }
    })
}

fn entry<'a>(rest: &'a [u8], base: &'a [u8]) -> Option<(Entry<'a>, &'a [u8])> {
    let name_len = usize::from(*rest.first()?);
    let prefix = *rest.get(1)?;
    let name = rest.get(ENTRY_HEADER..ENTRY_HEADER + name_len)?;
    let tail = rest.get(entry_len(name_len)..)?;
    let from = usize::from(get_u16(rest, 2));
    let len = usize::try_from(get_u32(rest, 8)).ok()?;
    let value = base.get(from..from.checked_add(len)?)?;
    (get_u32(rest, 4) == 0).then_some((Entry { prefix, name, value }, tail))
}

/// Returns the bytes that an entry needs before its value: a multiple of 4.
pub const fn entry_len(name_len: usize) -> usize {
    (ENTRY_HEADER + name_len).next_multiple_of(4)
}

/// Returns the hash of an entry in a block, over its name and its value padded with zeros to 4 (`ext4_xattr_hash_entry`).
pub fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let hash = name.iter().fold(0u32, |hash, &b| hash << 5 ^ hash >> 27 ^ u32::from(b));
    value.chunks(4).fold(hash, |hash, word| {
        let mut padded = [0; 4];
        padded.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
        combine(hash, u32::from_le_bytes(padded))
    })
}

/// Returns the hash of a block from the hashes of its entries, in order (`ext4_xattr_rehash`).
pub fn block_hash(hashes: impl IntoIterator<Item = u32>) -> u32 {
    let mut all = 0;
    for hash in hashes {
        if hash == 0 {
            // A block that must not be shared.
            return 0;
        }
        all = combine(all, hash);
    }
    all
}

fn combine(hash: u32, word: u32) -> u32 {
    hash << 16 ^ hash >> 16 ^ word
}

/// Returns whether a prefix number is that of an access control list.
pub const fn is_acl(prefix: u8) -> bool {
    matches!(prefix, 2 | 3)
}

/// Tags of entries with an id: named user, named group (`acl_user`, `acl_group` in acl(5)).
const TAGS_WITH_ID: [u16; 2] = [0x02, 0x08];

/// Converts an access control list from the form of xattr(7) (version 2: every entry has tag, permissions, id) to ext4's (version 1: only named users and
/// groups have an id), handing the bytes to `put`. `None` when it is not such a list; some bytes may have been handed over then.
pub fn acl_from_linux(value: &[u8], mut put: impl FnMut(&[u8])) -> Option<()> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != 2 || entries.len() % 8 != 0 {
        return None;
    }
    put(&1u32.to_le_bytes());
    for entry in entries.chunks_exact(8) {
        put(&entry[..if TAGS_WITH_ID.contains(&get_u16(entry, 0)) { 8 } else { 4 }]);
    }
    Some(())
}

/// Converts the other way; an entry without id gets 0xffffffff, as Linux gives it (`ACL_UNDEFINED_ID`).
pub fn acl_to_linux(value: &[u8], mut put: impl FnMut(&[u8])) -> Option<()> {
    let (version, mut rest) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != 1 {
        return None;
    }
    put(&2u32.to_le_bytes());
    while !rest.is_empty() {
        let has_id = TAGS_WITH_ID.contains(&get_u16(rest, 0));
        let (entry, tail) = rest.split_at_checked(if has_id { 8 } else { 4 })?;
        put(entry);
        if !has_id {
            put(&u32::MAX.to_le_bytes());
        }
        rest = tail;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_split_at_their_prefix() {
        assert_eq!(split_name(b"user.x"), Some((1, &b"x"[..])));
        assert_eq!(split_name(b"security.capability"), Some((6, &b"capability"[..])));
        assert_eq!(split_name(b"system.posix_acl_access"), Some((2, &b""[..])));
        assert_eq!(split_name(b"system.other"), Some((7, &b"other"[..])));
        assert_eq!((split_name(b"user."), split_name(b"unknown.x")), (None, None));
    }

    #[test]
    fn access_control_lists_survive() {
        // u::rw-,u:7:r--,g::r--,m::rw-,o::---
        let entry = |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
        let undefined = u32::MAX;
        let linux = [
            2u32.to_le_bytes().to_vec(),
            entry(1, 6, undefined),
            entry(2, 4, 7),
            entry(4, 4, undefined),
            entry(0x10, 6, undefined),
            entry(0x20, 0, undefined),
        ]
        .concat();
        let mut disk = Vec::new();
        acl_from_linux(&linux, |b| disk.extend_from_slice(b)).unwrap();
        assert_eq!(disk.len(), 4 + 4 * 4 + 8);
        let mut back = Vec::new();
        acl_to_linux(&disk, |b| back.extend_from_slice(b)).unwrap();
        assert_eq!(back, linux);
        assert_eq!(acl_from_linux(b"\x01\0\0\0", |_| ()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_area_panics(mut bytes in prop::collection::vec(any::<u8>(), 4..128)) {
            bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            prop_assert!(inode_entries(&bytes).count() + block_entries(&bytes).count() <= bytes.len());
        }
    }
}
