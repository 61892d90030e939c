//! CRC-32C as ext4 uses it: reflected polynomial 0x82f63b78, no inversion at the end, continued from a seed (`fs/ext4`, feature `metadata_csum`).

use crate::view::get_u32;
use crate::{GroupDesc, Inode};

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

/// Continues a checksum over bytes.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, &b| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ b)])
}

/// Returns the checksum of a superblock: its first 1020 bytes.
pub fn superblock(bytes: &[u8]) -> u32 {
    crc32c(!0, bytes.get(..0x3fc).unwrap_or_default())
}

/// Returns the checksum of a group descriptor; its own field counts as zero.
pub fn group<B: AsRef<[u8]>>(seed: u32, number: u32, desc: &GroupDesc<B>) -> u16 {
    let bytes = desc.bytes();
    let crc = crc32c(crc32c(seed, &number.to_le_bytes()), bytes.get(..0x1e).unwrap_or_default());
    let crc = crc32c(crc, &[0; 2]);
    crc32c(crc, bytes.get(0x20..).unwrap_or_default()) as u16
}

/// Returns what all checksums that belong to an inode start from.
pub fn inode_seed(seed: u32, number: u32, generation: u32) -> u32 {
    crc32c(crc32c(seed, &number.to_le_bytes()), &generation.to_le_bytes())
}

/// Returns the checksum of an inode (the whole 256 bytes); its own two fields count as zero.
pub fn inode<B: AsRef<[u8]>>(inode_seed: u32, inode: &Inode<B>) -> u32 {
    let bytes = inode.bytes();
    let part = |from: usize, to: usize| bytes.get(from..to.min(bytes.len())).unwrap_or_default();
    let crc = crc32c(inode_seed, part(0, 0x7c));
    let crc = crc32c(crc, &[0; 2]);
    let crc = crc32c(crc, part(0x7e, 0x82));
    let crc = crc32c(crc, &[0; 2]);
    crc32c(crc, part(0x84, usize::MAX))
}

/// Returns the checksum of a directory block: everything before its 12-byte tail.
pub fn dir_block(inode_seed: u32, block: &[u8]) -> u32 {
    crc32c(inode_seed, block.get(..block.len().saturating_sub(crate::dir::TAIL_SIZE)).unwrap_or_default())
}

/// Returns the checksum of a block of an extent tree: everything before its 4-byte tail.
pub fn extent_block(inode_seed: u32, block: &[u8]) -> u32 {
    crc32c(inode_seed, block.get(..crate::extent::TAIL_OFFSET).unwrap_or_default())
}

/// Returns the checksum of a block of extended attributes; its own field counts as zero.
pub fn xattr_block(seed: u32, number: u64, block: &[u8]) -> u32 {
    let crc = crc32c(seed, &number.to_le_bytes());
    let crc = crc32c(crc, block.get(..0x10).unwrap_or_default());
    let crc = crc32c(crc, &[0; 4]);
    crc32c(crc, block.get(0x14..).unwrap_or_default())
}

/// Returns whether a superblock's checksum is right.
pub fn is_superblock_intact(bytes: &[u8]) -> bool {
    get_u32(bytes, 0x3fc) == superblock(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc32c_is_the_published_one() {
        // RFC 3720, B.4: 32 bytes of zeros, and the usual check string; ext4 leaves out the final inversion.
        assert_eq!(!super::crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!super::crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
