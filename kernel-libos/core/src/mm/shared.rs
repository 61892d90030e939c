//! Shared anonymous memory: `MAP_SHARED | MAP_ANONYMOUS`, and what SysV segments and memfd consist of.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use crate::sync::SpinLock;

use super::{Frame, PAGE_SIZE, PageSource, SourceName};

/// Pages per leaf.
const LEAF: usize = 64;

type Leaf = [Option<Frame>; LEAF];

/// Memory of a fixed size whose pages exist once they are touched.
pub struct SharedMemory {
    len_bytes: u64,
    name: Vec<u8>,
    /// Leaves by position; missing ones at the end are not stored.
    leaves: SpinLock<Vec<Option<alloc::boxed::Box<Leaf>>>>,
}

impl SharedMemory {
    /// Returns memory of zeros.
    pub fn new(len_bytes: u64) -> Arc<SharedMemory> {
        // The name Linux shows in /proc/PID/maps.
        SharedMemory::named(len_bytes, b"/dev/zero (deleted)")
    }

    /// Returns memory of zeros with a name for /proc/PID/maps.
    pub fn named(len_bytes: u64, name: &[u8]) -> Arc<SharedMemory> {
        Arc::new(SharedMemory { len_bytes, name: name.to_vec(), leaves: SpinLock::new(Vec::new()) })
    }
}

impl PageSource for SharedMemory {
    fn page(&self, index: u64, _write: bool) -> Result<Frame> {
        if index >= self.len_bytes.div_ceil(PAGE_SIZE as u64) {
            return Err(Errno::ENXIO);
        }
        let (leaf_index, slot_index) = ((index / LEAF as u64) as usize, (index % LEAF as u64) as usize);
        if let Some(Some(leaf)) = self.leaves.lock().get(leaf_index)
            && let Some(frame) = &leaf[slot_index]
        {
            return Ok(frame.clone());
        }
        let frame = Frame::alloc_zeroed_for_program()?;
        let mut leaves = self.leaves.lock();
        if leaf_index >= leaves.len() {
            let more = leaf_index + 1 - leaves.len();
            leaves.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
            leaves.resize_with(leaf_index + 1, || None);
        }
        let leaf = leaves[leaf_index].get_or_insert_with(|| alloc::boxed::Box::new([const { None }; LEAF]));
        // Another task may have been faster.
        Ok(leaf[slot_index].get_or_insert(frame).clone())
    }

    fn cached(&self, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        let leaves = self.leaves.lock();
        for index in first..first.saturating_add(count as u64) {
            if let Some(Some(leaf)) = leaves.get((index / LEAF as u64) as usize)
                && let Some(frame) = &leaf[(index % LEAF as u64) as usize]
            {
                give(index, frame.clone());
            }
        }
    }

    fn tracks_writes(&self) -> bool {
        false
    }

    fn discard(&self, first: u64, count: u64) -> Result<()> {
        for index in first..first.saturating_add(count).min(self.len_bytes.div_ceil(PAGE_SIZE as u64)) {
            if let Some(Some(leaf)) = self.leaves.lock().get_mut((index / LEAF as u64) as usize) {
                leaf[(index % LEAF as u64) as usize] = None;
            }
        }
        super::invalidate(self, first, count);
        Ok(())
    }

    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn describe(&self) -> SourceName {
        SourceName { dev: 1, ino: (core::ptr::from_ref(self) as u64 >> 4) & 0xff_ffff, path: self.name.clone() }
    }
}
