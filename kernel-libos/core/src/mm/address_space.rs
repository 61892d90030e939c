//! The address space of a process: areas and the pages in them.
//!
//! One spin lock guards areas and page table together. It is never held while a [`PageSource`] is asked for a page (that may wait for a disk), nor while
//! a source is dropped (that may run a file system's destructors): functions collect what they removed and drop it after the lock.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use libos_abi::{Errno, Result};

use crate::arch::addr::USER_END;
use crate::file::OpenFile;
use crate::sync::{SpinGuard, SpinLock};

use super::pages::Pages;
use super::shared::SharedMemory;
use super::vma::{Vma, VmaFlags, VmaMap};
use super::{PAGE_SIZE, PageSource, Protection, SourceName};

/// Lowest address a program may map (Linux' `vm.mmap_min_addr`): null pointers fault.
pub const MIN_ADDR: usize = 0x1_0000;

/// Where a mapping goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Anywhere; at the given address if it is free and not 0.
    Hint(usize),
    /// `MAP_FIXED`: there, in place of what is there.
    Fixed(usize),
    /// `MAP_FIXED_NOREPLACE`: there or `EEXIST`.
    FixedNoReplace(usize),
    /// `MAP_32BIT`: in the lower 2 GiB.
    Low,
}

/// The resource limits that mapping memory is subject to (getrlimit(2)), in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `RLIMIT_AS`.
    pub total_bytes: u64,
    /// `RLIMIT_DATA`.
    pub data_bytes: u64,
    /// `RLIMIT_MEMLOCK`; `u64::MAX` for tasks with `CAP_IPC_LOCK`.
    pub locked_bytes: u64,
    /// `RLIMIT_STACK`.
    pub stack_bytes: u64,
}

impl Limits {
    /// No limits.
    pub const NONE: Limits = Limits { total_bytes: u64::MAX, data_bytes: u64::MAX, locked_bytes: u64::MAX, stack_bytes: u64::MAX };

    /// The limits of a task.
    pub fn of(task: &crate::Task) -> Limits {
        use crate::task::Resource;
        const CAP_IPC_LOCK: u32 = 14;
        Limits {
            total_bytes: task.limit(Resource::As),
            data_bytes: task.limit(Resource::Data),
            locked_bytes: if task.creds().has_capability(CAP_IPC_LOCK) { u64::MAX } else { task.limit(Resource::MemLock) },
            stack_bytes: task.limit(Resource::Stack),
        }
    }
}

/// What to map, after mmap(2)'s arguments were checked.
pub struct MapRequest {
    /// Where.
    pub placement: Placement,
    /// Bytes; rounded up to whole pages, not 0.
    pub len_bytes: usize,
    /// Access.
    pub protection: Protection,
    /// Properties: `SHARED`, `MAY_WRITE`, `LOCKED` and so on.
    pub flags: VmaFlags,
    /// File and byte offset (page aligned); `None` is anonymous.
    pub source: Option<(Arc<dyn PageSource>, u64)>,
    /// The open file that the source belongs to; it is kept open, and its path shown.
    pub file: Option<Arc<OpenFile>>,
    /// Limits of the caller.
    pub limits: Limits,
    /// `MAP_POPULATE`: bring pages in now.
    pub populate: bool,
}

impl MapRequest {
    /// Private anonymous memory, anywhere, without limits.
    pub fn anonymous(len_bytes: usize, protection: Protection) -> MapRequest {
        MapRequest {
            placement: Placement::Hint(0),
            len_bytes,
            protection,
            flags: VmaFlags::MAY_WRITE | VmaFlags::MAY_EXEC,
            source: None,
            file: None,
            limits: Limits::NONE,
            populate: false,
        }
    }
}

/// One line of /proc/PID/maps.
pub struct MapLine {
    /// Addresses.
    pub range: Range<usize>,
    /// Access.
    pub protection: Protection,
    /// Shared rather than private.
    pub shared: bool,
    /// Byte offset in the source.
    pub offset: u64,
    /// Device, inode, path; `[heap]`, `[stack]` and such; empty for anonymous memory.
    pub name: SourceName,
}

/// Sizes of an address space in bytes, for /proc/PID/status and statm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// `VmSize`.
    pub total: usize,
    /// `VmRSS`.
    pub resident: usize,
    /// `VmLck`.
    pub locked: usize,
    /// `VmStk`.
    pub stack: usize,
    /// `VmExe` and `VmLib`: executable areas.
    pub text: usize,
    /// `VmData`: private writable areas but stacks.
    pub data: usize,
}

/// What exec(2) left for /proc/PID/{cmdline,environ,auxv,exe} and prctl(`PR_SET_MM`).
#[derive(Clone, Default)]
pub struct ProgramInfo {
    /// Where the argument strings lie.
    pub args: Range<usize>,
    /// Where the environment strings lie.
    pub env: Range<usize>,
    /// The auxiliary vector as the program got it: pairs of type and value.
    pub auxv: Vec<(usize, usize)>,
    /// The executable.
    pub exe: Option<Arc<OpenFile>>,
}

/// What the lock guards.
pub(super) struct Inner {
    pub vmas: VmaMap,
    pub pages: Pages,
    /// Start and current end of the program break; equal means it was never moved.
    pub brk: Range<usize>,
    /// Mappings are placed below this address.
    pub mmap_top: usize,
    /// Bytes of areas with `LOCKED`.
    pub locked_bytes: usize,
    /// Flags that new mappings get: mlockall(`MCL_FUTURE`).
    pub future_flags: VmaFlags,
    pub program: ProgramInfo,
}

/// VMAs and page table of one process (or of several tasks that share it).
pub struct AddressSpace {
    pub(super) inner: SpinLock<Inner>,
}

/// All address spaces, for [`super::invalidate`].
static ALL: SpinLock<Vec<Weak<AddressSpace>>> = SpinLock::new(Vec::new());

/// Calls `f` with every address space.
pub(super) fn for_all(mut f: impl FnMut(&AddressSpace)) {
    // Not under the lock: `f` drops pages and may drop the last reference to an address space.
    let spaces: Vec<Arc<AddressSpace>> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    spaces.iter().for_each(|space| f(space));
}

fn register(space: &Arc<AddressSpace>) -> Result<()> {
    let mut all = ALL.lock();
    if let Some(slot) = all.iter_mut().find(|w| w.strong_count() == 0) {
        *slot = Arc::downgrade(space);
        return Ok(());
    }
    all.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    all.push(Arc::downgrade(space));
    Ok(())
}

/// Rounds down to a page.
pub(super) fn page_floor(addr: usize) -> usize {
    addr & !(PAGE_SIZE - 1)
}

/// Rounds up to a page; `None` when it wraps around.
pub(super) fn page_ceil(addr: usize) -> Option<usize> {
    addr.checked_next_multiple_of(PAGE_SIZE)
}

/// Checks a page-aligned start and a length as munmap(2) and mprotect(2) do, and returns the range of pages.
pub(super) fn page_range(addr: usize, len: usize, outside: Errno) -> Result<Range<usize>> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let end = page_ceil(len).and_then(|len| addr.checked_add(len)).ok_or(outside)?;
    if end > USER_END {
        return Err(outside);
    }
    Ok(addr..end)
}

impl AddressSpace {
    /// Returns an empty address space.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<AddressSpace>> {
        AddressSpace::with(Inner {
            vmas: VmaMap::new(),
            pages: Pages::new()?,
            brk: 0..0,
            // Below the largest stack that is likely: exec moves it.
            mmap_top: USER_END - (128 << 20),
            locked_bytes: 0,
            future_flags: VmaFlags::empty(),
            program: ProgramInfo::default(),
        })
    }

    pub(super) fn with(inner: Inner) -> Result<Arc<AddressSpace>> {
        let space = Arc::new(AddressSpace { inner: SpinLock::new(inner) });
        register(&space)?;
        Ok(space)
    }

    /// Takes the lock.
    pub(super) fn lock(&self) -> SpinGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Makes the CPU use this address space.
    pub fn activate(&self) {
        self.lock().pages.activate();
    }

    /// Sets where mappings are placed (below) and where the program break starts; exec(2) does before anything else runs.
    pub fn set_layout(&self, mmap_top: usize, brk_start: usize) {
        let mut inner = self.lock();
        inner.mmap_top = page_floor(mmap_top);
        inner.brk = brk_start..brk_start;
    }

    /// Where the program break starts (`mm->start_brk`), and where it is.
    pub fn program_break(&self) -> Range<usize> {
        self.lock().brk.clone()
    }

    /// Records what the program was started with.
    pub fn set_program(&self, program: ProgramInfo) {
        let old = core::mem::replace(&mut self.lock().program, program);
        // Outside the lock: the old executable may be closed here.
        drop(old);
    }

    /// Returns what the program was started with.
    pub fn program(&self) -> ProgramInfo {
        self.lock().program.clone()
    }

    /// Maps and returns the address.
    ///
    /// # Errors
    /// As mmap(2): `ENOMEM` without room or beyond a limit, `EEXIST` for `FixedNoReplace`, `EPERM` below [`MIN_ADDR`], `EINVAL`, `EOVERFLOW`, `EAGAIN`
    /// beyond `RLIMIT_MEMLOCK`.
    pub fn map(&self, request: MapRequest) -> Result<usize> {
        let len = page_ceil(request.len_bytes).filter(|len| *len != 0).ok_or(if request.len_bytes == 0 {
            Errno::EINVAL
        } else {
            Errno::ENOMEM
        })?;
        if len > USER_END {
            return Err(Errno::ENOMEM);
        }
        let (source, first_page) = match request.source {
            Some((source, offset)) => {
                if !offset.is_multiple_of(PAGE_SIZE as u64) {
                    return Err(Errno::EINVAL);
                }
                offset.checked_add(len as u64).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
                (Some(source), offset / PAGE_SIZE as u64)
            }
            None if request.flags.contains(VmaFlags::SHARED) => (Some(SharedMemory::new(len as u64) as Arc<dyn PageSource>), 0),
            None => (None, 0),
        };
        let mut guard = self.lock();
        let inner = &mut *guard;
        let flags = request.flags | inner.future_flags;
        let (addr, replaces) = match request.placement {
            Placement::Hint(hint) => (inner.find_room(hint, len)?, false),
            Placement::Low => (inner.find_room_in(len, MIN_ADDR..0x8000_0000).ok_or(Errno::ENOMEM)?, false),
            Placement::Fixed(addr) | Placement::FixedNoReplace(addr) => {
                let range = page_range(addr, len, Errno::ENOMEM)?;
                if addr < MIN_ADDR {
                    return Err(Errno::EPERM);
                }
                let is_taken = !inner.vmas.overlapping(range).is_empty();
                if is_taken && matches!(request.placement, Placement::FixedNoReplace(_)) {
                    return Err(Errno::EEXIST);
                }
                (addr, is_taken)
            }
        };
        let range = addr..addr + len;
        let replaced_bytes: usize = if replaces { inner.vmas.overlapping(range.clone()).iter().map(Vma::len).sum() } else { 0 };
        inner.check_limits(len, replaced_bytes, flags, request.protection, source.is_none(), &request.limits)?;
        let removed = if replaces { inner.remove(range.clone())? } else { Vec::new() };
        let result =
            inner.vmas.insert(Vma { range: range.clone(), protection: request.protection, flags, source, first_page, file: request.file });
        if result.is_ok() && flags.contains(VmaFlags::LOCKED) {
            inner.locked_bytes += len;
        }
        drop(guard);
        drop(removed);
        result?;
        if request.populate || flags.contains(VmaFlags::LOCKED) && !flags.contains(VmaFlags::LOCK_ON_FAULT) {
            // mmap(2): the mapping stands when not all of it could be populated.
            let _ = self.populate(range);
        }
        Ok(addr)
    }

    /// Finds room for `len` bytes where [`AddressSpace::map`] would put them next.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn find_free(&self, len: usize) -> Result<usize> {
        self.lock().find_room(0, page_ceil(len).ok_or(Errno::ENOMEM)?)
    }

    /// Unmaps a range of pages.
    ///
    /// # Errors
    /// As munmap(2): `EINVAL`, `ENOMEM` for too many areas.
    pub fn unmap(&self, addr: usize, len: usize) -> Result<()> {
        let range = page_range(addr, len, Errno::EINVAL)?;
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        let removed = self.lock().remove(range)?;
        drop(removed);
        Ok(())
    }

    /// Returns the source whose first page an area shows at exactly this address (shmdt(2)).
    pub fn source_starting_at(&self, addr: usize) -> Option<Arc<dyn PageSource>> {
        let inner = self.lock();
        let vma = inner.vmas.find(addr).filter(|v| v.range.start == addr && v.first_page == 0)?;
        vma.source.clone()
    }

    /// Unmaps every area that shows a source mapped at `addr`, also when mprotect(2) split the mapping or parts are gone.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn unmap_source(&self, addr: usize, source: &Arc<dyn PageSource>) -> Result<()> {
        let mut dropped = Vec::new();
        let mut guard = self.lock();
        let mut at = addr;
        let mut result = Ok(());
        while let Some(vma) = guard.vmas.find_or_next(at) {
            let range = vma.range.clone();
            let belongs = vma.source.as_ref().is_some_and(|own| super::vma::same_source(own, source))
                && range.start as u64 == addr as u64 + vma.first_page * PAGE_SIZE as u64;
            at = range.end;
            if belongs {
                match guard.remove(range) {
                    Ok(removed) => dropped.extend(removed),
                    Err(errno) => result = Err(errno),
                }
            }
        }
        drop(guard);
        drop(dropped);
        result
    }

    /// Unmaps everything, when the last thread is gone.
    pub fn clear(&self) {
        let (removed, program) = {
            let mut guard = self.lock();
            let inner = &mut *guard;
            for vma in inner.vmas.iter() {
                inner.pages.remove(vma.range.clone());
            }
            inner.locked_bytes = 0;
            (core::mem::take(&mut inner.vmas), core::mem::take(&mut inner.program))
        };
        drop((removed, program));
    }

    /// Changes the access of a range of pages.
    ///
    /// # Errors
    /// As mprotect(2): `EINVAL`, `ENOMEM` when something in the range is not mapped, `EACCES` when the mapping does not allow it.
    pub fn protect(&self, addr: usize, len: usize, protection: Protection, limits: &Limits) -> Result<()> {
        let range = page_range(addr, len, Errno::ENOMEM)?;
        let mut guard = self.lock();
        let inner = &mut *guard;
        if range.is_empty() {
            return Ok(());
        }
        if inner.vmas.find(range.start).is_none() {
            return Err(Errno::ENOMEM);
        }
        let becomes_data: usize = inner
            .vmas
            .overlapping(range.clone())
            .iter()
            .filter(|v| protection.contains(Protection::WRITE) && !is_data(v.flags, v.protection) && is_data(v.flags, protection))
            .map(Vma::len)
            .sum();
        if becomes_data > 0 && limits.data_bytes != u64::MAX && (inner.usage().data + becomes_data) as u64 > limits.data_bytes {
            return Err(Errno::ENOMEM);
        }
        // As on Linux, areas below the first hole or refusal keep their new access.
        let (mut at, mut result) = (range.start, Ok(()));
        for vma in inner.vmas.overlapping(range.clone()) {
            let refused = protection.contains(Protection::WRITE) && !vma.flags.contains(VmaFlags::MAY_WRITE)
                || protection.contains(Protection::EXEC) && !vma.flags.contains(VmaFlags::MAY_EXEC);
            if vma.range.start > at || refused {
                result = Err(if refused && vma.range.start <= at { Errno::EACCES } else { Errno::ENOMEM });
                break;
            }
            at = vma.range.end.min(range.end);
        }
        if result.is_ok() && at < range.end {
            result = Err(Errno::ENOMEM);
        }
        if at > range.start {
            inner.vmas.modify(range.start..at, |vma| {
                vma.protection = protection;
                Ok(())
            })?;
            for vma in inner.vmas.overlapping(range.start..at) {
                let (part, is_shared) = (vma.range.start.max(range.start)..vma.range.end.min(at), vma.is_shared());
                let is_tracked = vma.source.as_ref().is_some_and(|s| s.tracks_writes());
                inner.pages.update(part, |frame| {
                    // What must not be written in place stays read-only; the write fault finds out.
                    let may_write = if is_shared { !is_tracked } else { frame.is_unique() };
                    if may_write { protection } else { protection - Protection::WRITE }
                });
            }
        }
        result
    }

    /// Moves the program break and returns where it is; asked for something impossible, it stays (brk(2), "C library/kernel differences").
    pub fn brk(&self, wanted: usize, limits: &Limits) -> usize {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let now = inner.brk.clone();
        if wanted < now.start || wanted > USER_END {
            return now.end;
        }
        let (Some(old_end), Some(new_end)) = (page_ceil(now.end), page_ceil(wanted)) else { return now.end };
        let mut removed = Vec::new();
        if new_end < old_end {
            match inner.remove(new_end..old_end) {
                Ok(areas) => removed = areas,
                Err(_) => return now.end,
            }
        } else if new_end > old_end {
            let flags = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXEC | VmaFlags::HEAP | inner.future_flags;
            let protection = Protection::READ | Protection::WRITE;
            let is_beyond_data = limits.data_bytes != u64::MAX && (wanted - now.start) as u64 > limits.data_bytes;
            let range = old_end..new_end;
            if is_beyond_data
                || !inner.vmas.is_free(range.clone())
                || inner.check_limits(range.len(), 0, flags, protection, true, limits).is_err()
                || inner.vmas.insert(Vma { range: range.clone(), protection, flags, source: None, first_page: 0, file: None }).is_err()
            {
                return now.end;
            }
            if flags.contains(VmaFlags::LOCKED) {
                inner.locked_bytes += range.len();
            }
        }
        inner.brk.end = wanted;
        drop(guard);
        drop(removed);
        wanted
    }

    /// Sizes.
    pub fn usage(&self) -> Usage {
        self.lock().usage()
    }

    /// Calls `f` with each area, in order.
    pub fn maps(&self, f: &mut dyn FnMut(MapLine)) {
        // Names may be long and their sources may lock: only the areas are copied under the lock.
        let (vmas, stack_name, heap_name) = (self.lock().vmas.clone(), b"[stack]".as_slice(), b"[heap]".as_slice());
        for vma in vmas.iter() {
            let name = match &vma.source {
                Some(source) => named(source.describe(), vma.file.as_deref()),
                None if vma.flags.contains(VmaFlags::STACK) => SourceName { path: stack_name.to_vec(), ..SourceName::default() },
                None if vma.flags.contains(VmaFlags::HEAP) => SourceName { path: heap_name.to_vec(), ..SourceName::default() },
                None => SourceName::default(),
            };
            f(MapLine {
                range: vma.range.clone(),
                protection: vma.protection,
                shared: vma.is_shared(),
                offset: if vma.source.is_some() { vma.first_page * PAGE_SIZE as u64 } else { 0 },
                name,
            });
        }
    }

    /// Start of the area at an address, if that area grows down.
    pub fn growing_area_start(&self, addr: usize) -> Option<usize> {
        self.lock().vmas.find(addr).filter(|v| v.flags.contains(VmaFlags::GROWS_DOWN)).map(|v| v.range.start)
    }

    /// What identifies a futex word: its source and offset for shared memory, this address space otherwise (futex(2): the value is found by the physical
    /// page, so that processes which share memory meet).
    pub fn shared_key(&self, addr: usize) -> Option<(usize, u64)> {
        let inner = self.lock();
        let vma = inner.vmas.find(addr).filter(|v| v.is_shared())?;
        let source = vma.source.as_ref()?;
        Some((Arc::as_ptr(source).cast::<()>() as usize, vma.page_index(addr) * PAGE_SIZE as u64 + (addr % PAGE_SIZE) as u64))
    }

    /// Takes pages of a source out of the page table.
    pub(super) fn forget_pages(&self, source: &dyn PageSource, first: u64, count: u64) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        for vma in inner.vmas.iter() {
            let Some(own) = &vma.source else { continue };
            if !core::ptr::addr_eq(Arc::as_ptr(own), source) {
                continue;
            }
            let pages = (vma.len() / PAGE_SIZE) as u64;
            let from = first.clamp(vma.first_page, vma.first_page + pages) - vma.first_page;
            let to = first.saturating_add(count).clamp(vma.first_page, vma.first_page + pages) - vma.first_page;
            if from < to {
                // Private copies go as well, as truncate(2) makes them go on Linux.
                inner.pages.remove(vma.range.start + from as usize * PAGE_SIZE..vma.range.start + to as usize * PAGE_SIZE);
            }
        }
    }
}

/// Adds the path of an open file to what its source knows of itself.
fn named(mut name: SourceName, file: Option<&OpenFile>) -> SourceName {
    if name.path.is_empty()
        && let Some(place) = file.and_then(|file| file.path.as_ref())
    {
        name.path = crate::vfs::path_bytes(place);
    }
    name
}

impl AddressSpace {
    /// As `forget_pages`, for those pages whose frame `goes`, which gets the page's number and its frame: private copies can be told apart from the source's
    /// own frames, and stay.
    pub(super) fn forget_frames(&self, source: &dyn PageSource, first: u64, count: u64, goes: &dyn Fn(u64, &super::Frame) -> bool) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        for vma in inner.vmas.iter() {
            if !vma.source.as_ref().is_some_and(|own| core::ptr::addr_eq(Arc::as_ptr(own), source)) {
                continue;
            }
            let end = vma.first_page + (vma.len() / PAGE_SIZE) as u64;
            for index in first.max(vma.first_page)..first.saturating_add(count).min(end) {
                let addr = vma.range.start + (index - vma.first_page) as usize * PAGE_SIZE;
                if inner.pages.get(addr).is_some_and(|entry| goes(index, &entry.frame())) {
                    inner.pages.remove(addr..addr + PAGE_SIZE);
                }
            }
        }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Whether an area counts for `RLIMIT_DATA` (private, writable, not a stack; Linux' `is_data_mapping`).
fn is_data(flags: VmaFlags, protection: Protection) -> bool {
    protection.contains(Protection::WRITE) && !flags.intersects(VmaFlags::SHARED | VmaFlags::GROWS_DOWN)
}

impl Inner {
    /// Finds room for a mapping: at the hint when that is free, else as high as possible.
    pub(super) fn find_room(&self, hint: usize, len: usize) -> Result<usize> {
        let hint = page_floor(hint);
        if hint >= MIN_ADDR && hint.checked_add(len).is_some_and(|end| end <= USER_END && self.vmas.is_free(hint..end)) {
            return Ok(hint);
        }
        self.find_room_in(len, MIN_ADDR..self.mmap_top)
            .or_else(|| self.vmas.find_gap_above(len, self.mmap_top..USER_END))
            .ok_or(Errno::ENOMEM)
    }

    fn find_room_in(&self, len: usize, window: Range<usize>) -> Option<usize> {
        self.vmas.find_gap_below(len, window)
    }

    /// Removes areas and their pages; the caller drops what is returned after the lock.
    pub(super) fn remove(&mut self, range: Range<usize>) -> Result<Vec<Vma>> {
        let removed = self.vmas.remove(range)?;
        for vma in &removed {
            self.pages.remove(vma.range.clone());
            if vma.flags.contains(VmaFlags::LOCKED) {
                self.locked_bytes -= vma.len();
            }
        }
        Ok(removed)
    }

    /// Checks that `len` more bytes are within the limits, of which `replaced` are mapped already.
    pub(super) fn check_limits(
        &self,
        len: usize,
        replaced: usize,
        flags: VmaFlags,
        protection: Protection,
        is_anonymous: bool,
        limits: &Limits,
    ) -> Result<()> {
        if (self.vmas.total_bytes() - replaced + len) as u64 > limits.total_bytes {
            return Err(Errno::ENOMEM);
        }
        if limits.data_bytes != u64::MAX && is_data(flags, protection) && (self.usage().data + len) as u64 > limits.data_bytes {
            return Err(Errno::ENOMEM);
        }
        if flags.contains(VmaFlags::LOCKED) && (self.locked_bytes + len) as u64 > limits.locked_bytes {
            return Err(Errno::EAGAIN);
        }
        // Overcommit as Linux' heuristic mode does it: only what could never be there is refused.
        let ram = super::frame::count().1.saturating_mul(PAGE_SIZE);
        if is_anonymous && is_data(flags, protection) && !flags.contains(VmaFlags::NO_RESERVE) && len > ram {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage {
            total: self.vmas.total_bytes(),
            resident: self.pages.resident() * PAGE_SIZE,
            locked: self.locked_bytes,
            ..Usage::default()
        };
        for vma in self.vmas.iter() {
            if vma.flags.contains(VmaFlags::GROWS_DOWN) {
                usage.stack += vma.len();
            } else if is_data(vma.flags, vma.protection) {
                usage.data += vma.len();
            } else if vma.protection.contains(Protection::EXEC) {
                usage.text += vma.len();
            }
        }
        usage
    }
}
