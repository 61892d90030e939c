//! The reader: archive bytes → [`Entry`] values, without looking at file data.
//!
//! Where formats leave room, it decides as Go's `archive/tar` does, because every image was made or checked by it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use ukc_rootfs::Meta;

use super::BLOCK;
use super::sparse::{self, Segment};

/// Headers that describe other headers (PAX, GNU long names) may not be larger: Go's limit.
const MAX_SPECIAL_BYTES: u64 = 1 << 20;
/// The largest file: 2^44 bytes, ext4's limit with 4 KiB blocks.
const MAX_FILE_BYTES: u64 = 1 << 44;

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Any bytes, as written; a trailing `/` is possible.
    pub name: Vec<u8>,
    /// Owner, mode, time, extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: EntryKind,
}

/// See [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file: `len_bytes` bytes at `offset` of the archive.
    File { offset: u64, len_bytes: u64 },
    /// A file with holes: the segments are in the archive, everything else of its `len_bytes` is zero.
    Sparse { segments: Vec<Segment>, len_bytes: u64 },
    /// A directory.
    Dir,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// Another name of the entry with this name.
    HardLink(Vec<u8>),
    /// Major and minor number.
    CharDevice(u32, u32),
    /// Major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// What is wrong with an archive; `offset` is that of the header.
#[derive(Debug)]
pub enum TarError {
    /// Not a header: the checksum does not match.
    NotAHeader { offset: u64 },
    /// The archive ends inside an entry.
    Truncated { offset: u64 },
    /// A field has an impossible value.
    BadField { offset: u64, field: &'static str },
    /// A type of entry that no file system object corresponds to.
    UnknownType { offset: u64, name: Vec<u8>, type_byte: u8 },
    /// Reading failed.
    Io(io::Error),
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TarError::NotAHeader { offset } => write!(f, "no tar header at byte {offset}: the checksum is wrong"),
            TarError::Truncated { offset } => write!(f, "the archive ends inside the entry at byte {offset}"),
            TarError::BadField { offset, field } => write!(f, "the entry at byte {offset} has an impossible {field}"),
            TarError::UnknownType { offset, name, type_byte } => {
                write!(f, "the entry `{}` at byte {offset} has the unknown type `{}`", name.escape_ascii(), type_byte.escape_ascii())
            }
            TarError::Io(error) => write!(f, "cannot read the archive: {error}"),
        }
    }
}

impl std::error::Error for TarError {}

/// Reads entries in order; after an error or the end it yields nothing more.
pub struct Reader<R> {
    input: R,
    /// Length of the archive: data beyond it is missing.
    len_bytes: u64,
    /// Of the next header.
    at: u64,
    done: bool,
}

/// What PAX and GNU headers said about the next entry.
#[derive(Default)]
struct Extended {
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes` of format 0.0 in order: the keys repeat.
    sparse_0_0: Vec<u64>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read + Seek> Reader<R> {
    /// Starts at the beginning of `input`.
    ///
    /// # Errors
    /// Those of seeking.
    pub fn new(mut input: R) -> io::Result<Reader<R>> {
        let len_bytes = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(0))?;
        Ok(Reader { input, len_bytes, at: 0, done: false })
    }

    fn block(&mut self, at: u64) -> Result<Option<[u8; BLOCK as usize]>, TarError> {
        if at >= self.len_bytes {
            return Ok(None);
        }
        let mut block = [0; BLOCK as usize];
        self.bytes(at, at, &mut block)?;
        Ok(Some(block))
    }

    fn bytes(&mut self, header: u64, at: u64, out: &mut [u8]) -> Result<(), TarError> {
        self.input.seek(SeekFrom::Start(at)).map_err(TarError::Io)?;
        self.input.read_exact(out).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated { offset: header },
            _ => TarError::Io(e),
        })
    }

    /// Returns the data of a special header.
    fn special(&mut self, header: u64, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_SPECIAL_BYTES {
            return Err(TarError::BadField { offset: header, field: "size of an extended header" });
        }
        let mut data = vec![0; size as usize];
        self.bytes(header, header + BLOCK, &mut data)?;
        Ok(data)
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        loop {
            let offset = self.at;
            let Some(block) = self.block(offset)? else { return Ok(None) };
            if is_zero(&block) {
                return match self.block(offset + BLOCK) {
                    // Two blocks of zeros, or one and the end of the file.
                    Ok(Some(next)) if !is_zero(&next) => Err(TarError::NotAHeader { offset: offset + BLOCK }),
                    Err(TarError::Io(error)) => Err(TarError::Io(error)),
                    _ => Ok(None),
                };
            }
            if !checksum_is_right(&block) {
                return Err(TarError::NotAHeader { offset });
            }
            let field = |field| TarError::BadField { offset, field };
            let size = unsigned(&block[124..136]).ok_or(field("size"))?;
            let type_byte = block[156];
            match type_byte {
                b'x' | b'g' | b'L' | b'K' => {
                    let data = self.special(offset, size)?;
                    match type_byte {
                        b'x' => extended.read_pax(&data).ok_or(field("PAX header"))?,
                        b'L' => extended.long_name = Some(until_nul(&data).to_vec()),
                        b'K' => extended.long_link = Some(until_nul(&data).to_vec()),
                        // Global headers hold comments (git archive); Docker ignores them too.
                        _ => {}
                    }
                    self.at = offset + BLOCK + round_up(size);
                }
                // A volume label (GNU).
                b'V' if size > MAX_FILE_BYTES => return Err(field("size")),
                b'V' => self.at = offset + BLOCK + round_up(size),
                _ => return self.entry(offset, &block, &extended).map(Some),
            }
        }
    }

    fn entry(&mut self, offset: u64, block: &[u8; 512], extended: &Extended) -> Result<Entry, TarError> {
        let field = |field| TarError::BadField { offset, field };
        let pax = |key: &str| extended.pax.get(key.as_bytes()).filter(|v| !v.is_empty());
        let pax_number = |key: &'static str| match pax(key) {
            None => Ok(None),
            Some(text) => decimal(text).map(Some).ok_or(field(key)),
        };

        let mut name = match (pax("path"), &extended.long_name) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) => name.clone(),
            (None, None) => {
                let name = until_nul(&block[..100]);
                // Only POSIX headers have a prefix; GNU ones ("ustar  ") keep times there.
                let prefix = if &block[257..263] == b"ustar\0" { until_nul(&block[345..500]) } else { b"" };
                if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
            }
        };
        let link = match (pax("linkpath"), &extended.long_link) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) => name.clone(),
            (None, None) => until_nul(&block[157..257]).to_vec(),
        };
        let size = match pax_number("size")? {
            Some(size) => size,
            None => unsigned(&block[124..136]).ok_or(field("size"))?,
        };
        let id = |key: &'static str, range: std::ops::Range<usize>| {
            let value = match pax_number(key)? {
                Some(value) => value,
                None => unsigned(&block[range]).ok_or(field(key))?,
            };
            u32::try_from(value).map_err(|_| field(key))
        };
        let mtime = match pax("mtime") {
            Some(text) => pax_time(text).ok_or(field("mtime"))?,
            None => (number(&block[136..148]).and_then(|t| i64::try_from(t).ok()).ok_or(field("mtime"))?, 0),
        };
        let mut meta = Meta {
            mode: (unsigned(&block[100..108]).ok_or(field("mode"))? & 0o7777) as u16,
            uid: id("uid", 108..116)?,
            gid: id("gid", 116..124)?,
            mtime,
            xattrs: BTreeMap::new(),
        };
        for (key, value) in &extended.pax {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                && !name.is_empty()
                // What overlayfs keeps for itself is not part of the image.
                && !name.starts_with(b"trusted.overlay.")
                && !name.starts_with(b"user.overlay.")
            {
                meta.xattrs.insert(name.to_vec(), value.clone());
            }
        }
        let device = || {
            let half =
                |range: std::ops::Range<usize>| unsigned(&block[range]).and_then(|n| u32::try_from(n).ok()).ok_or(field("device number"));
            Ok::<_, TarError>((half(329..337)?, half(337..345)?))
        };

        let data = offset + BLOCK;
        let mut stored = 0;
        let type_byte = block[156];
        let kind = match type_byte {
            0 | b'0' | b'7' if name.ends_with(b"/") => EntryKind::Dir,
            0 | b'0' | b'7' | b'S' => {
                stored = size;
                if let Some(real) = pax("GNU.sparse.name") {
                    name = real.clone();
                }
                let map = if type_byte == b'S' {
                    Some(self.old_gnu_map(offset, block)?)
                } else if pax("GNU.sparse.major").is_some_and(|v| v == b"1") {
                    let real = pax_number("GNU.sparse.realsize")?.ok_or(field("sparse file's size"))?;
                    let (map, map_bytes) =
                        sparse::map_1_0(|at, out| self.bytes(offset, data + at, out), size).ok_or(field("sparse map"))?;
                    Some((map, real, data + map_bytes))
                } else if !extended.sparse_0_0.is_empty() || pax("GNU.sparse.map").is_some() {
                    let real = pax_number("GNU.sparse.size")?.ok_or(field("sparse file's size"))?;
                    let map = match pax("GNU.sparse.map") {
                        Some(text) => text.split(|&b| b == b',').map(decimal).collect::<Option<Vec<u64>>>().ok_or(field("sparse map"))?,
                        None => extended.sparse_0_0.clone(),
                    };
                    Some((map, real, data))
                } else {
                    None
                };
                match map {
                    None => EntryKind::File { offset: data, len_bytes: size },
                    Some((map, real, start)) => {
                        let end = data.checked_add(size).ok_or(field("size"))?;
                        // The map of an 'S' header lies before the data and is not counted in its size.
                        let end = if type_byte == b'S' { start.checked_add(size).ok_or(field("size"))? } else { end };
                        stored = end - data;
                        if real > MAX_FILE_BYTES {
                            return Err(field("sparse file's size"));
                        }
                        let segments = sparse::segments(&map, real, start, end).ok_or(field("sparse map"))?;
                        EntryKind::Sparse { segments, len_bytes: real }
                    }
                }
            }
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => device().map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            _ => return Err(TarError::UnknownType { offset, name, type_byte }),
        };
        if stored > MAX_FILE_BYTES {
            return Err(field("size"));
        }
        if data + stored > self.len_bytes {
            return Err(TarError::Truncated { offset });
        }
        self.at = data + round_up(stored);
        Ok(Entry { name, meta, kind })
    }

    /// Reads the sparse map of an `S` header and its extension blocks: pairs, the file's size, where its data starts.
    fn old_gnu_map(&mut self, offset: u64, block: &[u8; 512]) -> Result<(Vec<u64>, u64, u64), TarError> {
        let bad = || TarError::BadField { offset, field: "sparse map" };
        let real = unsigned(&block[483..495]).ok_or_else(bad)?;
        let mut map = Vec::new();
        let mut pairs = |bytes: &[u8]| {
            for pair in bytes.chunks_exact(24) {
                // An unused slot is all zeros.
                if pair[0] == 0 && pair[12] == 0 {
                    break;
                }
                map.push(unsigned(&pair[..12])?);
                map.push(unsigned(&pair[12..])?);
            }
            Some(())
        };
        pairs(&block[386..482]).ok_or_else(bad)?;
        let mut more = block[482] != 0;
        let mut at = offset + BLOCK;
        while more {
            let next = self.block(at)?.ok_or(TarError::Truncated { offset })?;
            pairs(&next[..504]).ok_or_else(bad)?;
            more = next[504] != 0;
            at += BLOCK;
        }
        Ok((map, real, at))
    }
}

impl<R: Read + Seek> Iterator for Reader<R> {
    type Item = Result<Entry, TarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_entry().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Extended {
    /// Reads lines `<length of the line> <key>=<value>\n` (pax(1), "pax Extended Header"); the last of a key wins.
    fn read_pax(&mut self, mut data: &[u8]) -> Option<()> {
        while !data.is_empty() {
            // Some writers pad with NULs.
            if data.iter().all(|&b| b == 0) {
                break;
            }
            let space = data.iter().position(|&b| b == b' ')?;
            let len = usize::try_from(decimal(&data[..space])?).ok()?;
            let line = data.get(space + 1..len)?.strip_suffix(b"\n")?;
            let equals = line.iter().position(|&b| b == b'=')?;
            let (key, value) = (&line[..equals], &line[equals + 1..]);
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                // They alternate, offset first.
                if self.sparse_0_0.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") {
                    return None;
                }
                self.sparse_0_0.push(decimal(value)?);
            }
            self.pax.insert(key.to_vec(), value.to_vec());
            data = &data[len..];
        }
        Some(())
    }
}

/// Whether some bytes start with a tar header.
pub fn is_header(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|block| !is_zero(block) && checksum_is_right(block))
}

fn is_zero(block: &[u8; 512]) -> bool {
    block.iter().all(|&b| b == 0)
}

/// The sum of all bytes with the checksum field as spaces; some old writers added signed bytes.
fn checksum_is_right(block: &[u8; 512]) -> bool {
    let Some(expected) = number(&block[148..156]) else { return false };
    let others = || block[..148].iter().chain(&block[156..]);
    let spaces = 8 * i128::from(b' ');
    others().map(|&b| i128::from(b)).sum::<i128>() + spaces == expected
        || others().map(|&b| i128::from(b as i8)).sum::<i128>() + spaces == expected
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(b"")
}

fn round_up(size: u64) -> u64 {
    size.div_ceil(BLOCK) * BLOCK
}

/// Octal text, or two's complement big-endian when the first bit is set (GNU tar manual, "Extensions"). Empty is 0.
fn number(field: &[u8]) -> Option<i128> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0]) - 256 } else { i128::from(field[0] & 0x7f) };
        return Some(field[1..].iter().fold(first, |n, &b| n << 8 | i128::from(b)));
    }
    let text: &[u8] = until_nul(field).trim_ascii();
    text.iter().try_fold(0, |n, b| matches!(b, b'0'..=b'7').then(|| n << 3 | i128::from(b - b'0')))
}

fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).and_then(|n| u64::try_from(n).ok())
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `seconds[.fraction]`, possibly negative, as seconds rounded down and nanoseconds.
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let seconds = i64::try_from(decimal(whole.as_bytes())?).ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0009\0\0\0\0"), None);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-1", Some((-1, 0))),
            ("0.0000000019", Some((0, 1))),
            ("1.", Some((1, 0))),
            ("x", None),
            ("1.x", None),
            ("--1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(pax_time(text.as_bytes()), expected, "{text}");
        }
    }
}
