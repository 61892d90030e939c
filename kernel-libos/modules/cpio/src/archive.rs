//! Reading entries; pure but for the volume's bytes.

use alloc::vec;
use alloc::vec::Vec;

use libos_core::vfs::volume::Volume;
use libos_core::{Errno, Result};

/// Bytes of a header.
const HEADER: usize = 110;

/// Longest name with its NUL (`PATH_MAX`).
const NAME_MAX: u64 = 4096;

/// Bytes of zeros that may lie between an image and an archive: a megabyte, more than any alignment.
const GAP_MAX: u64 = 1 << 20;

/// An entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// What makes it the same file as another entry: inode number, device.
    pub identity: (u32, u32, u32),
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub mtime: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    pub name: Vec<u8>,
    /// Where its data is, and how many bytes.
    pub data: (u64, u64),
    /// Where the next entry is.
    pub next: u64,
}

/// Whether an archive begins at an offset.
pub fn is_archive(volume: &dyn Volume, at: u64) -> bool {
    let mut magic = [0; 6];
    // With (070702) or without (070701) a sum, which is not verified.
    volume.read(at, &mut magic).is_ok() && matches!(&magic, b"070701" | b"070702")
}

/// Reads the entry at an offset.
///
/// # Errors
/// `EUCLEAN` when it is none, `EIO`.
pub fn entry(volume: &dyn Volume, at: u64) -> Result<Entry> {
    let mut header = [0; HEADER];
    volume.read(at, &mut header).map_err(|_| Errno::EUCLEAN)?;
    if !matches!(&header[..6], b"070701" | b"070702") {
        return Err(Errno::EUCLEAN);
    }
    let mut numbers = [0; 13];
    for (number, digits) in numbers.iter_mut().zip(header[6..].chunks_exact(8)) {
        let text = core::str::from_utf8(digits).map_err(|_| Errno::EUCLEAN)?;
        *number = u32::from_str_radix(text, 16).map_err(|_| Errno::EUCLEAN)?;
    }
    let [ino, mode, uid, gid, links, mtime, size, major, minor, device_major, device_minor, name_len, _sum] = numbers;
    let (size, name_len) = (u64::from(size), u64::from(name_len));
    if !(1..=NAME_MAX).contains(&name_len) {
        return Err(Errno::EUCLEAN);
    }
    let name_at = at + HEADER as u64;
    let mut name = vec![0; name_len as usize];
    volume.read(name_at, &mut name).map_err(|_| Errno::EUCLEAN)?;
    if name.pop() != Some(0) || name.contains(&0) {
        return Err(Errno::EUCLEAN);
    }
    // Both paddings count from the archive's start, which is a multiple of 4.
    let data_at = (name_at + name_len).next_multiple_of(4);
    if data_at + size > volume.len_bytes() {
        return Err(Errno::EUCLEAN);
    }
    Ok(Entry {
        identity: (ino, major, minor),
        mode,
        uid,
        gid,
        links,
        mtime,
        device: (device_major, device_minor),
        name,
        data: (data_at, size),
        next: (data_at + size).next_multiple_of(4),
    })
}

/// The next archive at or behind an offset, with only zeros before it.
pub fn next_archive(volume: &dyn Volume, from: u64) -> Option<u64> {
    let mut at = from.next_multiple_of(4);
    let end = volume.len_bytes().min(at.saturating_add(GAP_MAX));
    while at + 6 <= end {
        let mut word = [0; 4];
        volume.read(at, &mut word).ok()?;
        if word != [0; 4] {
            return is_archive(volume, at).then_some(at);
        }
        at += 4;
    }
    None
}

/// Where an ext4 image ends and something else begins.
pub fn end_of_ext4(volume: &dyn Volume) -> Option<u64> {
    let mut sb = [0; 64];
    volume.read(1024, &mut sb).ok()?;
    let word = |at: usize| sb[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    if sb[0x38..0x3a] != [0x53, 0xef] || word(0x18) > 6 {
        return None;
    }
    let len = u64::from(word(4)) * (1024 << word(0x18));
    (len < volume.len_bytes()).then_some(len)
}
