//! Superblock, group descriptors and bitmaps: which blocks and inodes are free.

use alloc::boxed::Box;
use alloc::vec::Vec;

use libos_core::{Errno, Result};
use ukc_ext4_layout::{
    FIRST_INODE, GROUP_DESC_SIZE, GroupDesc, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSET, Superblock, checksum, compat, incompat, ro_compat,
};

use crate::store::{BLOCK, Bytes, Store};

/// Features that a writer must understand; anything else is refused.
const KNOWN_INCOMPAT: u32 =
    incompat::FILETYPE | incompat::RECOVER | incompat::EXTENTS | incompat::BITS64 | incompat::FLEX_BG | incompat::CSUM_SEED;
const KNOWN_RO_COMPAT: u32 = ro_compat::SPARSE_SUPER
    | ro_compat::LARGE_FILE
    | ro_compat::HUGE_FILE
    | ro_compat::DIR_NLINK
    | ro_compat::EXTRA_ISIZE
    | ro_compat::METADATA_CSUM;

// Fields that only a writer needs (`struct ext4_super_block`).
const FREE_BLOCKS_HI: usize = 0x158;
const RESERVED_GDT: usize = 0xce;
const JOURNAL_INODE: usize = 0xe0;
const LAST_ORPHAN: usize = 0xe8;
const WRITE_TIME: usize = 0x30;

// Flags of a group.
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

/// The block that holds the superblock, with 4 KiB blocks.
const SUPER_BLOCK: u64 = 0;

/// A block group.
#[derive(Clone, Default)]
struct Group {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    free_blocks: u32,
    free_inodes: u32,
    dirs: u32,
    unused: u32,
    flags: u16,
    is_dirty: bool,
}

/// What does not change while the volume is mounted.
pub struct Shape {
    pub blocks: u64,
    pub inodes: u32,
    pub inodes_per_group: u32,
    pub blocks_per_group: u32,
    pub inode_bytes: usize,
    pub extra_isize: u16,
    pub has_checksums: bool,
    pub seed: u32,
    pub journal_inode: u32,
    desc_bytes: usize,
    compat: u32,
    ro_compat: u32,
    reserved_gdt: u32,
    backups: [u32; 2],
}

/// Free space, as the running transaction sees it.
pub struct Groups {
    pub shape: Shape,
    groups: Vec<Group>,
    pub free_blocks: u64,
    pub free_inodes: u32,
    /// First inode of the list of inodes that have no name any more but were in use.
    pub last_orphan: u32,
    /// Whether the superblock says that the journal must be replayed.
    pub is_marked: bool,
    /// Freed, but not to be reused yet: after a crash they may still belong to their old owner.
    held: Vec<(u64, u32)>,
    pub held_blocks: u64,
    /// Whether the journal has versions of what was freed: it must be emptied before the blocks are used again.
    pub holds_metadata: bool,
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

impl Shape {
    fn read(sb: &Superblock<&[u8]>, len_bytes: u64) -> Result<Shape> {
        if sb.magic() != SUPERBLOCK_MAGIC {
            return Err(Errno::EINVAL);
        }
        let is_known = sb.feature_incompat() & !KNOWN_INCOMPAT == 0
            && sb.feature_ro_compat() & !KNOWN_RO_COMPAT == 0
            && sb.feature_incompat() & incompat::EXTENTS != 0
            && sb.log_block_size() == 2;
        if !is_known {
            return Err(Errno::EINVAL);
        }
        let has_64bit = sb.feature_incompat() & incompat::BITS64 != 0;
        let shape = Shape {
            blocks: sb.blocks_count(),
            inodes: sb.inodes_count(),
            inodes_per_group: sb.inodes_per_group(),
            blocks_per_group: sb.blocks_per_group(),
            inode_bytes: sb.inode_size().into(),
            extra_isize: sb.want_extra_isize().clamp(32, 64),
            has_checksums: sb.feature_ro_compat() & ro_compat::METADATA_CSUM != 0,
            seed: sb.seed(),
            journal_inode: if sb.feature_compat() & compat::HAS_JOURNAL != 0 { le32(sb.bytes(), JOURNAL_INODE) } else { 0 },
            desc_bytes: if has_64bit { sb.desc_size().into() } else { GROUP_DESC_SIZE },
            compat: sb.feature_compat(),
            ro_compat: sb.feature_ro_compat(),
            reserved_gdt: le16(sb.bytes(), RESERVED_GDT).into(),
            backups: [sb.backup_group_0(), sb.backup_group_1()],
        };
        let bits = 8 * BLOCK as u32;
        let is_sound = shape.blocks <= u64::from(u32::MAX)
            && shape.blocks * BLOCK as u64 <= len_bytes
            && shape.blocks > 1
            && (1..=bits).contains(&shape.blocks_per_group)
            && (8..=bits).contains(&shape.inodes_per_group)
            && shape.inodes_per_group.is_multiple_of(8)
            && (256..=BLOCK).contains(&shape.inode_bytes)
            && shape.inode_bytes.is_power_of_two()
            && matches!(shape.desc_bytes, 32 | 64)
            && u64::from(shape.inodes) == sb.group_count() * u64::from(shape.inodes_per_group);
        if is_sound { Ok(shape) } else { Err(Errno::EUCLEAN) }
    }

    fn group_count(&self) -> u64 {
        self.blocks.div_ceil(self.blocks_per_group.into())
    }

    /// Whether a group begins with a backup of the superblock.
    fn has_super(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat & compat::SPARSE_SUPER2 != 0 {
            return self.backups.contains(&(group as u32));
        }
        let is_power =
            |base: u64| core::iter::successors(Some(base), |n| n.checked_mul(base)).take_while(|n| *n <= group).any(|n| n == group);
        self.ro_compat & ro_compat::SPARSE_SUPER == 0 || group == 1 || [3, 5, 7].into_iter().any(is_power)
    }
}

impl Groups {
    /// Reads the superblock and all group descriptors.
    ///
    /// # Errors
    /// `EINVAL` when it is no ext4 that can be written here, `EUCLEAN`, `EIO`.
    pub fn read(store: &mut Store) -> Result<Groups> {
        let len_bytes = store.disk.len_bytes();
        let block = store.read(SUPER_BLOCK)?.to_vec();
        let sb = Superblock::new(&block[SUPERBLOCK_OFFSET..]).ok_or(Errno::EINVAL)?;
        let shape = Shape::read(&sb, len_bytes)?;
        let mut groups = Vec::new();
        groups.try_reserve_exact(shape.group_count() as usize).map_err(|_| Errno::ENOMEM)?;
        for number in 0..shape.group_count() {
            let at = number as usize * shape.desc_bytes;
            let bytes = store.read(1 + (at / BLOCK) as u64)?;
            let bytes = &bytes[at % BLOCK..at % BLOCK + shape.desc_bytes];
            let desc = GroupDesc::new(bytes).ok_or(Errno::EUCLEAN)?;
            let is_64 = shape.desc_bytes >= 64;
            let high = |at: usize| if is_64 { u64::from(le32(bytes, at)) << 32 } else { 0 };
            let high16 = |at: usize| if is_64 { u32::from(le16(bytes, at)) << 16 } else { 0 };
            let group = Group {
                block_bitmap: u64::from(desc.block_bitmap_lo()) | high(0x20),
                inode_bitmap: u64::from(desc.inode_bitmap_lo()) | high(0x24),
                inode_table: u64::from(desc.inode_table_lo()) | high(0x28),
                free_blocks: u32::from(desc.free_blocks_count_lo()) | high16(0x2c),
                free_inodes: u32::from(desc.free_inodes_count_lo()) | high16(0x2e),
                dirs: u32::from(desc.used_dirs_count_lo()) | high16(0x30),
                unused: (u32::from(desc.unused_inodes_lo()) | high16(0x32)).min(shape.inodes_per_group),
                flags: desc.flags(),
                is_dirty: false,
            };
            let table_end = group.inode_table.saturating_add(u64::from(shape.inodes_per_group) * shape.inode_bytes as u64 / BLOCK as u64);
            if [group.block_bitmap, group.inode_bitmap, table_end.saturating_sub(1)].iter().any(|b| *b >= shape.blocks) {
                return Err(Errno::EUCLEAN);
            }
            groups.push(group);
        }
        // The sums, because the superblock's own counts may be old after a crash.
        let free_blocks = groups.iter().map(|g| u64::from(g.free_blocks)).sum();
        let free_inodes = groups.iter().map(|g| g.free_inodes).sum();
        let last_orphan = le32(sb.bytes(), LAST_ORPHAN);
        let is_marked = sb.feature_incompat() & incompat::RECOVER != 0;
        Ok(Groups {
            shape,
            groups,
            free_blocks,
            free_inodes,
            last_orphan,
            is_marked,
            held: Vec::new(),
            held_blocks: 0,
            holds_metadata: false,
        })
    }

    /// Where an inode is: its block and the byte in it.
    ///
    /// # Errors
    /// `EUCLEAN` when there is no such inode.
    pub fn inode_place(&self, number: u32) -> Result<(u64, usize)> {
        if number == 0 || number > self.shape.inodes {
            return Err(Errno::EUCLEAN);
        }
        let (group, index) = ((number - 1) / self.shape.inodes_per_group, (number - 1) % self.shape.inodes_per_group);
        let at = index as usize * self.shape.inode_bytes;
        Ok((self.groups[group as usize].inode_table + (at / BLOCK) as u64, at % BLOCK))
    }

    /// First block of an inode's group: where its data should be.
    pub fn goal_of_inode(&self, number: u32) -> u64 {
        u64::from((number - 1) / self.shape.inodes_per_group) * u64::from(self.shape.blocks_per_group)
    }

    fn blocks_in(&self, group: usize) -> u32 {
        let first = group as u64 * u64::from(self.shape.blocks_per_group);
        (self.shape.blocks - first).min(self.shape.blocks_per_group.into()) as u32
    }

    /// Makes the bitmap of a group whose blocks nobody has used yet.
    fn init_block_bitmap(&mut self, store: &mut Store, group: usize) -> Result<()> {
        if self.groups[group].flags & BLOCK_UNINIT == 0 {
            return Ok(());
        }
        let first = group as u64 * u64::from(self.shape.blocks_per_group);
        let len = self.blocks_in(group);
        let bitmap = store.fresh(self.groups[group].block_bitmap)?;
        let mut mark = |from: u64, count: u64| {
            for block in from.max(first)..(from + count).min(first + u64::from(len)) {
                let bit = (block - first) as usize;
                bitmap[bit / 8] |= 1 << (bit % 8);
            }
        };
        if self.shape.has_super(group as u64) {
            let descs = (self.groups.len() * self.shape.desc_bytes).div_ceil(BLOCK) as u64;
            mark(first, 1 + descs + u64::from(self.shape.reserved_gdt));
        }
        let table = u64::from(self.shape.inodes_per_group) * self.shape.inode_bytes as u64 / BLOCK as u64;
        for other in &self.groups {
            mark(other.block_bitmap, 1);
            mark(other.inode_bitmap, 1);
            mark(other.inode_table, table);
        }
        for bit in len as usize..8 * BLOCK {
            bitmap[bit / 8] |= 1 << (bit % 8);
        }
        let group = &mut self.groups[group];
        group.flags &= !BLOCK_UNINIT;
        group.is_dirty = true;
        Ok(())
    }

    /// Blocks that an allocation may take.
    pub fn available(&self) -> u64 {
        self.free_blocks.saturating_sub(self.held_blocks)
    }

    /// Takes up to `want` blocks in a row, near `goal`. Returns the first and how many.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub fn take_blocks(&mut self, store: &mut Store, goal: u64, want: u32) -> Result<(u64, u32)> {
        let goal = if goal < self.shape.blocks { goal } else { 0 };
        let per_group = u64::from(self.shape.blocks_per_group);
        let first_group = (goal / per_group) as usize;
        let count = self.groups.len();
        // A good place first: eight free blocks in a row when more than a few are wanted; then anything. The goal's group comes last again, whole.
        let passes = if want >= 8 { [8, 1] } else { [1, 1] };
        for at_least in passes {
            for i in 0..=count {
                let group = (first_group + i) % count;
                if self.groups[group].free_blocks == 0 {
                    continue;
                }
                self.init_block_bitmap(store, group)?;
                let from = if i == 0 { (goal % per_group) as u32 } else { 0 };
                if let Some((bit, len)) = self.find_run(store, group, from, want, at_least)? {
                    let bitmap = store.write(self.groups[group].block_bitmap)?;
                    for b in bit..bit + len {
                        bitmap[b as usize / 8] |= 1 << (b % 8);
                    }
                    let g = &mut self.groups[group];
                    g.free_blocks = g.free_blocks.saturating_sub(len);
                    g.is_dirty = true;
                    self.free_blocks = self.free_blocks.saturating_sub(len.into());
                    return Ok((group as u64 * per_group + u64::from(bit), len));
                }
            }
        }
        Err(Errno::ENOSPC)
    }

    /// The first run of at least `at_least` free blocks in a group, cut at `want`.
    fn find_run(&self, store: &mut Store, group: usize, from: u32, want: u32, at_least: u32) -> Result<Option<(u32, u32)>> {
        let first = group as u64 * u64::from(self.shape.blocks_per_group);
        let len = self.blocks_in(group);
        let bitmap = store.read(self.groups[group].block_bitmap)?;
        let is_free = |bit: u32| bitmap[bit as usize / 8] & 1 << (bit % 8) == 0;
        let mut bit = from;
        while bit < len {
            if bit.is_multiple_of(8) && bitmap[bit as usize / 8] == 0xff {
                bit += 8;
                continue;
            }
            if !is_free(bit) {
                bit += 1;
                continue;
            }
            if let Some(end) = self.held_at(first + u64::from(bit)) {
                bit = (end - first).min(len.into()) as u32;
                continue;
            }
            let mut run = 1;
            while run < want && bit + run < len && is_free(bit + run) && self.held_at(first + u64::from(bit + run)).is_none() {
                run += 1;
            }
            if run >= at_least.min(want) {
                return Ok(Some((bit, run)));
            }
            bit += run;
        }
        Ok(None)
    }

    /// The end of the held range that a block is in.
    fn held_at(&self, block: u64) -> Option<u64> {
        self.held
            .iter()
            .find(|(start, len)| (*start..*start + u64::from(*len)).contains(&block))
            .map(|(start, len)| start + u64::from(*len))
    }

    /// Gives blocks back. They are not taken again before [`Groups::release_held`].
    ///
    /// # Errors
    /// `EUCLEAN` when they are outside the volume, `EIO`, `ENOMEM`.
    pub fn free_run(&mut self, store: &mut Store, start: u64, len: u32) -> Result<()> {
        if start == 0 || start.saturating_add(len.into()) > self.shape.blocks {
            return Err(Errno::EUCLEAN);
        }
        self.held.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let per_group = u64::from(self.shape.blocks_per_group);
        let mut block = start;
        let end = start + u64::from(len);
        while block < end {
            let group = (block / per_group) as usize;
            self.init_block_bitmap(store, group)?;
            let bitmap = store.write(self.groups[group].block_bitmap)?;
            let until = end.min((group as u64 + 1) * per_group);
            let mut freed = 0;
            for b in block..until {
                let bit = (b % per_group) as usize;
                freed += u32::from(bitmap[bit / 8] >> (bit % 8) & 1);
                bitmap[bit / 8] &= !(1 << (bit % 8));
            }
            let g = &mut self.groups[group];
            g.free_blocks += freed;
            g.is_dirty = true;
            self.free_blocks += u64::from(freed);
            block = until;
        }
        self.held_blocks += u64::from(len);
        match self.held.last_mut() {
            Some((last, n)) if *last + u64::from(*n) == start && n.checked_add(len).is_some() => *n += len,
            _ => self.held.push((start, len)),
        }
        Ok(())
    }

    /// Number of ranges that are held.
    pub fn held_ranges(&self) -> usize {
        self.held.len()
    }

    /// What was freed is free on the disk, too.
    pub fn release_held(&mut self) {
        self.held = Vec::new();
        self.held_blocks = 0;
        self.holds_metadata = false;
    }

    /// Takes an inode number, in the group of `parent` if there is one.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub fn take_inode(&mut self, store: &mut Store, parent: u32, is_dir: bool) -> Result<u32> {
        let per_group = self.shape.inodes_per_group;
        let first = (parent.saturating_sub(1) / per_group) as usize;
        let count = self.groups.len();
        for i in 0..count {
            let number = (first + i) % count;
            if self.groups[number].free_inodes == 0 {
                continue;
            }
            if self.groups[number].flags & INODE_UNINIT != 0 {
                let bitmap = store.fresh(self.groups[number].inode_bitmap)?;
                bitmap[per_group as usize / 8..].fill(0xff);
            }
            let bitmap = store.read(self.groups[number].inode_bitmap)?;
            let from = if number == 0 { FIRST_INODE - 1 } else { 0 };
            let Some(bit) = (from..per_group).find(|b| bitmap[*b as usize / 8] & 1 << (b % 8) == 0) else { continue };
            store.write(self.groups[number].inode_bitmap)?[bit as usize / 8] |= 1 << (bit % 8);
            let group = &mut self.groups[number];
            group.flags &= !INODE_UNINIT;
            group.free_inodes -= 1;
            group.dirs += u32::from(is_dir);
            group.unused = group.unused.min(per_group - bit - 1);
            group.is_dirty = true;
            self.free_inodes = self.free_inodes.saturating_sub(1);
            return Ok(number as u32 * per_group + bit + 1);
        }
        Err(Errno::ENOSPC)
    }

    /// Gives an inode number back.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`.
    pub fn free_inode(&mut self, store: &mut Store, number: u32, is_dir: bool) -> Result<()> {
        self.inode_place(number)?;
        let (group, bit) = ((number - 1) / self.shape.inodes_per_group, (number - 1) % self.shape.inodes_per_group);
        let group = &mut self.groups[group as usize];
        let byte = &mut store.write(group.inode_bitmap)?[bit as usize / 8];
        if *byte & 1 << (bit % 8) != 0 {
            *byte &= !(1 << (bit % 8));
            group.free_inodes += 1;
            group.dirs = group.dirs.saturating_sub(is_dir.into());
            group.is_dirty = true;
            self.free_inodes += 1;
        }
        Ok(())
    }

    /// Writes what changed to the blocks of the superblock and the descriptors.
    ///
    /// # Errors
    /// `EIO`.
    pub fn encode(&mut self, store: &mut Store) -> Result<()> {
        for number in 0..self.groups.len() {
            if !self.groups[number].is_dirty {
                continue;
            }
            let group = self.groups[number].clone();
            let shape = &self.shape;
            let sums = match shape.has_checksums {
                true => {
                    let blocks = checksum::crc32c(shape.seed, &store.read(group.block_bitmap)?[..shape.blocks_per_group as usize / 8]);
                    let inodes = checksum::crc32c(shape.seed, &store.read(group.inode_bitmap)?[..shape.inodes_per_group as usize / 8]);
                    Some((blocks, inodes))
                }
                false => None,
            };
            let at = number * shape.desc_bytes;
            let bytes = &mut store.write(1 + (at / BLOCK) as u64)?[at % BLOCK..at % BLOCK + shape.desc_bytes];
            for (lo, hi, value) in
                [(0x0c, 0x2c, group.free_blocks), (0x0e, 0x2e, group.free_inodes), (0x10, 0x30, group.dirs), (0x1c, 0x32, group.unused)]
            {
                put(bytes, lo, &(value as u16).to_le_bytes());
                // Descriptors of 32 bytes have no high halves; `put` leaves them alone.
                put(bytes, hi, &((value >> 16) as u16).to_le_bytes());
            }
            put(bytes, 0x12, &group.flags.to_le_bytes());
            if let Some((blocks, inodes)) = sums {
                for (lo, hi, sum) in [(0x18, 0x38, blocks), (0x1a, 0x3a, inodes)] {
                    put(bytes, lo, &(sum as u16).to_le_bytes());
                    put(bytes, hi, &((sum >> 16) as u16).to_le_bytes());
                }
                let crc = checksum::group(shape.seed, number as u32, &GroupDesc::new(&*bytes).ok_or(Errno::EUCLEAN)?);
                put(bytes, 0x1e, &crc.to_le_bytes());
            }
            self.groups[number].is_dirty = false;
        }
        // On the heap: a kernel stack has room for little more than a block.
        let mut new = Box::new(*store.read(SUPER_BLOCK)?);
        self.encode_super(&mut new)?;
        if *new != *store.read(SUPER_BLOCK)? {
            self.stamp(&mut new)?;
            store.put(SUPER_BLOCK, &new)?;
        }
        Ok(())
    }

    fn encode_super(&self, block: &mut Bytes) -> Result<()> {
        let mut sb = Superblock::new(&mut block[SUPERBLOCK_OFFSET..]).ok_or(Errno::EUCLEAN)?;
        sb.set_free_blocks_count_lo(self.free_blocks as u32);
        sb.set_free_inodes_count(self.free_inodes);
        let features = sb.feature_incompat() & !incompat::RECOVER | if self.is_marked { incompat::RECOVER } else { 0 };
        sb.set_feature_incompat(features);
        put(sb.bytes_mut(), FREE_BLOCKS_HI, &((self.free_blocks >> 32) as u32).to_le_bytes());
        put(sb.bytes_mut(), LAST_ORPHAN, &self.last_orphan.to_le_bytes());
        Ok(())
    }

    fn stamp(&self, block: &mut Bytes) -> Result<()> {
        let mut sb = Superblock::new(&mut block[SUPERBLOCK_OFFSET..]).ok_or(Errno::EUCLEAN)?;
        put(sb.bytes_mut(), WRITE_TIME, &((libos_core::time::realtime_ns() / 1_000_000_000) as u32).to_le_bytes());
        if self.shape.has_checksums {
            let sum = checksum::superblock(sb.bytes());
            sb.set_checksum(sum);
        }
        Ok(())
    }

    /// Writes the superblock where it belongs, outside of any transaction, with or without the mark that the journal must be replayed.
    ///
    /// # Errors
    /// `EIO`.
    pub fn write_mark(&mut self, store: &mut Store, is_marked: bool) -> Result<()> {
        self.is_marked = is_marked;
        let mut block = Box::new([0; BLOCK]);
        // What is on the disk, not what a running transaction has made of it.
        store.disk.read(SUPER_BLOCK, &mut block[..]).map_err(|_| Errno::EIO)?;
        let mut sb = Superblock::new(&mut block[SUPERBLOCK_OFFSET..]).ok_or(Errno::EUCLEAN)?;
        let features = sb.feature_incompat() & !incompat::RECOVER | if is_marked { incompat::RECOVER } else { 0 };
        sb.set_feature_incompat(features);
        self.stamp(&mut block)?;
        store.disk.write(SUPER_BLOCK, &block[..]).map_err(|_| Errno::EIO)?;
        // The copy in memory, so that a later transaction does not take the mark back.
        let mut copy = Box::new(*store.read(SUPER_BLOCK)?);
        let mut sb = Superblock::new(&mut copy[SUPERBLOCK_OFFSET..]).ok_or(Errno::EUCLEAN)?;
        sb.set_feature_incompat(features);
        self.stamp(&mut copy)?;
        store.overwrite(SUPER_BLOCK, &copy)
    }
}
