//! Directory blocks: `.` and `..`, then the entries in byte order, each block filled to its checksum tail.

use ukc_ext4_layout::BLOCK_SIZE;
use ukc_ext4_layout::dir::{Entry, TAIL_SIZE, entry_len, put_entry, put_tail};

/// Bytes for entries in a block.
const ROOM: usize = BLOCK_SIZE - TAIL_SIZE;

/// Returns how many blocks a directory with names of these lengths needs. The names `.` and `..` are added here.
pub(crate) fn block_count(name_lens: impl Iterator<Item = usize>) -> u64 {
    let mut blocks = 1;
    let mut used = entry_len(1) + entry_len(2);
    for len in name_lens.map(entry_len) {
        if used + len > ROOM {
            blocks += 1;
            used = 0;
        }
        used += len;
    }
    blocks
}

/// Appends the blocks of a directory to `out`; `entries` starts with `.` and `..`.
pub(crate) fn encode<'a>(entries: impl Iterator<Item = Entry<'a>>, inode_seed: u32, out: &mut Vec<u8>) {
    let mut block = [0; BLOCK_SIZE];
    let mut used = 0;
    let mut last: Option<(usize, Entry<'a>)> = None;
    for entry in entries {
        let len = entry_len(entry.name.len());
        if used + len > ROOM {
            finish(&mut block, last, inode_seed, out);
            block = [0; BLOCK_SIZE];
            used = 0;
        }
        put_entry(&mut block, used, len, &entry);
        last = Some((used, entry));
        used += len;
    }
    finish(&mut block, last, inode_seed, out);
}

/// The last entry of a block reaches to the tail.
fn finish(block: &mut [u8; BLOCK_SIZE], last: Option<(usize, Entry<'_>)>, inode_seed: u32, out: &mut Vec<u8>) {
    if let Some((at, entry)) = last {
        put_entry(block, at, ROOM - at, &entry);
    }
    put_tail(block, inode_seed);
    out.extend_from_slice(block);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ukc_ext4_layout::dir::{entries, file_type};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_count_is_what_encoding_makes(lens in prop::collection::vec(1usize..=255, 0..200)) {
            let names: Vec<Vec<u8>> = lens.iter().map(|&len| vec![b'n'; len]).collect();
            let all = [&b"."[..], b".."].into_iter().chain(names.iter().map(Vec::as_slice));
            let all: Vec<_> = all.map(|name| Entry { inode: 12, file_type: file_type::REGULAR, name }).collect();
            let mut out = Vec::new();
            encode(all.iter().copied(), 1, &mut out);
            prop_assert_eq!(out.len() as u64, block_count(lens.iter().copied()) * BLOCK_SIZE as u64);
            let read: Result<Vec<_>, _> = out.chunks(BLOCK_SIZE).flat_map(entries).collect();
            prop_assert_eq!(read.unwrap(), all);
        }
    }
}
