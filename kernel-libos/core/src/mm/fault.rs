//! Page faults: pages come when they are touched.
//!
//! | what was touched | what happens |
//! |---|---|
//! | anonymous memory | a page of zeros of its own (for reads of large areas, the shared page of zeros) |
//! | a file, private, read or executed | the page-cache frame itself, read-only, and up to 15 neighbours that are in memory |
//! | a file, private, written | a copy |
//! | shared memory | the source's frame; writable once the source heard of the write, if it wants to |
//! | a read-only page of a writable private area | the page itself when nobody else refers to it, else a copy |
//! | just below an area that grows down | the area grows |
//!
//! Answers for everything else are what Linux' signals say: [`FaultError`].

use alloc::sync::Arc;
use core::array;

use libos_abi::{Errno, Result};

use super::address_space::{AddressSpace, Inner, Limits, page_floor};
use super::vma::{STACK_GUARD_BYTES, Vma, VmaFlags, same_source};
use super::{Frame, PAGE_SIZE, PageSource, Protection};

/// What a program did to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Fetched an instruction.
    Exec,
}

impl Access {
    fn is_allowed_by(self, protection: Protection) -> bool {
        match self {
            // On x86 memory that can be written or executed can be read.
            Access::Read => !protection.is_empty(),
            Access::Write => protection.contains(Protection::WRITE),
            Access::Exec => protection.contains(Protection::EXEC),
        }
    }
}

/// Why an access cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// SIGSEGV with `SEGV_MAPERR`: nothing is mapped there.
    NotMapped,
    /// SIGSEGV with `SEGV_ACCERR`: the mapping does not allow it.
    NotAllowed,
    /// SIGBUS with `BUS_ADRERR`: behind the end of the file, or the file could not be read.
    Bus,
    /// No memory: somebody must be killed.
    NoMemory,
}

impl FaultError {
    /// Signal and `si_code` that tell the program (sigaction(2)); `None` when memory ran out.
    pub fn signal(self) -> Option<(u32, i32)> {
        use libos_abi::general as linux;
        // si_code values of asm-generic/siginfo.h.
        const SEGV_MAPERR: i32 = 1;
        const SEGV_ACCERR: i32 = 2;
        const BUS_ADRERR: i32 = 2;
        match self {
            FaultError::NotMapped => Some((linux::SIGSEGV, SEGV_MAPERR)),
            FaultError::NotAllowed => Some((linux::SIGSEGV, SEGV_ACCERR)),
            FaultError::Bus => Some((linux::SIGBUS, BUS_ADRERR)),
            FaultError::NoMemory => None,
        }
    }
}

/// Pages mapped around a fault, the one asked for included; a power of two.
const AROUND: usize = 16;

/// Anonymous areas of at least this size get the shared page of zeros when they are read before they are written: sparse tables stay sparse.
const SPARSE_BYTES: usize = 2 << 20;

/// What must be asked of a source, without the lock.
struct Wanted {
    source: Arc<dyn PageSource>,
    index: u64,
    /// A shared page that is to be writable.
    shared_write: bool,
    /// A private page that is to be written: a copy.
    private_write: bool,
    /// First address and number of pages of the neighbourhood.
    around: (usize, usize),
}

enum Step {
    Done,
    Ask(Wanted),
}

impl AddressSpace {
    /// Makes an access possible, or says why it cannot be. May block.
    ///
    /// # Errors
    /// [`FaultError`].
    pub fn fault(&self, addr: usize, access: Access, limits: &Limits) -> Result<(), FaultError> {
        self.fault_within(addr, access, &|| *limits)
    }

    /// As [`AddressSpace::fault`], for callers that need some work to know the limits: they matter only when a stack grows.
    ///
    /// # Errors
    /// [`FaultError`].
    pub fn fault_within(&self, addr: usize, access: Access, limits: &dyn Fn() -> Limits) -> Result<(), FaultError> {
        loop {
            let wanted = match self.lock().begin_fault(addr, access, limits)? {
                Step::Done => return Ok(()),
                Step::Ask(wanted) => wanted,
            };
            let Wanted { source, index, shared_write, private_write, around } = wanted;
            let frame = source.page(index, shared_write).map_err(|errno| match errno {
                Errno::ENOMEM => FaultError::NoMemory,
                _ => FaultError::Bus,
            })?;
            let frame = if private_write { copy_of(&frame)? } else { frame };
            let mut neighbours: [Option<Frame>; AROUND] = array::from_fn(|_| None);
            let page = page_floor(addr);
            let first = index - ((page - around.0) / PAGE_SIZE) as u64;
            if around.1 > 1 {
                source.cached(first, around.1, &mut |i, frame| {
                    if let Some(slot) = i.checked_sub(first).and_then(|i| neighbours.get_mut(i as usize)) {
                        *slot = Some(frame);
                    }
                });
            }
            let mut guard = self.lock();
            let inner = &mut *guard;
            // The area may have changed while we waited: then everything starts anew.
            let is_as_before = |v: &&Vma| {
                v.source.as_ref().is_some_and(|s| same_source(s, &source))
                    && v.page_index(page) == index
                    && access.is_allowed_by(v.protection)
                    && !(private_write && v.is_shared())
                    && (!shared_write || v.is_shared())
            };
            let Some(vma) = inner.vmas.find(page).filter(is_as_before) else { continue };
            let (protection, range) = (vma.protection, vma.range.clone());
            let writable = shared_write || private_write || vma.is_shared() && !source.tracks_writes();
            let own = if writable { protection } else { protection - Protection::WRITE };
            let old = match inner.pages.get(page) {
                None => {
                    inner.pages.insert(page, frame, own).map_err(|_| FaultError::NoMemory)?;
                    None
                }
                // Another thread was faster, or a read-only page becomes a writable one.
                Some(_) if shared_write || private_write => inner.pages.replace(page, frame, own),
                Some(_) => Some(frame),
            };
            if around.1 > 1 && around.0 >= range.start && around.0 + around.1 * PAGE_SIZE <= range.end {
                inner.pages.insert_free(around.0, &mut neighbours[..around.1], protection - Protection::WRITE);
            }
            drop(guard);
            drop(old);
            return Ok(());
        }
    }

    /// Brings all pages of a range in, as far as the areas allow.
    ///
    /// # Errors
    /// `ENOMEM` for holes and without memory, `EFAULT` where the mapping allows nothing, `EAGAIN` for what cannot be read (mlock(2)).
    pub(super) fn populate(&self, range: core::ops::Range<usize>) -> Result<()> {
        self.populate_for(range, None)
    }

    /// As `populate`, for a certain access; by default, writing where private memory is writable.
    pub(super) fn populate_for(&self, range: core::ops::Range<usize>, wanted: Option<Access>) -> Result<()> {
        let mut page = range.start;
        while page < range.end {
            let (access, is_there) = {
                let inner = self.lock();
                let vma = inner.vmas.find(page).ok_or(Errno::ENOMEM)?;
                let by_area = if vma.protection.contains(Protection::WRITE) && !vma.is_shared() { Access::Write } else { Access::Read };
                let access = wanted.unwrap_or(by_area);
                (access, inner.pages.get(page).is_some_and(|entry| access.is_allowed_by(entry.protection)))
            };
            if !is_there {
                self.fault(page, access, &Limits::NONE).map_err(|error| match error {
                    FaultError::NotMapped | FaultError::NoMemory => Errno::ENOMEM,
                    FaultError::NotAllowed => Errno::EFAULT,
                    FaultError::Bus => Errno::EAGAIN,
                })?;
            }
            page += PAGE_SIZE;
        }
        Ok(())
    }

    /// Copies bytes to memory of this address space, which need not be the active one: exec fills a new program's stack, ptrace-like calls reach other
    /// processes. Obeys the areas' access unless `force`.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn write_bytes(&self, addr: usize, bytes: &[u8]) -> Result<()> {
        self.for_pieces(addr, bytes.len(), Access::Write, |frame, offset, done, len| frame.write(offset, &bytes[done..done + len]))
    }

    /// Copies bytes from memory of this address space, which need not be the active one.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn read_bytes(&self, addr: usize, bytes: &mut [u8]) -> Result<()> {
        self.for_pieces(addr, bytes.len(), Access::Read, |frame, offset, done, len| frame.read(offset, &mut bytes[done..done + len]))
    }

    /// Fills memory of this address space with zeros.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn clear_bytes(&self, addr: usize, len: usize) -> Result<()> {
        self.for_pieces(addr, len, Access::Write, |frame, offset, _, len| frame.clear_range(offset, len))
    }

    fn for_pieces(&self, addr: usize, len: usize, access: Access, mut f: impl FnMut(&Frame, usize, usize, usize)) -> Result<()> {
        addr.checked_add(len).filter(|end| *end <= crate::arch::addr::USER_END).ok_or(Errno::EFAULT)?;
        let mut done = 0;
        while done < len {
            let at = addr + done;
            let (page, offset) = (page_floor(at), at % PAGE_SIZE);
            let frame = self.lock().pages.get(page).filter(|e| access.is_allowed_by(e.protection)).map(|e| e.frame());
            let Some(frame) = frame else {
                self.fault(at, access, &Limits::NONE).map_err(|e| if e == FaultError::NoMemory { Errno::ENOMEM } else { Errno::EFAULT })?;
                continue;
            };
            let piece = (PAGE_SIZE - offset).min(len - done);
            f(&frame, offset, done, piece);
            done += piece;
        }
        Ok(())
    }
}

fn copy_of(frame: &Frame) -> Result<Frame, FaultError> {
    let copy = Frame::alloc_for_program().map_err(|_| FaultError::NoMemory)?;
    copy.copy_from(frame);
    Ok(copy)
}

impl Inner {
    /// Does what can be done under the lock.
    fn begin_fault(&mut self, addr: usize, access: Access, limits: &dyn Fn() -> Limits) -> Result<Step, FaultError> {
        let page = page_floor(addr);
        let vma = match self.vmas.find_or_next(addr) {
            Some(vma) if vma.range.start <= addr => vma,
            Some(above) if above.flags.contains(VmaFlags::GROWS_DOWN) => {
                self.grow_stack(page, &limits())?;
                self.vmas.find(addr).ok_or(FaultError::NotMapped)?
            }
            _ => return Err(FaultError::NotMapped),
        };
        if !access.is_allowed_by(vma.protection) {
            return Err(FaultError::NotAllowed);
        }
        let protection = vma.protection;
        let is_write = access == Access::Write;
        let Some(entry) = self.pages.get(page) else {
            return match &vma.source {
                None => {
                    let (frame, own) = if !is_write && vma.len() >= SPARSE_BYTES {
                        (Frame::zeros(), protection - Protection::WRITE)
                    } else {
                        (Frame::alloc_zeroed_for_program(), protection)
                    };
                    let frame = frame.map_err(|_| FaultError::NoMemory)?;
                    self.pages.insert(page, frame, own).map_err(|_| FaultError::NoMemory)?;
                    Ok(Step::Done)
                }
                Some(source) => Ok(Step::Ask(Wanted {
                    source: source.clone(),
                    index: vma.page_index(page),
                    shared_write: is_write && vma.is_shared(),
                    private_write: is_write && !vma.is_shared(),
                    around: if is_write || vma.flags.contains(VmaFlags::RANDOM) { (page, 1) } else { neighbourhood(vma, page) },
                })),
            };
        };
        if !is_write || entry.protection.contains(Protection::WRITE) {
            if entry.protection.is_empty() && !protection.is_empty()
                || access == Access::Exec && !entry.protection.contains(Protection::EXEC)
            {
                // The area allows more than the page table does: cannot be, as mprotect changes both, but must not loop.
                let own = protection - Protection::WRITE;
                self.pages.set_protection(page, own);
            } else {
                // Another thread was faster, or the TLB holds an older answer.
                self.pages.flush(page);
            }
            return Ok(Step::Done);
        }
        if vma.is_shared() {
            let source = vma.source.clone().ok_or(FaultError::Bus)?;
            return Ok(Step::Ask(Wanted {
                source,
                index: vma.page_index(page),
                shared_write: true,
                private_write: false,
                around: (page, 1),
            }));
        }
        // Copy on write, unless nobody else has the page.
        if entry.is_unique() {
            self.pages.set_protection(page, protection);
        } else {
            let copy = copy_of(&entry.frame())?;
            drop(self.pages.replace(page, copy, protection));
        }
        Ok(Step::Done)
    }

    /// Extends the area above an address down to it, if it grows and may.
    fn grow_stack(&mut self, page: usize, limits: &Limits) -> Result<(), FaultError> {
        let above = self.vmas.find_or_next(page).filter(|v| v.flags.contains(VmaFlags::GROWS_DOWN)).ok_or(FaultError::NotMapped)?;
        let (range, flags) = (above.range.clone(), above.flags);
        let grown = range.end - page;
        let more = range.start - page;
        if grown as u64 > limits.stack_bytes
            || page < super::address_space::MIN_ADDR
            || (self.vmas.total_bytes() + more) as u64 > limits.total_bytes
            || flags.contains(VmaFlags::LOCKED) && (self.locked_bytes + more) as u64 > limits.locked_bytes
        {
            return Err(FaultError::NotMapped);
        }
        // Something that is accessible below must stay at a distance (Linux, `expand_downwards`).
        let guard = page.saturating_sub(STACK_GUARD_BYTES)..range.start;
        if self
            .vmas
            .overlapping(guard)
            .iter()
            .any(|v| !v.flags.contains(VmaFlags::GROWS_DOWN) && !v.protection.is_empty() || v.range.end > page)
        {
            return Err(FaultError::NotMapped);
        }
        self.vmas.grow_down(range.start, page);
        if flags.contains(VmaFlags::LOCKED) {
            self.locked_bytes += more;
        }
        Ok(())
    }
}

/// First address and number of pages of the aligned block of pages around one, inside the area.
fn neighbourhood(vma: &Vma, page: usize) -> (usize, usize) {
    let block = page & !(AROUND * PAGE_SIZE - 1);
    let start = block.max(vma.range.start);
    let end = (block + AROUND * PAGE_SIZE).min(vma.range.end);
    (start, (end - start) / PAGE_SIZE)
}

/// The architecture's question when a copy to or from user memory faults: is there memory after all?
#[cfg(ukc_kernel)]
#[unsafe(no_mangle)]
fn ukc_kernel_fault(addr: usize, write: bool) -> bool {
    let access = if write { Access::Write } else { Access::Read };
    loop {
        let result = crate::task::with_current(|task| task.mm().fault_within(addr, access, &|| Limits::of(task)));
        if result != Err(FaultError::NoMemory) {
            return result.is_ok();
        }
        if !super::oom::make_room() {
            return false;
        }
    }
}
