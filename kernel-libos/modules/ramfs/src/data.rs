//! The bytes of regular files: pages in memory, and the pages below until they are written.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::mm::{self, Frame, PAGE_SIZE, PageSource, SourceName};
use libos_core::sync::{Mutex, SpinLock};
use libos_core::vfs::paged::MAX_LEN_BYTES;
use libos_core::vfs::sparse::Sparse;
use libos_core::vfs::{Inode, Stat};
use libos_core::{Errno, Result};

use crate::inode::{Body, RamInode};

const PAGE: u64 = PAGE_SIZE as u64;

/// The bytes of a file.
pub struct Data {
    state: SpinLock<State>,
    /// One change of the size at a time, so that appends from several descriptions do not overwrite each other.
    resize: Mutex<()>,
    pub below: Option<Arc<dyn PageSource>>,
}

struct State {
    frames: Sparse<Frame>,
    size: u64,
    /// Bytes that may still come from below; a page that this cuts is always in `frames`.
    below_len: u64,
}

/// What a page of a file is.
enum Page {
    Frame(Frame),
    Below,
    Hole,
}

impl Data {
    /// Returns an empty file, or the likeness of one below.
    pub fn new(below: Option<Arc<dyn PageSource>>) -> Data {
        let size = below.as_ref().map_or(0, |b| b.len_bytes());
        Data { state: SpinLock::new(State { frames: Sparse::new(), size, below_len: size }), resize: Mutex::new(()), below }
    }

    pub fn size(&self) -> u64 {
        self.state.lock().size
    }

    pub fn page_count(&self) -> usize {
        self.state.lock().frames.len()
    }

    fn look(&self, index: u64) -> Result<Page> {
        let state = self.state.lock();
        let offset = index.checked_mul(PAGE).filter(|offset| *offset < state.size).ok_or(Errno::ENXIO)?;
        Ok(match state.frames.get(index) {
            Some(frame) => Page::Frame(frame.clone()),
            None if offset < state.below_len => Page::Below,
            None => Page::Hole,
        })
    }

    /// How many of the pages `first .. first + count` exist, when all of them are below; `None` when one is ours.
    fn count_below(&self, first: u64, count: usize) -> Option<usize> {
        let state = self.state.lock();
        let end = first.saturating_add(count as u64).min(state.below_len.min(state.size).div_ceil(PAGE)).max(first);
        state.frames.next(first).is_none_or(|(index, _)| index >= end).then_some((end - first) as usize)
    }

    fn page_below(&self, index: u64) -> Result<Frame> {
        self.below.as_ref().ok_or(Errno::EIO)?.page(index, false)
    }

    /// A page of our own at `index`, whether inside the size or not: a copy of what is below, or zeros.
    fn own_page(&self, owner: &RamInode, index: u64) -> Result<Frame> {
        let is_below = {
            let state = self.state.lock();
            if let Some(frame) = state.frames.get(index) {
                return Ok(frame.clone());
            }
            index.saturating_mul(PAGE) < state.below_len
        };
        owner.shared.charge()?;
        let (frame, copied) = self.fresh(index, is_below).inspect_err(|_| owner.shared.uncharge(1))?;
        let mut state = self.state.lock();
        if let Some(other) = state.frames.get(index) {
            let other = other.clone();
            drop(state);
            owner.shared.uncharge(1);
            return Ok(other);
        }
        state.frames.insert(index, frame.clone()).inspect_err(|_| owner.shared.uncharge(1))?;
        drop(state);
        owner.shared.keep(owner);
        if let Some(below) = copied {
            // Mappings of the page below must see what is written here; private copies of it are the programs' own.
            mm::invalidate_frames(owner, index, 1, &|_, mapped| mapped.phys().0 == below.phys().0);
        }
        Ok(frame)
    }

    /// A new frame for a page, and the one below that it is a copy of.
    fn fresh(&self, index: u64, is_below: bool) -> Result<(Frame, Option<Frame>)> {
        if !is_below {
            return Ok((Frame::alloc_zeroed()?, None));
        }
        let below = self.page_below(index)?;
        let frame = Frame::alloc()?;
        frame.copy_from(&below);
        Ok((frame, Some(below)))
    }

    fn read(&self, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        let mut at = offset;
        let mut moved = 0;
        while dst.remaining() > 0 {
            let left = self.size().saturating_sub(at);
            if left == 0 {
                break;
            }
            let in_page = (at % PAGE) as usize;
            let piece = left.min(PAGE - in_page as u64) as usize;
            let result = self.look(at / PAGE).and_then(|page| match page {
                Page::Frame(frame) => frame.push_to(in_page, piece, dst),
                Page::Below => self.page_below(at / PAGE)?.push_to(in_page, piece, dst),
                Page::Hole => dst.push_zeros(piece),
            });
            match result {
                Ok(0) | Err(Errno::ENXIO) => break,
                Ok(count) => {
                    moved += count;
                    at += count as u64;
                }
                Err(errno) if moved == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(moved)
    }

    fn write(&self, owner: &RamInode, src: &mut IoSrc<'_>, offset: u64, appends: bool) -> Result<usize> {
        let _one = self.resize.lock();
        let size = self.size();
        let offset = if appends { size } else { offset };
        if src.remaining() == 0 {
            return Ok(0);
        }
        if offset >= MAX_LEN_BYTES {
            return Err(Errno::EFBIG);
        }
        let end = offset.saturating_add(src.remaining() as u64).min(MAX_LEN_BYTES);
        owner.check_seals(linux::F_SEAL_WRITE | linux::F_SEAL_FUTURE_WRITE)?;
        if end > size {
            owner.check_seals(linux::F_SEAL_GROW)?;
        }
        if offset > size {
            self.zero_tail(size);
        }
        let mut at = offset;
        let mut result = Ok(());
        while at < end {
            let in_page = (at % PAGE) as usize;
            let piece = (end - at).min(PAGE - in_page as u64) as usize;
            match self.own_page(owner, at / PAGE).and_then(|frame| frame.pull_from(in_page, piece, src)) {
                Ok(0) => break,
                Ok(count) => at += count as u64,
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            }
            let mut state = self.state.lock();
            state.size = state.size.max(at);
        }
        if at == offset {
            // A page that was made for nothing behind the end must not stay: nobody could see it, and it would be counted.
            self.drop_pages(owner, self.size());
            result?;
        }
        owner.touch();
        Ok((at - offset) as usize)
    }

    /// Clears what a mapping may have written behind the end in the last page, before the file grows over it.
    fn zero_tail(&self, size: u64) {
        let in_page = (size % PAGE) as usize;
        let frame = self.state.lock().frames.get(size / PAGE).cloned();
        if let (Some(frame), true) = (frame, in_page > 0) {
            frame.clear_range(in_page, PAGE_SIZE - in_page);
        }
    }

    /// Drops the pages that lie wholly behind `size`.
    fn drop_pages(&self, owner: &RamInode, size: u64) {
        let first = size.div_ceil(PAGE);
        let mut count = 0;
        // One at a time: frames are freed outside the lock, and a list of them would need memory just when there may be none.
        let pop = || self.state.lock().frames.pop_last(first);
        while let Some(frame) = pop() {
            drop(frame);
            count += 1;
        }
        owner.shared.uncharge(count);
    }

    /// See `Inode::truncate`.
    pub fn truncate(&self, owner: &RamInode, len: u64) -> Result<()> {
        if len > MAX_LEN_BYTES {
            return Err(Errno::EFBIG);
        }
        let _one = self.resize.lock();
        let size = self.size();
        if len < size {
            owner.check_seals(linux::F_SEAL_SHRINK)?;
            if !len.is_multiple_of(PAGE) {
                // The page that the new end cuts becomes ours, so that what lies behind the end is zero when the file grows again.
                if !matches!(self.look(len / PAGE)?, Page::Hole) {
                    let in_page = (len % PAGE) as usize;
                    self.own_page(owner, len / PAGE)?.clear_range(in_page, PAGE_SIZE - in_page);
                }
            }
            let mut state = self.state.lock();
            state.size = len;
            state.below_len = state.below_len.min(len);
            drop(state);
            self.drop_pages(owner, len);
            mm::invalidate(owner, len.div_ceil(PAGE), u64::MAX - len.div_ceil(PAGE));
        } else if len > size {
            owner.check_seals(linux::F_SEAL_GROW)?;
            self.zero_tail(size);
            self.state.lock().size = len;
        }
        owner.touch();
        owner.shared.keep(owner);
        Ok(())
    }

    /// See `FileOps::allocate`.
    fn allocate(&self, owner: &RamInode, mode: u32, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= MAX_LEN_BYTES).ok_or(Errno::EFBIG)?;
        let keeps_size = mode & linux::FALLOC_FL_KEEP_SIZE != 0;
        let _one = self.resize.lock();
        let size = self.size();
        match mode & !linux::FALLOC_FL_KEEP_SIZE {
            0 => {
                if !keeps_size && end > size {
                    owner.check_seals(linux::F_SEAL_GROW)?;
                }
                for index in offset / PAGE..end.div_ceil(PAGE) {
                    if let Err(errno) = self.own_page(owner, index) {
                        self.drop_pages(owner, size);
                        return Err(errno);
                    }
                }
            }
            // Zeroing is punching: a hole reads as zeros, and memory is reserved by nobody.
            linux::FALLOC_FL_PUNCH_HOLE if keeps_size => self.punch(owner, offset, end.min(size))?,
            linux::FALLOC_FL_ZERO_RANGE => self.punch(owner, offset, end.min(size))?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !keeps_size && end > size {
            self.zero_tail(size);
            self.state.lock().size = end;
        }
        owner.touch();
        owner.shared.keep(owner);
        Ok(())
    }

    fn punch(&self, owner: &RamInode, offset: u64, end: u64) -> Result<()> {
        owner.check_seals(linux::F_SEAL_WRITE)?;
        let mut at = offset;
        while at < end {
            let in_page = (at % PAGE) as usize;
            let piece = (end - at).min(PAGE - in_page as u64);
            if !matches!(self.look(at / PAGE)?, Page::Hole) {
                // Pages stay and become zero: mappings of them must see the change, and what is below must stay hidden.
                self.own_page(owner, at / PAGE)?.clear_range(in_page, piece as usize);
            }
            at += piece;
        }
        Ok(())
    }

    /// See `PageSource::page`.
    fn page(&self, owner: &RamInode, index: u64, write: bool) -> Result<Frame> {
        match self.look(index)? {
            Page::Frame(frame) => Ok(frame),
            Page::Below if !write => self.page_below(index),
            // A hole that is mapped gets its page at once, so that a later write is seen through the mapping.
            _ => self.own_page(owner, index),
        }
    }
}

impl RamInode {
    /// The bytes of a regular file.
    pub fn data(&self) -> Result<&Data> {
        match &self.body {
            Body::File(data) => Ok(data),
            Body::Dir(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    pub fn check_seals(&self, seals: u32) -> Result<()> {
        if self.seals.load(Ordering::Relaxed) & seals != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }
}

impl PageSource for RamInode {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        self.data()?.page(self, index, write)
    }

    fn cached(&self, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        let Ok(data) = self.data() else { return };
        if let Some(below) = &data.below
            && let Some(count) = data.count_below(first, count)
        {
            // Nothing of ours in between: one question for all of them.
            return below.cached(first, count, give);
        }
        for index in first..first.saturating_add(count as u64) {
            match (data.look(index), &data.below) {
                (Ok(Page::Frame(frame)), _) => give(index, frame),
                (Ok(Page::Below), Some(below)) => below.cached(index, 1, give),
                (Ok(_), _) => {}
                (Err(_), _) => break,
            }
        }
    }

    fn tracks_writes(&self) -> bool {
        // A page that is below must be copied before it is written.
        self.has_below()
    }

    fn discard(&self, first: u64, count: u64) -> Result<()> {
        let data = self.data()?;
        let end = first.saturating_add(count).saturating_mul(PAGE).min(data.size());
        data.punch(self, first.saturating_mul(PAGE), end)
    }

    fn len_bytes(&self) -> u64 {
        self.data().map_or(0, Data::size)
    }

    fn describe(&self) -> SourceName {
        SourceName { dev: self.shared.dev, ino: self.number, path: Vec::new() }
    }
}

/// An open regular file.
pub struct RamFile(pub Arc<RamInode>);

impl FileOps for RamFile {
    fn read_at(&self, _file: &OpenFile, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        self.0.data()?.read(dst, offset)
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, offset: u64) -> Result<usize> {
        self.0.data()?.write(&self.0, src, offset, file.flags().contains(OpenFlags::APPEND))
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn stat(&self) -> Result<Stat> {
        Inode::stat(&*self.0)
    }

    fn page_source(&self, _file: &OpenFile) -> Result<Arc<dyn PageSource>> {
        Ok(self.0.clone())
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn truncate(&self, len_bytes: u64) -> Result<()> {
        self.0.data()?.truncate(&self.0, len_bytes)
    }

    fn allocate(&self, mode: u32, offset: u64, len_bytes: u64) -> Result<()> {
        self.0.data()?.allocate(&self.0, mode, offset, len_bytes)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
