//! The image from its first byte to its last.

use std::io::{Read, Write};

use ukc_ext4_layout::dir::Entry;
use ukc_ext4_layout::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, FIRST_INODE, GROUP_DESC_SIZE, GroupDesc, INODE_SIZE, ROOT_INODE, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE, Superblock, checksum, compat, incompat, ro_compat,
};
use ukc_rootfs::{Content, Kind, NodeId, Tree};

use super::error::path_of;
use super::plan::{BLOCK, MAX_FAST_SYMLINK, Plan, Planned, blocks, index};
use super::xattrs::{self, EXTRA_ISIZE};
use super::{Ext4Error, Options, dirs, encode, journal};

/// Bytes that go to the output at once.
const BUFFER: usize = 1 << 20;

/// A buffer in front of the output that files are read into directly.
struct Sink<'w> {
    out: &'w mut dyn Write,
    buffer: Vec<u8>,
    used: usize,
    written: u64,
}

impl Sink<'_> {
    fn flush(&mut self) -> Result<(), Ext4Error> {
        self.out.write_all(&self.buffer[..self.used]).map_err(|source| Ext4Error::Write { source })?;
        self.written += self.used as u64;
        self.used = 0;
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Ext4Error> {
        while !bytes.is_empty() {
            if self.used == BUFFER {
                self.flush()?;
            }
            let n = bytes.len().min(BUFFER - self.used);
            self.buffer[self.used..self.used + n].copy_from_slice(&bytes[..n]);
            self.used += n;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), Ext4Error> {
        while count > 0 {
            if self.used == BUFFER {
                self.flush()?;
            }
            let n = count.min((BUFFER - self.used) as u64) as usize;
            self.buffer[self.used..self.used + n].fill(0);
            self.used += n;
            count -= n as u64;
        }
        Ok(())
    }

    /// Zeros up to a block.
    fn pad_to(&mut self, block: u64) -> Result<(), Ext4Error> {
        let at = self.written + self.used as u64;
        debug_assert!(at <= block * BLOCK, "the plan and the stream disagree");
        self.zeros((block * BLOCK).saturating_sub(at))
    }
}

struct Stream<'p, 'w> {
    tree: &'p Tree,
    plan: &'p Plan,
    /// What every checksum starts from.
    seed: u32,
    sink: Sink<'w>,
}

/// Writes the planned image.
pub(crate) fn stream(tree: &Tree, plan: &Plan, options: &Options, out: &mut dyn Write) -> Result<(), Ext4Error> {
    let seed = checksum::crc32c(!0, &plan.uuid);
    let sink = Sink { out, buffer: vec![0; BUFFER], used: 0, written: 0 };
    let mut stream = Stream { tree, plan, seed, sink };
    stream.superblock(options)?;
    stream.descriptors()?;
    for group in 0..plan.groups {
        stream.sink.put(&block_bitmap(plan, group))?;
    }
    for group in 0..plan.groups {
        stream.sink.put(&inode_bitmap(plan, group))?;
    }
    stream.inode_table()?;
    stream.metadata()?;
    stream.data()?;
    if plan.journal.1 > 0 {
        stream.sink.put(&journal::superblock(plan.journal.1 as u32))?;
    }
    stream.sink.pad_to(plan.total_blocks)?;
    stream.sink.flush()
}

/// Returns a bitmap of `size` bits whose first `used` bits are set; the rest of the block, which stands for nothing, is set too.
fn bitmap(used: u64, size: u64) -> [u8; BLOCK_SIZE] {
    let mut bytes = [0; BLOCK_SIZE];
    for (i, byte) in bytes.iter_mut().enumerate() {
        for bit in 0..8 {
            let n = 8 * i as u64 + bit;
            if n < used || n >= size {
                *byte |= 1 << bit;
            }
        }
    }
    bytes
}

/// Returns how many of the numbers `0..total` fall into group `group` of `per_group`, and how many of them are below `used`.
fn share(group: u64, per_group: u64, total: u64, used: u64) -> (u64, u64) {
    let from = group * per_group;
    (total.saturating_sub(from).min(per_group), used.saturating_sub(from).min(per_group))
}

fn block_share(plan: &Plan, group: u64) -> (u64, u64) {
    share(group, u64::from(BLOCKS_PER_GROUP), plan.total_blocks, plan.end)
}

fn inode_share(plan: &Plan, group: u64) -> (u64, u64) {
    share(group, plan.inodes_per_group, plan.inodes_per_group * plan.groups, plan.last_inode())
}

fn block_bitmap(plan: &Plan, group: u64) -> [u8; BLOCK_SIZE] {
    let (size, used) = block_share(plan, group);
    bitmap(used, size)
}

fn inode_bitmap(plan: &Plan, group: u64) -> [u8; BLOCK_SIZE] {
    let (size, used) = inode_share(plan, group);
    bitmap(used, size)
}

impl Stream<'_, '_> {
    fn superblock(&mut self, options: &Options) -> Result<(), Ext4Error> {
        let plan = self.plan;
        let mut bytes = [0; BLOCK_SIZE];
        let Some(mut sb) = Superblock::new(&mut bytes[SUPERBLOCK_OFFSET..SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE]) else { return Ok(()) };
        let inode_count = plan.inodes_per_group * plan.groups;
        sb.set_inodes_count(inode_count as u32);
        sb.set_blocks_count_lo(plan.total_blocks as u32);
        sb.set_free_blocks_count_lo((plan.total_blocks - plan.end) as u32);
        sb.set_free_inodes_count((inode_count - plan.last_inode()) as u32);
        sb.set_log_block_size(2);
        sb.set_log_cluster_size(2);
        sb.set_blocks_per_group(BLOCKS_PER_GROUP);
        sb.set_clusters_per_group(BLOCKS_PER_GROUP);
        sb.set_inodes_per_group(plan.inodes_per_group as u32);
        sb.set_max_mount_count(0xffff);
        sb.set_magic(SUPERBLOCK_MAGIC);
        sb.set_state(1);
        sb.set_errors(1);
        sb.set_revision(1);
        sb.set_first_inode(FIRST_INODE);
        sb.set_inode_size(INODE_SIZE as u16);
        let has_journal = if plan.journal.1 > 0 { compat::HAS_JOURNAL } else { 0 };
        sb.set_feature_compat(compat::EXT_ATTR | compat::SPARSE_SUPER2 | has_journal);
        sb.set_feature_incompat(incompat::FILETYPE | incompat::EXTENTS | incompat::FLEX_BG);
        sb.set_feature_ro_compat(
            ro_compat::LARGE_FILE | ro_compat::HUGE_FILE | ro_compat::DIR_NLINK | ro_compat::EXTRA_ISIZE | ro_compat::METADATA_CSUM,
        );
        sb.set_uuid(&plan.uuid);
        sb.set_label(&options.label);
        sb.set_hash_seed(&plan.uuid);
        // half_md4 over unsigned bytes.
        sb.set_default_hash_version(1);
        sb.set_flags(2);
        sb.set_default_mount_options(4 | 8);
        sb.set_min_extra_isize(EXTRA_ISIZE);
        sb.set_want_extra_isize(EXTRA_ISIZE);
        sb.set_log_groups_per_flex(4);
        sb.set_checksum_type(1);
        if plan.journal.1 > 0 {
            journal::announce(sb.bytes_mut(), plan.journal);
        }
        let crc = checksum::superblock(sb.bytes());
        sb.set_checksum(crc);
        self.sink.put(&bytes)
    }

    fn descriptors(&mut self) -> Result<(), Ext4Error> {
        let plan = self.plan;
        let mut directories = vec![0u16; plan.groups as usize];
        for planned in plan.inodes.iter().filter(|p| self.tree.entries(p.node).is_some()) {
            let number = u64::from(plan.numbers[planned.node.0 as usize]);
            directories[((number - 1) / plan.inodes_per_group) as usize] += 1;
        }
        for group in 0..plan.groups {
            let mut bytes = [0; GROUP_DESC_SIZE];
            let Some(mut desc) = GroupDesc::new(&mut bytes[..]) else { continue };
            let (blocks, used_blocks) = block_share(plan, group);
            let (inodes, used_inodes) = inode_share(plan, group);
            desc.set_block_bitmap_lo((plan.block_bitmaps + group) as u32);
            desc.set_inode_bitmap_lo((plan.inode_bitmaps + group) as u32);
            desc.set_inode_table_lo((plan.inode_tables + group * plan.table_blocks()) as u32);
            desc.set_free_blocks_count_lo((blocks - used_blocks) as u16);
            desc.set_free_inodes_count_lo((inodes - used_inodes) as u16);
            desc.set_used_dirs_count_lo(directories[group as usize]);
            // The inode table is zeroed where it is not used.
            desc.set_flags(4);
            desc.set_block_bitmap_checksum_lo(checksum::crc32c(self.seed, &block_bitmap(plan, group)) as u16);
            let inode_bits = &inode_bitmap(plan, group)[..plan.inodes_per_group as usize / 8];
            desc.set_inode_bitmap_checksum_lo(checksum::crc32c(self.seed, inode_bits) as u16);
            desc.set_unused_inodes_lo((inodes - used_inodes) as u16);
            let crc = checksum::group(self.seed, group as u32, &desc);
            desc.set_checksum(crc);
            self.sink.put(&bytes)?;
        }
        self.sink.pad_to(plan.block_bitmaps)
    }

    fn inode_table(&mut self) -> Result<(), Ext4Error> {
        // Numbers from 1; those between the root and the first free one are reserved and empty.
        self.sink.zeros(INODE_SIZE as u64 * u64::from(ROOT_INODE - 1))?;
        for (i, planned) in self.plan.inodes.iter().enumerate() {
            if i == 1 {
                self.reserved_inodes()?;
            }
            let node = self.tree.node(planned.node);
            let placed = xattrs::place(&node.meta.xattrs).unwrap_or_default();
            let bytes = encode::inode(node, planned, blocks(self.tree, planned.node)?, &placed, self.inode_seed(planned));
            self.sink.put(&bytes)?;
        }
        if self.plan.inodes.len() == 1 {
            self.reserved_inodes()?;
        }
        self.sink.pad_to(self.plan.first_meta)
    }

    /// The inodes between the root's and the first ordinary one: empty, but for the journal's.
    fn reserved_inodes(&mut self) -> Result<(), Ext4Error> {
        let mut bytes = vec![0; INODE_SIZE * (FIRST_INODE - ROOT_INODE - 1) as usize];
        if self.plan.journal.1 > 0 {
            let at = INODE_SIZE * (journal::INODE - ROOT_INODE - 1) as usize;
            let seed = checksum::inode_seed(self.seed, journal::INODE, 0);
            bytes[at..at + INODE_SIZE].copy_from_slice(&journal::inode(self.plan.journal, seed));
        }
        self.sink.put(&bytes)
    }

    fn inode_seed(&self, planned: &Planned) -> u32 {
        checksum::inode_seed(self.seed, self.plan.numbers[planned.node.0 as usize], 0)
    }

    /// Directories, targets of long symbolic links, extent trees, attribute blocks: inode by inode.
    fn metadata(&mut self) -> Result<(), Ext4Error> {
        let mut bytes = Vec::new();
        for planned in &self.plan.inodes {
            let node = self.tree.node(planned.node);
            let blocks = blocks(self.tree, planned.node)?;
            if blocks.meta() == 0 {
                continue;
            }
            let seed = self.inode_seed(planned);
            bytes.clear();
            match &node.kind {
                Kind::Dir(entries) => {
                    let dots = [(&b"."[..], planned.node), (b"..", self.plan.inodes[index(planned.parent)].node)];
                    let named = entries.iter().map(|(name, &child)| (&**name, child));
                    dirs::encode(dots.into_iter().chain(named).map(|(name, child)| self.entry(name, child)), seed, &mut bytes);
                    let tree_at = planned.first_meta + blocks.content;
                    bytes.extend_from_slice(&encode::extent_tree(planned.first_meta, blocks.content, tree_at, seed).1);
                }
                Kind::File(_) => {
                    bytes.extend_from_slice(&encode::extent_tree(planned.first_data, blocks.data, planned.first_meta, seed).1);
                }
                Kind::Symlink(target) if target.len() > MAX_FAST_SYMLINK => {
                    bytes.extend_from_slice(target);
                    bytes.resize(BLOCK_SIZE, 0);
                }
                _ => {}
            }
            if let Ok(xattrs::Placed { block: Some(mut block), .. }) = xattrs::place(&node.meta.xattrs) {
                xattrs::seal(&mut block, self.seed, planned.first_meta + blocks.content + blocks.tree);
                bytes.extend_from_slice(&block);
            }
            self.sink.put(&bytes)?;
        }
        self.sink.pad_to(self.plan.first_data)
    }

    fn entry<'a>(&self, name: &'a [u8], child: NodeId) -> Entry<'a> {
        Entry { inode: self.plan.numbers[child.0 as usize], file_type: encode::types(&self.tree.node(child).kind).1, name }
    }

    fn data(&mut self) -> Result<(), Ext4Error> {
        for planned in &self.plan.inodes {
            let Kind::File(content) = &self.tree.node(planned.node).kind else { continue };
            if content.len_bytes() > 0 {
                self.copy(planned.node, content)?;
                let rest = content.len_bytes() % BLOCK;
                self.sink.zeros(if rest == 0 { 0 } else { BLOCK - rest })?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, node: NodeId, content: &Content) -> Result<(), Ext4Error> {
        let expected = content.len_bytes();
        let failed = |source| Ext4Error::Read { path: path_of(self.tree, node), source };
        let changed = |found| Ext4Error::SizeChanged { path: path_of(self.tree, node), expected, found };
        let len_before = host_len(content);
        let mut reader = content.open().map_err(failed)?;
        let mut left = expected;
        while left > 0 {
            if self.sink.used == BUFFER {
                self.sink.flush()?;
            }
            let to = BUFFER.min(self.sink.used.saturating_add(usize::try_from(left).unwrap_or(usize::MAX)));
            match reader.read(&mut self.sink.buffer[self.sink.used..to]) {
                Ok(0) => return Err(changed(expected - left)),
                Ok(n) => {
                    self.sink.used += n;
                    left -= n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        match (len_before, host_len(content)) {
            (Some(before), Some(after)) if before != after => Err(changed(after)),
            _ => Ok(()),
        }
    }
}

/// Returns the present size of the host's file that holds the contents; a file of which the contents are only a part may be of any size, but must keep it.
fn host_len(content: &Content) -> Option<u64> {
    match content {
        Content::Host { path, .. } => std::fs::metadata(path.as_path()).ok().map(|m| m.len()),
        Content::Bytes(_) => None,
    }
}
