//! Extended attributes → the bytes in the inode and in the attribute block.
//!
//! Attributes are sorted as Linux wants them in blocks (prefix, length of the name, name); those that fit go into the inode, the rest into the block.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ukc_ext4_layout::{BLOCK_SIZE, INODE_SIZE, checksum, xattr};

/// Bytes behind an inode's fields (128 old, 32 extra): room for the magic number and attributes.
pub(crate) const INODE_ROOM: usize = INODE_SIZE - 128 - EXTRA_ISIZE as usize;

/// Bytes of fields beyond the first 128: up to `projid`.
pub(crate) const EXTRA_ISIZE: u16 = 32;

/// Where the attributes of one inode go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Placed {
    /// The bytes behind the inode's fields; empty when there is nothing in them.
    pub in_inode: Vec<u8>,
    /// The block, whose checksum depends on its number and is still missing.
    pub block: Option<Vec<u8>>,
}

/// Why attributes cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This one: name and reason.
    Bad(Vec<u8>, &'static str),
    /// All together are so many bytes too long.
    TooLarge(usize),
}

struct Attribute<'a> {
    prefix: u8,
    name: &'a [u8],
    value: Cow<'a, [u8]>,
}

impl Attribute<'_> {
    fn len(&self) -> usize {
        xattr::entry_len(self.name.len()) + self.value.len().next_multiple_of(4)
    }
}

/// Decides where the attributes of an inode go.
pub(crate) fn place(attributes: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Placed, Fault> {
    if attributes.is_empty() {
        return Ok(Placed::default());
    }
    let mut sorted = Vec::new();
    for (full_name, value) in attributes {
        let bad = |reason| Fault::Bad(full_name.clone(), reason);
        let (prefix, name) = xattr::split_name(full_name).ok_or_else(|| bad("ext4 has no such namespace"))?;
        if name.len() > 255 || name.contains(&0) {
            return Err(bad("the name is longer than 255 bytes or holds NUL"));
        }
        let value = if xattr::is_acl(prefix) {
            let mut converted = Vec::new();
            xattr::acl_from_linux(value, |bytes| converted.extend_from_slice(bytes)).ok_or_else(|| bad("not an access control list"))?;
            Cow::Owned(converted)
        } else {
            Cow::Borrowed(value.as_slice())
        };
        sorted.push(Attribute { prefix, name, value });
    }
    sorted.sort_by_key(|a| (a.prefix, a.name.len(), a.name));

    // Four bytes of zeros end the list.
    let (mut inode_left, mut block_left) = (INODE_ROOM - xattr::INODE_HEADER - 4, BLOCK_SIZE - xattr::BLOCK_HEADER - 4);
    let (mut in_inode, mut in_block, mut excess) = (Vec::new(), Vec::new(), 0);
    for attribute in sorted {
        let len = attribute.len();
        if len <= inode_left {
            inode_left -= len;
            in_inode.push(attribute);
        } else if len <= block_left {
            block_left -= len;
            in_block.push(attribute);
        } else {
            excess += len;
        }
    }
    if excess > 0 {
        return Err(Fault::TooLarge(excess));
    }
    Ok(Placed {
        in_inode: if in_inode.is_empty() { Vec::new() } else { inode_bytes(&in_inode) },
        block: if in_block.is_empty() { None } else { Some(block_bytes(&in_block)) },
    })
}

fn inode_bytes(attributes: &[Attribute<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; INODE_ROOM];
    bytes[..4].copy_from_slice(&xattr::MAGIC.to_le_bytes());
    // Linux leaves the hashes of attributes in inodes at 0.
    fill(&mut bytes[xattr::INODE_HEADER..], 0, attributes, |_| 0);
    bytes
}

fn block_bytes(attributes: &[Attribute<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK_SIZE];
    let hash = |a: &Attribute<'_>| xattr::entry_hash(a.name, &a.value);
    fill(&mut bytes, xattr::BLOCK_HEADER, attributes, hash);
    let header = [xattr::MAGIC, 1, 1, xattr::block_hash(attributes.iter().map(hash))];
    for (i, word) in header.into_iter().enumerate() {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Writes entries upwards from `at` and values downwards from the end; offsets of values count from the start of `bytes`.
fn fill(bytes: &mut [u8], mut at: usize, attributes: &[Attribute<'_>], hash: impl Fn(&Attribute<'_>) -> u32) {
    let mut end = bytes.len();
    for a in attributes {
        end -= a.value.len().next_multiple_of(4);
        bytes[end..end + a.value.len()].copy_from_slice(&a.value);
        let offset = if a.value.is_empty() { 0 } else { end as u16 };
        let entry = &mut bytes[at..at + xattr::entry_len(a.name.len())];
        entry[0] = a.name.len() as u8;
        entry[1] = a.prefix;
        entry[2..4].copy_from_slice(&offset.to_le_bytes());
        entry[8..12].copy_from_slice(&(a.value.len() as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&hash(a).to_le_bytes());
        entry[16..16 + a.name.len()].copy_from_slice(a.name);
        at += xattr::entry_len(a.name.len());
    }
}

/// Writes the checksum of an attribute block, which starts from its place.
pub(crate) fn seal(block: &mut [u8], seed: u32, number: u64) {
    let checksum = checksum::xattr_block(seed, number, block);
    block[0x10..0x14].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(list: &[(&str, usize)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        list.iter().map(|&(name, len)| (name.as_bytes().to_vec(), vec![b'v'; len])).collect()
    }

    #[test]
    fn small_ones_go_into_the_inode_and_large_ones_into_the_block() {
        let placed = place(&map(&[("security.capability", 20), ("user.large", 3000), ("user.empty", 0)])).unwrap();
        let inode: Vec<_> = xattr::inode_entries(&placed.in_inode).map(Result::unwrap).map(|e| (e.prefix, e.name, e.value.len())).collect();
        assert_eq!(inode, [(1, &b"empty"[..], 0), (6, b"capability", 20)]);
        let block = placed.block.unwrap();
        let block: Vec<_> = xattr::block_entries(&block).map(Result::unwrap).map(|e| (e.prefix, e.name, e.value.len())).collect();
        assert_eq!(block, [(1, &b"large"[..], 3000)]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(place(&map(&[("user.a", 4090)])), Err(Fault::TooLarge(xattr::entry_len(1) + 4092)));
        assert!(matches!(place(&map(&[("nowhere.a", 1)])), Err(Fault::Bad(name, _)) if name == b"nowhere.a"));
        assert!(matches!(place(&map(&[("system.posix_acl_access", 3)])), Err(Fault::Bad(..))));
    }
}
