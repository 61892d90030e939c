//! Files in memory: tmpfs(5), and the writable layer above a read-only root.
//!
//! One kind of inode serves both. An inode of the layer has an inode of the read-only file system below it and starts as its likeness: metadata are copied
//! when it is first looked at, names and pages stay below until they are changed. So a write to a large file copies the pages it touches, a rename in a
//! directory of the image makes two entries in memory, and nothing is ever copied as a whole. A tmpfs is the same with nothing below.
//!
//! | file | what it is for |
//! |---|---|
//! | `inode` | metadata, attributes, the `Inode` trait |
//! | `dir` | entries: those below, minus what was removed, plus what was added |
//! | `data` | pages: those below, until they are written |
//! | `fs` | the file system: numbers, limits, what must stay in memory |
//!
//! Inode numbers below stay what they are; new ones start above all of them. Access times are not kept up (as with the mount option `noatime`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod data;
mod dir;
mod fs;
mod inode;
#[cfg(test)]
mod tests;

use libos_core::vfs::registry::{self, FileSystemType};

libos_core::module! {
    name: ramfs,
    needs: [],
    init: init,
    syscalls: {},
}

static TYPE: FileSystemType = FileSystemType { name: "tmpfs", needs_volume: false, probe: |_| false, mount: fs::mount };

fn init() {
    registry::register(&TYPE);
    registry::set_overlay(fs::overlay);
}
