//! The bytes of regular files: pages in memory, read when they are asked for and written back in runs.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::mm::{self, Frame, PAGE_SIZE, PageSource, SourceName};
use libos_core::sync::{Mutex, SpinLock};
use libos_core::vfs::paged::{self, MAX_LEN_BYTES};
use libos_core::vfs::sparse::Sparse;
use libos_core::vfs::{Inode as VfsInode, Stat};
use libos_core::{Errno, Result};

use crate::extents;
use crate::inode::Inode;
use crate::state::{Fs, now};
use crate::store::BLOCK;

const PAGE: u64 = PAGE_SIZE as u64;

/// Pages read at once at most: 128 KiB.
const READ_AHEAD: u64 = 32;

/// Pages written at once at most.
const WRITE_MAX: usize = 64;

/// Bytes whose blocks one step of a write allocates.
const STEP: u64 = 1 << 20;

/// Largest file: 2^32 - 1 blocks.
const FILE_MAX: u64 = (u32::MAX as u64) * BLOCK as u64;

/// Frames that an inode keeps.
pub struct Pages {
    state: SpinLock<PageState>,
    /// One write-back at a time, and none while blocks are taken away. Taken after the lock of the volume.
    writing: Mutex<()>,
}

/// A page that differs from the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Dirty {
    /// It was handed out to be written through a mapping.
    is_mapped: bool,
    /// Its bytes are on their way to the disk, and nobody has changed them since.
    is_taken: bool,
}

#[derive(Default)]
struct PageState {
    frames: Sparse<Frame>,
    dirty: Sparse<Dirty>,
    /// Page after the last read, to tell sequential readers.
    next: u64,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages { state: SpinLock::new(PageState::default()), writing: Mutex::new(()) }
    }
}

impl Pages {
    pub fn dirty_count(&self) -> usize {
        self.state.try_lock().map_or(0, |s| s.dirty.len())
    }

    fn get(&self, index: u64) -> Option<Frame> {
        self.state.lock().frames.get(index).cloned()
    }

    /// Another task may have been faster; all must see one frame.
    fn keep(&self, index: u64, frame: Frame) -> Result<Frame> {
        let mut state = self.state.lock();
        if let Some(kept) = state.frames.get(index).cloned() {
            drop(state);
            return Ok(kept);
        }
        state.frames.insert(index, frame.clone())?;
        Ok(frame)
    }

    /// Drops up to `pages` clean frames that nobody else refers to.
    pub fn reclaim(&self, pages: usize) -> usize {
        let Some(mut state) = self.state.try_lock() else { return 0 };
        let (mut at, mut freed) = (0, 0);
        while freed < pages {
            let Some((index, frame)) = state.frames.next(at) else { break };
            at = index + 1;
            if frame.is_unique() && state.dirty.get(index).is_none() {
                freed += usize::from(state.frames.remove(index).is_some());
            }
        }
        freed
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().frames.is_empty()
    }
}

impl Inode {
    fn len(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn check_file(&self) -> Result<()> {
        match self.meta.lock().kind() {
            linux::S_IFREG => Ok(()),
            linux::S_IFDIR => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Notes that a page must be written.
    fn mark_dirty(&self, index: u64, is_mapped: bool) -> Result<()> {
        let mut state = self.pages.state.lock();
        let old = state.dirty.get(index).copied();
        let is_mapped = is_mapped || old.is_some_and(|d| d.is_mapped);
        state.dirty.insert(index, Dirty { is_mapped, is_taken: false })?;
        drop(state);
        if old.is_none() {
            self.fs.count_dirty(1, 0);
            self.keep_dirty();
        }
        Ok(())
    }

    /// An inode with pages to write stays in memory until they are written.
    pub fn keep_dirty(&self) {
        if self.pages.dirty_count() == 0 {
            return;
        }
        let number = self.number.into();
        let mut list = self.fs.dirty_data.lock();
        if list.get(number).is_none()
            && let Ok(this) = self.to_arc()
        {
            // Without memory for this the pages are written with the next fsync only.
            let _ = list.insert(number, this);
        }
        drop(list);
        self.fs.wake_flusher();
    }

    /// Makes room when too much of the memory is dirty. Called without locks.
    fn throttle(&self) {
        let (_, total) = mm::frame::count();
        if self.fs.dirty_pages.load(Ordering::Relaxed) > (total / 8).max(64) {
            // What cannot be written now stays dirty, and fsync says so.
            let _ = self.fs.write_all_pages();
        }
    }

    /// The page as it is on the disk, or zeros.
    fn load(&self, index: u64) -> Result<Frame> {
        let run = extents::at(&self.meta.lock().extents, index);
        let Some(physical) = run.physical.filter(|_| !run.is_unwritten) else {
            return self.pages.keep(index, Frame::alloc_zeroed()?);
        };
        let wanted = {
            let mut state = self.pages.state.lock();
            let ahead = if state.next == index { READ_AHEAD } else { 1 };
            let ahead = ahead.min(run.len).min((self.len().div_ceil(PAGE)).saturating_sub(index)).max(1);
            let known = state.frames.next(index + 1).map_or(ahead, |(at, _)| ahead.min(at - index));
            state.next = index + known;
            known
        };
        let frames = Frame::alloc_ahead(wanted as usize)?;
        self.fs.disk.read_frames(physical * PAGE, &frames).map_err(|_| Errno::EIO)?;
        let mut first = None;
        for (i, frame) in frames.into_iter().enumerate() {
            let kept = self.pages.keep(index + i as u64, frame)?;
            first.get_or_insert(kept);
        }
        first.ok_or(Errno::EIO)
    }

    fn frame(&self, index: u64) -> Result<Frame> {
        match self.pages.get(index) {
            Some(frame) => Ok(frame),
            None => self.load(index),
        }
    }

    /// Allocates the blocks of a range; returns how many of its bytes from `offset` on have some.
    fn allocate_range(&self, offset: u64, end: u64) -> Result<u64> {
        let (first, last) = (offset / PAGE, end.div_ceil(PAGE));
        let mut state = self.fs.begin()?;
        let mut meta = self.meta.lock();
        let got = state.fill(self.number, &mut meta, first, last - first, false)?;
        (meta.mtime, meta.ctime) = (now(), now());
        state.touch(&self.to_arc()?, &mut meta)?;
        Ok((first + got) * PAGE - offset)
    }

    fn set_size(&self, len: u64) -> Result<()> {
        let mut state = self.fs.begin()?;
        let mut meta = self.meta.lock();
        meta.size = len;
        meta.is_grown = true;
        // The data of the last block must not be older than the size.
        meta.has_new_blocks = true;
        self.size.store(len, Ordering::Release);
        state.touch(&self.to_arc()?, &mut meta)
    }

    fn write(&self, src: &mut IoSrc<'_>, offset: u64, appends: bool) -> Result<usize> {
        let _one = self.change.lock();
        let size = self.len();
        let offset = if appends { size } else { offset };
        if src.remaining() == 0 {
            return Ok(0);
        }
        if offset >= FILE_MAX {
            return Err(Errno::EFBIG);
        }
        let end = offset.saturating_add(src.remaining() as u64).min(FILE_MAX);
        if offset > size {
            self.zero_tail(size)?;
        }
        let mut at = offset;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            let step_end = end.min((at / STEP + 1) * STEP);
            let room = match self.allocate_range(at, step_end) {
                Ok(bytes) => bytes.min(step_end - at),
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            };
            let step_end = at + room;
            while at < step_end {
                let in_page = (at % PAGE) as usize;
                let piece = (step_end - at).min(PAGE - in_page as u64) as usize;
                match self.copy_in(at / PAGE, in_page, piece, src) {
                    Ok(0) => {
                        result = Err(Errno::EFAULT);
                        break;
                    }
                    Ok(count) => at += count as u64,
                    Err(errno) => {
                        result = Err(errno);
                        break;
                    }
                }
            }
            if at > self.len() {
                self.set_size(at)?;
            }
        }
        if result.is_err() && end > self.len() {
            // Blocks that were allocated for what did not come.
            self.cut_blocks(self.len())?;
        }
        if at == offset {
            result?;
        }
        self.throttle();
        Ok((at - offset) as usize)
    }

    fn copy_in(&self, index: u64, in_page: usize, len: usize, src: &mut IoSrc<'_>) -> Result<usize> {
        let is_whole = len == PAGE_SIZE;
        let frame = match self.pages.get(index) {
            Some(frame) => frame,
            // Nothing of the old page stays.
            None if is_whole => self.pages.keep(index, Frame::alloc_zeroed()?)?,
            // The disk has nothing good behind the end.
            None if index * PAGE >= self.len() => self.pages.keep(index, Frame::alloc_zeroed()?)?,
            None => self.load(index)?,
        };
        // Before, so that a commit in between writes the page; and after, so that what was copied is not taken for written.
        self.mark_dirty(index, false)?;
        let count = frame.pull_from(in_page, len, src);
        self.mark_dirty(index, false)?;
        count
    }

    /// Clears what a mapping may have written behind the end in the last page, before the file grows over it.
    fn zero_tail(&self, size: u64) -> Result<()> {
        let in_page = (size % PAGE) as usize;
        if in_page > 0 && extents::at(&self.meta.lock().extents, size / PAGE).physical.is_some() {
            let frame = self.frame(size / PAGE)?;
            frame.clear_range(in_page, PAGE_SIZE - in_page);
            self.mark_dirty(size / PAGE, false)?;
        }
        Ok(())
    }

    /// Gives back the blocks and pages that lie wholly behind `len`.
    fn cut_blocks(&self, len: u64) -> Result<()> {
        let first = len.div_ceil(PAGE);
        self.drop_pages(first, u64::MAX);
        let mut state = self.fs.begin()?;
        let _writing = self.pages.writing.lock();
        let mut meta = self.meta.lock();
        state.cut(self.number, &mut meta, first, u64::MAX, false)?;
        state.touch(&self.to_arc()?, &mut meta)
    }

    fn drop_pages(&self, first: u64, end: u64) {
        loop {
            let mut state = self.pages.state.lock();
            // From the back when all go: that moves nothing.
            let (gone, dirty) = if end == u64::MAX {
                (state.frames.pop_last(first), state.dirty.pop_last(first))
            } else {
                let next = state.frames.next(first).map(|(index, _)| index).filter(|index| *index < end);
                next.map_or((None, None), |index| (state.frames.remove(index), state.dirty.remove(index)))
            };
            drop(state);
            self.fs.count_dirty(0, dirty.is_some().into());
            if gone.is_none() && dirty.is_none() {
                return;
            }
        }
    }

    /// truncate(2).
    ///
    /// # Errors
    /// `EFBIG`, `EISDIR`, `EINVAL`, `EIO`.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.check_file()?;
        if len > FILE_MAX.min(MAX_LEN_BYTES) {
            return Err(Errno::EFBIG);
        }
        let _one = self.change.lock();
        let size = self.len();
        if len > size {
            self.zero_tail(size)?;
        }
        self.set_size(len)?;
        if len < size {
            self.zero_tail(len)?;
            self.cut_blocks(len)?;
            let first = len.div_ceil(PAGE);
            mm::invalidate(self, first, u64::MAX - first);
        }
        let mut state = self.fs.begin()?;
        let mut meta = self.meta.lock();
        (meta.mtime, meta.ctime) = (now(), now());
        state.touch(&self.to_arc()?, &mut meta)
    }

    fn preallocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.check_file()?;
        let end = offset.checked_add(len).filter(|end| *end <= FILE_MAX).ok_or(Errno::EFBIG)?;
        let keeps_size = mode & linux::FALLOC_FL_KEEP_SIZE != 0;
        let _one = self.change.lock();
        let size = self.len();
        match mode & !linux::FALLOC_FL_KEEP_SIZE {
            0 => {
                let (mut first, last) = (offset / PAGE, end.div_ceil(PAGE));
                while first < last {
                    let mut state = self.fs.begin()?;
                    let mut meta = self.meta.lock();
                    let step = (last - first).min(1 << 14);
                    let got = state.fill(self.number, &mut meta, first, step, true)?;
                    state.touch(&self.to_arc()?, &mut meta)?;
                    if got < step {
                        return Err(Errno::ENOSPC);
                    }
                    first += got;
                }
            }
            linux::FALLOC_FL_PUNCH_HOLE if keeps_size => self.punch(offset, end.min(size))?,
            linux::FALLOC_FL_ZERO_RANGE => self.punch(offset, end.min(size))?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !keeps_size && end > size {
            self.zero_tail(size)?;
            self.set_size(end)?;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, end: u64) -> Result<()> {
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        let mut edges: [Option<(u64, u64)>; 2] = [None, None];
        if first > last {
            edges[0] = Some((offset, end));
        } else {
            edges[0] = Some((offset, first * PAGE)).filter(|(a, b)| a < b);
            edges[1] = Some((last * PAGE, end)).filter(|(a, b)| a < b);
        }
        for (from, to) in edges.into_iter().flatten() {
            if extents::at(&self.meta.lock().extents, from / PAGE).physical.is_some() {
                self.frame(from / PAGE)?.clear_range((from % PAGE) as usize, (to - from) as usize);
                self.mark_dirty(from / PAGE, false)?;
            }
        }
        if first < last {
            self.drop_pages(first, last);
            let mut state = self.fs.begin()?;
            let _writing = self.pages.writing.lock();
            let mut meta = self.meta.lock();
            state.cut(self.number, &mut meta, first, last, false)?;
            state.touch(&self.to_arc()?, &mut meta)?;
            drop(meta);
            drop(state);
            mm::invalidate(self, first, last - first);
        }
        Ok(())
    }

    /// Writes the pages that differ from the disk.
    ///
    /// # Errors
    /// `EIO`; the pages stay dirty.
    pub fn write_pages(&self, fs: &Fs) -> Result<()> {
        if self.meta.lock().links == 0 {
            // Nobody will ever read them from the disk. They live as long as somebody has the file open.
            let gone = fs.dirty_data.lock().remove(self.number.into());
            drop(gone);
            return Ok(());
        }
        let _writing = self.pages.writing.lock();
        let mut from = 0;
        loop {
            let Some((first, frames)) = self.next_run(from) else { break };
            from = first + frames.len() as u64;
            let result = self.write_run(fs, first, &frames);
            let count = frames.len();
            drop(frames);
            let mut state = self.pages.state.lock();
            for index in first..first + count as u64 {
                // Through a mapping it may be written again at any time.
                let is_mapped = |d: &Dirty| d.is_mapped && state.frames.get(index).is_some_and(|f| !f.is_unique());
                if result.is_ok() && state.dirty.get(index).is_some_and(|d| d.is_taken && !is_mapped(d)) {
                    state.dirty.remove(index);
                    fs.count_dirty(0, 1);
                }
            }
            drop(state);
            result?;
        }
        let is_clean = self.pages.dirty_count() == 0;
        if is_clean {
            let gone = fs.dirty_data.lock().remove(self.number.into());
            drop(gone);
        }
        Ok(())
    }

    /// The next dirty pages in a row.
    fn next_run(&self, from: u64) -> Option<(u64, Vec<Frame>)> {
        let mut state = self.pages.state.lock();
        let (first, _) = state.dirty.next(from)?;
        let mut frames = Vec::new();
        let mut index = first;
        while frames.len() < WRITE_MAX && state.dirty.get(index).is_some() {
            let Some(frame) = state.frames.get(index).cloned() else { break };
            frames.push(frame);
            if let Some(dirty) = state.dirty.get_mut(index) {
                dirty.is_taken = true;
            }
            index += 1;
        }
        if frames.is_empty() {
            // A page that is gone cannot be written.
            state.dirty.remove(first);
            drop(state);
            self.fs.count_dirty(0, 1);
            return self.next_run(first + 1);
        }
        Some((first, frames))
    }

    fn write_run(&self, fs: &Fs, first: u64, frames: &[Frame]) -> Result<()> {
        let mut done = 0;
        while done < frames.len() {
            let run = extents::at(&self.meta.lock().extents, first + done as u64);
            let count = run.len.min((frames.len() - done) as u64) as usize;
            if let Some(physical) = run.physical {
                fs.disk.write_frames(physical * PAGE, &frames[done..done + count]).map_err(|_| Errno::EIO)?;
            }
            done += count;
        }
        Ok(())
    }

    /// fsync(2) and fdatasync(2).
    ///
    /// # Errors
    /// `EIO`.
    pub fn make_durable(&self, data_only: bool) -> Result<()> {
        self.write_pages(&self.fs)?;
        let mut state = self.fs.state.lock();
        let must_commit = {
            let meta = self.meta.lock();
            if data_only { meta.is_grown } else { meta.is_dirty }
        };
        if must_commit && self.fs.commit(&mut state)? {
            return Ok(());
        }
        drop(state);
        self.fs.disk.flush()
    }
}

impl PageSource for Inode {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        if index.checked_mul(PAGE).is_none_or(|offset| offset >= self.len()) {
            return Err(Errno::ENXIO);
        }
        if write {
            let run = extents::at(&self.meta.lock().extents, index);
            if run.physical.is_none() || run.is_unwritten {
                self.frame(index)?;
                self.allocate_range(index * PAGE, (index + 1) * PAGE)?;
            }
        }
        let frame = self.frame(index)?;
        if write {
            self.mark_dirty(index, true)?;
            self.throttle();
        }
        Ok(frame)
    }

    fn cached(&self, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        let end = first.saturating_add(count as u64).min(self.len().div_ceil(PAGE));
        let mut at = first;
        loop {
            let next = self.pages.state.lock().frames.next(at).filter(|(index, _)| *index < end).map(|(i, f)| (i, f.clone()));
            let Some((index, frame)) = next else { return };
            give(index, frame);
            at = index + 1;
        }
    }

    fn sync_pages(&self, _first: u64, _count: u64) -> Result<()> {
        self.make_durable(false)
    }

    fn discard(&self, first: u64, count: u64) -> Result<()> {
        let _one = self.change.lock();
        let end = first.saturating_add(count).saturating_mul(PAGE).min(self.len());
        self.punch(first.saturating_mul(PAGE), end)
    }

    fn len_bytes(&self) -> u64 {
        self.len()
    }

    fn describe(&self) -> SourceName {
        SourceName { dev: self.fs.dev, ino: self.number.into(), path: Vec::new() }
    }
}

/// An open regular file.
pub struct VolumeFile(pub Arc<Inode>);

impl FileOps for VolumeFile {
    fn read_at(&self, _file: &OpenFile, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        paged::read_pages(&*self.0, dst, offset)
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, offset: u64) -> Result<usize> {
        let count = self.0.write(src, offset, file.flags().contains(OpenFlags::APPEND))?;
        if file.flags().intersects(OpenFlags::DSYNC | OpenFlags::SYNC) {
            self.0.make_durable(!file.flags().contains(OpenFlags::SYNC))?;
        }
        Ok(count)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn stat(&self) -> Result<Stat> {
        VfsInode::stat(&*self.0)
    }

    fn page_source(&self, _file: &OpenFile) -> Result<Arc<dyn PageSource>> {
        Ok(self.0.clone())
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.0.make_durable(data_only)
    }

    fn truncate(&self, len_bytes: u64) -> Result<()> {
        self.0.set_len(len_bytes)
    }

    fn allocate(&self, mode: u32, offset: u64, len_bytes: u64) -> Result<()> {
        self.0.preallocate(mode, offset, len_bytes)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
