//! The address space of a process.

use alloc::sync::Arc;

use bitflags::bitflags;
use libos_abi::Result;

use super::PageSource;

bitflags! {
    /// `PROT_*` of mmap(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Protection: u32 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

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

/// What to map, after mmap(2)'s arguments were checked.
pub struct MapRequest {
    /// Wanted address, page aligned; 0 is anywhere.
    pub addr: usize,
    /// Bytes, a multiple of the page size, not 0.
    pub len_bytes: usize,
    /// Access.
    pub protection: Protection,
    /// `MAP_SHARED` rather than `MAP_PRIVATE`.
    pub shared: bool,
    /// `MAP_FIXED` (and `MAP_FIXED_NOREPLACE`, which fails with `EEXIST`).
    pub fixed: Option<bool>,
    /// File and byte offset (page aligned); `None` is anonymous.
    pub source: Option<(Arc<dyn PageSource>, u64)>,
}

/// VMAs and page table of one process (or of several tasks that share it).
pub struct AddressSpace {}

impl AddressSpace {
    /// Returns an empty address space.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<AddressSpace>> {
        unimplemented!()
    }

    /// Returns a copy-on-write copy (fork(2)).
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<AddressSpace>> {
        unimplemented!()
    }

    /// Maps and returns the address.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn map(&self, request: MapRequest) -> Result<usize> {
        let _ = request;
        unimplemented!()
    }

    /// Makes the CPU use this address space.
    pub fn activate(&self) {
        unimplemented!()
    }
}
