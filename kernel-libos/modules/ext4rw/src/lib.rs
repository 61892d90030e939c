//! The ext4 file system, written to: volumes that keep their data.
//!
//! A disk → a `FileSystem` whose changes survive. `ukc-ext4-layout` says what the bytes mean; the read-only module next door serves the root.
//!
//! | file | what it is for |
//! |---|---|
//! | `store` | blocks of metadata in memory |
//! | `journal` | jbd2: transactions on the disk, replay |
//! | `groups` | superblock, group descriptors, bitmaps: what is free |
//! | `extents`, `meta` | the map of a file; an inode's fields and bytes |
//! | `state` | the mounted volume: operations, commits, inodes that go away |
//! | `dir`, `rename`, `xattr` | names; moving them; extended attributes |
//! | `data`, `inode` | pages of files and fsync(2); the `Inode` trait |
//! | `content` | what an empty volume gets from the image |
//!
//! What a crash leaves: with a journal (volumes that `ukc` makes have one) the next mount replays it, and so does e2fsck; metadata are then those of the last
//! commit, at most about five seconds old or those of the last fsync(2), and files never show blocks of others. Without a journal a crash needs e2fsck.
//! A clean stop leaves an empty journal and a file system about which e2fsck has nothing to say.
//!
//! Differences from Linux: only 4 KiB blocks, extents and 256-byte inodes or larger (`EINVAL` at mount otherwise, also for inline data, encryption, case
//! folding, quota and bigalloc); hashed directories become linear when they are changed; access times are not kept up; a transaction larger than half of
//! the journal is written without it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod content;
mod data;
mod dir;
mod extents;
mod groups;
mod inode;
mod journal;
mod meta;
mod rename;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod xattr;

use alloc::sync::Arc;

use libos_core::mm::PageSource;
use libos_core::vfs::reclaim::{self, Reclaim};
use libos_core::vfs::registry::{self, FileSystemType};
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{FileSystem, Inode as VfsInode, StatFs};
use libos_core::{Errno, Result};
use ukc_ext4_layout::ROOT_INODE;

use crate::inode::Inode;
use crate::state::Fs;

libos_core::module! {
    name: ext4rw,
    needs: [virtio_blk],
    init: init,
    syscalls: {},
}

static TYPE: FileSystemType = FileSystemType { name: registry::WRITABLE_EXT4, needs_volume: true, probe: |_| false, mount };

fn init() {
    registry::register(&TYPE);
    registry::set_volume_filler(content::fill);
}

fn mount(volume: Option<Arc<dyn Volume>>, _options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let volume = volume.ok_or(Errno::ENOTBLK)?;
    let fs = Fs::mount(volume.disk().ok_or(Errno::EROFS)?, volume.dev())?;
    let root = fs.inode(ROOT_INODE, &mut fs.state.lock())?;
    let flushed = fs.clone();
    libos_core::task::spawn_kernel_thread("ext4", move || flushed.flush_forever())?;
    let mounted = Arc::new(Mounted { fs, root });
    let cache: Arc<dyn Reclaim> = mounted.clone();
    reclaim::register(&cache);
    Ok(mounted)
}

struct Mounted {
    fs: Arc<Fs>,
    root: Arc<Inode>,
}

impl FileSystem for Mounted {
    fn root(&self) -> Arc<dyn VfsInode> {
        self.root.clone()
    }

    fn type_name(&self) -> &'static str {
        "ext4"
    }

    fn stat_fs(&self) -> StatFs {
        let state = self.fs.state.lock();
        let groups = &state.groups;
        StatFs {
            magic: 0xef53,
            block_bytes: store::BLOCK as u64,
            blocks: groups.shape.blocks,
            blocks_free: groups.free_blocks,
            files: groups.shape.inodes.into(),
            files_free: groups.free_inodes.into(),
            name_max: 255,
        }
    }

    fn sync(&self) -> Result<()> {
        self.fs.sync()
    }
}

impl Reclaim for Mounted {
    fn reclaim(&self, pages: usize) -> usize {
        reclaim::ask_inodes(&self.fs.inodes, pages, |inode, pages| inode.pages.reclaim(pages))
    }

    fn reclaim_mapped(&self, pages: usize) -> usize {
        let freed = reclaim::ask_inodes(&self.fs.inodes, pages, |inode, pages| {
            if inode.pages.is_empty() {
                return 0;
            }
            let source: &dyn PageSource = inode;
            reclaim::unmap_cached(source, source);
            inode.pages.reclaim(pages)
        });
        if freed > 0 || self.fs.write_all_pages().is_err() {
            return freed;
        }
        reclaim::ask_inodes(&self.fs.inodes, pages, |inode, pages| inode.pages.reclaim(pages))
    }
}
