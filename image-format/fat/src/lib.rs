//! FAT12 file systems: what an EFI system partition holds.
//!
//! FAT (Microsoft, "FAT: General Overview of On-Disk Format", 1.03) divides a partition into clusters and chains them in a table:
//!
//! ```text
//! sector 0      boot sector: sizes, and a number that identifies the volume
//! then          two equal tables with 12 bits per cluster: the next cluster of the file, or 0xfff for its last
//! then          the root directory: entries of 32 bytes
//! then          clusters, numbered from 2: directories and files
//! ```
//!
//! A file system is FAT12 when it has fewer than 4085 clusters; with clusters of up to 32 KiB that is 127 MiB, plenty for a boot loader, and the smallest of
//! the three kinds: FAT32 would begin at 33 MiB. UEFI firmware reads all three (UEFI 2.10, 13.3).
//!
//! Every file is one run of clusters, times are the first that FAT can express, so equal files give equal bytes. What is absent: long names, free space,
//! and reading.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

const SECTOR: usize = 512;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const ENTRY: usize = 32;
/// Entries of the root directory; a whole sector.
const ROOT_ENTRIES: usize = 16;
const MAX_CLUSTERS: usize = 4084;
/// 1 January 1980, the first day: year from 1980 in bits 9.., month in bits 5.., day.
const DATE: u16 = 1 << 5 | 1;

/// Why there is no file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FatError {
    /// The name is none of at most 8 and 3 capital letters and digits.
    Name(String),
    /// It would have too many clusters or root entries.
    TooLarge,
}

impl fmt::Display for FatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FatError::Name(name) => write!(f, "`{name}` is no file name for FAT: at most 8 and 3 capital letters and digits"),
            FatError::TooLarge => f.write_str("the files do not fit into a FAT12 file system"),
        }
    }
}

impl std::error::Error for FatError {}

/// A directory or a file.
enum Node<'a> {
    Dir(BTreeMap<[u8; 11], Node<'a>>),
    File(&'a [u8]),
}

/// Returns a file system with these files, in whole sectors. Paths have `/` between names and none in front; directories come from them.
///
/// # Errors
/// [`FatError`].
pub fn image(files: &[(&str, &[u8])], volume_id: u32) -> Result<Vec<u8>, FatError> {
    let mut root = BTreeMap::new();
    for (path, bytes) in files {
        insert(&mut root, path, bytes)?;
    }
    if root.len() > ROOT_ENTRIES {
        return Err(FatError::TooLarge);
    }
    let sectors_per_cluster =
        [1, 2, 4, 8, 16, 32, 64].into_iter().find(|s| clusters(&root, s * SECTOR) <= MAX_CLUSTERS).ok_or(FatError::TooLarge)?;
    let mut writer = Writer { cluster_bytes: sectors_per_cluster * SECTOR, table: vec![0xff8, 0xfff], data: Vec::new() };
    let entries = writer.entries(&root, 0);
    let mut root_dir = entries;
    root_dir.resize(ROOT_ENTRIES * ENTRY, 0);

    let table = packed(&writer.table);
    let mut out = boot_sector(sectors_per_cluster, table.len() / SECTOR, writer.data.len() / SECTOR, volume_id);
    out.extend_from_slice(&table);
    out.extend_from_slice(&table);
    out.extend_from_slice(&root_dir);
    out.extend_from_slice(&writer.data);
    Ok(out)
}

fn insert<'a>(dir: &mut BTreeMap<[u8; 11], Node<'a>>, path: &str, bytes: &'a [u8]) -> Result<(), FatError> {
    match path.split_once('/') {
        None => drop(dir.insert(short_name(path)?, Node::File(bytes))),
        Some((name, rest)) => match dir.entry(short_name(name)?).or_insert_with(|| Node::Dir(BTreeMap::new())) {
            Node::Dir(inner) => insert(inner, rest, bytes)?,
            Node::File(_) => return Err(FatError::Name(path.to_owned())),
        },
    }
    Ok(())
}

/// `NAME.EXT` as eleven bytes, filled with spaces.
fn short_name(name: &str) -> Result<[u8; 11], FatError> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let is_sound = |part: &str, max| part.len() <= max && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if base.is_empty() || !is_sound(base, 8) || !is_sound(extension, 3) {
        return Err(FatError::Name(name.to_owned()));
    }
    let mut out = [b' '; 11];
    out[..base.len()].copy_from_slice(base.as_bytes());
    out[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    Ok(out)
}

/// How many clusters everything below a directory takes.
fn clusters(dir: &BTreeMap<[u8; 11], Node<'_>>, cluster_bytes: usize) -> usize {
    let of = |node: &Node<'_>| match node {
        Node::File(bytes) => bytes.len().div_ceil(cluster_bytes),
        Node::Dir(inner) => ((inner.len() + 2) * ENTRY).div_ceil(cluster_bytes) + clusters(inner, cluster_bytes),
    };
    dir.values().map(of).sum()
}

struct Writer {
    cluster_bytes: usize,
    /// What follows each cluster.
    table: Vec<u16>,
    data: Vec<u8>,
}

impl Writer {
    /// Takes a run of clusters and returns the first; 0 for no bytes.
    fn run(&mut self, len: usize) -> u16 {
        let (first, count) = (self.table.len(), len.div_ceil(self.cluster_bytes));
        self.table.extend((0..count).map(|i| if i + 1 == count { 0xfff } else { (first + i + 1) as u16 }));
        self.data.resize(self.data.len() + count * self.cluster_bytes, 0);
        if count == 0 { 0 } else { first as u16 }
    }

    fn store(&mut self, cluster: u16, bytes: &[u8]) {
        let at = usize::from(cluster).saturating_sub(2) * self.cluster_bytes;
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes what is below a directory and returns the directory's own entries.
    fn entries(&mut self, dir: &BTreeMap<[u8; 11], Node<'_>>, own: u16) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, node) in dir {
            match node {
                Node::File(bytes) => {
                    let first = self.run(bytes.len());
                    self.store(first.max(2), if first == 0 { &[] } else { bytes });
                    out.extend(entry(name, ARCHIVE, first, bytes.len() as u32));
                }
                Node::Dir(inner) => {
                    let first = self.run((inner.len() + 2) * ENTRY);
                    let mut entries = entry(b".          ", DIRECTORY, first, 0).to_vec();
                    // The root is cluster 0 here.
                    entries.extend(entry(b"..         ", DIRECTORY, own, 0));
                    entries.extend(self.entries(inner, first));
                    self.store(first, &entries);
                    out.extend(entry(name, DIRECTORY, first, 0));
                }
            }
        }
        out
    }
}

/// 0 name, 11 attributes, 16 and 18 dates, 24 date, 26 first cluster, 28 length.
fn entry(name: &[u8; 11], attributes: u8, first: u16, len: u32) -> [u8; ENTRY] {
    let mut out = [0; ENTRY];
    out[..11].copy_from_slice(name);
    out[11] = attributes;
    for at in [16, 18, 24] {
        out[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    out[26..28].copy_from_slice(&first.to_le_bytes());
    out[28..].copy_from_slice(&len.to_le_bytes());
    out
}

/// Two entries of 12 bits in three bytes, in whole sectors.
fn packed(table: &[u16]) -> Vec<u8> {
    let mut out = Vec::new();
    for pair in table.chunks(2) {
        let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
        out.extend([a as u8, (a >> 8 | b << 4) as u8, (b >> 4) as u8]);
    }
    out.resize(out.len().next_multiple_of(SECTOR), 0);
    out
}

fn boot_sector(sectors_per_cluster: usize, table_sectors: usize, data_sectors: usize, volume_id: u32) -> Vec<u8> {
    let total = 1 + 2 * table_sectors + 1 + data_sectors;
    let mut out = vec![0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    // A jump over the fields, as boot sectors begin; then the name of who formatted it.
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"UKC     ");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[sectors_per_cluster as u8]);
    put(14, &1u16.to_le_bytes());
    put(16, &[2]);
    put(17, &(ROOT_ENTRIES as u16).to_le_bytes());
    // Below 65536 sectors in the old field, else in the new one.
    match u16::try_from(total) {
        Ok(total) => put(19, &total.to_le_bytes()),
        Err(_) => put(32, &(total as u32).to_le_bytes()),
    }
    // Fixed disk.
    put(21, &[0xf8]);
    put(22, &(table_sectors as u16).to_le_bytes());
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(36, &[0x80, 0, 0x29]);
    put(39, &volume_id.to_le_bytes());
    put(43, b"UKC BOOT   FAT12   ");
    put(510, &[0x55, 0xaa]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file back by the specification alone.
    fn read(image: &[u8], path: &str) -> Option<Vec<u8>> {
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
        let (cluster, table_sectors) = (usize::from(image[13]) * SECTOR, u16_at(22));
        let (table, root) = (SECTOR, (1 + 2 * table_sectors) * SECTOR);
        let data = root + u16_at(17) * ENTRY;
        let next = |n: usize| {
            let pair = u16_at(table + n * 3 / 2);
            if n.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }
        };
        let chain = |first: usize| {
            let mut bytes = Vec::new();
            let mut at = first;
            while (2..0xff8).contains(&at) {
                bytes.extend_from_slice(&image[data + (at - 2) * cluster..][..cluster]);
                at = next(at);
            }
            bytes
        };
        let mut dir = image[root..data].to_vec();
        let mut names = path.split('/').peekable();
        loop {
            let name = short_name(names.next()?).ok()?;
            let found = dir.chunks_exact(ENTRY).find(|e| e[..11] == name)?;
            let first = usize::from(u16::from_le_bytes([found[26], found[27]]));
            let len = u32::from_le_bytes([found[28], found[29], found[30], found[31]]) as usize;
            let mut bytes = chain(first);
            if names.peek().is_none() {
                bytes.truncate(len);
                return Some(bytes);
            }
            std::mem::swap(&mut dir, &mut bytes);
        }
    }

    #[test]
    fn files_are_read_back() {
        for len in [0, 1, 512, 513, 30_000, 3_000_000] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let image = image(&[("EFI/BOOT/BOOTX64.EFI", &bytes), ("README.TXT", b"hello")], 0x1234).unwrap();
            assert_eq!(image.len() % SECTOR, 0);
            assert_eq!(read(&image, "EFI/BOOT/BOOTX64.EFI").as_deref(), Some(&*bytes), "{len}");
            assert_eq!(read(&image, "README.TXT").as_deref(), Some(&b"hello"[..]));
            assert_eq!(read(&image, "EFI/OTHER"), None);
        }
    }

    #[test]
    fn names_and_sizes_that_do_not_fit_are_refused() {
        assert_eq!(image(&[("lower", b"")], 0), Err(FatError::Name("lower".to_owned())));
        assert_eq!(image(&[("TOOLONGNAME", b"")], 0), Err(FatError::Name("TOOLONGNAME".to_owned())));
        assert_eq!(image(&[("A", b""), ("A/B", b"")], 0), Err(FatError::Name("A/B".to_owned())));
        let large = vec![0; (MAX_CLUSTERS + 1) * 64 * SECTOR];
        assert_eq!(image(&[("A", &large)], 0), Err(FatError::TooLarge));
    }
}
