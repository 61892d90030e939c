//! What programs say about how they use memory: madvise(2), mlock(2), mincore(2), msync(2).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use libos_abi::{Errno, Result};

use super::address_space::{AddressSpace, Limits, page_range};
use super::fault::Access;
use super::vma::{Vma, VmaFlags};
use super::{PAGE_SIZE, PageSource, Protection};

/// madvise(2)'s advices, by what they make the kernel do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing changes: `NORMAL` of what is here, `SEQUENTIAL`, `WILLNEED`, `COLD`, `PAGEOUT`, `NOHUGEPAGE`, ...
    Hint,
    /// Sets and clears flags of the areas.
    Flags {
        /// Flags to set.
        set: VmaFlags,
        /// Flags to clear.
        clear: VmaFlags,
    },
    /// `DONTNEED`, and `FREE`: private pages are zeros or the file's again.
    Drop,
    /// `FREE`, only for private anonymous memory.
    Free,
    /// `REMOVE`: the source forgets the pages.
    Discard,
    /// `POPULATE_READ`.
    PopulateRead,
    /// `POPULATE_WRITE`.
    PopulateWrite,
}

impl AddressSpace {
    /// Acts on an advice.
    ///
    /// # Errors
    /// As madvise(2): `EINVAL`, `ENOMEM` when something in the range is not mapped (the rest was done), `EFAULT`, `EACCES`.
    pub fn advise(&self, addr: usize, len: usize, advice: Advice) -> Result<()> {
        let range = page_range(addr, len, Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        match advice {
            Advice::PopulateRead => return self.populate_advised(range, Access::Read),
            Advice::PopulateWrite => return self.populate_advised(range, Access::Write),
            _ => {}
        }
        let mut discards: Vec<(Arc<dyn PageSource>, u64, u64)> = Vec::new();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let covered = inner.vmas.covers(range.clone());
        match advice {
            Advice::Hint | Advice::PopulateRead | Advice::PopulateWrite => {}
            Advice::Flags { set, clear } => {
                let needs_anonymous = set.contains(VmaFlags::WIPE_ON_FORK);
                if needs_anonymous && inner.vmas.overlapping(range.clone()).iter().any(|v| v.source.is_some()) {
                    return Err(Errno::EINVAL);
                }
                inner.vmas.modify(range, |vma| {
                    vma.flags = (vma.flags - clear) | set;
                    Ok(())
                })?;
            }
            Advice::Drop | Advice::Free => {
                for vma in inner.vmas.overlapping(range.clone()) {
                    if vma.flags.intersects(VmaFlags::LOCKED | VmaFlags::SPECIAL) || advice == Advice::Free && vma.source.is_some() {
                        return Err(Errno::EINVAL);
                    }
                    inner.pages.remove(part(vma, &range));
                }
            }
            Advice::Discard => {
                for vma in inner.vmas.overlapping(range.clone()) {
                    let source = vma.source.as_ref().filter(|_| vma.is_shared()).ok_or(Errno::EINVAL)?;
                    if vma.flags.contains(VmaFlags::LOCKED) {
                        return Err(Errno::EINVAL);
                    }
                    if !vma.protection.contains(Protection::WRITE) {
                        return Err(Errno::EACCES);
                    }
                    let part = part(vma, &range);
                    discards.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                    discards.push((source.clone(), vma.page_index(part.start), (part.len() / PAGE_SIZE) as u64));
                }
            }
        }
        drop(guard);
        for (source, first, count) in discards {
            source.discard(first, count)?;
        }
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn populate_advised(&self, range: Range<usize>, access: Access) -> Result<()> {
        self.populate_for(range, Some(access)).map_err(|errno| match errno {
            // madvise(2): EFAULT for pages that cannot be read from their file; EINVAL for access that the mapping does not allow.
            Errno::EAGAIN => Errno::EFAULT,
            Errno::EFAULT => Errno::EINVAL,
            other => other,
        })
    }

    /// Locks (or unlocks) pages in memory. Nothing is ever paged out; what locking does is to bring pages in and to count them.
    ///
    /// # Errors
    /// As mlock(2): `ENOMEM` for holes or beyond the limit, `EPERM` with a limit of 0, `EAGAIN`.
    pub fn set_locked(&self, addr: usize, len: usize, lock: Option<VmaFlags>, limits: &Limits) -> Result<()> {
        // mlock(2): the address is rounded down.
        let start = super::address_space::page_floor(addr);
        let range = page_range(start, len.checked_add(addr - start).ok_or(Errno::EINVAL)?, Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        if lock.is_some() && limits.locked_bytes == 0 {
            return Err(Errno::EPERM);
        }
        {
            let mut guard = self.lock();
            let inner = &mut *guard;
            if !inner.vmas.covers(range.clone()) {
                return Err(Errno::ENOMEM);
            }
            let locked = |v: &Vma| v.flags.contains(VmaFlags::LOCKED);
            let already: usize = inner.vmas.overlapping(range.clone()).iter().filter(|v| locked(v)).map(|v| part(v, &range).len()).sum();
            if lock.is_some() && (inner.locked_bytes - already + range.len()) as u64 > limits.locked_bytes {
                return Err(Errno::ENOMEM);
            }
            inner.vmas.modify(range.clone(), |vma| {
                vma.flags = (vma.flags - (VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT)) | lock.unwrap_or(VmaFlags::empty());
                Ok(())
            })?;
            inner.locked_bytes = inner.locked_bytes - already + if lock.is_some() { range.len() } else { 0 };
        }
        match lock {
            Some(flags) if !flags.contains(VmaFlags::LOCK_ON_FAULT) => self.populate(range).map_err(|errno| match errno {
                // mlock(2) of memory without access reports ENOMEM, after locking it.
                Errno::EFAULT => Errno::ENOMEM,
                other => other,
            }),
            _ => Ok(()),
        }
    }

    /// Locks everything that is mapped (`current`) and what will be (`future`); `None` and empty unlock (mlockall(2), munlockall(2)).
    ///
    /// # Errors
    /// `ENOMEM` beyond the limit, `EPERM` with a limit of 0.
    pub fn set_all_locked(&self, current: Option<VmaFlags>, future: VmaFlags, limits: &Limits) -> Result<()> {
        let ranges: Vec<Range<usize>> = {
            let mut guard = self.lock();
            let inner = &mut *guard;
            let wants = current.is_some() || !future.is_empty();
            if wants && limits.locked_bytes == 0 {
                return Err(Errno::EPERM);
            }
            if current.is_some() && inner.vmas.total_bytes() as u64 > limits.locked_bytes {
                return Err(Errno::ENOMEM);
            }
            inner.future_flags = future;
            if wants && current.is_none() {
                return Ok(());
            }
            let mut locked = 0;
            inner.vmas.modify(0..crate::arch::addr::USER_END, |vma| {
                vma.flags = (vma.flags - (VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT)) | current.unwrap_or(VmaFlags::empty());
                locked += vma.len();
                Ok(())
            })?;
            inner.locked_bytes = if current.is_some() { locked } else { 0 };
            match current {
                Some(flags) if !flags.contains(VmaFlags::LOCK_ON_FAULT) => inner.vmas.iter().map(|v| v.range.clone()).collect(),
                _ => Vec::new(),
            }
        };
        for range in ranges {
            // mlockall ignores what cannot be brought in (Linux, `mm_populate`).
            let _ = self.populate(range);
        }
        Ok(())
    }

    /// Tells for each page of a range whether it is in memory.
    ///
    /// # Errors
    /// As mincore(2): `EINVAL`, `ENOMEM` for holes.
    pub fn residency(&self, addr: usize, pages: usize) -> Result<Vec<u8>> {
        let range = page_range(addr, pages.checked_mul(PAGE_SIZE).ok_or(Errno::ENOMEM)?, Errno::ENOMEM)?;
        let mut out = Vec::new();
        out.try_reserve_exact(pages).map_err(|_| Errno::ENOMEM)?;
        let mut asks: Vec<(Arc<dyn PageSource>, u64, usize)> = Vec::new();
        {
            let inner = self.lock();
            for page in range.step_by(PAGE_SIZE) {
                let vma = inner.vmas.find(page).ok_or(Errno::ENOMEM)?;
                let is_present = inner.pages.get(page).is_some();
                if let (false, Some(source)) = (is_present, &vma.source) {
                    asks.push((source.clone(), vma.page_index(page), out.len()));
                }
                out.push(is_present as u8);
            }
        }
        for (source, index, slot) in asks {
            source.cached(index, 1, &mut |_, _| out[slot] = 1);
        }
        Ok(out)
    }

    /// Writes shared file mappings of a range back to their files.
    ///
    /// # Errors
    /// As msync(2): `EINVAL`, `ENOMEM` for holes (the rest was written), `EBUSY` for locked memory with `invalidate`, `EIO`.
    pub fn sync(&self, addr: usize, len: usize, wait: bool, invalidate: bool) -> Result<()> {
        let range = page_range(addr, len, Errno::ENOMEM)?;
        let mut syncs: Vec<(Arc<dyn PageSource>, u64, u64)> = Vec::new();
        let covered = {
            let inner = self.lock();
            for vma in inner.vmas.overlapping(range.clone()) {
                if invalidate && vma.flags.contains(VmaFlags::LOCKED) {
                    return Err(Errno::EBUSY);
                }
                if let (true, Some(source)) = (wait && vma.is_shared(), &vma.source) {
                    let part = part(vma, &range);
                    syncs.push((source.clone(), vma.page_index(part.start), (part.len() / PAGE_SIZE) as u64));
                }
            }
            inner.vmas.covers(range)
        };
        for (source, first, count) in syncs {
            source.sync_pages(first, count)?;
        }
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}

/// The part of an area that lies in a range.
fn part(vma: &Vma, range: &Range<usize>) -> Range<usize> {
    vma.range.start.max(range.start)..vma.range.end.min(range.end)
}
