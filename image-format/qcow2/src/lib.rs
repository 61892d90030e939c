//! qcow2, version 3: disk images of QEMU in which what is zero takes no room (QEMU, docs/interop/qcow2.txt).
//!
//! The disk is cut into clusters of 64 KiB. Two levels of tables say where in the file each is; 0 means that it is all zero. A count of references per
//! cluster of the file says what is in use. All numbers are big-endian.
//!
//! ```text
//! cluster 0      header
//! then           refcount table: where the refcount blocks are | refcount blocks: 16 bits per cluster of the file
//! then           L1 table: where the L2 tables are | L2 tables: where the data is, 8192 clusters each
//! then           the clusters of the disk that are not zero, in order
//! ```
//!
//! [`metadata`] returns everything in front of the data; the caller then appends the clusters, so nothing is held in memory but tables. What is absent:
//! compression, encryption, snapshots, backing files, and reading.
#![forbid(unsafe_code)]

/// Bytes of a cluster.
pub const CLUSTER: usize = 1 << CLUSTER_BITS;

const CLUSTER_BITS: u32 = 16;
const MAGIC: u32 = 0x5146_49fb;
const VERSION: u32 = 3;
const HEADER_BYTES: u32 = 104;
/// 16-bit counts: 2 to the power of 4.
const REFCOUNT_ORDER: u32 = 4;
/// Set where a cluster has exactly one reference.
const COPIED: u64 = 1 << 63;
const ENTRIES_PER_TABLE: usize = CLUSTER / 8;
const COUNTS_PER_BLOCK: usize = CLUSTER / 2;

/// Returns header and tables of a disk of `len_bytes`, of which the clusters that `is_used` names have contents. They are to follow, in order, each in
/// [`CLUSTER`] bytes.
///
/// # Panics
/// When `is_used` has another length than the disk has clusters.
pub fn metadata(len_bytes: u64, is_used: &[bool]) -> Vec<u8> {
    assert_eq!(is_used.len() as u64, len_bytes.div_ceil(CLUSTER as u64), "one flag per cluster");
    let data = is_used.iter().filter(|used| **used).count();
    // An L2 table without an entry is left out.
    let tables: Vec<&[bool]> = is_used.chunks(ENTRIES_PER_TABLE).collect();
    let l2_count = tables.iter().filter(|t| t.contains(&true)).count();
    let l1_clusters = tables.len().div_ceil(ENTRIES_PER_TABLE).max(1);
    // The counts count themselves, so their number is found by trying.
    let (mut blocks, mut block_table) = (1, 1);
    let total = loop {
        let total = 1 + block_table + blocks + l1_clusters + l2_count + data;
        let (needed_blocks, needed_table) = (total.div_ceil(COUNTS_PER_BLOCK), blocks.div_ceil(ENTRIES_PER_TABLE));
        if needed_blocks <= blocks && needed_table <= block_table {
            break total;
        }
        (blocks, block_table) = (needed_blocks.max(blocks), needed_table.max(block_table));
    };
    let offset = |cluster: usize| (cluster * CLUSTER) as u64;
    let (blocks_at, l1_at) = (1 + block_table, 1 + block_table + blocks);
    let l2_at = l1_at + l1_clusters;

    let mut out = header(len_bytes, tables.len(), offset(l1_at), block_table);
    put(&mut out, (0..blocks).map(|i| offset(blocks_at + i)));
    out.resize(blocks_at * CLUSTER, 0);
    out.extend((0..blocks * COUNTS_PER_BLOCK).flat_map(|i| u16::from(i < total).to_be_bytes()));
    let mut next_l2 = l2_at;
    let l1 = tables.iter().map(|table| {
        if !table.contains(&true) {
            return 0;
        }
        next_l2 += 1;
        offset(next_l2 - 1) | COPIED
    });
    put(&mut out, l1);
    out.resize(l2_at * CLUSTER, 0);
    let mut next_data = l2_at + l2_count;
    for table in tables.iter().filter(|t| t.contains(&true)) {
        for used in *table {
            put(&mut out, [if *used { offset(next_data) | COPIED } else { 0 }]);
            next_data += usize::from(*used);
        }
        out.resize(out.len().next_multiple_of(CLUSTER), 0);
    }
    out
}

fn put(out: &mut Vec<u8>, values: impl IntoIterator<Item = u64>) {
    values.into_iter().for_each(|v| out.extend_from_slice(&v.to_be_bytes()));
}

fn header(len_bytes: u64, l1_entries: usize, l1_offset: u64, block_table_clusters: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let put32 = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_be_bytes());
    put32(&mut out, MAGIC);
    put32(&mut out, VERSION);
    // No backing file: its offset and the length of its name.
    put(&mut out, [0]);
    put32(&mut out, 0);
    put32(&mut out, CLUSTER_BITS);
    put(&mut out, [len_bytes]);
    // Not encrypted.
    put32(&mut out, 0);
    put32(&mut out, l1_entries as u32);
    put(&mut out, [l1_offset, CLUSTER as u64]);
    put32(&mut out, block_table_clusters as u32);
    // No snapshots.
    put32(&mut out, 0);
    put(&mut out, [0]);
    // Features: incompatible, compatible, autoclear.
    put(&mut out, [0, 0, 0]);
    put32(&mut out, REFCOUNT_ORDER);
    put32(&mut out, HEADER_BYTES);
    // Behind it the list of header extensions, which is empty: a type and a length of 0.
    out.resize(CLUSTER, 0);
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn u64_at(bytes: &[u8], at: u64) -> u64 {
        u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
    }

    /// The clusters of the disk that a file describes, by the specification alone, and a check of its counts.
    fn read(file: &[u8]) -> BTreeMap<usize, Vec<u8>> {
        assert_eq!(file[..8], [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
        let (len, l1_entries) = (u64_at(file, 24), u32::from_be_bytes(file[36..40].try_into().unwrap()));
        let mut references = vec![0u16; file.len() / CLUSTER];
        let mut disk = BTreeMap::new();
        let offset = |entry: u64| entry & 0x00ff_ffff_ffff_fe00;
        let l1 = u64_at(file, 40);
        let refcount_table = u64_at(file, 48);
        let table_clusters = u64::from(u32::from_be_bytes(file[56..60].try_into().unwrap()));
        let mut uses = vec![0];
        uses.extend((0..table_clusters).map(|i| refcount_table + i * CLUSTER as u64));
        uses.extend((0..u64::from(l1_entries).div_ceil(8192)).map(|i| l1 + i * CLUSTER as u64));
        for i in 0..u64::from(l1_entries) {
            let l2 = offset(u64_at(file, l1 + i * 8));
            if l2 == 0 {
                continue;
            }
            uses.push(l2);
            for j in 0..8192 {
                let entry = u64_at(file, l2 + j * 8);
                if entry == 0 {
                    continue;
                }
                assert_eq!(entry >> 62, 2, "one reference, not compressed");
                uses.push(offset(entry));
                let cluster = i * 8192 + j;
                assert!(cluster * (CLUSTER as u64) < len);
                disk.insert(cluster as usize, file[offset(entry) as usize..][..CLUSTER].to_vec());
            }
        }
        let blocks: Vec<u64> = (0..table_clusters * 8192).map(|i| u64_at(file, refcount_table + i * 8)).take_while(|b| *b != 0).collect();
        uses.extend(&blocks);
        for at in uses {
            references[at as usize / CLUSTER] += 1;
        }
        for (i, references) in references.iter().enumerate() {
            let at = blocks[i / COUNTS_PER_BLOCK] as usize + i % COUNTS_PER_BLOCK * 2;
            assert_eq!(u16::from_be_bytes([file[at], file[at + 1]]), *references, "cluster {i}");
        }
        disk
    }

    #[test]
    fn what_is_written_is_read() {
        // The last one has a second L2 table, and a first one without entries.
        for (clusters, used) in [(1, vec![]), (1, vec![0]), (5, vec![0, 3]), (8200, vec![8191, 8192, 8199]), (16400, vec![8192])] {
            let len = clusters * CLUSTER - 512;
            let is_used: Vec<bool> = (0..clusters).map(|i| used.contains(&i)).collect();
            let disk: BTreeMap<usize, Vec<u8>> = used.iter().map(|&i| (i, vec![i as u8 | 1; CLUSTER])).collect();
            let mut file = metadata(len as u64, &is_used);
            assert_eq!(file.len() % CLUSTER, 0);
            disk.values().for_each(|bytes| file.extend_from_slice(bytes));
            assert_eq!(read(&file), disk);
        }
    }

    #[test]
    fn counts_cover_large_files() {
        // 40000 clusters of data need two blocks of counts.
        let tables = metadata(40_000 * CLUSTER as u64, &vec![true; 40_000]);
        assert_eq!(u64_at(&tables, 48), CLUSTER as u64);
        assert_ne!(u64_at(&tables, CLUSTER as u64 + 8), 0);
        assert_eq!(u64_at(&tables, CLUSTER as u64 + 16), 0);
    }
}
