//! Sparse files in tar archives: GNU's `S` headers and PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
//!
//! All say the same: pairs of (offset in the file, length), whose bytes follow each other in the archive.

use super::BLOCK;
use super::read::{TarError, decimal};

/// More pairs than this are refused; a real file has at most a few thousand.
const MAX_PAIRS: u64 = 1 << 20;

/// `len_bytes` bytes of the archive at `archive_offset` that stand at `file_offset` of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub file_offset: u64,
    /// Where in the archive.
    pub archive_offset: u64,
    /// How many.
    pub len_bytes: u64,
}

/// Checks a map (pairs in one list) and places its data in the archive from `start` on; it must be in order, inside the file, and end before `end`.
pub(super) fn segments(map: &[u64], file_bytes: u64, start: u64, end: u64) -> Option<Vec<Segment>> {
    if !map.len().is_multiple_of(2) {
        return None;
    }
    let (mut file_at, mut archive_at) = (0, start);
    let mut out = Vec::new();
    for pair in map.chunks_exact(2) {
        let (offset, len) = (pair[0], pair[1]);
        if offset < file_at || offset.checked_add(len)? > file_bytes {
            return None;
        }
        if len > 0 {
            out.push(Segment { file_offset: offset, archive_offset: archive_at, len_bytes: len });
        }
        file_at = offset + len;
        archive_at = archive_at.checked_add(len)?;
    }
    (archive_at <= end).then_some(out)
}

/// Reads the map of format 1.0, which stands at the start of the data: decimal numbers, one a line, first the count of pairs, padded to a block.
/// Returns the map and its padded length. `read(at, out)` reads from the data.
pub(super) fn map_1_0(mut read: impl FnMut(u64, &mut [u8]) -> Result<(), TarError>, data_bytes: u64) -> Option<(Vec<u64>, u64)> {
    let mut numbers = Vec::new();
    let mut digits = Vec::new();
    let mut at = 0;
    let mut wanted = 1;
    while numbers.len() as u64 != wanted {
        let mut block = [0; BLOCK as usize];
        if at + BLOCK > data_bytes {
            return None;
        }
        read(at, &mut block).ok()?;
        at += BLOCK;
        for byte in block {
            if numbers.len() as u64 == wanted {
                break;
            }
            match byte {
                b'\n' => {
                    let number = decimal(&digits)?;
                    digits.clear();
                    if numbers.is_empty() {
                        if number > MAX_PAIRS {
                            return None;
                        }
                        wanted = 1 + 2 * number;
                    }
                    numbers.push(number);
                }
                _ if digits.len() < 20 => digits.push(byte),
                _ => return None,
            }
        }
    }
    numbers.remove(0);
    Some((numbers, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        let seg = |file_offset, archive_offset, len_bytes| Segment { file_offset, archive_offset, len_bytes };
        assert_eq!(segments(&[0, 10, 100, 5, 200, 0], 200, 512, 1024), Some(vec![seg(0, 512, 10), seg(100, 522, 5)]));
        assert_eq!(segments(&[0, 10, 5, 5], 200, 0, 1000), None, "overlap");
        assert_eq!(segments(&[0, 201], 200, 0, 1000), None, "beyond the file");
        assert_eq!(segments(&[0, 100], 200, 0, 99), None, "beyond the data");
        assert_eq!(segments(&[0], 200, 0, 99), None, "half a pair");
        assert_eq!(segments(&[u64::MAX, 2], u64::MAX, 0, 99), None, "overflow");
    }
}
