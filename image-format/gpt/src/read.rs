//! The reader: header, entries, and the one partition that is asked for.
//!
//! ```text
//! header: 0 "EFI PART" | 8 revision | 12 header size | 16 CRC-32 of the header with this field zero | 24 own LBA | 32 other copy's LBA
//!         40 first usable LBA | 48 last usable LBA | 56 disk GUID | 72 LBA of the entries | 80 count | 84 bytes of each | 88 CRC-32 of all entries
//! entry:  0 type GUID | 16 own GUID | 32 first LBA | 40 last LBA | 48 attributes | 56 name, UTF-16
//! ```

use core::fmt;
use core::ops::Range;

use crate::{Crc32, Guid, HEADER_LBA, SECTOR, SIGNATURE};

/// The bytes of a header that have a meaning.
const HEADER_BYTES: usize = 92;

/// Entries that are read at most; the usual table has 128.
const MAX_ENTRIES: u32 = 1024;

/// The first thing that is wrong with a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Sector 1 does not begin with `EFI PART`.
    Signature,
    /// A field of the header has a value that cannot be, or that we do not read.
    Header(&'static str),
    /// The header's checksum is another one.
    HeaderChecksum,
    /// The checksum of the entries is another one.
    EntriesChecksum,
    /// The entry of this number lies outside the usable sectors.
    Entry(u32),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Signature => f.write_str("there is no partition table (signature of the GPT header)"),
            Problem::Header(field) => write!(f, "the partition table is damaged: {field} in the GPT header"),
            Problem::HeaderChecksum => f.write_str("the partition table is damaged: checksum of the GPT header"),
            Problem::EntriesChecksum => f.write_str("the partition table is damaged: checksum of the GPT entries"),
            Problem::Entry(number) => write!(f, "the partition table is damaged: sectors of GPT entry {number}"),
        }
    }
}

/// Why no answer can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error<E> {
    /// What the function that reads sectors said.
    Read(E),
    /// The table.
    Table(Problem),
}

/// Fills its buffer with the sector of a number.
pub type ReadSector<'a, E> = dyn FnMut(u64, &mut [u8; SECTOR]) -> Result<(), E> + 'a;

/// Returns the sectors of the first partition of a type, `None` when the table has none.
///
/// # Errors
/// [`Error`]; a table is either believed as a whole or not at all.
pub fn find<E>(kind: Guid, read: &mut ReadSector<'_, E>) -> Result<Option<Range<u64>>, Error<E>> {
    let mut sector = [0; SECTOR];
    read(HEADER_LBA, &mut sector).map_err(Error::Read)?;
    let header = Header::parse(&sector).map_err(Error::Table)?;
    let mut crc = Crc32::default();
    let mut found = None;
    let mut number = 0;
    let mut lba = header.entries_lba;
    while number < header.entries {
        read(lba, &mut sector).map_err(Error::Read)?;
        lba += 1;
        // Entries are a power of two of bytes and no larger than a sector, so none lies in two.
        for entry in sector.chunks_exact(header.entry_bytes).take((header.entries - number) as usize) {
            crc.update(entry);
            number += 1;
            if guid(entry, 0) == Guid::default() {
                continue;
            }
            let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
            if first < header.first_usable || first > last || last > header.last_usable {
                return Err(Error::Table(Problem::Entry(number - 1)));
            }
            if guid(entry, 0) == kind && found.is_none() {
                found = Some(first..last + 1);
            }
        }
    }
    if crc.finish() != header.entries_crc {
        return Err(Error::Table(Problem::EntriesChecksum));
    }
    Ok(found)
}

struct Header {
    first_usable: u64,
    last_usable: u64,
    entries_lba: u64,
    entries: u32,
    entry_bytes: usize,
    entries_crc: u32,
}

impl Header {
    fn parse(sector: &[u8; SECTOR]) -> Result<Header, Problem> {
        if sector[..8] != SIGNATURE {
            return Err(Problem::Signature);
        }
        let require = |is_right: bool, field: &'static str| if is_right { Ok(()) } else { Err(Problem::Header(field)) };
        let len = u32_at(sector, 12) as usize;
        require((HEADER_BYTES..=SECTOR).contains(&len), "header size")?;
        let mut crc = Crc32::default();
        crc.update(&sector[..16]);
        crc.update(&[0; 4]);
        crc.update(&sector[20..len]);
        if crc.finish() != u32_at(sector, 16) {
            return Err(Problem::HeaderChecksum);
        }
        require(u32_at(sector, 8) == 0x1_0000, "revision")?;
        require(u64_at(sector, 24) == HEADER_LBA, "own sector number")?;
        let header = Header {
            first_usable: u64_at(sector, 40),
            last_usable: u64_at(sector, 48),
            entries_lba: u64_at(sector, 72),
            entries: u32_at(sector, 80),
            entry_bytes: u32_at(sector, 84) as usize,
            entries_crc: u32_at(sector, 88),
        };
        // Byte offsets of all sectors are to fit into 63 bits.
        require(header.first_usable <= header.last_usable && header.last_usable < u64::MAX >> 10, "usable sectors")?;
        require(header.entries <= MAX_ENTRIES, "number of entries")?;
        require(matches!(header.entry_bytes, 128 | 256 | 512), "size of an entry")?;
        let sectors = (u64::from(header.entries) * header.entry_bytes as u64).div_ceil(SECTOR as u64);
        let is_between =
            header.entries_lba > HEADER_LBA && header.entries_lba.checked_add(sectors).is_some_and(|end| end <= header.first_usable);
        require(is_between, "sector of the entries")?;
        Ok(header)
    }
}

fn guid(bytes: &[u8], at: usize) -> Guid {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(Guid::default(), |b| Guid(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
