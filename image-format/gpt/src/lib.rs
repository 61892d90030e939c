//! GUID partition tables (UEFI 2.10, chapter 5): how a disk says which part of it is what.
//!
//! A disk is an array of 512-byte sectors, numbered from 0 (logical block addresses, LBA):
//!
//! ```text
//! LBA 0        protective MBR: boot code, and one entry of type 0xee over the whole disk, so that old tools keep their hands off
//! LBA 1        header: signature "EFI PART", checksums, where the entries are, the disk's GUID
//! LBA 2..33    128 entries of 128 bytes: type GUID, own GUID, first and last LBA, name
//! LBA 34..     partitions
//! last 33      the entries again, then the header again
//! ```
//!
//! The reader ([`find`]) needs no allocator and takes sectors from a function; it believes nothing: checksums, bounds and sizes are verified, and the first
//! field that is wrong is named. The writer ([`Disk`], feature `alloc`) makes the three parts. What is absent: sectors of other sizes, and repair from the
//! copy at the end.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod crc;
mod guid;
mod read;
#[cfg(feature = "alloc")]
mod write;

pub use crc::Crc32;
pub use guid::Guid;
pub use read::{Error, Problem, ReadSector, find};
#[cfg(feature = "alloc")]
pub use write::{Disk, Partition, TooLarge};

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Where the first header is.
pub const HEADER_LBA: u64 = 1;

/// First sector that a partition of ours may have: behind MBR, header and entries.
pub const FIRST_USABLE_LBA: u64 = 34;

/// Sectors behind the last partition: entries and header.
pub const TAIL_SECTORS: u64 = 33;

/// `EFI PART`.
pub const SIGNATURE: [u8; 8] = *b"EFI PART";

/// The EFI system partition (UEFI 2.10, table 5-7).
pub const TYPE_ESP: Guid = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b, 0x00a0_c93e_c93b);

/// What a BIOS boot loader keeps behind its first sector (GRUB's manual, "BIOS installation").
pub const TYPE_BIOS_BOOT: Guid = Guid::new(0x2168_6148, 0x6449, 0x6e6f, 0x744e, 0x6565_6445_4649);

/// Root file system for x86-64 (Discoverable Partitions Specification).
pub const TYPE_ROOT_X86_64: Guid = Guid::new(0x4f68_bce3, 0xe8cd, 0x4db1, 0x96e7, 0xfbca_f984_b709);

/// Load table and kernel; a type of our own.
pub const TYPE_KERNEL: Guid = Guid::new(0x756b_6321, 0x6b65, 0x4e72, 0x8e65, 0x6c2d_626f_6f74);
