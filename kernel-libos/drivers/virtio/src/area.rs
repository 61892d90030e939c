//! Memory that a device reads and writes: pages in a row.

use alloc::vec::Vec;
use core::ops::Range;

use libos_core::Result;
use libos_core::arch::addr::{PAGE_SIZE, PhysAddr, phys_to_virt};
use libos_core::mm::Frame;

/// Pages that lie in a row in physical memory, zeroed at first.
///
/// A part of an area is either the driver's or, between [`Queue::add`](crate::Queue::add) and [`Queue::pop`](crate::Queue::pop), the device's; the driver
/// must not look at the device's parts. A device that breaks its side of the rule is a monitor that attacks its own guest, which nothing can prevent.
pub struct Area {
    base: PhysAddr,
    len: usize,
    /// Keeps the pages.
    _frames: Vec<Frame>,
}

impl Area {
    /// Allocates an area of at least `len` bytes.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(len: usize) -> Result<Area> {
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        let frames = Frame::alloc_contiguous(pages)?;
        let area = Area { base: frames[0].phys(), len: pages * PAGE_SIZE, _frames: frames };
        // SAFETY: the pages are RAM of ours.
        unsafe { phys_to_virt(area.base).write_bytes(0, area.len) };
        Ok(area)
    }

    /// An area in ordinary memory, for tests with a device made of code.
    #[cfg(test)]
    pub(crate) fn for_test(len: usize) -> Area {
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        let layout = core::alloc::Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).unwrap();
        // SAFETY: the layout has a size. The memory is never freed, as tests are short.
        let base = unsafe { alloc::alloc::alloc_zeroed(layout) };
        Area { base: PhysAddr(base as u64), len: pages * PAGE_SIZE, _frames: Vec::new() }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the area has no bytes (never).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Physical address of a byte.
    ///
    /// # Panics
    /// When it lies outside.
    pub fn phys(&self, offset: usize) -> PhysAddr {
        assert!(offset <= self.len);
        self.base.offset(offset as u64)
    }

    fn ptr(&self, range: Range<usize>) -> *mut u8 {
        assert!(range.start <= range.end && range.end <= self.len, "outside of the area");
        // SAFETY: in bounds.
        unsafe { phys_to_virt(self.base).add(range.start) }
    }

    /// The bytes of a part that is the driver's.
    ///
    /// # Panics
    /// When the range lies outside.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        let len = range.len();
        // SAFETY: in bounds, and the pages live as long as `self`; the device leaves the driver's parts alone.
        unsafe { core::slice::from_raw_parts(self.ptr(range), len) }
    }

    /// Copies bytes into a part that is the driver's.
    ///
    /// # Panics
    /// When it would lie outside.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.ptr(offset..offset + bytes.len());
        // SAFETY: in bounds; `bytes` is not part of the area, which only `bytes` and `with_mut` lend out, for the driver's own other parts.
        unsafe { core::ptr::copy(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Calls `f` with the bytes of a part that is the driver's, and that it uses nowhere else meanwhile.
    ///
    /// # Panics
    /// When the range lies outside.
    pub fn with_mut<R>(&self, range: Range<usize>, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let len = range.len();
        // SAFETY: in bounds. Parts are handed to one user at a time: drivers give each buffer's number to whoever fills it and take it back afterwards.
        f(unsafe { core::slice::from_raw_parts_mut(self.ptr(range), len) })
    }

    /// A 16-bit word that the device may be writing (little endian, aligned).
    pub(crate) fn load16(&self, offset: usize) -> u16 {
        debug_assert!(offset.is_multiple_of(2));
        // SAFETY: in bounds and aligned; volatile, as the device writes it.
        unsafe { self.ptr(offset..offset + 2).cast::<u16>().read_volatile() }
    }

    pub(crate) fn store16(&self, offset: usize, value: u16) {
        debug_assert!(offset.is_multiple_of(2));
        // SAFETY: as above.
        unsafe { self.ptr(offset..offset + 2).cast::<u16>().write_volatile(value) }
    }

    pub(crate) fn load32(&self, offset: usize) -> u32 {
        debug_assert!(offset.is_multiple_of(4));
        // SAFETY: as above.
        unsafe { self.ptr(offset..offset + 4).cast::<u32>().read_volatile() }
    }

    pub(crate) fn store32(&self, offset: usize, value: u32) {
        debug_assert!(offset.is_multiple_of(4));
        // SAFETY: as above.
        unsafe { self.ptr(offset..offset + 4).cast::<u32>().write_volatile(value) }
    }

    pub(crate) fn store64(&self, offset: usize, value: u64) {
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: as above.
        unsafe { self.ptr(offset..offset + 8).cast::<u64>().write_volatile(value) }
    }
}
