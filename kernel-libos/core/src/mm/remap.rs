//! mremap(2): mappings grow, shrink and move with their pages.

use alloc::vec::Vec;
use core::ops::Range;

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use crate::arch::addr::USER_END;

use super::PAGE_SIZE;
use super::address_space::{AddressSpace, Inner, Limits, MIN_ADDR, page_ceil, page_range};
use super::vma::{Vma, VmaFlags};

bitflags! {
    /// `MREMAP_*`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RemapFlags: u32 {
        const MAY_MOVE = linux::MREMAP_MAYMOVE;
        const FIXED = linux::MREMAP_FIXED;
        const DONT_UNMAP = linux::MREMAP_DONTUNMAP;
    }
}

impl AddressSpace {
    /// Resizes or moves a mapping and returns its address.
    ///
    /// # Errors
    /// As mremap(2): `EINVAL`, `EFAULT` when the old range is not one mapping, `ENOMEM`, `EAGAIN` beyond `RLIMIT_MEMLOCK`.
    pub fn remap(
        &self,
        old_addr: usize,
        old_len: usize,
        new_len: usize,
        flags: RemapFlags,
        new_addr: usize,
        limits: &Limits,
    ) -> Result<usize> {
        let may_move = flags.contains(RemapFlags::MAY_MOVE);
        let keep = flags.contains(RemapFlags::DONT_UNMAP);
        let old_len = page_ceil(old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_ceil(new_len).ok_or(Errno::EINVAL)?;
        let has_place = flags.intersects(RemapFlags::FIXED | RemapFlags::DONT_UNMAP);
        if !old_addr.is_multiple_of(PAGE_SIZE) || new_len == 0 || has_place && !may_move || keep && old_len != new_len {
            return Err(Errno::EINVAL);
        }
        let old = page_range(old_addr, old_len, Errno::EINVAL)?;
        let target = if flags.contains(RemapFlags::FIXED) {
            let target = page_range(new_addr, new_len, Errno::EINVAL)?;
            if target.start < old.end && old.start < target.end || target.start < MIN_ADDR {
                return Err(Errno::EINVAL);
            }
            Some(target)
        } else {
            None
        };
        let mut dropped = Vec::new();
        let mut guard = self.lock();
        let result = guard.remap(old, new_len, may_move, keep, target, new_addr, limits, &mut dropped);
        drop(guard);
        drop(dropped);
        let (addr, grown) = result?;
        if let Some(grown) = grown {
            // As for mmap: what is locked comes in now, if it can.
            let _ = self.populate(grown);
        }
        Ok(addr)
    }
}

impl Inner {
    /// Returns the new address, and what is to be populated because it is locked and new.
    #[allow(clippy::too_many_arguments, reason = "the arguments of mremap(2), checked")]
    fn remap(
        &mut self,
        old: Range<usize>,
        new_len: usize,
        may_move: bool,
        keep: bool,
        target: Option<Range<usize>>,
        hint: usize,
        limits: &Limits,
        dropped: &mut Vec<Vma>,
    ) -> Result<(usize, Option<Range<usize>>)> {
        let vma = self.vmas.find(old.start).cloned().ok_or(Errno::EFAULT)?;
        let old_len = old.len();
        if old_len == 0 && (!vma.is_shared() || !may_move) {
            return Err(Errno::EINVAL);
        }
        if vma.range.end < old.end {
            return Err(Errno::EFAULT);
        }
        if let Some(target) = &target {
            dropped.extend(self.remove(target.clone())?);
        } else if !keep {
            if new_len <= old_len {
                if old_len > 0 && new_len < old_len {
                    dropped.extend(self.remove(old.start + new_len..old.end)?);
                }
                if old_len > 0 {
                    return Ok((old.start, None));
                }
            }
            let grown = old.end..old.start.checked_add(new_len).ok_or(Errno::EINVAL)?;
            if old_len > 0 && vma.range.end == old.end && grown.end <= USER_END && self.vmas.is_free(grown.clone()) {
                self.check_growth(&vma, grown.len(), limits)?;
                self.vmas.insert(Vma { first_page: vma.page_index(grown.start), range: grown.clone(), ..vma.clone() })?;
                return Ok((old.start, self.note_locked(&vma, grown)));
            }
            if !may_move {
                return Err(Errno::ENOMEM);
            }
        }
        // `old` shrinks with the target: pages behind the new length are not moved.
        if vma.flags.contains(VmaFlags::SPECIAL) && new_len > old_len {
            return Err(Errno::EFAULT);
        }
        self.check_growth(&vma, if keep { new_len } else { new_len.saturating_sub(old_len) }, limits)?;
        let new = match target {
            Some(target) => target,
            None => {
                let addr = self.find_room(if keep { hint } else { 0 }, new_len)?;
                addr..addr + new_len
            }
        };
        self.vmas.insert(Vma { range: new.clone(), first_page: vma.page_index(old.start), ..vma.clone() })?;
        let populate = self.note_locked(&vma, new.clone());
        let moved = old.start..old.start + old_len.min(new_len);
        if let Err(errno) = self.pages.relocate(moved, new.start) {
            dropped.extend(self.remove(new)?);
            return Err(errno);
        }
        if !keep && old_len > 0 {
            dropped.extend(self.remove(old)?);
        }
        Ok((new.start, populate))
    }

    fn check_growth(&self, vma: &Vma, more: usize, limits: &Limits) -> Result<()> {
        self.check_limits(more, 0, vma.flags, vma.protection, vma.source.is_none(), limits)
    }

    fn note_locked(&mut self, vma: &Vma, range: Range<usize>) -> Option<Range<usize>> {
        if !vma.flags.contains(VmaFlags::LOCKED) {
            return None;
        }
        self.locked_bytes += range.len();
        (!vma.flags.contains(VmaFlags::LOCK_ON_FAULT)).then_some(range)
    }
}
