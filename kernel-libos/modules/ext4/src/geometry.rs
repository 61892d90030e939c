//! Superblock and group descriptors: the sizes of things and where the inodes are.

use alloc::sync::Arc;

use libos_core::vfs::volume::Volume;
use libos_core::{Errno, Result};
use ukc_ext4_layout::{GROUP_DESC_SIZE, GroupDesc, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock, incompat};

/// Features that change how things are read and that this reader knows. The journal's own (`mmp`, `journal_dev`) do not concern a reader.
const KNOWN_INCOMPAT: u32 = incompat::FILETYPE | incompat::EXTENTS | incompat::BITS64 | incompat::FLEX_BG | incompat::CSUM_SEED
    | 0x100 // mmp: a lock against a second writer
    | 0x400 // ea_inode: attribute values in inodes; those are not found
    | 0x4000 // largedir
    | 0x8000; // inline_data

/// The sizes of an image.
pub struct Geometry {
    pub volume: Arc<dyn Volume>,
    pub block_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub inodes: u32,
    pub inodes_free: u32,
    inodes_per_group: u32,
    inode_bytes: u64,
    desc_bytes: u64,
    /// Byte offset of the first group descriptor.
    descs_at: u64,
    has_64bit: bool,
}

impl Geometry {
    /// Reads the superblock.
    ///
    /// # Errors
    /// `EINVAL` when it is none, or needs what this reader does not know; `EUCLEAN` when its numbers make no sense or the journal must be replayed first.
    pub fn read(volume: Arc<dyn Volume>) -> Result<Geometry> {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        volume.read(SUPERBLOCK_OFFSET as u64, &mut bytes).map_err(|_| Errno::EINVAL)?;
        let sb = Superblock::new(&bytes[..]).ok_or(Errno::EINVAL)?;
        if sb.magic() != SUPERBLOCK_MAGIC {
            return Err(Errno::EINVAL);
        }
        let features = sb.feature_incompat();
        if features & incompat::RECOVER != 0 {
            return Err(Errno::EUCLEAN);
        }
        if features & !KNOWN_INCOMPAT != 0 {
            return Err(Errno::EINVAL);
        }
        let has_64bit = features & incompat::BITS64 != 0;
        let is_old = sb.revision() == 0;
        let inode_bytes = if is_old { 128 } else { u64::from(sb.inode_size()) };
        let desc_bytes = if has_64bit { u64::from(sb.desc_size()) } else { GROUP_DESC_SIZE as u64 };
        let is_sound = sb.log_block_size() <= 6
            && sb.inodes_per_group() > 0
            && sb.blocks_per_group() > 0
            && inode_bytes >= 128
            && inode_bytes.is_power_of_two()
            && desc_bytes >= GROUP_DESC_SIZE as u64
            && (!has_64bit || desc_bytes >= 64);
        if !is_sound {
            return Err(Errno::EUCLEAN);
        }
        let block_bytes = 1024u64 << sb.log_block_size();
        if inode_bytes > block_bytes || desc_bytes > block_bytes {
            return Err(Errno::EUCLEAN);
        }
        let first_block = u64::from(sb.first_data_block());
        Ok(Geometry {
            block_bytes,
            blocks: if has_64bit { sb.blocks_count() } else { u64::from(sb.blocks_count_lo()) },
            blocks_free: u64::from(sb.free_blocks_count_lo()),
            inodes: sb.inodes_count(),
            inodes_free: sb.free_inodes_count(),
            inodes_per_group: sb.inodes_per_group(),
            inode_bytes,
            desc_bytes,
            // The descriptors are in the block after the superblock's.
            descs_at: (first_block + 1) * block_bytes,
            has_64bit,
            volume,
        })
    }

    /// Byte offset of a block.
    ///
    /// # Errors
    /// `EUCLEAN` when the image has no such block.
    pub fn block_offset(&self, block: u64) -> Result<u64> {
        if block >= self.blocks {
            return Err(Errno::EUCLEAN);
        }
        block.checked_mul(self.block_bytes).ok_or(Errno::EUCLEAN)
    }

    /// Reads an inode's bytes: at most as many as `dst` holds. Returns how many the image stores per inode.
    ///
    /// # Errors
    /// `EUCLEAN` when there is no such inode, `EIO`.
    pub fn read_inode(&self, number: u32, dst: &mut [u8]) -> Result<usize> {
        if number == 0 || number > self.inodes {
            return Err(Errno::EUCLEAN);
        }
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let mut bytes = [0; 64];
        let len = if self.has_64bit { 64 } else { GROUP_DESC_SIZE };
        self.volume.read(self.descs_at + u64::from(group) * self.desc_bytes, &mut bytes[..len])?;
        let desc = GroupDesc::new(&bytes[..]).ok_or(Errno::EUCLEAN)?;
        // With 64-bit block numbers the high half of the table's block is at 0x28 (`struct ext4_group_desc`, bg_inode_table_hi).
        let high = u64::from(u32::from_le_bytes([bytes[0x28], bytes[0x29], bytes[0x2a], bytes[0x2b]]));
        let table = u64::from(desc.inode_table_lo()) | if self.has_64bit { high << 32 } else { 0 };
        let at = self.block_offset(table)?.checked_add(u64::from(index) * self.inode_bytes).ok_or(Errno::EUCLEAN)?;
        let count = dst.len().min(self.inode_bytes as usize);
        self.volume.read(at, &mut dst[..count])?;
        Ok(count)
    }
}
