//! Directory blocks: a chain of entries that fills the block.
//!
//! ```text
//! | inode: u32 | entry length: u16 | name length: u8 | type: u8 | name | up to the entry length |     inode 0 is a hole
//! ```
//!
//! With checksums the last 12 bytes are a hole of type 0xde whose last four bytes are the block's checksum.

use crate::view::{get_u16, get_u32, put};

/// Bytes of an entry before its name.
pub const ENTRY_HEADER: usize = 8;

/// Bytes of the tail that holds the checksum.
pub const TAIL_SIZE: usize = 12;

/// Type of the tail.
pub const TAIL_TYPE: u8 = 0xde;

/// Longest name.
pub const MAX_NAME: usize = 255;

/// File types in entries.
pub mod file_type {
    /// Regular file.
    pub const REGULAR: u8 = 1;
    /// Directory.
    pub const DIRECTORY: u8 = 2;
    /// Character device.
    pub const CHAR_DEVICE: u8 = 3;
    /// Block device.
    pub const BLOCK_DEVICE: u8 = 4;
    /// Named pipe.
    pub const FIFO: u8 = 5;
    /// Socket.
    pub const SOCKET: u8 = 6;
    /// Symbolic link.
    pub const SYMLINK: u8 = 7;
}

/// An entry that names an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Number of the inode.
    pub inode: u32,
    /// See [`file_type`].
    pub file_type: u8,
    /// The name.
    pub name: &'a [u8],
}

/// Returns the bytes that an entry with such a name needs: a multiple of 4.
pub const fn entry_len(name_len: usize) -> usize {
    (ENTRY_HEADER + name_len).next_multiple_of(4)
}

/// Returns the entries of a block, without holes; a chain that does not fit the block ends with one [`Malformed`].
pub fn entries(block: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Malformed>> {
    let mut rest = block;
    core::iter::from_fn(move || {
        while !rest.is_empty() {
            let len = usize::from(get_u16(rest, 4));
            let name_len = usize::from(*rest.get(6).unwrap_or(&0));
            let is_sound = rest.len() >= ENTRY_HEADER && len % 4 == 0 && len >= entry_len(name_len) && len <= rest.len();
            if !is_sound {
                rest = &[];
                return Some(Err(Malformed));
            }
            let (entry, tail) = rest.split_at(len);
            rest = tail;
            if get_u32(entry, 0) != 0 {
                let name = entry.get(ENTRY_HEADER..ENTRY_HEADER + name_len).unwrap_or_default();
                return Some(Ok(Entry { inode: get_u32(entry, 0), file_type: entry[7], name }));
            }
        }
        None
    })
}

/// A structure whose lengths do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("malformed ext4 structure")
    }
}

impl core::error::Error for Malformed {}

/// Writes an entry of `len` bytes at `at`; the caller has made sure that it fits.
pub fn put_entry(block: &mut [u8], at: usize, len: usize, entry: &Entry<'_>) {
    put(block, at, &entry.inode.to_le_bytes());
    put(block, at + 4, &(len as u16).to_le_bytes());
    put(block, at + 6, &[entry.name.len() as u8, entry.file_type]);
    put(block, at + ENTRY_HEADER, entry.name);
}

/// Writes the tail of a block and its checksum.
pub fn put_tail(block: &mut [u8], inode_seed: u32) {
    let at = block.len().saturating_sub(TAIL_SIZE);
    put(block, at, &[0, 0, 0, 0, TAIL_SIZE as u8, 0, 0, TAIL_TYPE]);
    let checksum = crate::checksum::dir_block(inode_seed, block);
    put(block, at + 8, &checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_read_back_without_holes_and_tail() {
        let mut block = [0; 64];
        let entry = |inode, name| Entry { inode, file_type: file_type::REGULAR, name };
        put_entry(&mut block, 0, 12, &entry(12, b"abc"));
        put_entry(&mut block, 12, 16, &entry(0, b"gone"));
        put_entry(&mut block, 28, 24, &entry(13, b"z"));
        put_tail(&mut block, 7);
        let found: Vec<_> = entries(&block).collect();
        assert_eq!(found, [Ok(entry(12, b"abc")), Ok(entry(13, b"z"))]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_block_panics(block in prop::collection::vec(any::<u8>(), 0..128)) {
            prop_assert!(entries(&block).count() <= block.len());
        }
    }
}
