//! The ext4 writer: a file tree → an ext4 file system, written from its first byte to its last without seeking, without root, without mke2fs.
//!
//! A planning pass over the tree (no file is opened) decides every inode number and block; then the image streams out in the order of its blocks:
//!
//! ```text
//! superblock | group descriptors | block bitmaps | inode bitmaps | inode table | directories, long links, extent trees, attributes | file data | free
//! ```
//!
//! Everything but file data lies in front (`flex_bg` lets bitmaps and tables leave their groups, `sparse_super2` allows no backups in the way), so the data
//! of each file is one run of blocks: a guest that has the image in memory maps file pages where they are. Block size 4 KiB, 256-byte inodes with
//! nanoseconds, extents, CRC-32C on all metadata, no journal. Times of an inode are all its modification time.
//!
//! Equal trees give equal bytes: the UUID and the hash seed come from names, owners, sizes and times, never from a clock or chance.
//!
//! Every structure is described in `ukc-ext4-layout`; e2fsck is the judge in the tests.

mod dirs;
mod encode;
mod error;
mod journal;
mod plan;
mod stream;
mod xattrs;

use std::io::Write;

use ukc_rootfs::Tree;

pub use error::Ext4Error;

/// What the tree does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Volume label, at most 16 bytes.
    pub label: Vec<u8>,
    /// Free space to leave, for file systems that are written to.
    pub free_bytes: u64,
    /// Free inodes to leave, likewise.
    pub free_inodes: u32,
    /// Blocks of the journal that volumes need, so that a crash cannot damage them; 0 for none. At most 32,768.
    pub journal_blocks: u32,
    /// UUID; without it one is derived from the tree's metadata.
    pub uuid: Option<[u8; 16]>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Size of the image.
    pub len_bytes: u64,
    /// UUID of the file system.
    pub uuid: [u8; 16],
    /// Inodes in use, without the reserved ones.
    pub inodes: u64,
    /// Regular files, each once however many names it has.
    pub files: u64,
    /// Bytes in regular files.
    pub data_bytes: u64,
}

/// Writes a tree as an ext4 image.
///
/// # Errors
/// [`Ext4Error`]: what ext4 cannot hold is found before the first byte is written; later only reading contents and writing can fail.
pub fn write(tree: &Tree, options: &Options, out: &mut dyn Write) -> Result<Written, Ext4Error> {
    let plan = plan::plan(tree, options)?;
    // From here on every inode and block has its place.
    stream::stream(tree, &plan, options, out)?;
    Ok(Written {
        len_bytes: plan.total_blocks * plan::BLOCK,
        uuid: plan.uuid,
        inodes: plan.inodes.len() as u64,
        files: plan.files,
        data_bytes: plan.data_bytes,
    })
}
