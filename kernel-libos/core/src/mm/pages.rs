//! The page table as a map from addresses to frames.
//!
//! Every mapped page holds one reference to its [`Frame`], so dropping entries frees memory and the reference count answers the question of copy-on-write.
//! References move in and out here and nowhere else. Frames that leave are dropped after the translation was flushed: until then the processor may
//! still reach them.

use core::mem::ManuallyDrop;
use core::ops::Range;

use libos_abi::{Errno, Result};

use crate::arch::addr::{PhysAddr, VirtAddr};
use crate::arch::paging::{Flags, PageTable, Update};

use super::{Frame, PAGE_SIZE, Protection};

/// How many frames are collected before a flush.
const BATCH: usize = 64;

/// A page that is mapped; borrows the reference of the page table.
pub(super) struct Entry {
    frame: ManuallyDrop<Frame>,
    /// What the page table allows.
    pub protection: Protection,
}

impl Entry {
    /// Returns a reference of its own.
    pub fn frame(&self) -> Frame {
        Frame::clone(&self.frame)
    }

    /// Whether the page table has the only reference.
    pub fn is_unique(&self) -> bool {
        self.frame.is_unique()
    }
}

/// The pages of an address space.
pub(super) struct Pages {
    table: PageTable,
    resident: usize,
}

fn to_flags(protection: Protection) -> Flags {
    let mut flags = Flags::empty();
    // Without USER the page stays known but nobody can reach it: PROT_NONE.
    flags.set(Flags::USER, !protection.is_empty());
    flags.set(Flags::WRITE, protection.contains(Protection::WRITE));
    flags.set(Flags::EXEC, protection.contains(Protection::EXEC));
    flags
}

fn to_protection(flags: Flags) -> Protection {
    let mut protection = Protection::empty();
    if flags.contains(Flags::USER) {
        protection |= Protection::READ;
        protection.set(Protection::WRITE, flags.contains(Flags::WRITE));
        protection.set(Protection::EXEC, flags.contains(Flags::EXEC));
    }
    protection
}

impl Pages {
    pub fn new() -> Result<Pages> {
        Ok(Pages { table: PageTable::new().ok_or(Errno::ENOMEM)?, resident: 0 })
    }

    /// Number of pages mapped.
    pub fn resident(&self) -> usize {
        self.resident
    }

    /// Makes this CPU use the table.
    pub fn activate(&self) {
        self.table.activate();
    }

    /// Returns the page at an address.
    pub fn get(&self, addr: usize) -> Option<Entry> {
        let (phys, flags) = self.table.query(VirtAddr(addr))?;
        Some(Entry { frame: ManuallyDrop::new(Frame::from_entry(phys)), protection: to_protection(flags) })
    }

    /// Maps a frame where nothing is mapped.
    ///
    /// # Errors
    /// `ENOMEM` without memory for a table.
    pub fn insert(&mut self, addr: usize, frame: Frame, protection: Protection) -> Result<()> {
        self.table.map(VirtAddr(addr), frame.phys(), to_flags(protection)).map_err(|_| Errno::ENOMEM)?;
        // The entry has the reference from here on.
        let _ = frame.into_phys();
        self.resident += 1;
        Ok(())
    }

    /// Maps frames at `addr` and the pages behind it where nothing is mapped yet, with one walk of the table; the range lies in one aligned block of 2 MiB.
    /// Without memory for a table it maps less.
    pub fn insert_free(&mut self, addr: usize, frames: &mut [Option<Frame>], protection: Protection) {
        let resident = &mut self.resident;
        let _ = self.table.map_free(VirtAddr(addr), frames.len(), to_flags(protection), &mut |n| {
            let frame = frames[n].take()?;
            *resident += 1;
            // The entry has the reference from here on.
            Some(frame.into_phys())
        });
    }

    /// Maps a frame in place of another, which is returned.
    pub fn replace(&mut self, addr: usize, frame: Frame, protection: Protection) -> Option<Frame> {
        let (old, _) = self.table.unmap(VirtAddr(addr))?;
        let old = Frame::from_entry(old);
        // The tables above exist, so this needs no memory.
        match self.table.map(VirtAddr(addr), frame.phys(), to_flags(protection)) {
            Ok(()) => {
                let _ = frame.into_phys();
            }
            Err(_) => self.resident -= 1,
        }
        Some(old)
    }

    /// Changes what one page allows.
    pub fn set_protection(&mut self, addr: usize, protection: Protection) {
        self.table.protect(VirtAddr(addr), to_flags(protection));
    }

    /// Changes what the pages of a range allow, as `f` says for each frame.
    pub fn update(&mut self, range: Range<usize>, mut f: impl FnMut(&Frame) -> Protection) {
        self.table.update(VirtAddr(range.start)..VirtAddr(range.end), &mut |_, phys, flags| {
            let frame = ManuallyDrop::new(Frame::from_entry(phys));
            let new = f(&frame);
            if to_protection(flags) == new { Update::Keep } else { Update::Protect(to_flags(new)) }
        });
    }

    /// Hands out a reference to every page of a range; `f` also says what the page allows from now on. The caller flushes.
    pub fn share(&mut self, range: Range<usize>, mut f: impl FnMut(usize, Frame, Protection) -> Protection) {
        self.table.update(VirtAddr(range.start)..VirtAddr(range.end), &mut |addr, phys, flags| {
            let frame = ManuallyDrop::new(Frame::from_entry(phys));
            let old = to_protection(flags);
            let new = f(addr.0, Frame::clone(&frame), old);
            if old == new { Update::Keep } else { Update::Protect(to_flags(new)) }
        });
    }

    /// Unmaps a range and frees what only it referred to.
    pub fn remove(&mut self, range: Range<usize>) {
        let mut at = range.start;
        while at < range.end {
            let mut batch: [PhysAddr; BATCH] = [PhysAddr(0); BATCH];
            let mut count = 0;
            self.table.update(VirtAddr(at)..VirtAddr(range.end), &mut |addr, phys, _| {
                if count == BATCH {
                    return Update::Stop;
                }
                batch[count] = phys;
                count += 1;
                at = addr.0 + PAGE_SIZE;
                Update::Unmap
            });
            // `update` has flushed.
            self.resident -= count;
            for phys in &batch[..count] {
                drop(Frame::from_entry(*phys));
            }
            if count < BATCH {
                break;
            }
        }
    }

    /// Moves the pages of a range to another place, where nothing is mapped.
    ///
    /// # Errors
    /// `ENOMEM` without memory for tables; then everything is where it was.
    pub fn relocate(&mut self, from: Range<usize>, to: usize) -> Result<()> {
        let mut done = from.start;
        let mut failed = false;
        while done < from.end {
            let mut next = None;
            self.table.update(VirtAddr(done)..VirtAddr(from.end), &mut |addr, phys, flags| {
                next = Some((addr.0, phys, flags));
                Update::Stop
            });
            let Some((addr, phys, flags)) = next else { break };
            if self.table.map(VirtAddr(to + (addr - from.start)), phys, flags).is_err() {
                failed = true;
                break;
            }
            self.table.unmap(VirtAddr(addr));
            done = addr + PAGE_SIZE;
        }
        if !failed {
            return Ok(());
        }
        let mut back = from.start;
        while back < done {
            if let Some((phys, flags)) = self.table.unmap(VirtAddr(to + (back - from.start))) {
                // The tables of the old place still exist.
                let restored = self.table.map(VirtAddr(back), phys, flags);
                debug_assert!(restored.is_ok());
            }
            back += PAGE_SIZE;
        }
        Err(Errno::ENOMEM)
    }

    /// Forgets a cached translation.
    pub fn flush(&self, addr: usize) {
        self.table.flush_page(VirtAddr(addr));
    }

    /// Forgets all cached translations.
    pub fn flush_all(&self) {
        self.table.flush_all();
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // Usually the areas were removed one by one before, which looks at fewer entries.
        if self.resident > 0 {
            self.remove(0..crate::arch::addr::USER_END);
        }
    }
}

/// A zeroed page for a page table.
#[cfg(ukc_kernel)]
#[unsafe(no_mangle)]
fn ukc_alloc_table() -> Option<PhysAddr> {
    Frame::alloc_zeroed().ok().map(Frame::into_phys)
}

/// Takes back a page of [`ukc_alloc_table`].
#[cfg(ukc_kernel)]
#[unsafe(no_mangle)]
fn ukc_free_table(table: PhysAddr) {
    drop(Frame::from_entry(table));
}
