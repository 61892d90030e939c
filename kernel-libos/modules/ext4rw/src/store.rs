//! Blocks of metadata in memory: what the running transaction changed, what is in the journal only, and a cache of the rest.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use libos_core::device::BlockDevice;
use libos_core::vfs::sparse::Sparse;
use libos_core::{Errno, Result};

/// Bytes of a block; other sizes are refused at mount.
pub const BLOCK: usize = ukc_ext4_layout::BLOCK_SIZE;

/// Clean blocks kept at most: 2 MiB.
const CACHE_MAX: usize = 512;

pub type Bytes = [u8; BLOCK];

struct Buffer {
    bytes: Box<Bytes>,
    /// Changed by the running transaction.
    is_dirty: bool,
    /// Committed to the journal, not yet where it belongs.
    is_logged: bool,
}

/// The blocks.
pub struct Store {
    pub disk: Arc<dyn BlockDevice>,
    buffers: Sparse<Buffer>,
    dirty: usize,
}

fn zeroed() -> Result<Box<Bytes>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(BLOCK).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(BLOCK, 0);
    bytes.into_boxed_slice().try_into().map_err(|_| Errno::ENOMEM)
}

impl Store {
    pub fn new(disk: Arc<dyn BlockDevice>) -> Store {
        Store { disk, buffers: Sparse::new(), dirty: 0 }
    }

    /// Number of blocks that the running transaction changed.
    pub fn dirty_count(&self) -> usize {
        self.dirty
    }

    fn load(&mut self, block: u64, reads: bool) -> Result<&mut Buffer> {
        if self.buffers.get(block).is_none() {
            if self.buffers.len() > 2 * CACHE_MAX {
                self.drop_clean();
            }
            let mut bytes = zeroed()?;
            if reads {
                self.disk.read(block * BLOCK as u64, &mut bytes[..]).map_err(|_| Errno::EIO)?;
            }
            self.buffers.insert(block, Buffer { bytes, is_dirty: false, is_logged: false })?;
        }
        self.buffers.get_mut(block).ok_or(Errno::EIO)
    }

    /// Returns a block.
    ///
    /// # Errors
    /// `EIO`, `ENOMEM`.
    pub fn read(&mut self, block: u64) -> Result<&Bytes> {
        self.load(block, true).map(|b| &*b.bytes)
    }

    /// Returns a block in order to change it.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn write(&mut self, block: u64) -> Result<&mut Bytes> {
        self.change(block, true)
    }

    /// Returns a block of zeros in order to fill it.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fresh(&mut self, block: u64) -> Result<&mut Bytes> {
        let bytes = self.change(block, false)?;
        bytes.fill(0);
        Ok(bytes)
    }

    fn change(&mut self, block: u64, reads: bool) -> Result<&mut Bytes> {
        let buffer = self.load(block, reads)?;
        let is_new = !core::mem::replace(&mut buffer.is_dirty, true);
        self.dirty += usize::from(is_new);
        // Once more, because the count could not be changed while the buffer was borrowed.
        self.buffers.get_mut(block).map(|b| &mut *b.bytes).ok_or(Errno::EIO)
    }

    /// Writes bytes into a block if they differ from what is there.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn put(&mut self, block: u64, bytes: &Bytes) -> Result<()> {
        if self.read(block)? != bytes {
            self.write(block)?.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Changes the copy of a block outside of any transaction: the caller has written it to the disk.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn overwrite(&mut self, block: u64, bytes: &Bytes) -> Result<()> {
        self.load(block, true)?.bytes.copy_from_slice(bytes);
        Ok(())
    }

    /// A block that was freed: whatever it held is of no interest.
    pub fn forget(&mut self, block: u64) {
        if self.buffers.remove(block).is_some_and(|b| b.is_dirty) {
            self.dirty -= 1;
        }
    }

    fn numbers(&self, wanted: impl Fn(&Buffer) -> bool) -> Vec<u64> {
        let mut out = Vec::new();
        let mut from = 0;
        while let Some((number, buffer)) = self.buffers.next(from) {
            if wanted(buffer) {
                out.push(number);
            }
            from = number + 1;
        }
        out
    }

    /// The blocks that the running transaction changed, in order.
    pub fn dirty_blocks(&self) -> Vec<u64> {
        self.numbers(|b| b.is_dirty)
    }

    /// The bytes of a block that is in memory.
    pub fn peek(&self, block: u64) -> Option<&Bytes> {
        self.buffers.get(block).map(|b| &*b.bytes)
    }

    /// The transaction is in the journal.
    pub fn set_logged(&mut self, blocks: &[u64]) {
        for &block in blocks {
            if let Some(buffer) = self.buffers.get_mut(block) {
                buffer.is_dirty = false;
                buffer.is_logged = true;
            }
        }
        self.dirty = 0;
    }

    /// Writes everything that is in the journal only to where it belongs. No transaction may be running.
    ///
    /// # Errors
    /// `EIO`.
    pub fn checkpoint(&mut self) -> Result<()> {
        let blocks = self.numbers(|b| b.is_logged);
        let mut rest = &blocks[..];
        while let Some(&first) = rest.first() {
            let len = rest.iter().enumerate().take_while(|(i, b)| **b == first + *i as u64 && *i < 64).count();
            let (run, tail) = rest.split_at(len);
            let mut bytes = vec![0; len * BLOCK];
            for (to, number) in bytes.chunks_exact_mut(BLOCK).zip(run) {
                to.copy_from_slice(&self.peek(*number).ok_or(Errno::EIO)?[..]);
            }
            self.disk.write(first * BLOCK as u64, &bytes).map_err(|_| Errno::EIO)?;
            rest = tail;
        }
        for block in blocks {
            if let Some(buffer) = self.buffers.get_mut(block) {
                buffer.is_logged = false;
            }
        }
        if self.buffers.len() > CACHE_MAX {
            self.drop_clean();
        }
        Ok(())
    }

    fn drop_clean(&mut self) {
        for block in self.numbers(|b| !b.is_dirty && !b.is_logged) {
            self.buffers.remove(block);
        }
    }
}
