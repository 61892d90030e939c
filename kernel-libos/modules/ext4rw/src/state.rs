//! The mounted volume: transactions, space for files, and the life of inodes. Directories, data and the `Inode` trait stand on this.
//!
//! One lock covers all metadata. An operation takes it with [`Fs::begin`], changes what it must in memory, and lets go; every few seconds, on fsync(2) and
//! when the transaction grows too large, [`Fs::commit`] turns the changes into blocks and gives them to the journal. Data of blocks that were allocated since
//! the last commit goes to the disk first (`data=ordered`), so that no crash shows what somebody else had there.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libos_core::abi::general as linux;
use libos_core::device::BlockDevice;
use libos_core::sync::{Mutex, MutexGuard, SpinLock};
use libos_core::task::wait::WaitQueue;
use libos_core::vfs::sparse::Sparse;
use libos_core::{Errno, Result, time};
use ukc_ext4_layout::extent::{Extent, MAX_EXTENT};
use ukc_ext4_layout::{Inode as RawInode, ROOT_INODE, inode_flags};

use crate::extents;
use crate::groups::Groups;
use crate::inode::Inode;
use crate::journal::Journal;
use crate::meta::{self, Meta, Time};
use crate::store::{BLOCK, Store};

/// How long a change may stay in memory, in nanoseconds: Linux' `commit=5`.
pub const COMMIT_NS: u64 = 5_000_000_000;

/// Blocks that files leave free.
const RESERVED_BLOCKS: u64 = 16;

/// Freed ranges to remember before they are made free for good.
const HELD_MAX: usize = 128;

/// A volume.
pub struct Fs {
    pub disk: Arc<dyn BlockDevice>,
    pub state: Mutex<State>,
    /// Inodes in use, so that all names of a file lead to one inode and one set of pages.
    pub inodes: SpinLock<Sparse<Weak<Inode>>>,
    /// Inodes with pages that are not on the disk.
    pub dirty_data: SpinLock<Sparse<Arc<Inode>>>,
    pub dirty_pages: AtomicUsize,
    /// Whether the flusher has something to do, and where it waits.
    pub has_work: AtomicBool,
    pub work: WaitQueue,
    /// Numbers of inodes that nobody uses any more and that may have no name either.
    pub unused: SpinLock<Vec<u32>>,
    pub dev: u64,
}

/// What the lock covers.
pub struct State {
    pub store: Store,
    pub groups: Groups,
    journal: Option<Journal>,
    /// Inodes whose fields must be written.
    dirty_inodes: Vec<Arc<Inode>>,
    /// The list on the disk of inodes without names, last one first.
    orphans: Vec<u32>,
    committed_ns: u64,
    /// Something could not be written: nothing more is.
    has_failed: bool,
}

impl State {
    /// Takes blocks for metadata.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub fn take_block(&mut self, goal: u64) -> Result<u64> {
        self.groups.take_blocks(&mut self.store, goal, 1).map(|(block, _)| block)
    }

    /// Gives a block of metadata back.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`.
    pub fn free_block(&mut self, block: u64) -> Result<()> {
        self.store.forget(block);
        self.groups.holds_metadata = true;
        self.groups.free_run(&mut self.store, block, 1)
    }

    /// Allocates the holes of `first .. first + count` and makes unwritten blocks written; with `is_unwritten`, holes become unwritten blocks and nothing
    /// else changes. Returns how many blocks from `first` on are there afterwards.
    ///
    /// # Errors
    /// `ENOSPC` when there is not one, `EFBIG`, `EIO`, `ENOMEM`.
    pub fn fill(&mut self, number: u32, meta: &mut Meta, first: u64, count: u64, is_unwritten: bool) -> Result<u64> {
        if !meta.has_extents() || first + count > u64::from(u32::MAX) {
            return Err(Errno::EFBIG);
        }
        let end = first + count;
        let mut at = first;
        let mut result = Ok(());
        while at < end {
            let run = extents::at(&meta.extents, at);
            let len = run.len.min(end - at);
            if run.physical.is_none() {
                match self.fill_hole(number, meta, at, len, is_unwritten) {
                    Ok(taken) => at += taken,
                    Err(errno) => {
                        result = Err(errno);
                        break;
                    }
                }
                continue;
            }
            if run.is_unwritten && !is_unwritten {
                if self.groups.available() < 4 {
                    result = Err(Errno::ENOSPC);
                    break;
                }
                extents::mark_written(&mut meta.extents, at, at + len)?;
                meta.is_grown = true;
                meta.has_new_blocks = true;
                self.fit_tree(number, meta)?;
            }
            at += len;
        }
        if at == first {
            result?;
        }
        Ok(at - first)
    }

    fn fill_hole(&mut self, number: u32, meta: &mut Meta, at: u64, len: u64, is_unwritten: bool) -> Result<u64> {
        let before = at.checked_sub(1).map(|b| extents::at(&meta.extents, b));
        let goal = before.and_then(|run| run.physical).map_or_else(|| self.groups.goal_of_inode(number), |p| p + 1);
        // The last blocks are for the trees and directories of what is there already.
        if self.groups.available() <= RESERVED_BLOCKS {
            return Err(Errno::ENOSPC);
        }
        let want = len.min(u64::from(MAX_EXTENT) - 1) as u32;
        let (physical, taken) = self.groups.take_blocks(&mut self.store, goal, want)?;
        extents::insert(&mut meta.extents, Extent { logical: at as u32, len: taken, physical, is_unwritten })?;
        if let Err(errno) = self.fit_tree(number, meta) {
            self.cut(number, meta, at, at + u64::from(taken), false)?;
            return Err(errno);
        }
        meta.is_grown = true;
        meta.has_new_blocks |= !is_unwritten;
        Ok(taken.into())
    }

    /// Gives the tree as many blocks as it needs.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub fn fit_tree(&mut self, number: u32, meta: &mut Meta) -> Result<()> {
        let needed = extents::tree_blocks(meta.extents.len());
        while meta.tree.len() > needed {
            if let Some(block) = meta.tree.pop() {
                self.free_block(block)?;
            }
        }
        while meta.tree.len() < needed {
            meta.tree.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            let block = self.take_block(self.groups.goal_of_inode(number))?;
            self.store.fresh(block)?;
            meta.tree.push(block);
        }
        Ok(())
    }

    /// Gives back the blocks `from .. to` of a file.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`, `ENOMEM`.
    pub fn cut(&mut self, number: u32, meta: &mut Meta, from: u64, to: u64, is_metadata: bool) -> Result<()> {
        let mut gone: Vec<(u64, u32)> = Vec::new();
        extents::cut(&mut meta.extents, from, to, &mut |start, len| gone.push((start, len)))?;
        for (start, len) in gone {
            if is_metadata {
                (start..start + u64::from(len)).for_each(|b| self.store.forget(b));
                self.groups.holds_metadata = true;
            }
            self.groups.free_run(&mut self.store, start, len)?;
        }
        meta.is_grown = true;
        self.fit_tree(number, meta)
    }

    /// Notes that an inode must be written.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn touch(&mut self, inode: &Arc<Inode>, meta: &mut Meta) -> Result<()> {
        self.dirty_inodes.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        if !core::mem::replace(&mut meta.is_dirty, true) {
            self.dirty_inodes.push(inode.clone());
        }
        Ok(())
    }

    /// Puts an inode without a name on the list that survives a crash.
    ///
    /// # Errors
    /// `EIO`.
    pub fn add_orphan(&mut self, number: u32) -> Result<()> {
        if self.orphans.contains(&number) {
            return Ok(());
        }
        self.set_dtime(number, self.groups.last_orphan)?;
        self.groups.last_orphan = number;
        self.orphans.push(number);
        Ok(())
    }

    /// An inode without a name got one.
    ///
    /// # Errors
    /// `EIO`.
    pub fn forget_orphan(&mut self, number: u32) -> Result<()> {
        self.remove_orphan(number)?;
        self.set_dtime(number, 0)
    }

    fn remove_orphan(&mut self, number: u32) -> Result<()> {
        let Some(at) = self.orphans.iter().position(|n| *n == number) else { return Ok(()) };
        let next = at.checked_sub(1).map_or(0, |i| self.orphans[i]);
        match self.orphans.get(at + 1) {
            // The one that points here.
            Some(&before) => self.set_dtime(before, next)?,
            None => self.groups.last_orphan = next,
        }
        self.orphans.remove(at);
        Ok(())
    }

    /// The field is the deletion time, and for orphans the number of the next.
    fn set_dtime(&mut self, number: u32, value: u32) -> Result<()> {
        let (block, at) = self.groups.inode_place(number)?;
        let shape = &self.groups.shape;
        let mut raw = RawInode::new(&mut self.store.write(block)?[at..at + shape.inode_bytes]).ok_or(Errno::EUCLEAN)?;
        raw.set_dtime(value);
        let seed = meta::seed(shape, number, raw.generation());
        meta::set_checksum(shape, seed, &mut raw);
        Ok(())
    }

    /// Frees an inode that has neither names nor users, with all its blocks.
    fn free_inode(&mut self, number: u32) -> Result<()> {
        let mut meta = Meta::read(&mut self.store, &self.groups, number)?;
        if meta.links != 0 {
            return Ok(());
        }
        let is_dir = meta.is_dir();
        self.cut(number, &mut meta, 0, u64::MAX, is_dir)?;
        self.release_xattr_block(&mut meta)?;
        meta.size = 0;
        self.remove_orphan(number)?;
        meta.encode(&mut self.store, &self.groups, number, false)?;
        self.set_dtime(number, (time::realtime_ns() / 1_000_000_000) as u32)?;
        self.groups.free_inode(&mut self.store, number, is_dir)
    }

    /// Blocks that a commit would write, about.
    fn transaction_len(&self) -> usize {
        let inodes: usize = self.dirty_inodes.iter().map(|i| 1 + i.meta.try_lock().map_or(1, |m| m.tree.len())).sum();
        self.store.dirty_count() + inodes + 8
    }

    /// Whether nothing of the running transaction would be lost.
    pub fn is_clean(&self) -> bool {
        self.dirty_inodes.is_empty() && self.store.dirty_count() == 0
    }
}

impl Fs {
    /// Mounts a disk.
    ///
    /// # Errors
    /// `EINVAL` when it is no ext4 that can be written here, `EUCLEAN` when it is damaged, `EROFS`, `EIO`.
    pub fn mount(disk: Arc<dyn BlockDevice>, dev: u64) -> Result<Arc<Fs>> {
        if disk.is_read_only() {
            return Err(Errno::EROFS);
        }
        let mut store = Store::new(disk.clone());
        let mut groups = Groups::read(&mut store)?;
        let mut journal = None;
        if groups.shape.journal_inode != 0 {
            let meta = Meta::read(&mut store, &groups, groups.shape.journal_inode)?;
            journal = Some(Journal::open(&store, meta.extents, groups.shape.blocks)?);
            // The journal may have held newer versions of everything.
            store = Store::new(disk);
            groups = Groups::read(&mut store)?;
        }
        let mut state = State {
            store,
            groups,
            journal,
            dirty_inodes: Vec::new(),
            orphans: Vec::new(),
            committed_ns: time::monotonic_ns(),
            has_failed: false,
        };
        state.read_orphans()?;
        let fs = Arc::new(Fs {
            disk: state.store.disk.clone(),
            state: Mutex::new(state),
            inodes: SpinLock::new(Sparse::new()),
            dirty_data: SpinLock::new(Sparse::new()),
            dirty_pages: AtomicUsize::new(0),
            has_work: AtomicBool::new(false),
            work: WaitQueue::new(),
            unused: SpinLock::new(Vec::new()),
            dev,
        });
        fs.finish_orphans()?;
        if !fs.inode(ROOT_INODE, &mut fs.state.lock())?.meta.lock().is_dir() {
            return Err(Errno::EUCLEAN);
        }
        Ok(fs)
    }

    fn finish_orphans(&self) -> Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for number in state.orphans.clone() {
            let mut meta = Meta::read(&mut state.store, &state.groups, number)?;
            if meta.links == 0 {
                state.free_inode(number)?;
            } else {
                // Linux cuts files that way: the size is right already, the blocks behind it are to go.
                let end = meta.size.div_ceil(BLOCK as u64);
                state.cut(number, &mut meta, end, u64::MAX, false)?;
                state.remove_orphan(number)?;
                meta.encode(&mut state.store, &state.groups, number, false)?;
                state.set_dtime(number, 0)?;
            }
        }
        Ok(())
    }

    /// Starts an operation that changes something.
    ///
    /// # Errors
    /// `EROFS` after something could not be written; `EIO` when that happens now.
    pub fn begin(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.has_failed {
            return Err(Errno::EROFS);
        }
        self.free_unused(&mut state)?;
        let max = state.journal.as_ref().map_or(4096, Journal::transaction_max);
        let is_old = time::monotonic_ns().saturating_sub(state.committed_ns) > COMMIT_NS;
        let is_tight = state.groups.held_blocks > 0 && state.groups.available() < 1024;
        if state.transaction_len() > max / 2 || is_old || is_tight || state.groups.held_ranges() > HELD_MAX {
            self.commit(&mut state)?;
        }
        self.wake_flusher();
        Ok(state)
    }

    /// Something changed: it must not stay in memory for long.
    pub fn wake_flusher(&self) {
        if !self.has_work.swap(true, Ordering::Relaxed) {
            self.work.wake_all();
        }
    }

    /// What the volume's own thread does: a while after something changed it writes that, and then it sleeps until the next change.
    pub fn flush_forever(&self) {
        loop {
            let _ = self.work.wait(|| self.has_work.load(Ordering::Relaxed).then_some(()));
            let deadline = time::monotonic_ns() + COMMIT_NS;
            let _ = self.work.wait_until(Some(deadline), || None::<()>);
            self.has_work.store(false, Ordering::Relaxed);
            if self.write_all_pages().is_ok() {
                let mut state = self.state.lock();
                // A failure has been told, and the next operation meets it.
                let _ = state.has_failed || self.commit(&mut state).is_err();
            }
        }
    }

    /// Frees what has no name and is not in use any more.
    fn free_unused(&self, state: &mut State) -> Result<()> {
        loop {
            let Some(number) = self.unused.lock().pop() else { return Ok(()) };
            let is_back = self.inodes.lock().get(number.into()).is_some_and(|weak| weak.strong_count() > 0);
            if !is_back && state.orphans.contains(&number) {
                state.free_inode(number)?;
            }
        }
    }

    /// Makes the running transaction durable. Returns whether there was anything to write.
    ///
    /// # Errors
    /// `EIO`; the volume is read-only from then on.
    pub fn commit(&self, state: &mut State) -> Result<bool> {
        let result = self.try_commit(state);
        if result.is_err() && !state.has_failed {
            state.has_failed = true;
            libos_core::arch::kprintln!("ukc: a volume cannot be written to and is read-only from now on");
        }
        result
    }

    fn try_commit(&self, state: &mut State) -> Result<bool> {
        self.free_unused(state)?;
        state.committed_ns = time::monotonic_ns();
        if state.is_clean() {
            return Ok(false);
        }
        let inodes = core::mem::take(&mut state.dirty_inodes);
        let mut has_new_data = false;
        for inode in &inodes {
            // Data of new blocks first. What is mapped or written meanwhile belongs to the next transaction.
            let is_new = core::mem::take(&mut inode.meta.lock().has_new_blocks);
            if is_new {
                inode.write_pages(self)?;
                has_new_data = true;
            }
        }
        for inode in &inodes {
            let mut meta = inode.meta.lock();
            meta.is_dirty = false;
            meta.is_grown = false;
            let copy = meta.clone();
            drop(meta);
            copy.encode(&mut state.store, &state.groups, inode.number, false)?;
        }
        state.groups.encode(&mut state.store)?;
        let blocks = state.store.dirty_blocks();
        let max = state.journal.as_ref().map_or(0, Journal::transaction_max);
        match &mut state.journal {
            Some(journal) if blocks.len() <= max => {
                if journal.is_empty() && !state.groups.is_marked {
                    // The mark is there before the journal has anything: e2fsck trusts only the mark.
                    state.groups.write_mark(&mut state.store, true)?;
                    state.store.disk.flush()?;
                }
                // The flush before the commit block covers the data as well.
                journal.commit(&state.store, &blocks)?;
                state.store.set_logged(&blocks);
            }
            // Without a journal, or for a transaction that is larger than it, order is all there is: data, then metadata.
            _ => {
                if has_new_data {
                    state.store.disk.flush()?;
                }
                state.store.set_logged(&blocks);
                self.checkpoint(state)?;
            }
        }
        let is_full = state.journal.as_ref().is_some_and(Journal::is_half_full);
        if is_full || state.groups.holds_metadata {
            self.checkpoint(state)?;
        }
        state.groups.release_held();
        // The last references go here, which may make inodes unused.
        drop(inodes);
        Ok(true)
    }

    /// Puts everything that is in the journal where it belongs. No transaction may be running.
    fn checkpoint(&self, state: &mut State) -> Result<()> {
        state.store.checkpoint()?;
        state.store.disk.flush()?;
        if let Some(journal) = &mut state.journal {
            journal.reset(&state.store)?;
        }
        state.groups.release_held();
        Ok(())
    }

    /// Makes everything durable and leaves the volume as if it had been unmounted.
    ///
    /// # Errors
    /// `EIO`.
    pub fn sync(&self) -> Result<()> {
        self.write_all_pages()?;
        let mut state = self.state.lock();
        if state.has_failed {
            return Err(Errno::EIO);
        }
        // A commit may let go of inodes without names, which the next one frees.
        while self.commit(&mut state)? {}
        self.checkpoint(&mut state)?;
        if state.groups.is_marked {
            let state = &mut *state;
            state.groups.write_mark(&mut state.store, false)?;
        }
        state.store.disk.flush()
    }

    /// Writes the pages of all files.
    ///
    /// # Errors
    /// `EIO`.
    pub fn write_all_pages(&self) -> Result<()> {
        let mut from = 0;
        loop {
            let next = self.dirty_data.lock().next(from).map(|(number, inode)| (number, inode.clone()));
            let Some((number, inode)) = next else { return Ok(()) };
            inode.write_pages(self)?;
            from = number + 1;
        }
    }

    /// The inode of a number.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`, `ENOMEM`.
    pub fn inode(self: &Arc<Fs>, number: u32, state: &mut State) -> Result<Arc<Inode>> {
        if let Some(inode) = self.inodes.lock().get(number.into()).and_then(Weak::upgrade) {
            return Ok(inode);
        }
        let meta = Meta::read(&mut state.store, &state.groups, number)?;
        self.remember(Inode::new(self.clone(), number, meta))
    }

    /// Notes an inode that is in use from now on; the caller holds the lock of the volume, so nobody else does so.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn remember(&self, inode: Arc<Inode>) -> Result<Arc<Inode>> {
        let old = self.inodes.lock().insert(inode.number.into(), Arc::downgrade(&inode));
        old?;
        Ok(inode)
    }

    /// Makes a new inode without a name.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`, `ENOMEM`.
    pub fn new_inode(self: &Arc<Fs>, state: &mut State, parent: u32, mut meta: Meta) -> Result<Arc<Inode>> {
        if state.groups.available() < 4 {
            return Err(Errno::ENOSPC);
        }
        let number = state.groups.take_inode(&mut state.store, parent, meta.is_dir())?;
        meta.generation = number ^ time::realtime_ns() as u32;
        if matches!(meta.kind(), linux::S_IFREG | linux::S_IFDIR) || meta.kind() == linux::S_IFLNK && meta.block.is_empty() {
            meta.flags |= inode_flags::EXTENTS;
        }
        meta.encode(&mut state.store, &state.groups, number, true)?;
        let inode = self.remember(Inode::new(self.clone(), number, meta))?;
        state.touch(&inode, &mut inode.meta.lock())?;
        Ok(inode)
    }
}

impl State {
    fn read_orphans(&mut self) -> Result<()> {
        let mut number = self.groups.last_orphan;
        while number != 0 {
            if self.orphans.contains(&number) || self.orphans.len() as u32 >= self.groups.shape.inodes {
                return Err(Errno::EUCLEAN);
            }
            self.orphans.push(number);
            let (block, at) = self.groups.inode_place(number)?;
            number = RawInode::new(&self.store.read(block)?[at..at + 128]).ok_or(Errno::EUCLEAN)?.dtime();
        }
        // The first on the disk is the last here.
        self.orphans.reverse();
        Ok(())
    }
}

/// The time now.
pub fn now() -> Time {
    let ns = time::realtime_ns();
    ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as u32)
}

impl Fs {
    /// Counts pages that became dirty or clean.
    pub fn count_dirty(&self, more: usize, less: usize) {
        self.dirty_pages.fetch_add(more, Ordering::Relaxed);
        self.dirty_pages.fetch_sub(less, Ordering::Relaxed);
    }
}
