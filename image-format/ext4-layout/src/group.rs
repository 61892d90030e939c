//! Group descriptors.

/// Bytes per descriptor without the `64bit` feature. With it the superblock says (64), and the high halves follow.
pub const GROUP_DESC_SIZE: usize = 32;

view! {
    /// A group descriptor (`struct ext4_group_desc`), its first 32 bytes.
    pub struct GroupDesc(GROUP_DESC_SIZE) {
        /// Block of the block bitmap.
        block_bitmap_lo / set_block_bitmap_lo: u32 @ 0x00,
        /// Block of the inode bitmap.
        inode_bitmap_lo / set_inode_bitmap_lo: u32 @ 0x04,
        /// First block of this group's inodes.
        inode_table_lo / set_inode_table_lo: u32 @ 0x08,
        /// Free blocks of the group.
        free_blocks_count_lo / set_free_blocks_count_lo: u16 @ 0x0c,
        /// Free inodes of the group.
        free_inodes_count_lo / set_free_inodes_count_lo: u16 @ 0x0e,
        /// Directories among its inodes.
        used_dirs_count_lo / set_used_dirs_count_lo: u16 @ 0x10,
        /// Bit 0: inode bitmap not written, bit 1: block bitmap not written, bit 2: inode table zeroed.
        flags / set_flags: u16 @ 0x12,
        /// Low half of the block bitmap's checksum.
        block_bitmap_checksum_lo / set_block_bitmap_checksum_lo: u16 @ 0x18,
        /// Low half of the inode bitmap's checksum.
        inode_bitmap_checksum_lo / set_inode_bitmap_checksum_lo: u16 @ 0x1a,
        /// Inodes at the end of the group that were never used.
        unused_inodes_lo / set_unused_inodes_lo: u16 @ 0x1c,
        /// Checksum of the descriptor.
        checksum / set_checksum: u16 @ 0x1e,
    }
}

impl<B: AsRef<[u8]>> GroupDesc<B> {
    /// Returns the first block of this group's inodes; descriptors longer than 32 bytes have a high half.
    pub fn inode_table(&self) -> u64 {
        let high = if self.bytes().len() >= 64 { crate::view::get_u32(self.bytes(), 0x28) } else { 0 };
        u64::from(high) << 32 | u64::from(self.inode_table_lo())
    }
}
