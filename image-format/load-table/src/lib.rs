//! The load table: what the boot loaders of a disk bring to memory, and how they know that it is whole.
//!
//! It is the first 2048 bytes of the kernel's partition; the kernel's file follows it there. Little-endian:
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 8 | `UKCLOAD\0` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | format of the kernel: 1 ELF64 with a 64-bit Linux entry, 2 bzImage |
//! | 16 | 8 | offset of the kernel from the start of the partition in bytes, a multiple of 512, at least 2048 |
//! | 24 | 8 | length of the kernel in bytes, not 0 |
//! | 32 | 8 | XXH64 of the kernel, seed 0 |
//! | 40 | 8 | first sector of the initial RAM disk, counted from the start of the disk; 0: none |
//! | 48 | 8 | its length in bytes; 0: none |
//! | 56 | 8 | sectors of the whole disk when it was written |
//! | 64 | 4 | length n of the command line in bytes, at most 1912 |
//! | 68 | 60 | zeros |
//! | 128 | n | command line, without NUL; zeros follow |
//! | 2040 | 8 | XXH64 of bytes 0..2040, seed 0 |
//!
//! A checksum guards against bad disks and broken copies, not against an attacker, so it is a fast one (XXH64,
//! <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>): hashing must not cost more than reading.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod xxh64;

use core::fmt;

pub use xxh64::xxh64;

/// Bytes of a table.
pub const TABLE_BYTES: usize = 2048;

/// Longest command line in bytes.
pub const COMMAND_LINE_MAX_BYTES: usize = CHECKSUM_AT - COMMAND_LINE_AT;

const MAGIC: [u8; 8] = *b"UKCLOAD\0";
const VERSION: u32 = 1;
const COMMAND_LINE_AT: usize = 128;
const CHECKSUM_AT: usize = TABLE_BYTES - 8;
/// Larger than any kernel and small enough that no sum of a few lengths overflows.
const LEN_MAX: u64 = 1 << 40;

/// What the kernel's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFormat {
    /// An ELF file, entered in 64-bit mode at its (physical) entry with the address of a Linux zero page in `rsi`.
    Elf,
    /// A Linux kernel as distributions ship it (Linux, Documentation/arch/x86/boot.rst).
    BzImage,
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadTable<'a> {
    /// What the kernel's file is.
    pub format: KernelFormat,
    /// Where in the partition the kernel begins.
    pub kernel_offset: u64,
    /// Bytes of the kernel's file.
    pub kernel_len_bytes: u64,
    /// XXH64 of the kernel's file.
    pub kernel_hash: u64,
    /// First sector, on the disk, of the initial RAM disk; 0 is none.
    pub initrd_lba: u64,
    /// Bytes of the initial RAM disk; 0 is none.
    pub initrd_len_bytes: u64,
    /// Sectors of the disk.
    pub disk_sectors: u64,
    /// What the kernel is told.
    pub command_line: &'a [u8],
}

/// The first field that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadField(pub &'static str);

impl fmt::Display for BadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the load table is damaged: {}", self.0)
    }
}

impl core::error::Error for BadField {}

impl<'a> LoadTable<'a> {
    /// Reads a table.
    ///
    /// # Errors
    /// [`BadField`].
    pub fn parse(bytes: &'a [u8]) -> Result<LoadTable<'a>, BadField> {
        let require = |is_right: bool, field: &'static str| if is_right { Ok(()) } else { Err(BadField(field)) };
        require(bytes.len() >= TABLE_BYTES, "its length")?;
        require(bytes[..8] == MAGIC, "magic")?;
        require(u64_at(bytes, CHECKSUM_AT) == xxh64(&bytes[..CHECKSUM_AT]), "checksum")?;
        require(u32_at(bytes, 8) == VERSION, "version")?;
        let format = match u32_at(bytes, 12) {
            1 => KernelFormat::Elf,
            2 => KernelFormat::BzImage,
            _ => return Err(BadField("format of the kernel")),
        };
        let table = LoadTable {
            format,
            kernel_offset: u64_at(bytes, 16),
            kernel_len_bytes: u64_at(bytes, 24),
            kernel_hash: u64_at(bytes, 32),
            initrd_lba: u64_at(bytes, 40),
            initrd_len_bytes: u64_at(bytes, 48),
            disk_sectors: u64_at(bytes, 56),
            command_line: &[],
        };
        let offset = table.kernel_offset;
        require((TABLE_BYTES as u64..LEN_MAX).contains(&offset) && offset.is_multiple_of(512), "offset of the kernel")?;
        require((1..LEN_MAX).contains(&table.kernel_len_bytes), "length of the kernel")?;
        require(table.initrd_lba < LEN_MAX && (table.initrd_lba == 0) == (table.initrd_len_bytes == 0), "sector of the initial RAM disk")?;
        require(table.initrd_len_bytes < LEN_MAX, "length of the initial RAM disk")?;
        require(table.disk_sectors < LEN_MAX, "sectors of the disk")?;
        let len = u32_at(bytes, 64) as usize;
        require(len <= COMMAND_LINE_MAX_BYTES, "length of the command line")?;
        let command_line = &bytes[COMMAND_LINE_AT..COMMAND_LINE_AT + len];
        require(!command_line.contains(&0), "command line")?;
        Ok(LoadTable { command_line, ..table })
    }

    /// Returns the table's bytes.
    ///
    /// # Errors
    /// [`BadField`] for what [`LoadTable::parse`] would refuse.
    pub fn encode(&self) -> Result<[u8; TABLE_BYTES], BadField> {
        if self.command_line.len() > COMMAND_LINE_MAX_BYTES {
            return Err(BadField("length of the command line"));
        }
        let mut bytes = [0; TABLE_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        let format: u32 = match self.format {
            KernelFormat::Elf => 1,
            KernelFormat::BzImage => 2,
        };
        put(12, &format.to_le_bytes());
        put(16, &self.kernel_offset.to_le_bytes());
        put(24, &self.kernel_len_bytes.to_le_bytes());
        put(32, &self.kernel_hash.to_le_bytes());
        put(40, &self.initrd_lba.to_le_bytes());
        put(48, &self.initrd_len_bytes.to_le_bytes());
        put(56, &self.disk_sectors.to_le_bytes());
        put(64, &(self.command_line.len() as u32).to_le_bytes());
        put(COMMAND_LINE_AT, self.command_line);
        let checksum = xxh64(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        LoadTable::parse(&bytes).map(|_| bytes)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
