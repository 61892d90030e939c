//! On-disk structures of ext4, shared by the writer (`compiler/image`) and the kernel's reader.
//!
//! ext4 divides a disk into blocks (here always [`BLOCK_SIZE`]) and the blocks into groups of [`BLOCKS_PER_GROUP`]:
//!
//! ```text
//! block 0        superblock at byte 1024: sizes, features, UUID
//! block 1..      group descriptors: for each group where its bitmaps and its slice of the inode table are
//! anywhere       bitmaps, inode tables, directories, extent blocks, attribute blocks, file data
//! ```
//!
//! An inode (256 bytes) has owner, mode, times and, in 60 bytes `block`, either a short symbolic link, a device number, or the root of an extent tree that
//! maps file blocks to disk blocks. A directory is a file of entries "inode, name". Everything but file data carries a CRC-32C that starts from the UUID.
//!
//! Structures are views over byte slices: `Inode::new(&bytes)` gives getters, over `&mut [u8]` also setters. All numbers are little-endian. A view never
//! panics; what must be checked across fields (lengths, ranges) the readers here check ([`dir::entries`], [`extent::node`], [`xattr::entries`]).
//!
//! Names and offsets: Linux, `fs/ext4/ext4.h`, and Documentation/filesystems/ext4.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[macro_use]
mod view;
pub mod checksum;
pub mod dir;
pub mod extent;
mod group;
mod inode;
mod superblock;
pub mod xattr;

pub use group::{GROUP_DESC_SIZE, GroupDesc};
pub use inode::{Inode, Timestamp, decode_device, encode_device, inode_flags, mode};
pub use superblock::{SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock, compat, incompat, ro_compat};

/// Bytes per block. Every image of ours has 4 KiB blocks, the page size, so that file pages can be mapped where they are.
pub const BLOCK_SIZE: usize = 4096;

/// Blocks per group: as many as one block of bitmap has bits.
pub const BLOCKS_PER_GROUP: u32 = 8 * BLOCK_SIZE as u32;

/// Bytes per inode in our images.
pub const INODE_SIZE: usize = 256;

/// Inode number of the root directory; the first inode of the table has number 1.
pub const ROOT_INODE: u32 = 2;

/// First inode number that is not reserved.
pub const FIRST_INODE: u32 = 11;
