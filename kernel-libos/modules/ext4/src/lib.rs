//! The ext4 file system, read-only.
//!
//! A `Volume` with an ext4 image → a `FileSystem`. What the bytes mean is `ukc-ext4-layout`'s business; here they become inodes and pages.
//!
//! | file | what it is for |
//! |---|---|
//! | `geometry` | superblock and group descriptors: where inodes are |
//! | `node` | an inode's fields, attributes and the map from file blocks to disk blocks |
//! | `pages` | file pages: handed out in place from RAM, or read from a disk with read-ahead |
//! | `inode` | the `Inode` trait on top |
//!
//! An image may come from anybody: whatever it contains, the answer is `EUCLEAN` or `EIO` and never a panic or an endless loop. Checksums are not verified
//! (the writer's are tested by e2fsck; a disk that flips bits needs a layer below).
//!
//! Differences from Linux: a journal is not replayed, so an image that needs it is refused with `EUCLEAN`; meta_bg, encryption and case folding are refused
//! with `EINVAL`; hashed directories are read linearly (the entry cache makes that once per name); values of `ea_inode` attributes are not found.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod geometry;
mod inode;
mod node;
mod pages;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use libos_core::vfs::registry::{self, FileSystemType};
use libos_core::vfs::volume::Volume;

libos_core::module! {
    name: ext4,
    needs: [],
    always: true,
    init: init,
    syscalls: {},
}

static TYPE: FileSystemType = FileSystemType { name: "ext4", needs_volume: true, probe, mount: inode::mount };

fn init() {
    registry::register(&TYPE);
}

fn probe(volume: &Arc<dyn Volume>) -> bool {
    let mut magic = [0; 2];
    let at = (ukc_ext4_layout::SUPERBLOCK_OFFSET + 0x38) as u64;
    volume.read(at, &mut magic).is_ok() && u16::from_le_bytes(magic) == ukc_ext4_layout::SUPERBLOCK_MAGIC
}
