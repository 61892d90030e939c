//! The pages of files.
//!
//! An image in RAM is its own page cache: a file page that is a page of the image is handed out as it lies there. Everything else (pages on a disk, blocks
//! smaller than a page, a last page with rubbish behind the file's end) is read into frames that the inode keeps until memory is short.

use alloc::vec::Vec;

use libos_core::mm::{Frame, PAGE_SIZE};
use libos_core::sync::SpinLock;
use libos_core::vfs::sparse::Sparse;
use libos_core::{Errno, Result};

use crate::geometry::Geometry;
use crate::node::Node;

/// Pages read at once at most: 128 KiB, what Linux reads ahead by default.
const READ_AHEAD_MAX: u64 = 32;

/// Pages read at once when nothing points to a sequential reader.
const READ_AROUND: u64 = 4;

const PAGE: u64 = PAGE_SIZE as u64;

/// Frames that an inode keeps.
#[derive(Default)]
pub struct Cache {
    state: SpinLock<State>,
}

#[derive(Default)]
struct State {
    frames: Sparse<Frame>,
    /// Page after the last read from the disk, and how many that read brought: a miss exactly there means a sequential reader.
    next: u64,
    window: u64,
}

impl Cache {
    /// Returns a page of a file.
    ///
    /// # Errors
    /// `ENXIO` behind the end, `ENOMEM`, `EUCLEAN`, `EIO`.
    pub fn page(&self, fs: &Geometry, node: &Node, index: u64) -> Result<Frame> {
        let offset = index.checked_mul(PAGE).ok_or(Errno::ENXIO)?;
        if offset >= node.size {
            return Err(Errno::ENXIO);
        }
        let is_whole = node.size - offset >= PAGE;
        if fs.volume.is_in_ram() {
            // Only a last page can have bytes behind the end; they must read as zeros, and a writer need not have made them so.
            if let Some(frame) = in_place(fs, node, offset)?
                && (is_whole || has_zero_tail(&frame, (node.size - offset) as usize))
            {
                return Ok(frame);
            }
        }
        if let Some(frame) = self.state.lock().frames.get(index) {
            return Ok(frame.clone());
        }
        if fs.block_bytes >= PAGE && !fs.volume.is_in_ram() && is_whole {
            return self.read_ahead(fs, node, index);
        }
        let frame = read_page(fs, node, offset)?;
        Ok(self.keep(index, frame))
    }

    /// Hands out the pages of a range that need no reading; see `PageSource::cached`.
    pub fn cached(&self, fs: &Geometry, node: &Node, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        let end = first.saturating_add(count as u64).min(node.size / PAGE);
        // A fault in a program's text asks for many pages in a row, so this looks at runs, not at pages.
        let mut own: Vec<(u64, Frame)> = Vec::new();
        let state = self.state.lock();
        let mut at = first;
        while let Some((index, frame)) = state.frames.next(at).filter(|(index, _)| *index < end) {
            own.push((index, frame.clone()));
            at = index + 1;
        }
        drop(state);
        let is_own = |index: u64| own.iter().any(|(own, _)| *own == index);
        if fs.volume.is_in_ram() && fs.block_bytes == PAGE {
            let mut index = first;
            while index < end {
                let Ok(run) = node.map(fs, index) else { break };
                let len = run.len.min(end - index);
                if let Some(offset) = run.physical.and_then(|physical| fs.block_offset(physical).ok()) {
                    for i in (0..len).filter(|i| !is_own(index + i)) {
                        if let Some(frame) = fs.volume.frame(offset + i * PAGE) {
                            give(index + i, frame);
                        }
                    }
                }
                index += len;
            }
        }
        for (index, frame) in own {
            give(index, frame);
        }
    }

    fn keep(&self, index: u64, frame: Frame) -> Frame {
        // Another task may have read it at the same time; all must see one frame.
        let mut state = self.state.lock();
        if let Some(kept) = state.frames.get(index) {
            return kept.clone();
        }
        // Without memory to remember it, it is read again the next time; nobody writes here.
        let _ = state.frames.insert(index, frame.clone());
        frame
    }

    fn read_ahead(&self, fs: &Geometry, node: &Node, index: u64) -> Result<Frame> {
        let per_block = fs.block_bytes / PAGE;
        let offset = index * PAGE;
        let run = node.map(fs, offset / fs.block_bytes)?;
        let Some(physical) = run.physical else {
            return Ok(self.keep(index, Frame::alloc_zeroed()?));
        };
        let whole_pages = node.size / PAGE - index;
        let in_block = index % per_block;
        let in_run = run.len.saturating_mul(per_block) - in_block;
        let wanted = {
            let mut state = self.state.lock();
            let wanted = if state.next == index && state.window > 0 { (state.window * 2).min(READ_AHEAD_MAX) } else { READ_AROUND };
            let wanted = wanted.min(in_run).min(whole_pages).max(1);
            // Stop at what is there already.
            let known = state.frames.next(index + 1).map_or(wanted, |(at, _)| wanted.min(at - index));
            state.next = index + known;
            state.window = known;
            known
        };
        let frames = Frame::alloc_ahead(wanted as usize)?;
        fs.volume.read_frames(fs.block_offset(physical)? + in_block * PAGE, &frames)?;
        let mut first = None;
        for (i, frame) in frames.into_iter().enumerate() {
            let kept = self.keep(index + i as u64, frame);
            first.get_or_insert(kept);
        }
        first.ok_or(Errno::EIO)
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().frames.is_empty()
    }

    /// Drops up to `pages` frames that nobody else refers to; see `Reclaim`.
    pub fn reclaim(&self, pages: usize) -> usize {
        let Some(mut state) = self.state.try_lock() else { return 0 };
        let mut at = 0;
        let mut freed = 0;
        while freed < pages {
            let Some((index, frame)) = state.frames.next(at) else { break };
            at = index + 1;
            if frame.is_unique() {
                let frame = state.frames.remove(index);
                freed += usize::from(frame.is_some());
            }
        }
        freed
    }
}

fn in_place(fs: &Geometry, node: &Node, offset: u64) -> Result<Option<Frame>> {
    if fs.block_bytes < PAGE {
        return Ok(None);
    }
    let run = node.map(fs, offset / fs.block_bytes)?;
    let Some(physical) = run.physical else { return Ok(None) };
    Ok(fs.volume.frame(fs.block_offset(physical)? + offset % fs.block_bytes))
}

fn has_zero_tail(frame: &Frame, from: usize) -> bool {
    let mut bytes = [0; 256];
    let mut at = from;
    while at < PAGE_SIZE {
        let count = bytes.len().min(PAGE_SIZE - at);
        frame.read(at, &mut bytes[..count]);
        if bytes[..count].iter().any(|&b| b != 0) {
            return false;
        }
        at += count;
    }
    true
}

fn read_page(fs: &Geometry, node: &Node, offset: u64) -> Result<Frame> {
    let frame = Frame::alloc_zeroed()?;
    let mut bytes = [0; 512];
    for at in (0..PAGE_SIZE).step_by(bytes.len()) {
        if offset + at as u64 >= node.size {
            break;
        }
        node.read_bytes(fs, offset + at as u64, &mut bytes)?;
        frame.write(at, &bytes);
    }
    Ok(frame)
}
