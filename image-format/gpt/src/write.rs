//! The writer: protective MBR with boot code, primary and backup table.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::{Crc32, FIRST_USABLE_LBA, Guid, HEADER_LBA, SECTOR, SIGNATURE, TAIL_SECTORS};

const ENTRIES: u32 = 128;
const ENTRY_BYTES: usize = 128;
/// Bytes of an MBR that boot code may use: the disk signature follows.
pub(crate) const BOOT_CODE_BYTES: usize = 440;

/// A partition to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What it is.
    pub kind: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Its sectors.
    pub sectors: Range<u64>,
    /// At most 36 UTF-16 units; more are cut.
    pub name: String,
}

/// A disk to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The disk's GUID.
    pub guid: Guid,
    /// Size of the disk.
    pub sectors: u64,
    /// Its partitions, in the order of the table.
    pub partitions: Vec<Partition>,
}

/// A partition lies outside the usable sectors, or there are too many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the partitions do not fit on the disk")
    }
}

impl core::error::Error for TooLarge {}

impl Disk {
    /// Returns the first [`FIRST_USABLE_LBA`] and the last [`TAIL_SECTORS`] sectors. `boot_code` (cut at 440 bytes) is what a BIOS jumps to.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn encode(&self, boot_code: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TooLarge> {
        let last_usable = self.sectors.checked_sub(TAIL_SECTORS + 1).ok_or(TooLarge)?;
        let fits =
            |p: &Partition| p.sectors.start >= FIRST_USABLE_LBA && p.sectors.start < p.sectors.end && p.sectors.end <= last_usable + 1;
        if last_usable < FIRST_USABLE_LBA || self.partitions.len() > ENTRIES as usize || !self.partitions.iter().all(fits) {
            return Err(TooLarge);
        }
        let mut entries = vec![0; ENTRIES as usize * ENTRY_BYTES];
        for (partition, entry) in self.partitions.iter().zip(entries.chunks_exact_mut(ENTRY_BYTES)) {
            entry[..16].copy_from_slice(&partition.kind.0);
            entry[16..32].copy_from_slice(&partition.guid.0);
            entry[32..40].copy_from_slice(&partition.sectors.start.to_le_bytes());
            entry[40..48].copy_from_slice(&(partition.sectors.end - 1).to_le_bytes());
            for (unit, to) in partition.name.encode_utf16().zip(entry[56..].chunks_exact_mut(2)) {
                to.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let crc = Crc32::of(&entries);
        let backup_lba = self.sectors - 1;
        let mut head = self.protective_mbr(boot_code);
        head.extend(self.header(HEADER_LBA, backup_lba, HEADER_LBA + 1, last_usable, crc));
        head.extend_from_slice(&entries);
        let mut tail = entries;
        tail.extend(self.header(backup_lba, HEADER_LBA, last_usable + 1, last_usable, crc));
        Ok((head, tail))
    }

    /// One partition of type 0xee from sector 1 to the end (UEFI 2.10, 5.2.3).
    fn protective_mbr(&self, boot_code: &[u8]) -> Vec<u8> {
        let mut mbr = vec![0; SECTOR];
        let code = &boot_code[..boot_code.len().min(BOOT_CODE_BYTES)];
        mbr[..code.len()].copy_from_slice(code);
        let entry = &mut mbr[446..462];
        // Cylinder, head and sector of LBA 1 and of "beyond what can be said".
        entry[1..8].copy_from_slice(&[0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&1u32.to_le_bytes());
        entry[12..16].copy_from_slice(&u32::try_from(self.sectors - 1).unwrap_or(u32::MAX).to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        mbr
    }

    fn header(&self, own: u64, other: u64, entries: u64, last_usable: u64, entries_crc: u32) -> Vec<u8> {
        let mut header = Vec::with_capacity(SECTOR);
        header.extend_from_slice(&SIGNATURE);
        header.extend_from_slice(&0x1_0000u32.to_le_bytes());
        header.extend_from_slice(&92u32.to_le_bytes());
        header.extend_from_slice(&[0; 8]);
        for lba in [own, other, FIRST_USABLE_LBA, last_usable] {
            header.extend_from_slice(&lba.to_le_bytes());
        }
        header.extend_from_slice(&self.guid.0);
        header.extend_from_slice(&entries.to_le_bytes());
        for number in [ENTRIES, ENTRY_BYTES as u32, entries_crc] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        let crc = Crc32::of(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header.resize(SECTOR, 0);
        header
    }
}
