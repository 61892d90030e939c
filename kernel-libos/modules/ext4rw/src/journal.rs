//! The journal, jbd2's format (Linux, `include/linux/jbd2.h`): a ring of blocks in inode 8 that holds whole transactions before they go where they belong.
//!
//! ```text
//! block 0        superblock: first block of the oldest transaction (0: nothing to replay) and its number
//! then, each     descriptor (which blocks follow and where they belong) | the blocks | commit
//! ```
//!
//! All numbers are big-endian. A transaction counts once its commit block is on the disk; the blocks before it are flushed first. Ours begin at block 1 each
//! time the journal is empty and never wrap; what Linux wrote may wrap, revoke blocks, and carry checksums, which are not verified.

use alloc::vec;
use alloc::vec::Vec;

use libos_core::{Errno, Result};
use ukc_ext4_layout::extent::Extent;

use crate::extents;
use crate::store::{BLOCK, Store};

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCKS: [u32; 2] = [3, 4];
const REVOKE: u32 = 5;

// Features of the journal.
const BITS64: u32 = 2;
const CSUM_V2: u32 = 8;
const CSUM_V3: u32 = 16;
/// Revoke, 64bit, async commit, the two checksums.
const KNOWN: u32 = 0x1f;

// Flags of a tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST_TAG: u32 = 8;

/// Bytes of a header: magic, type, number of the transaction.
const HEADER: usize = 12;
/// Tags of a descriptor block of ours: 8 bytes each, and the first has a UUID of 16 bytes behind it.
const TAGS: usize = (BLOCK - HEADER - 16) / 8;

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The journal of a mounted volume.
pub struct Journal {
    /// Where its blocks are.
    extents: Vec<Extent>,
    len: u32,
    /// Next block to write; 1 when it is empty.
    head: u32,
    /// Number of the next transaction.
    sequence: u32,
}

impl Journal {
    /// Opens the journal and replays what it holds; afterwards it is empty on the disk, too.
    ///
    /// # Errors
    /// `EUCLEAN` when it makes no sense, `EINVAL` for a feature that is not known, `EIO`.
    pub fn open(store: &Store, extents: Vec<Extent>, blocks: u64) -> Result<Journal> {
        let mut journal = Journal { extents, len: 0, head: 1, sequence: 1 };
        let sb = journal.read(store, 0)?;
        if be32(&sb, 0) != MAGIC || !SUPERBLOCKS.contains(&be32(&sb, 4)) || be32(&sb, 12) as usize != BLOCK {
            return Err(Errno::EUCLEAN);
        }
        let features = if be32(&sb, 4) == SUPERBLOCKS[1] { be32(&sb, 0x28) } else { 0 };
        if features & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        journal.len = be32(&sb, 16);
        let has_all = (0..u64::from(journal.len)).all(|b| extents::at(&journal.extents, b).physical.is_some());
        if !(64..=1 << 20).contains(&journal.len) || !has_all {
            return Err(Errno::EUCLEAN);
        }
        journal.sequence = be32(&sb, 24).max(1);
        let start = be32(&sb, 28);
        if start != 0 {
            journal.replay(store, start, features, blocks)?;
        }
        journal.write_superblock(store, 0)?;
        store.disk.flush()?;
        Ok(journal)
    }

    fn block(&self, index: u32) -> Result<u64> {
        extents::at(&self.extents, index.into()).physical.ok_or(Errno::EUCLEAN)
    }

    fn read(&self, store: &Store, index: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; BLOCK];
        store.disk.read(self.block(index)? * BLOCK as u64, &mut bytes).map_err(|_| Errno::EIO)?;
        Ok(bytes)
    }

    fn write_superblock(&self, store: &Store, start: u32) -> Result<()> {
        let mut sb = self.read(store, 0)?;
        put32(&mut sb, 4, SUPERBLOCKS[1]);
        put32(&mut sb, 24, self.sequence);
        put32(&mut sb, 28, start);
        // Our transactions need no feature: 32-bit block numbers, no checksums. The journal's own checksum goes with them.
        sb[0x24..0x30].fill(0);
        sb[0xfc..0x100].fill(0);
        store.disk.write(self.block(0)? * BLOCK as u64, &sb).map_err(|_| Errno::EIO)
    }

    fn replay(&mut self, store: &Store, start: u32, features: u32, blocks: u64) -> Result<()> {
        if !(1..self.len).contains(&start) {
            return Err(Errno::EUCLEAN);
        }
        // Of each transaction: where blocks belong, where they are in the journal, and whether their first word was escaped.
        let mut found: Vec<(u64, u32, bool, u32)> = Vec::new();
        let mut revoked: Vec<(u64, u32)> = Vec::new();
        let mut at = start;
        let next = |at: u32| if at + 1 >= self.len { 1 } else { at + 1 };
        let mut sequence = self.sequence;
        // Blocks and revocations of the transaction that is being read; they count when its commit block is there.
        let (mut these, mut revokes) = (Vec::new(), Vec::new());
        let mut seen = 0;
        while seen < self.len {
            let block = self.read(store, at)?;
            if be32(&block, 0) != MAGIC || be32(&block, 8) != sequence {
                break;
            }
            (at, seen) = (next(at), seen + 1);
            match be32(&block, 4) {
                DESCRIPTOR => {
                    for (home, flags) in tags(&block, features) {
                        if home >= blocks {
                            return Err(Errno::EUCLEAN);
                        }
                        these.push((home, at, flags & ESCAPED != 0, sequence));
                        (at, seen) = (next(at), seen + 1);
                    }
                }
                REVOKE => {
                    let len = (be32(&block, 12) as usize).clamp(16, BLOCK);
                    let size = if features & BITS64 != 0 { 8 } else { 4 };
                    revokes.extend(block[16..len].chunks_exact(size).map(|b| {
                        let low = be32(b, size - 4);
                        (if size == 8 { u64::from(be32(b, 0)) << 32 | u64::from(low) } else { low.into() }, sequence)
                    }));
                }
                COMMIT => {
                    found.append(&mut these);
                    revoked.append(&mut revokes);
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        for (home, index, is_escaped, of) in found {
            // A block that was freed later on may hold somebody's data by now.
            if revoked.iter().any(|(block, at)| *block == home && *at >= of) {
                continue;
            }
            let mut bytes = self.read(store, index)?;
            if is_escaped {
                put32(&mut bytes, 0, MAGIC);
            }
            store.disk.write(home * BLOCK as u64, &bytes).map_err(|_| Errno::EIO)?;
        }
        store.disk.flush()?;
        // Not the number of the transaction that was cut off: parts of it are still in the journal.
        self.sequence = sequence.wrapping_add(1);
        Ok(())
    }

    /// Most blocks that one transaction may change: half of the journal, so that there is always room for the next one after a checkpoint.
    pub fn transaction_max(&self) -> usize {
        self.len as usize / 2 - 8 - self.len as usize / TAGS
    }

    /// Whether the next transaction may not fit behind the present ones.
    pub fn is_half_full(&self) -> bool {
        self.head > self.len / 2
    }

    /// Whether it holds anything.
    pub fn is_empty(&self) -> bool {
        self.head == 1
    }

    /// Writes a transaction: when this returns, it survives.
    ///
    /// # Errors
    /// `EIO`.
    pub fn commit(&mut self, store: &Store, blocks: &[u64]) -> Result<()> {
        let mut log = Vec::new();
        log.try_reserve((blocks.len() + blocks.len().div_ceil(TAGS)) * BLOCK).map_err(|_| Errno::ENOMEM)?;
        for piece in blocks.chunks(TAGS) {
            let mut descriptor = vec![0; BLOCK];
            self.put_header(&mut descriptor, DESCRIPTOR);
            let mut tag = HEADER;
            for (i, &block) in piece.iter().enumerate() {
                let is_escaped = store.peek(block).is_some_and(|b| be32(b, 0) == MAGIC);
                let mut flags = if is_escaped { ESCAPED } else { 0 };
                flags |= if i > 0 { SAME_UUID } else { 0 } | if i + 1 == piece.len() { LAST_TAG } else { 0 };
                put32(&mut descriptor, tag, block as u32);
                put32(&mut descriptor, tag + 4, flags);
                tag += if i == 0 { 24 } else { 8 };
            }
            log.extend_from_slice(&descriptor);
            for &block in piece {
                let from = log.len();
                log.extend_from_slice(&store.peek(block).ok_or(Errno::EIO)?[..]);
                if be32(&log, from) == MAGIC {
                    put32(&mut log, from, 0);
                }
            }
        }
        let log_blocks = (log.len() / BLOCK) as u32;
        if self.is_empty() {
            self.write_superblock(store, 1)?;
        }
        self.write_log(store, &log)?;
        store.disk.flush()?;
        let mut end = vec![0; BLOCK];
        self.put_header(&mut end, COMMIT);
        let now = libos_core::time::realtime_ns();
        end[0x30..0x38].copy_from_slice(&(now / 1_000_000_000).to_be_bytes());
        put32(&mut end, 0x38, (now % 1_000_000_000) as u32);
        store.disk.write(self.block(self.head + log_blocks)? * BLOCK as u64, &end).map_err(|_| Errno::EIO)?;
        store.disk.flush()?;
        self.head += log_blocks + 1;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    fn put_header(&self, block: &mut [u8], kind: u32) {
        put32(block, 0, MAGIC);
        put32(block, 4, kind);
        put32(block, 8, self.sequence);
    }

    /// Writes to the blocks from `head` on, in as few pieces as they lie in.
    fn write_log(&self, store: &Store, log: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < log.len() {
            let run = extents::at(&self.extents, u64::from(self.head) + (done / BLOCK) as u64);
            let physical = run.physical.ok_or(Errno::EUCLEAN)?;
            let len = (run.len as usize * BLOCK).min(log.len() - done);
            store.disk.write(physical * BLOCK as u64, &log[done..done + len]).map_err(|_| Errno::EIO)?;
            done += len;
        }
        Ok(())
    }

    /// Everything in the journal is where it belongs, and that is flushed: it is empty from here on.
    ///
    /// # Errors
    /// `EIO`.
    pub fn reset(&mut self, store: &Store) -> Result<()> {
        self.write_superblock(store, 0)?;
        self.head = 1;
        store.disk.flush()
    }
}

/// The tags of a descriptor block: where the blocks behind it belong, and their flags.
fn tags(block: &[u8], features: u32) -> Vec<(u64, u32)> {
    let is_v3 = features & CSUM_V3 != 0;
    let has_tail = features & (CSUM_V2 | CSUM_V3) != 0;
    let size = match (is_v3, features & BITS64 != 0) {
        (true, _) => 16,
        (false, is_64) => 8 + if is_64 { 4 } else { 0 } + if features & CSUM_V2 != 0 { 2 } else { 0 },
    };
    let end = if has_tail { BLOCK - 4 } else { BLOCK };
    let mut out = Vec::new();
    let mut at = HEADER;
    while at + size <= end {
        let flags = if is_v3 { be32(block, at + 4) } else { be32(block, at + 4) & 0xffff };
        let high = if features & BITS64 != 0 { be32(block, at + 8) } else { 0 };
        out.push((u64::from(high) << 32 | u64::from(be32(block, at)), flags));
        at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
        if flags & LAST_TAG != 0 {
            break;
        }
    }
    out
}
