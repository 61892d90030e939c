//! The superblock: sizes, features, identity.

/// Where the superblock is, in bytes from the start of the disk.
pub const SUPERBLOCK_OFFSET: usize = 1024;

/// Its size in bytes.
pub const SUPERBLOCK_SIZE: usize = 1024;

/// Value of the superblock's magic field.
pub const SUPERBLOCK_MAGIC: u16 = 0xef53;

/// Features that software may ignore.
pub mod compat {
    /// There is a journal.
    pub const HAS_JOURNAL: u32 = 0x4;
    /// Inodes may have extended attributes.
    pub const EXT_ATTR: u32 = 0x8;
    /// At most two groups, named in the superblock, hold backups.
    pub const SPARSE_SUPER2: u32 = 0x200;
}

/// Features that a reader must know.
pub mod incompat {
    /// Directory entries hold the file type.
    pub const FILETYPE: u32 = 0x2;
    /// The journal must be replayed first.
    pub const RECOVER: u32 = 0x4;
    /// Files are mapped by extents.
    pub const EXTENTS: u32 = 0x40;
    /// Block numbers have more than 32 bits; group descriptors are longer.
    pub const BITS64: u32 = 0x80;
    /// Bitmaps and inode tables may lie outside their group.
    pub const FLEX_BG: u32 = 0x200;
    /// Checksums start from a number in the superblock instead of the UUID.
    pub const CSUM_SEED: u32 = 0x2000;
}

/// Features that a writer must know.
pub mod ro_compat {
    /// Backups only in groups 0, 1 and powers of 3, 5 and 7.
    pub const SPARSE_SUPER: u32 = 0x1;
    /// Files may be larger than 2 GiB.
    pub const LARGE_FILE: u32 = 0x2;
    /// Block counts of inodes have 48 bits.
    pub const HUGE_FILE: u32 = 0x8;
    /// Directories may have more than 65,000 subdirectories; their link count is then 1.
    pub const DIR_NLINK: u32 = 0x20;
    /// Inodes have fields beyond byte 128.
    pub const EXTRA_ISIZE: u32 = 0x40;
    /// All metadata has checksums.
    pub const METADATA_CSUM: u32 = 0x400;
}

view! {
    /// The superblock (`struct ext4_super_block`).
    pub struct Superblock(SUPERBLOCK_SIZE) {
        /// Number of inodes.
        inodes_count / set_inodes_count: u32 @ 0x00,
        /// Low half of the number of blocks.
        blocks_count_lo / set_blocks_count_lo: u32 @ 0x04,
        /// Low half of the number of free blocks.
        free_blocks_count_lo / set_free_blocks_count_lo: u32 @ 0x0c,
        /// Number of free inodes.
        free_inodes_count / set_free_inodes_count: u32 @ 0x10,
        /// Block that holds the superblock: 0 for blocks above 1 KiB.
        first_data_block / set_first_data_block: u32 @ 0x14,
        /// Block size is 1024 << this.
        log_block_size / set_log_block_size: u32 @ 0x18,
        /// Cluster size, likewise; equal to the block size without `bigalloc`.
        log_cluster_size / set_log_cluster_size: u32 @ 0x1c,
        /// Blocks per group.
        blocks_per_group / set_blocks_per_group: u32 @ 0x20,
        /// Clusters per group.
        clusters_per_group / set_clusters_per_group: u32 @ 0x24,
        /// Inodes per group.
        inodes_per_group / set_inodes_per_group: u32 @ 0x28,
        /// Mounts since the last check.
        mount_count / set_mount_count: u16 @ 0x34,
        /// Mounts after which to check; 0xffff is never.
        max_mount_count / set_max_mount_count: u16 @ 0x36,
        /// [`SUPERBLOCK_MAGIC`].
        magic / set_magic: u16 @ 0x38,
        /// Bit 0: cleanly unmounted.
        state / set_state: u16 @ 0x3a,
        /// What to do on errors: 1 continue, 2 remount read-only, 3 panic.
        errors / set_errors: u16 @ 0x3c,
        /// 1: sizes of inodes and features are given.
        revision / set_revision: u32 @ 0x4c,
        /// First inode that is not reserved.
        first_inode / set_first_inode: u32 @ 0x54,
        /// Bytes per inode.
        inode_size / set_inode_size: u16 @ 0x58,
        /// See [`compat`].
        feature_compat / set_feature_compat: u32 @ 0x5c,
        /// See [`incompat`].
        feature_incompat / set_feature_incompat: u32 @ 0x60,
        /// See [`ro_compat`].
        feature_ro_compat / set_feature_ro_compat: u32 @ 0x64,
        /// Bytes per group descriptor with [`incompat::BITS64`]; otherwise they are 32.
        desc_size / set_desc_size: u16 @ 0xfe,
        /// Default hash of directory indexes.
        default_hash_version / set_default_hash_version: u8 @ 0xfc,
        /// Default mount options: 4 user attributes, 8 access control lists.
        default_mount_options / set_default_mount_options: u32 @ 0x100,
        /// High half of the number of blocks.
        blocks_count_hi / set_blocks_count_hi: u32 @ 0x150,
        /// Bytes beyond 128 that all inodes have.
        min_extra_isize / set_min_extra_isize: u16 @ 0x15c,
        /// Bytes beyond 128 that new inodes should have.
        want_extra_isize / set_want_extra_isize: u16 @ 0x15e,
        /// Bit 0: directory hashes take bytes as signed, bit 1: as unsigned.
        flags / set_flags: u32 @ 0x160,
        /// Groups per flexible group is 1 << this.
        log_groups_per_flex / set_log_groups_per_flex: u8 @ 0x174,
        /// Algorithm of the checksums: 1 is CRC-32C.
        checksum_type / set_checksum_type: u8 @ 0x175,
        /// First group with a backup, 0 for none.
        backup_group_0 / set_backup_group_0: u32 @ 0x24c,
        /// Second group with a backup, 0 for none.
        backup_group_1 / set_backup_group_1: u32 @ 0x250,
        /// Start of all checksums with [`incompat::CSUM_SEED`].
        checksum_seed / set_checksum_seed: u32 @ 0x270,
        /// CRC-32C of everything before this field.
        checksum / set_checksum: u32 @ 0x3fc,
    }
}

impl<B: AsRef<[u8]>> Superblock<B> {
    /// Returns the UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.bytes().get(0x68..).and_then(|b| b.first_chunk()).copied().unwrap_or_default()
    }

    /// Returns the label without its padding.
    pub fn label(&self) -> &[u8] {
        let field = self.bytes().get(0x78..0x88).unwrap_or_default();
        field.split(|&b| b == 0).next().unwrap_or_default()
    }

    /// Returns the number of blocks.
    pub fn blocks_count(&self) -> u64 {
        let high = if self.feature_incompat() & incompat::BITS64 != 0 { self.blocks_count_hi() } else { 0 };
        u64::from(high) << 32 | u64::from(self.blocks_count_lo())
    }

    /// Returns the number of groups, 0 for a malformed superblock.
    pub fn group_count(&self) -> u64 {
        self.blocks_count().saturating_sub(u64::from(self.first_data_block())).div_ceil(u64::from(self.blocks_per_group()).max(1))
    }

    /// Returns what all checksums of this file system start from.
    pub fn seed(&self) -> u32 {
        if self.feature_incompat() & incompat::CSUM_SEED != 0 { self.checksum_seed() } else { crate::checksum::crc32c(!0, &self.uuid()) }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Superblock<B> {
    /// Sets the UUID.
    pub fn set_uuid(&mut self, uuid: &[u8; 16]) {
        crate::view::put(self.bytes_mut(), 0x68, uuid);
    }

    /// Sets the label; bytes over 16 are cut.
    pub fn set_label(&mut self, label: &[u8]) {
        let mut field = [0; 16];
        field.iter_mut().zip(label).for_each(|(to, from)| *to = *from);
        crate::view::put(self.bytes_mut(), 0x78, &field);
    }

    /// Sets the seed of directory hashes.
    pub fn set_hash_seed(&mut self, seed: &[u8; 16]) {
        crate::view::put(self.bytes_mut(), 0xec, seed);
    }
}
