//! Every reader of arbitrary bytes returns. Run with `cargo +nightly fuzz run structures` in `image-format/ext4-layout`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ukc_ext4_layout::{Inode, Superblock, dir, extent, xattr};

fuzz_target!(|data: &[u8]| {
    let _ = (dir::entries(data).count(), xattr::block_entries(data).count());
    if let Ok(node) = extent::node(data) {
        let _ = (node.extents().count(), node.indexes().count());
    }
    if let Some(sb) = Superblock::new(data) {
        let _ = (sb.group_count(), sb.label(), sb.seed());
    }
    if let Some(inode) = Inode::new(data) {
        let _ = (inode.size(), inode.device(), inode.modified(), xattr::inode_entries(inode.xattr_bytes()).count());
    }
});
