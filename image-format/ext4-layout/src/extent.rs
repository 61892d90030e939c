//! Extent trees: which disk blocks hold which blocks of a file.
//!
//! A node is a header and up to `max` entries of 12 bytes. Leaves hold extents (runs of blocks), inner nodes hold indexes (blocks with nodes below). The root
//! is in the inode's 60 bytes and has room for 4 entries; a block has room for 340 and four bytes of checksum.

use crate::dir::Malformed;
use crate::view::{get_u16, get_u32, put};

/// Bytes of the header, and of each entry.
pub const ENTRY_SIZE: usize = 12;

/// Magic number of the header.
pub const MAGIC: u16 = 0xf30a;

/// Entries in the root.
pub const ROOT_ENTRIES: usize = 60 / ENTRY_SIZE - 1;

/// Entries in a block.
pub const BLOCK_ENTRIES: usize = (crate::BLOCK_SIZE - 4) / ENTRY_SIZE - 1;

/// Where the checksum of a block is: 4092.
pub const TAIL_OFFSET: usize = ENTRY_SIZE * (1 + BLOCK_ENTRIES);

/// Blocks in the longest initialised extent: 128 MiB. Greater lengths, less this number, mean "allocated and zero".
pub const MAX_EXTENT: u16 = 32768;

/// Deepest tree that Linux makes (`EXT4_MAX_EXTENT_DEPTH`).
pub const MAX_DEPTH: u16 = 5;

/// A run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First block of the file.
    pub logical: u32,
    /// How many.
    pub len: u32,
    /// First block on the disk.
    pub physical: u64,
    /// Allocated, but reads as zeros.
    pub is_unwritten: bool,
}

/// A block with a node below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// First block of the file that it maps.
    pub logical: u32,
    /// The node's block on the disk.
    pub block: u64,
}

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// Levels below: 0 for leaves.
    pub depth: u16,
    entries: &'a [u8],
}

/// Reads a node from the inode's 60 bytes or from a block.
///
/// # Errors
/// [`Malformed`] when the magic number is another or the counts do not fit.
pub fn node(bytes: &[u8]) -> Result<Node<'_>, Malformed> {
    let count = usize::from(get_u16(bytes, 2));
    let is_sound = get_u16(bytes, 0) == MAGIC && count <= usize::from(get_u16(bytes, 4)) && get_u16(bytes, 6) <= MAX_DEPTH;
    let entries = bytes.get(ENTRY_SIZE..ENTRY_SIZE * (1 + count)).filter(|_| is_sound).ok_or(Malformed)?;
    Ok(Node { depth: get_u16(bytes, 6), entries })
}

impl<'a> Node<'a> {
    /// Returns the extents of a leaf.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + use<'a> {
        self.entries.chunks_exact(ENTRY_SIZE).map(|e| {
            let len = get_u16(e, 4);
            let is_unwritten = len > MAX_EXTENT;
            Extent {
                logical: get_u32(e, 0),
                len: u32::from(if is_unwritten { len - MAX_EXTENT } else { len }),
                physical: u64::from(get_u16(e, 6)) << 32 | u64::from(get_u32(e, 8)),
                is_unwritten,
            }
        })
    }

    /// Returns the indexes of an inner node.
    pub fn indexes(&self) -> impl Iterator<Item = Index> + use<'a> {
        self.entries
            .chunks_exact(ENTRY_SIZE)
            .map(|e| Index { logical: get_u32(e, 0), block: u64::from(get_u16(e, 8)) << 32 | u64::from(get_u32(e, 4)) })
    }
}

/// Writes the header of a node with room for `max` entries.
pub fn put_header(bytes: &mut [u8], count: usize, max: usize, depth: u16) {
    for (at, value) in [(0, MAGIC), (2, count as u16), (4, max as u16), (6, depth)] {
        put(bytes, at, &value.to_le_bytes());
    }
}

/// Writes an extent as entry number `at` of a leaf.
pub fn put_extent(bytes: &mut [u8], at: usize, extent: &Extent) {
    let at = ENTRY_SIZE * (1 + at);
    put(bytes, at, &extent.logical.to_le_bytes());
    let len = if extent.is_unwritten { extent.len + u32::from(MAX_EXTENT) } else { extent.len };
    put(bytes, at + 4, &(len as u16).to_le_bytes());
    put(bytes, at + 6, &((extent.physical >> 32) as u16).to_le_bytes());
    put(bytes, at + 8, &(extent.physical as u32).to_le_bytes());
}

/// Writes an index as entry number `at` of an inner node.
pub fn put_index(bytes: &mut [u8], at: usize, index: &Index) {
    let at = ENTRY_SIZE * (1 + at);
    put(bytes, at, &index.logical.to_le_bytes());
    put(bytes, at + 4, &(index.block as u32).to_le_bytes());
    put(bytes, at + 8, &((index.block >> 32) as u16).to_le_bytes());
}

/// Writes the checksum of a block.
pub fn put_tail(block: &mut [u8], inode_seed: u32) {
    let checksum = crate::checksum::extent_block(inode_seed, block);
    put(block, TAIL_OFFSET, &checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_read_back() {
        let mut root = [0; 60];
        put_header(&mut root, 2, ROOT_ENTRIES, 0);
        let extents = [
            Extent { logical: 0, len: 32768, physical: 0x1_2345_6789, is_unwritten: false },
            Extent { logical: 32768, len: 7, physical: 9, is_unwritten: true },
        ];
        extents.iter().enumerate().for_each(|(i, e)| put_extent(&mut root, i, e));
        let read = node(&root).unwrap();
        assert_eq!((read.depth, read.extents().collect::<Vec<_>>()), (0, extents.to_vec()));
        put_header(&mut root, 1, ROOT_ENTRIES, 1);
        put_index(&mut root, 0, &Index { logical: 3, block: 0x2_0000_0001 });
        assert_eq!(node(&root).unwrap().indexes().collect::<Vec<_>>(), [Index { logical: 3, block: 0x2_0000_0001 }]);
        assert_eq!((ROOT_ENTRIES, BLOCK_ENTRIES, TAIL_OFFSET), (4, 340, 4092));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_node_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..80), is_magic in any::<bool>()) {
            if is_magic {
                put(&mut bytes, 0, &MAGIC.to_le_bytes());
            }
            if let Ok(node) = node(&bytes) {
                prop_assert!(node.extents().count() == node.indexes().count());
            }
        }
    }
}
