//! Memory: physical frames, the kernel heap, page sources, address spaces.
//!
//! One [`Frame`] type counts references to physical pages, so copy-on-write, the page cache and shared mappings are the same mechanism: a page is
//! writable in place exactly when nobody else refers to it, or when its mapping is shared. Pages of the initrd are frames too, with one reference
//! that is never dropped: a private file mapping of the root file system costs no copy.
//!
//! | file | what it is for |
//! |---|---|
//! | `direct`, `buddy`, `frame` | the direct map; free pages; counted references to pages |
//! | `heap`, `stack` | the kernel's allocator; kernel stacks |
//! | `vma` | what is mapped where, without pages |
//! | `pages` | the page table as a map from addresses to frames |
//! | `address_space` | both together: mmap, munmap, mprotect, brk |
//! | `fault`, `oom` | page faults: demand paging, copy-on-write, stack growth; who is killed when memory ends |
//! | `fork`, `remap`, `advise` | fork; mremap; madvise, mlock, mincore, msync |
//! | `shared` | shared anonymous memory |

pub mod address_space;
mod advise;
mod buddy;
mod direct;
pub mod fault;
mod fork;
pub mod frame;
#[cfg_attr(not(any(test, ukc_kernel)), allow(dead_code, reason = "on the host the heap is the host's"))]
mod heap;
pub(crate) mod oom;
mod pages;
mod remap;
pub mod shared;
pub mod stack;
pub mod vma;

pub use address_space::{AddressSpace, Limits, MapLine, MapRequest, Placement};
pub use advise::Advice;
pub use fault::{Access, FaultError};
pub use frame::Frame;
pub use remap::RemapFlags;
pub use stack::KernelStack;
pub use vma::VmaFlags;

use bitflags::bitflags;
use libos_abi::Result;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

bitflags! {
    /// `PROT_*` of mmap(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Protection: u32 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

/// Something whose bytes can be mapped, page by page: an inode's page cache, shared anonymous memory, a device.
///
/// When pages disappear (truncate(2)), the source drops its own references and, if one of the frames still has others, calls [`invalidate`].
pub trait PageSource: Send + Sync {
    /// Returns page `index` (byte offset `index * PAGE_SIZE`), reading it in when needed; may block. Every caller gets the same frame, so that read(2),
    /// write(2) and all mappings agree. With `write` the source must make a frame that may be written through a shared mapping (a copy of a read-only
    /// original, allocated blocks) and takes note that the page is dirty. The page may then be written to for as long as the frame has references
    /// other than the source's own, without another call: a write-back leaves such a page dirty.
    ///
    /// When the frame of a page changes (the copy of a read-only original that a write needs), the source calls [`invalidate`] for the page, so that
    /// existing mappings find the new one.
    ///
    /// # Errors
    /// `ENXIO` beyond the end (the program gets SIGBUS), `EIO`, `ENOMEM`, `ENOSPC`.
    fn page(&self, index: u64, write: bool) -> Result<Frame>;

    /// Hands out those of the pages `first .. first + count` that are in memory and lie inside the source, without blocking: what a page fault maps
    /// besides the page that was asked for. Called without locks.
    fn cached(&self, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        let _ = (first, count, give);
    }

    /// Whether the source must hear of the first write to each page. Otherwise shared pages are mapped writable from the start.
    fn tracks_writes(&self) -> bool {
        true
    }

    /// Makes pages `first .. first + count` durable (msync(2) with `MS_SYNC`).
    ///
    /// # Errors
    /// `EIO`.
    fn sync_pages(&self, first: u64, count: u64) -> Result<()> {
        let _ = (first, count);
        Ok(())
    }

    /// Forgets pages `first .. first + count`, which read as zeros from then on (madvise(2), `MADV_REMOVE`).
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the source cannot.
    fn discard(&self, first: u64, count: u64) -> Result<()> {
        let _ = (first, count);
        Err(libos_abi::Errno::EOPNOTSUPP)
    }

    /// Length in bytes now; pages that lie wholly behind it do not exist.
    fn len_bytes(&self) -> u64;

    /// What /proc/PID/maps shows: device, inode number and path.
    fn describe(&self) -> SourceName;
}

/// Device, inode and path of a page source as /proc/PID/maps prints them.
#[derive(Clone, Default)]
pub struct SourceName {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Path or a name such as `/dev/zero (deleted)`.
    pub path: alloc::vec::Vec<u8>,
}

/// Takes possession of the machine's memory; the heap works from here on. Costs the same for every size of RAM and of the initrd.
pub fn init(boot: &crate::arch::BootInfo) {
    let usable = boot.memory.iter().filter(|r| r.usable).map(|r| (r.start, r.end()));
    // What is in use is not in the usable regions.
    frame::init(usable, &[], boot.initrd.map(|(start, len)| (start.0, start.0 + len as u64)));
}

/// Takes pages `first ..` of a source out of all address spaces, because they no longer exist or have new frames. The next access asks the source again.
pub fn invalidate(source: &dyn PageSource, first: u64, count: u64) {
    address_space::for_all(|space| space.forget_pages(source, first, count));
}

/// Takes those of the pages `first ..` of a source out of all address spaces whose frame `goes`, which gets the page's number and its frame and is called with
/// an address space locked. Private copies of programs are other frames than the source's and can be left alone so.
pub fn invalidate_frames(source: &dyn PageSource, first: u64, count: u64, goes: &dyn Fn(u64, &Frame) -> bool) {
    address_space::for_all(|space| space.forget_frames(source, first, count, goes));
}

#[cfg(test)]
mod tests;
