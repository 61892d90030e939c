//! Every inode number and every block, decided before the first byte is written.

use sha2::{Digest, Sha256};
use ukc_ext4_layout::{BLOCK_SIZE, BLOCKS_PER_GROUP, FIRST_INODE, GROUP_DESC_SIZE, INODE_SIZE, ROOT_INODE, encode_device, extent};
use ukc_rootfs::{Kind, Meta, NodeId, Tree};

use super::error::path_of;
use super::{Ext4Error, Options, dirs, xattrs};

pub(crate) const BLOCK: u64 = BLOCK_SIZE as u64;

/// Inodes per block of the inode table.
const INODES_PER_BLOCK: u64 = BLOCK / INODE_SIZE as u64;

/// As many as one block of bitmap has bits.
const MAX_INODES_PER_GROUP: u64 = 8 * BLOCK;

/// Most names of a file, and most subdirectories (plus 2) that a link count can say (`EXT4_LINK_MAX`).
const MAX_LINKS: u32 = 65_000;

/// Longest target of a symbolic link that fits into the inode with its NUL.
pub(crate) const MAX_FAST_SYMLINK: usize = 59;

/// Longest target of a symbolic link: `PATH_MAX` less its NUL.
const MAX_SYMLINK: usize = 4095;

/// An inode with its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub node: NodeId,
    /// Inode of the directory that holds this directory; unused for others.
    pub parent: u32,
    pub links: u32,
    /// First of this inode's blocks among the metadata: directory or link, then extent tree, then attributes.
    pub first_meta: u64,
    /// First of its data blocks.
    pub first_data: u64,
}

/// The layout of the whole image, in blocks.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In the order of numbers: the root, then from [`FIRST_INODE`].
    pub inodes: Vec<Planned>,
    /// Inode numbers by node.
    pub numbers: Vec<u32>,
    pub groups: u64,
    pub inodes_per_group: u64,
    pub block_bitmaps: u64,
    pub inode_bitmaps: u64,
    pub inode_tables: u64,
    pub first_meta: u64,
    pub first_data: u64,
    /// First block of the journal, behind the data, and how many it has.
    pub journal: (u64, u64),
    /// First free block.
    pub end: u64,
    pub total_blocks: u64,
    pub uuid: [u8; 16],
    pub files: u64,
    pub data_bytes: u64,
}

impl Plan {
    /// Blocks of the inode table of one group.
    pub fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Highest inode number in use.
    pub fn last_inode(&self) -> u64 {
        u64::from(FIRST_INODE) + self.inodes.len() as u64 - 2
    }
}

/// How many blocks of each kind an inode has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Blocks {
    /// Directory entries, or the target of a long symbolic link.
    pub content: u64,
    /// Below the root of the extent tree.
    pub tree: u64,
    /// Extended attributes: 0 or 1.
    pub xattr: u64,
    /// File data.
    pub data: u64,
}

impl Blocks {
    pub fn meta(self) -> u64 {
        self.content + self.tree + self.xattr
    }
}

/// Plans the image of a tree.
pub(crate) fn plan(tree: &Tree, options: &Options) -> Result<Plan, Ext4Error> {
    let (mut inodes, numbers) = number(tree)?;
    let mut hash = Sha256::new();
    let (mut meta_blocks, mut data_blocks, mut files, mut data_bytes) = (0, 0u64, 0, 0u64);
    for inode in &mut inodes {
        let node = tree.node(inode.node);
        hash_meta(&mut hash, &node.meta);
        hash_kind(&mut hash, &node.kind, &numbers);
        let blocks = blocks(tree, inode.node)?;
        inode.first_meta = meta_blocks;
        inode.first_data = data_blocks;
        meta_blocks += blocks.meta();
        data_blocks = data_blocks.saturating_add(blocks.data);
        if let Kind::File(content) = &node.kind {
            files += 1;
            data_bytes = data_bytes.saturating_add(content.len_bytes());
        }
    }
    let free_blocks = options.free_bytes.div_ceil(BLOCK);
    hash.update(&options.label);
    hash.update([free_blocks.to_le_bytes(), u64::from(options.free_inodes).to_le_bytes()].concat());
    if options.journal_blocks > 0 {
        hash.update(options.journal_blocks.to_le_bytes());
    }

    let inode_count = u64::from(FIRST_INODE) - 1 + (inodes.len() as u64 - 1) + u64::from(options.free_inodes);
    let mut groups = inode_count.div_ceil(MAX_INODES_PER_GROUP);
    let plan = loop {
        let inodes_per_group = inode_count.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK);
        let descriptors = (groups * GROUP_DESC_SIZE as u64).div_ceil(BLOCK);
        let block_bitmaps = 1 + descriptors;
        let inode_bitmaps = block_bitmaps + groups;
        let inode_tables = inode_bitmaps + groups;
        let first_meta = inode_tables + groups * (inodes_per_group / INODES_PER_BLOCK);
        let first_data = first_meta + meta_blocks;
        let journal = (first_data.saturating_add(data_blocks), u64::from(options.journal_blocks.min(u32::from(extent::MAX_EXTENT))));
        let end = journal.0.saturating_add(journal.1);
        // Many empty files need more groups for their inodes than for their blocks.
        let total_blocks = end.saturating_add(free_blocks).max((groups - 1) * u64::from(BLOCKS_PER_GROUP) + 1);
        if total_blocks > u64::from(u32::MAX) || inodes_per_group * groups > u64::from(u32::MAX) {
            return Err(Ext4Error::TooLarge { len_bytes: total_blocks.saturating_mul(BLOCK) });
        }
        let needed = total_blocks.div_ceil(u64::from(BLOCKS_PER_GROUP));
        if needed <= groups {
            break Plan {
                inodes,
                numbers,
                groups,
                inodes_per_group,
                block_bitmaps,
                inode_bitmaps,
                inode_tables,
                first_meta,
                first_data,
                journal,
                end,
                total_blocks,
                uuid: options.uuid.unwrap_or_else(|| uuid(hash)),
                files,
                data_bytes,
            };
        }
        groups = needed;
    };
    Ok(absolute(plan))
}

/// Turns places counted from the start of their area into block numbers.
fn absolute(mut plan: Plan) -> Plan {
    for inode in &mut plan.inodes {
        inode.first_meta += plan.first_meta;
        inode.first_data += plan.first_data;
    }
    plan
}

/// Numbers the inodes, directory by directory, and counts their names.
fn number(tree: &Tree) -> Result<(Vec<Planned>, Vec<u32>), Ext4Error> {
    let mut numbers = vec![0u32; tree.len()];
    let planned = |node, parent| Planned { node, parent, links: 0, first_meta: 0, first_data: 0 };
    let mut inodes = vec![planned(Tree::ROOT, ROOT_INODE)];
    numbers[Tree::ROOT.0 as usize] = ROOT_INODE;
    // The list grows while it is walked: breadth first.
    let mut next = 0;
    while next < inodes.len() {
        let directory = inodes[next].node;
        next += 1;
        let Some(entries) = tree.entries(directory) else { continue };
        // Its own `.` and the name in its parent (the root's `..`).
        let mut links = 2;
        let own_number = numbers[directory.0 as usize];
        for (name, &child) in entries {
            let is_name =
                (1..=255).contains(&name.len()) && !name.iter().any(|b| matches!(b, b'/' | 0)) && !matches!(&**name, b"." | b"..");
            if !is_name {
                let path = format!("{}/{}", path_of(tree, directory).trim_end_matches('/'), String::from_utf8_lossy(name));
                return Err(Ext4Error::Name { path });
            }
            let is_directory = tree.entries(child).is_some();
            let slot = &mut numbers[child.0 as usize];
            if *slot == 0 {
                let number = u64::from(FIRST_INODE) + inodes.len() as u64 - 1;
                *slot = u32::try_from(number).map_err(|_| Ext4Error::TooLarge { len_bytes: number * INODE_SIZE as u64 })?;
                inodes.push(planned(child, own_number));
            } else if is_directory {
                return Err(Ext4Error::DirectoryTwice { path: path_of(tree, child) });
            }
            if is_directory {
                links += 1;
            } else {
                let inode = &mut inodes[index(numbers[child.0 as usize])];
                inode.links += 1;
                if inode.links > MAX_LINKS {
                    return Err(Ext4Error::TooManyLinks { path: path_of(tree, child) });
                }
            }
        }
        // `dir_nlink`: a directory with more subdirectories says 1, "unknown".
        inodes[next - 1].links = if links > MAX_LINKS { 1 } else { links };
    }
    Ok((inodes, numbers))
}

/// Returns the place of an inode number in [`Plan::inodes`].
pub(crate) fn index(number: u32) -> usize {
    if number == ROOT_INODE { 0 } else { (number - FIRST_INODE) as usize + 1 }
}

/// Returns how many blocks a node needs, and refuses what ext4 cannot hold.
pub(crate) fn blocks(tree: &Tree, id: NodeId) -> Result<Blocks, Ext4Error> {
    let node = tree.node(id);
    let mut blocks = Blocks::default();
    match &node.kind {
        Kind::Dir(entries) => {
            blocks.content = dirs::block_count(entries.keys().map(|name| name.len()));
            blocks.tree = tree_blocks(blocks.content);
        }
        Kind::File(content) => {
            blocks.data = content.len_bytes().div_ceil(BLOCK);
            if blocks.data > u64::from(u32::MAX) {
                return Err(Ext4Error::TooLarge { len_bytes: content.len_bytes() });
            }
            blocks.tree = tree_blocks(blocks.data);
        }
        Kind::Symlink(target) => {
            if !(1..=MAX_SYMLINK).contains(&target.len()) || target.contains(&0) {
                return Err(Ext4Error::Symlink { path: path_of(tree, id), len_bytes: target.len() });
            }
            blocks.content = u64::from(target.len() > MAX_FAST_SYMLINK);
        }
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            if encode_device(*major, *minor).is_none() {
                return Err(Ext4Error::Device { path: path_of(tree, id), major: *major, minor: *minor });
            }
        }
        Kind::Fifo => {}
    }
    blocks.xattr = match xattrs::place(&node.meta.xattrs) {
        Ok(placed) => u64::from(placed.block.is_some()),
        Err(xattrs::Fault::Bad(name, reason)) => {
            return Err(Ext4Error::Attribute { path: path_of(tree, id), name: String::from_utf8_lossy(&name).into_owned(), reason });
        }
        Err(xattrs::Fault::TooLarge(len_bytes)) => return Err(Ext4Error::AttributesTooLarge { path: path_of(tree, id), len_bytes }),
    };
    Ok(blocks)
}

/// Returns how many blocks the extent tree of one contiguous run needs below its root.
pub(crate) fn tree_blocks(data_blocks: u64) -> u64 {
    let mut total = 0;
    let mut level = data_blocks.div_ceil(u64::from(extent::MAX_EXTENT));
    while level > extent::ROOT_ENTRIES as u64 {
        level = level.div_ceil(extent::BLOCK_ENTRIES as u64);
        total += level;
    }
    total
}

fn hash_meta(hash: &mut Sha256, meta: &Meta) {
    hash.update(meta.mode.to_le_bytes());
    hash.update(meta.uid.to_le_bytes());
    hash.update(meta.gid.to_le_bytes());
    hash.update(meta.mtime.0.to_le_bytes());
    hash.update(meta.mtime.1.to_le_bytes());
    for (name, value) in &meta.xattrs {
        hash_bytes(hash, name);
        hash_bytes(hash, value);
    }
}

fn hash_kind(hash: &mut Sha256, kind: &Kind, numbers: &[u32]) {
    match kind {
        Kind::Dir(entries) => {
            hash.update(b"d");
            for (name, child) in entries {
                hash_bytes(hash, name);
                hash.update(numbers[child.0 as usize].to_le_bytes());
            }
        }
        Kind::File(content) => {
            hash.update(b"f");
            hash.update(content.len_bytes().to_le_bytes());
        }
        Kind::Symlink(target) => {
            hash.update(b"l");
            hash_bytes(hash, target);
        }
        Kind::CharDevice(major, minor) => hash.update([&b"c"[..], &major.to_le_bytes(), &minor.to_le_bytes()].concat()),
        Kind::BlockDevice(major, minor) => hash.update([&b"b"[..], &major.to_le_bytes(), &minor.to_le_bytes()].concat()),
        Kind::Fifo => hash.update(b"p"),
    }
}

fn hash_bytes(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Returns a UUID of version 8, "custom" (RFC 9562), from a hash.
fn uuid(hash: Sha256) -> [u8; 16] {
    let digest = hash.finalize();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extent_trees_grow_as_the_root_overflows() {
        let mib128 = u64::from(extent::MAX_EXTENT);
        let table = [
            (0, 0),
            (1, 0),
            (4 * mib128, 0),
            (4 * mib128 + 1, 1),
            (340 * mib128, 1),
            (340 * mib128 + 1, 2),
            (4 * 340 * mib128, 4),
            (4 * 340 * mib128 + 1, 5 + 1),
        ];
        for (blocks, expected) in table {
            assert_eq!(tree_blocks(blocks), expected, "{blocks}");
        }
    }
}
