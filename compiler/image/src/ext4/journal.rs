//! The journal of a volume, empty: inode 8 and the journal's own superblock (jbd2; Linux, `include/linux/jbd2.h`).

use ukc_ext4_layout::extent::{self, Extent};
use ukc_ext4_layout::{BLOCK_SIZE, INODE_SIZE, Inode, checksum, inode_flags, mode};

use super::xattrs::EXTRA_ISIZE;

/// Number of the journal's inode.
pub(crate) const INODE: u32 = 8;

/// Magic number of every block that is the journal's own.
const MAGIC: u32 = 0xc03b_3998;

/// Returns the 60 bytes of the extent root.
fn root((first, count): (u64, u64)) -> [u8; 60] {
    let mut root = [0; 60];
    extent::put_header(&mut root, 1, extent::ROOT_ENTRIES, 0);
    extent::put_extent(&mut root, 0, &Extent { logical: 0, len: count as u32, physical: first, is_unwritten: false });
    root
}

/// Returns the inode of a journal at these blocks (first, count). Times are 0: nobody asks, and equal inputs give equal bytes.
pub(crate) fn inode(place: (u64, u64), seed: u32) -> [u8; INODE_SIZE] {
    let mut bytes = [0; INODE_SIZE];
    let Some(mut inode) = Inode::new(&mut bytes[..]) else { return [0; INODE_SIZE] };
    inode.set_mode(mode::REGULAR | 0o600);
    inode.set_links_count(1);
    inode.set_extra_isize(EXTRA_ISIZE);
    inode.set_size(place.1 * BLOCK_SIZE as u64);
    inode.set_sectors(place.1 * (BLOCK_SIZE as u64 / 512));
    inode.set_flags(inode_flags::EXTENTS);
    inode.set_block(&root(place));
    let crc = checksum::inode(seed, &inode);
    inode.set_checksum_lo(crc as u16);
    inode.set_checksum_hi((crc >> 16) as u16);
    bytes
}

/// Returns the journal's first block: a superblock of version 2 that says that there is nothing to replay.
pub(crate) fn superblock(blocks: u32) -> [u8; BLOCK_SIZE] {
    let mut bytes = [0; BLOCK_SIZE];
    // Magic, type 4 (superblock, version 2), transaction 0; then block size, length, first block of the log, first transaction expected, start 0.
    for (i, word) in [MAGIC, 4, 0, BLOCK_SIZE as u32, blocks, 1, 1, 0].into_iter().enumerate() {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_be_bytes());
    }
    // One file system uses it.
    bytes[0x40..0x44].copy_from_slice(&1u32.to_be_bytes());
    bytes
}

/// Sets the fields of the file system's superblock (`s_journal_inum`, `s_jnl_backup_type`, `s_jnl_blocks`).
pub(crate) fn announce(superblock: &mut [u8], place: (u64, u64)) {
    superblock[0xe0..0xe4].copy_from_slice(&INODE.to_le_bytes());
    superblock[0xfd] = 1;
    superblock[0x10c..0x10c + 60].copy_from_slice(&root(place));
    let size = place.1 * BLOCK_SIZE as u64;
    superblock[0x148..0x14c].copy_from_slice(&((size >> 32) as u32).to_le_bytes());
    superblock[0x14c..0x150].copy_from_slice(&(size as u32).to_le_bytes());
}
