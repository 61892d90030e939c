//! Reference-counted physical pages.
//!
//! [`buddy`](super::buddy) knows which pages are free; this file gives pages out as [`Frame`]s, counts references, and looks for memory when there is none.
//!
//! Pages of the initrd are frames too, but are not counted: they are never free, and nobody may write to them. So an image of any size costs nothing at
//! boot, and a private mapping of a file of the root file system is a mapping of the initrd itself.

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use libos_abi::{Errno, Result};

use crate::arch::addr::PhysAddr;
use crate::io::{IoDst, IoSrc};
use crate::sync::SpinLock;

use super::buddy::{Buddy, Pfn, meta_at};
use super::{PAGE_SIZE, direct};

/// Every free page of the machine.
static BUDDY: SpinLock<Buddy> = SpinLock::new(Buddy::new());
/// Address of the metadata of page 0, once known; read without the lock.
static META: AtomicUsize = AtomicUsize::new(0);
/// First page of the initrd and the page behind it.
static UNCOUNTED: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
/// The page of zeros, once somebody needed it.
static ZERO: AtomicU32 = AtomicU32::new(0);

/// Functions that give memory back when there is none.
static SHRINKERS: SpinLock<[Option<Shrinker>; 8]> = SpinLock::new([None; 8]);

/// Gives back about as many pages as asked for and returns how many it were. Called from anywhere, also with locks held: it must neither block nor
/// spin, so it takes locks with `try_lock` only.
pub type Shrinker = fn(pages: usize) -> usize;

/// Pages below which programs get none, so that the kernel can still end one of them.
const RESERVE_PAGES: usize = 16;

/// A reference to one physical page of 4096 bytes. Cloning adds a reference, dropping the last one frees the page.
///
/// What a frame holds is not memory in Rust's sense: programs and devices may write to it at any time. So there are only copies in and out.
pub struct Frame(NonZeroU32);

impl Frame {
    /// Allocates a page with undefined contents.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc() -> Result<Frame> {
        alloc_or_shrink(|| Frame::try_alloc(0)).ok_or(Errno::ENOMEM)
    }

    /// Allocates pages with undefined contents to read ahead into: as many as asked for, fewer when memory runs out, at least one.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_ahead(wanted: usize) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        frames.try_reserve_exact(wanted).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..wanted {
            match Frame::alloc() {
                Ok(frame) => frames.push(frame),
                Err(_) if !frames.is_empty() => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(frames)
    }

    /// Allocates a page of zeros.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_zeroed() -> Result<Frame> {
        let frame = Frame::alloc()?;
        frame.clear();
        Ok(frame)
    }

    /// Allocates a page of zeros for a program, unless memory is so low that the kernel needs it.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn alloc_zeroed_for_program() -> Result<Frame> {
        let frame = Frame::alloc_for_program()?;
        frame.clear();
        Ok(frame)
    }

    /// Allocates a page with undefined contents for a program.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn alloc_for_program() -> Result<Frame> {
        alloc_or_shrink(|| Frame::try_alloc(RESERVE_PAGES)).ok_or(Errno::ENOMEM)
    }

    fn try_alloc(reserve: usize) -> Option<Frame> {
        let mut buddy = lock();
        if buddy.free_pages() <= reserve {
            return None;
        }
        let pfn = buddy.alloc(0)?;
        count_of(pfn).store(1, Ordering::Relaxed);
        NonZeroU32::new(pfn).map(Frame)
    }

    /// Allocates `pages` pages that lie in a row, for kernel stacks and DMA.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_contiguous(pages: usize) -> Result<Vec<Frame>> {
        let mut out = Vec::new();
        out.try_reserve_exact(pages).map_err(|_| Errno::ENOMEM)?;
        let first = alloc_run(pages).ok_or(Errno::ENOMEM)?;
        out.extend((first..first + pages as Pfn).filter_map(|pfn| {
            count_of(pfn).store(1, Ordering::Relaxed);
            NonZeroU32::new(pfn).map(Frame)
        }));
        Ok(out)
    }

    /// Returns one more reference to a page that is in use, or to a page of the initrd.
    ///
    /// # Panics
    /// When the address lies in neither: somebody kept an address longer than the frame.
    pub fn from_phys(addr: PhysAddr) -> Frame {
        let pfn = direct::pfn(addr);
        if !is_uncounted(pfn) {
            let before = count_of(pfn).fetch_add(1, Ordering::Relaxed);
            assert!(before != 0 && before < 1 << 30, "a reference to a page that nobody has");
        }
        Frame(NonZeroU32::new(pfn).expect("page 0 is never used"))
    }

    /// Gives the reference up without dropping it: a page table entry holds it from now on.
    pub(super) fn into_phys(self) -> PhysAddr {
        let phys = self.phys();
        core::mem::forget(self);
        phys
    }

    /// Takes back the reference that [`Frame::into_phys`] gave to a page table entry, which no longer holds it.
    pub(super) fn from_entry(addr: PhysAddr) -> Frame {
        Frame(NonZeroU32::new(direct::pfn(addr)).expect("page 0 is never mapped"))
    }

    /// Returns the page of zeros that sparse memory shows until it is written to. It is never unique.
    ///
    /// # Errors
    /// `ENOMEM`, the first time.
    pub(super) fn zeros() -> Result<Frame> {
        if let Some(pfn) = NonZeroU32::new(ZERO.load(Ordering::Acquire)) {
            count_of(pfn.get()).fetch_add(1, Ordering::Relaxed);
            return Ok(Frame(pfn));
        }
        let frame = Frame::alloc_zeroed()?;
        // The reference of the static itself, which is never dropped; a second page made at the same time is simply kept as well.
        let kept = frame.clone();
        ZERO.store(kept.0.get(), Ordering::Release);
        core::mem::forget(kept);
        Ok(frame)
    }

    /// Physical address.
    pub fn phys(&self) -> PhysAddr {
        direct::phys(self.0.get())
    }

    fn ptr(&self) -> *mut u8 {
        direct::page_ptr(self.0.get())
    }

    /// Fills the page with zeros.
    pub fn clear(&self) {
        debug_assert!(!is_uncounted(self.0.get()), "the initrd is never written to");
        // SAFETY: the page is RAM that this reference keeps from being freed.
        unsafe { self.ptr().write_bytes(0, PAGE_SIZE) }
    }

    /// Fills the page with a copy of another.
    pub fn copy_from(&self, other: &Frame) {
        debug_assert!(!is_uncounted(self.0.get()), "the initrd is never written to");
        // SAFETY: both pages are RAM kept by references; two different pages do not overlap, and the same page is caught.
        unsafe {
            if self.0 != other.0 {
                core::ptr::copy_nonoverlapping(other.ptr(), self.ptr(), PAGE_SIZE);
            }
        }
    }

    /// Copies bytes out of the page; `offset + dst.len()` is at most 4096.
    ///
    /// # Panics
    /// When the range leaves the page.
    pub fn read(&self, offset: usize, dst: &mut [u8]) {
        check(offset, dst.len());
        // SAFETY: the range lies in a page of RAM that this reference keeps; `dst` is kernel memory and no frame's.
        unsafe { core::ptr::copy_nonoverlapping(self.ptr().add(offset), dst.as_mut_ptr(), dst.len()) }
    }

    /// Copies bytes into the page; `offset + src.len()` is at most 4096.
    ///
    /// # Panics
    /// When the range leaves the page.
    pub fn write(&self, offset: usize, src: &[u8]) {
        check(offset, src.len());
        debug_assert!(!is_uncounted(self.0.get()), "the initrd is never written to");
        // SAFETY: as for `read`.
        unsafe { core::ptr::copy_nonoverlapping(src.as_ptr(), self.ptr().add(offset), src.len()) }
    }

    /// Fills a part of the page with zeros.
    ///
    /// # Panics
    /// When the range leaves the page.
    pub fn clear_range(&self, offset: usize, len: usize) {
        check(offset, len);
        debug_assert!(!is_uncounted(self.0.get()), "the initrd is never written to");
        // SAFETY: as for `read`.
        unsafe { self.ptr().add(offset).write_bytes(0, len) }
    }

    /// Pushes bytes of the page to the destination of a read: one copy, straight to user memory.
    ///
    /// # Errors
    /// As [`IoDst::push`].
    pub fn push_to(&self, offset: usize, len: usize, dst: &mut IoDst<'_>) -> Result<usize> {
        check(offset, len);
        // SAFETY: the range lies in a page of RAM that this reference keeps. A program may write to it meanwhile; the slice goes straight to the copy
        // primitive, which is assembly, and whichever bytes it sees are an answer that read(2) may give.
        let bytes = unsafe { core::slice::from_raw_parts(self.ptr().add(offset), len) };
        dst.push(bytes)
    }

    /// Pulls bytes from the source of a write into the page.
    ///
    /// # Errors
    /// As [`IoSrc::pull`].
    pub fn pull_from(&self, offset: usize, len: usize, src: &mut IoSrc<'_>) -> Result<usize> {
        check(offset, len);
        debug_assert!(!is_uncounted(self.0.get()), "the initrd is never written to");
        // SAFETY: as for `push_to`; kernel code holds no other reference into the page, because frames give none out.
        let bytes = unsafe { core::slice::from_raw_parts_mut(self.ptr().add(offset), len) };
        src.pull(bytes)
    }

    /// Address at which the kernel sees the page, for devices' rings and kernel stacks, whose owners know who else uses it.
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr()
    }

    /// Whether this is the only reference: then the page may be written to without anybody noticing.
    pub fn is_unique(&self) -> bool {
        let pfn = self.0.get();
        !is_uncounted(pfn) && count_of(pfn).load(Ordering::Acquire) == 1
    }
}

impl PartialEq for Frame {
    /// Whether both refer to the same page.
    fn eq(&self, other: &Frame) -> bool {
        self.0 == other.0
    }
}

impl Clone for Frame {
    fn clone(&self) -> Frame {
        if !is_uncounted(self.0.get()) {
            count_of(self.0.get()).fetch_add(1, Ordering::Relaxed);
        }
        Frame(self.0)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let pfn = self.0.get();
        if !is_uncounted(pfn) && count_of(pfn).fetch_sub(1, Ordering::Release) == 1 {
            core::sync::atomic::fence(Ordering::Acquire);
            lock().free(pfn, 0);
        }
    }
}

fn check(offset: usize, len: usize) {
    assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset, "a range outside the page");
}

fn is_uncounted(pfn: Pfn) -> bool {
    UNCOUNTED[0].load(Ordering::Relaxed) <= pfn && pfn < UNCOUNTED[1].load(Ordering::Relaxed)
}

fn count_of<'a>(pfn: Pfn) -> &'a AtomicU32 {
    meta_at(META.load(Ordering::Relaxed), pfn)
}

#[cfg(ukc_kernel)]
fn lock() -> crate::sync::SpinGuard<'static, Buddy> {
    BUDDY.lock()
}

/// On the host nobody calls [`init`]: the first use makes the lower half of the arena the machine's memory.
#[cfg(not(ukc_kernel))]
fn lock() -> crate::sync::SpinGuard<'static, Buddy> {
    let mut buddy = BUDDY.lock();
    if !buddy.is_ready() {
        let pages = (direct::host::ARENA_BYTES / 2 / PAGE_SIZE) as Pfn;
        let meta_pages = (pages as usize * size_of::<u32>()).div_ceil(PAGE_SIZE) as Pfn;
        let meta = direct::page_ptr(1) as usize;
        META.store(meta, Ordering::Relaxed);
        buddy.init(meta, core::iter::once((1 + meta_pages, pages)));
    }
    buddy
}

/// Takes possession of the machine's memory.
///
/// `ram` are the usable ranges of physical addresses, without overlaps; `taken` are ranges inside them that are in use (kernel image, boot data, initrd);
/// `initrd` is the one of those whose pages can be had with [`Frame::from_phys`].
///
/// # Panics
/// When there is no room for four bytes per page.
pub fn init(ram: impl Iterator<Item = (u64, u64)> + Clone, taken: &[(u64, u64)], initrd: Option<(u64, u64)>) {
    const PAGE: u64 = PAGE_SIZE as u64;
    if let Some((start, end)) = initrd {
        UNCOUNTED[0].store((start / PAGE) as u32, Ordering::Relaxed);
        UNCOUNTED[1].store(end.div_ceil(PAGE) as u32, Ordering::Relaxed);
    }
    // Whole free pages of each range, as page numbers.
    let mut free = [(0 as Pfn, 0 as Pfn); 16];
    let mut count = 0;
    let mut add = |start: u64, end: u64| {
        let (start, end) = (start.div_ceil(PAGE) as Pfn, (end / PAGE) as Pfn);
        if start < end && count < free.len() {
            free[count] = (start, end);
            count += 1;
        }
    };
    for (start, end) in ram.clone() {
        let mut from = start;
        while from < end {
            // The first taken range that touches what is left.
            let next = taken.iter().filter(|t| t.1 > from && t.0 < end && t.0 < t.1).min_by_key(|t| t.0);
            match next {
                Some(&(taken_start, taken_end)) => {
                    if taken_start > from {
                        add(from, taken_start);
                    }
                    from = taken_end;
                }
                None => {
                    add(from, end);
                    from = end;
                }
            }
        }
    }
    let free = &mut free[..count];
    // Metadata cover page 0 to the last free page and lie at the end of the smallest range that has room, which keeps the large ones whole.
    let last = free.iter().map(|r| r.1).max().unwrap_or(0);
    let meta_pages = (last as usize * size_of::<u32>()).div_ceil(PAGE_SIZE) as Pfn;
    let room =
        free.iter_mut().filter(|r| r.1 - r.0 > meta_pages).min_by_key(|r| r.1 - r.0).expect("no memory for the page table of frames");
    room.1 -= meta_pages;
    let meta = direct::page_ptr(room.1) as usize;
    META.store(meta, Ordering::Relaxed);
    // The largest range first: the small ones below 1 MiB remain for what needs low addresses (starting other CPUs).
    free.sort_unstable_by_key(|r| core::cmp::Reverse(r.1 - r.0));
    BUDDY.lock().init(meta, free.iter().copied());
}

/// Allocates pages in a row, uncounted: the heap.
pub(super) fn alloc_run(pages: usize) -> Option<Pfn> {
    alloc_or_shrink(|| lock().alloc_run(pages))
}

/// Frees pages of [`alloc_run`].
pub(super) fn free_run(pfn: Pfn, pages: usize) {
    lock().free_run(pfn, pages);
}

/// The four bytes that belong to a page in use, for the heap's own count.
pub(super) fn page_word<'a>(pfn: Pfn) -> &'a AtomicU32 {
    count_of(pfn)
}

/// Adds a function that gives memory back when there is none.
pub fn register_shrinker(shrinker: Shrinker) {
    if let Some(slot) = SHRINKERS.lock().iter_mut().find(|s| s.is_none()) {
        *slot = Some(shrinker);
    }
}

fn alloc_or_shrink<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(value) = attempt() {
        return Some(value);
    }
    shrink(64);
    attempt()
}

#[cold]
fn shrink(pages: usize) {
    // A shrinker that itself runs out of memory must not come back here: the list is locked then, and it gets nothing.
    let Some(shrinkers) = SHRINKERS.try_lock().map(|s| *s) else { return };
    let mut given = super::heap::shrink();
    for shrinker in shrinkers.into_iter().flatten() {
        if given >= pages {
            break;
        }
        given += shrinker(pages - given);
    }
}

/// Pages free now, and in all.
pub fn count() -> (usize, usize) {
    let buddy = lock();
    (buddy.free_pages(), buddy.total_pages())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reference_frees() {
        let frame = Frame::alloc_zeroed().unwrap();
        assert!(frame.is_unique());
        let other = frame.clone();
        assert!(!frame.is_unique());
        drop(frame);
        assert!(other.is_unique());
        let phys = other.phys();
        let again = Frame::from_phys(phys);
        assert!(!other.is_unique() && again == other);
    }

    #[test]
    fn bytes_go_in_and_out() {
        let frame = Frame::alloc_zeroed().unwrap();
        frame.write(4090, b"abcdef");
        let copy = Frame::alloc().unwrap();
        copy.copy_from(&frame);
        let mut out = [0; 8];
        copy.read(4088, &mut out);
        assert_eq!(&out, b"\0\0abcdef");
        copy.clear_range(4091, 2);
        let mut dst = [1; 6];
        assert_eq!(copy.push_to(4090, 6, &mut IoDst::kernel(&mut dst)).unwrap(), 6);
        assert_eq!(&dst, b"a\0\0def");
        assert_eq!(copy.pull_from(0, 3, &mut IoSrc::kernel(b"xyz")).unwrap(), 3);
        copy.read(0, &mut out);
        assert_eq!(&out, b"xyz\0\0\0\0\0");
    }

    #[test]
    #[should_panic(expected = "outside the page")]
    fn a_range_that_leaves_the_page_is_a_bug() {
        Frame::alloc().unwrap().write(4090, b"abcdefg");
    }

    #[test]
    fn runs_lie_in_a_row() {
        let frames = Frame::alloc_contiguous(5).unwrap();
        for pair in frames.windows(2) {
            assert_eq!(pair[0].phys().0 + 4096, pair[1].phys().0);
        }
    }
}
