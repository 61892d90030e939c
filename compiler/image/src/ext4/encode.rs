//! Inodes and extent trees as bytes.

use ukc_ext4_layout::extent::{self, Extent, Index};
use ukc_ext4_layout::{BLOCK_SIZE, INODE_SIZE, Inode, Timestamp, checksum, dir, encode_device, inode_flags, mode};
use ukc_rootfs::{Kind, Node};

use super::plan::{BLOCK, Blocks, MAX_FAST_SYMLINK, Planned};
use super::xattrs::{EXTRA_ISIZE, Placed};

/// Returns the type of a node in its mode and in directory entries.
pub(crate) fn types(kind: &Kind) -> (u16, u8) {
    match kind {
        Kind::Dir(_) => (mode::DIRECTORY, dir::file_type::DIRECTORY),
        Kind::File(_) => (mode::REGULAR, dir::file_type::REGULAR),
        Kind::Symlink(_) => (mode::SYMLINK, dir::file_type::SYMLINK),
        Kind::CharDevice(..) => (mode::CHAR_DEVICE, dir::file_type::CHAR_DEVICE),
        Kind::BlockDevice(..) => (mode::BLOCK_DEVICE, dir::file_type::BLOCK_DEVICE),
        Kind::Fifo => (mode::FIFO, dir::file_type::FIFO),
    }
}

/// Returns the 256 bytes of an inode. `seed` is what its checksum starts from.
pub(crate) fn inode(node: &Node, planned: &Planned, blocks: Blocks, placed: &Placed, seed: u32) -> [u8; INODE_SIZE] {
    let mut bytes = [0; INODE_SIZE];
    let Some(mut inode) = Inode::new(&mut bytes[..]) else { return [0; INODE_SIZE] };
    let meta = &node.meta;
    inode.set_mode(types(&node.kind).0 | meta.mode & 0o7777);
    inode.set_uid(meta.uid);
    inode.set_gid(meta.gid);
    inode.set_links_count(planned.links as u16);
    inode.set_extra_isize(EXTRA_ISIZE);
    inode.set_times(Timestamp { seconds: meta.mtime.0, nanoseconds: meta.mtime.1.min(999_999_999) });
    inode.set_sectors((blocks.meta() + blocks.data) * (BLOCK / 512));
    if blocks.xattr > 0 {
        inode.set_xattr_block(planned.first_meta + blocks.content + blocks.tree);
    }
    match &node.kind {
        Kind::Dir(_) => {
            inode.set_size(blocks.content * BLOCK);
            set_extents(&mut inode, planned.first_meta, blocks.content, planned.first_meta + blocks.content);
        }
        Kind::File(content) => {
            inode.set_size(content.len_bytes());
            set_extents(&mut inode, planned.first_data, blocks.data, planned.first_meta);
        }
        Kind::Symlink(target) => {
            inode.set_size(target.len() as u64);
            if target.len() > MAX_FAST_SYMLINK {
                set_extents(&mut inode, planned.first_meta, 1, 0);
            } else {
                inode.set_block(target);
            }
        }
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            let (old, new) = encode_device(*major, *minor).unwrap_or_default();
            inode.set_block(&[old.to_le_bytes(), new.to_le_bytes()].concat());
        }
        Kind::Fifo => {}
    }
    let from = 128 + usize::from(EXTRA_ISIZE);
    inode.bytes_mut()[from..from + placed.in_inode.len()].copy_from_slice(&placed.in_inode);
    let crc = checksum::inode(seed, &inode);
    inode.set_checksum_lo(crc as u16);
    inode.set_checksum_hi((crc >> 16) as u16);
    bytes
}

fn set_extents(inode: &mut Inode<&mut [u8]>, first: u64, count: u64, tree_at: u64) {
    let (root, _) = extent_tree(first, count, tree_at, 0);
    inode.set_flags(inode_flags::EXTENTS);
    inode.set_block(&root);
}

/// Returns the root and the blocks of the extent tree that maps one run of `count` blocks from `first`; the tree's own blocks begin at `tree_at`.
pub(crate) fn extent_tree(first: u64, count: u64, tree_at: u64, inode_seed: u32) -> ([u8; 60], Vec<u8>) {
    let max = u64::from(extent::MAX_EXTENT);
    let mut root = [0; 60];
    let mut tree = Vec::new();
    let extents: Vec<Extent> = (0..count.div_ceil(max))
        .map(|i| Extent {
            logical: (i * max) as u32,
            len: (count - i * max).min(max) as u32,
            physical: first + i * max,
            is_unwritten: false,
        })
        .collect();
    if extents.len() <= extent::ROOT_ENTRIES {
        extent::put_header(&mut root, extents.len(), extent::ROOT_ENTRIES, 0);
        extents.iter().enumerate().for_each(|(i, e)| extent::put_extent(&mut root, i, e));
        return (root, tree);
    }
    let mut block_number = tree_at;
    let mut add = |logical: u32, count: usize, depth: u16, put: &dyn Fn(&mut [u8])| {
        let mut block = [0; BLOCK_SIZE];
        extent::put_header(&mut block, count, extent::BLOCK_ENTRIES, depth);
        put(&mut block);
        extent::put_tail(&mut block, inode_seed);
        tree.extend_from_slice(&block);
        block_number += 1;
        Index { logical, block: block_number - 1 }
    };
    let mut level: Vec<Index> = extents
        .chunks(extent::BLOCK_ENTRIES)
        .map(|chunk| {
            add(chunk[0].logical, chunk.len(), 0, &|block| chunk.iter().enumerate().for_each(|(i, e)| extent::put_extent(block, i, e)))
        })
        .collect();
    let mut depth = 1;
    while level.len() > extent::ROOT_ENTRIES {
        level = level
            .chunks(extent::BLOCK_ENTRIES)
            .map(|chunk| {
                add(chunk[0].logical, chunk.len(), depth, &|block| {
                    chunk.iter().enumerate().for_each(|(i, e)| extent::put_index(block, i, e))
                })
            })
            .collect();
        depth += 1;
    }
    extent::put_header(&mut root, level.len(), extent::ROOT_ENTRIES, depth);
    level.iter().enumerate().for_each(|(i, e)| extent::put_index(&mut root, i, e));
    (root, tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::plan::tree_blocks;

    /// Reads a tree back, as a guest does.
    fn runs(node: extent::Node<'_>, tree: &[u8], tree_at: u64) -> Vec<Extent> {
        if node.depth == 0 {
            return node.extents().collect();
        }
        let below = node.indexes().flat_map(|index| {
            let at = (index.block - tree_at) as usize * BLOCK_SIZE;
            runs(extent::node(&tree[at..at + BLOCK_SIZE]).unwrap(), tree, tree_at)
        });
        below.collect()
    }

    #[test]
    fn trees_of_every_depth_map_the_run() {
        let max = u64::from(extent::MAX_EXTENT);
        for count in [0, 1, max, 4 * max, 4 * max + 1, 341 * max, 4 * 340 * max + 5] {
            let (root, tree) = extent_tree(1000, count, 77, 3);
            assert_eq!(tree.len() as u64, tree_blocks(count) * BLOCK);
            let mut expected = 0;
            for run in runs(extent::node(&root).unwrap(), &tree, 77) {
                assert_eq!((u64::from(run.logical), run.physical), (expected, 1000 + expected));
                expected += u64::from(run.len);
            }
            assert_eq!(expected, count);
        }
    }
}
