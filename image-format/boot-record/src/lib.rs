//! The boot record: what the kernel is told to run.
//!
//! The compiler writes one record per image and links it into the kernel (symbols `ukc_boot_record` and `ukc_boot_record_len`); the kernel reads it
//! before anything else and then lets its command line override parts of it. A record is a header and a list of entries, all integers little-endian:
//!
//! ```text
//! 0                8        12         16
//! +----------------+--------+----------+-------+-------+-----
//! | "UKCBOOT\0"    | version| total len| entry | entry | ...      version is 1; total len counts the header too
//! +----------------+--------+----------+-------+-------+-----
//!
//! entry:  | tag: u16 | 0: u16 | len: u32 | len bytes | zeros up to a multiple of 4 |
//! ```
//!
//! The tags and their contents are listed in [`tag`] and, byte by byte, in `image-format/README.md`. Entries of one kind keep their order (`argv[0]` comes
//! first); an entry with an unknown tag is skipped, so that an older kernel reads a newer record; a changed meaning is a new version.
//!
//! [`BootRecord::parse`] checks everything once, borrows from the slice and needs no allocator. [`BootRecordBuilder`] (feature `alloc`) is the writer:
//! equal calls give equal bytes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
mod build;
#[cfg(feature = "alloc")]
mod command_line;
mod read;
pub mod tag;
mod value;

#[cfg(feature = "alloc")]
pub use build::BootRecordBuilder;
#[cfg(feature = "alloc")]
pub use command_line::CommandLine;
pub use read::{BootRecord, Error};
pub use value::{Flags, Mount, MountFlags, MountSource, Network, Port, Protocol};

/// First eight bytes of a record.
pub const MAGIC: [u8; 8] = *b"UKCBOOT\0";

/// The version that this crate reads and writes.
pub const VERSION: u32 = 1;

/// Bytes before the first entry: magic, version, total length.
pub const HEADER_LEN: usize = 8 + 4 + 4;

/// Bytes of an entry before its contents: tag, reserved, length.
pub const ENTRY_HEADER_LEN: usize = 2 + 2 + 4;
