//! fork(2): the same memory twice, without copying it.

use alloc::sync::Arc;

use libos_abi::{Errno, Result};

use super::address_space::{AddressSpace, Inner};
use super::pages::Pages;
use super::vma::{VmaFlags, VmaMap};
use super::{PAGE_SIZE, Protection};

impl AddressSpace {
    /// Returns a copy-on-write copy (fork(2)): private pages are shared and read-only on both sides until one side writes. Memory locks are not inherited
    /// (mlock(2)); areas marked `MADV_DONTFORK` are missing, those marked `MADV_WIPEONFORK` are empty.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<AddressSpace>> {
        // Made before the lock: all that is needed of the heap under it are the areas.
        let child = AddressSpace::with(Inner {
            vmas: VmaMap::new(),
            pages: Pages::new()?,
            brk: 0..0,
            mmap_top: 0,
            locked_bytes: 0,
            future_flags: VmaFlags::empty(),
            program: Default::default(),
        })?;
        {
            let mut parent = self.lock();
            let mut copy = child.lock();
            let (parent, copy) = (&mut *parent, &mut *copy);
            copy.brk = parent.brk.clone();
            copy.mmap_top = parent.mmap_top;
            copy.program = parent.program.clone();
            let result = share_pages(parent, copy);
            // The parent lost write access to its private pages.
            parent.pages.flush_all();
            result?;
        }
        Ok(child)
    }
}

fn share_pages(parent: &mut Inner, child: &mut Inner) -> Result<()> {
    for vma in parent.vmas.iter() {
        if vma.flags.contains(VmaFlags::DONT_FORK) {
            continue;
        }
        let mut copy = vma.clone();
        copy.flags -= VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT;
        child.vmas.insert(copy)?;
        if vma.flags.contains(VmaFlags::WIPE_ON_FORK) {
            continue;
        }
        let is_shared = vma.is_shared();
        let mut result = Ok(());
        parent.pages.share(vma.range.clone(), |addr, frame, protection| {
            let shared_protection = if is_shared { protection } else { protection - Protection::WRITE };
            if result.is_ok() {
                debug_assert!(addr.is_multiple_of(PAGE_SIZE));
                result = child.pages.insert(addr, frame, shared_protection);
            }
            shared_protection
        });
        result.map_err(|_| Errno::ENOMEM)?;
    }
    Ok(())
}
