//! Reference-counted physical pages.

use alloc::vec::Vec;

use libos_abi::Result;

use crate::arch::addr::PhysAddr;

/// A reference to one physical page of 4096 bytes. Cloning adds a reference, dropping the last one frees the page.
pub struct Frame(PhysAddr);

impl Frame {
    /// Allocates a page with undefined contents.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc() -> Result<Frame> {
        unimplemented!()
    }

    /// Allocates a page of zeros.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_zeroed() -> Result<Frame> {
        unimplemented!()
    }

    /// Allocates `pages` pages that lie in a row, for kernel stacks and DMA.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_contiguous(pages: usize) -> Result<Vec<Frame>> {
        let _ = pages;
        unimplemented!()
    }

    /// Returns a reference to the page at an address that lies in RAM (a page of the initrd).
    pub fn from_phys(addr: PhysAddr) -> Frame {
        let _ = addr;
        unimplemented!()
    }

    /// Physical address.
    pub fn phys(&self) -> PhysAddr {
        self.0
    }

    /// Copies bytes out of the page; `offset + dst.len()` is at most 4096.
    pub fn read(&self, offset: usize, dst: &mut [u8]) {
        let _ = (offset, dst);
        unimplemented!()
    }

    /// Copies bytes into the page; `offset + src.len()` is at most 4096.
    pub fn write(&self, offset: usize, src: &[u8]) {
        let _ = (offset, src);
        unimplemented!()
    }

    /// Pushes bytes of the page to the destination of a read: one copy, straight to user memory.
    ///
    /// # Errors
    /// As [`crate::io::IoDst::push`].
    pub fn push_to(&self, offset: usize, len: usize, dst: &mut crate::io::IoDst<'_>) -> Result<usize> {
        let _ = (offset, len, dst);
        unimplemented!()
    }

    /// Pulls bytes from the source of a write into the page.
    ///
    /// # Errors
    /// As [`crate::io::IoSrc::pull`].
    pub fn pull_from(&self, offset: usize, len: usize, src: &mut crate::io::IoSrc<'_>) -> Result<usize> {
        let _ = (offset, len, src);
        unimplemented!()
    }

    /// Whether this is the only reference.
    pub fn is_unique(&self) -> bool {
        unimplemented!()
    }
}

impl Clone for Frame {
    fn clone(&self) -> Frame {
        unimplemented!()
    }
}

/// Pages free now, and in all.
pub fn count() -> (usize, usize) {
    unimplemented!()
}
