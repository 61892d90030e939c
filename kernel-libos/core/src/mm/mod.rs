//! Memory: physical frames, the kernel heap, page sources, address spaces.
//!
//! One [`Frame`] type counts references to physical pages, so copy-on-write, the page cache and shared mappings are the same mechanism: a page is
//! writable in place exactly when nobody else refers to it, or when its mapping is shared. Pages of the initrd are frames too, with one reference
//! that is never dropped: a private file mapping of the root file system costs no copy.

pub mod address_space;
pub mod frame;

pub use address_space::{Access, AddressSpace, MapRequest, Protection};
pub use frame::Frame;

use libos_abi::Result;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// Something whose bytes can be mapped, page by page: an inode's page cache, shared anonymous memory, a device.
pub trait PageSource: Send + Sync {
    /// Returns page `index` (byte offset `index * PAGE_SIZE`), reading it in when needed; may block. Every caller gets the same frame, so that read(2),
    /// write(2) and all mappings agree. With `write` the source must make a frame that may be written through a shared mapping (a copy of a read-only
    /// original, allocated blocks) and takes note that the page is dirty.
    ///
    /// # Errors
    /// `ENXIO` beyond the end (the program gets SIGBUS), `EIO`, `ENOMEM`, `ENOSPC`.
    fn page(&self, index: u64, write: bool) -> Result<Frame>;

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
