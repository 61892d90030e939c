//! The kernel's heap: what `alloc` (Box, Arc, Vec) uses.
//!
//! Up to 2 KiB, an object has one of a few sizes; a page holds objects of one size, and free objects of a size form one list. Larger ones are whole pages
//! in a row. An object's size comes back with its layout, so pages need no header; the four bytes of metadata that every page has count the
//! objects in use. A page whose count is 0 goes back when memory is short ([`shrink`]), not before: nearly always it is needed again soon.

use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering;

use crate::sync::SpinLock;

use super::buddy::Pfn;
use super::{PAGE_SIZE, direct, frame};

/// Object sizes in bytes. Powers of two are aligned to themselves; the others to 16.
const SIZES: [u16; 14] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1360, 2048];

/// Largest object that is not whole pages.
const SMALL_MAX: usize = 2048;

/// `CLASS_OF[n.div_ceil(16)]` is the index of the smallest size that holds `n` bytes.
static CLASS_OF: [u8; SMALL_MAX / 16 + 1] = {
    let mut table = [0; SMALL_MAX / 16 + 1];
    let (mut i, mut class) = (0, 0);
    while i < table.len() {
        if i * 16 > SIZES[class] as usize {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
};

/// Set in a page's word by [`shrink`] while it collects the objects of a page that goes back.
const LEAVING: u32 = 1 << 31;

/// A free object: its first bytes are the link.
struct FreeObject {
    next: Option<NonNull<FreeObject>>,
}

/// Free memory of one size.
struct Class {
    free: Option<NonNull<FreeObject>>,
    /// The part of the newest page that was never used: addresses `[next, end)`.
    next: usize,
    end: usize,
}

struct Classes([Class; SIZES.len()]);

// SAFETY: the pointers lead to memory that belongs to the heap alone, and the lock around this gives it to one CPU at a time.
unsafe impl Send for Classes {}

static CLASSES: SpinLock<Classes> = SpinLock::new(Classes([const { Class { free: None, next: 0, end: 0 } }; SIZES.len()]));

/// Index of the size that serves a layout; `None` is whole pages.
fn class_of(layout: Layout) -> Option<usize> {
    let size = if layout.align() > 16 { layout.size().max(layout.align()).next_power_of_two() } else { layout.size() };
    (size <= SMALL_MAX).then(|| CLASS_OF[size.div_ceil(16)] as usize)
}

/// Number of the page that an address of the direct map lies in.
fn page_of(addr: usize) -> Pfn {
    direct::pfn(crate::arch::addr::virt_to_phys((addr & !(PAGE_SIZE - 1)) as *const u8))
}

impl Class {
    fn take(&mut self, size: usize) -> Option<NonNull<u8>> {
        let object = match self.free {
            Some(object) => {
                // SAFETY: objects on the list are free, so their first bytes are the link.
                self.free = unsafe { object.as_ref() }.next;
                object.cast()
            }
            None if self.next < self.end => {
                let object = NonNull::new(self.next as *mut u8)?;
                self.next += size;
                if self.next + size > self.end {
                    self.next = self.end;
                }
                object
            }
            None => return None,
        };
        frame::page_word(page_of(object.as_ptr() as usize)).fetch_add(1, Ordering::Relaxed);
        Some(object)
    }
}

/// Allocates memory; null when there is none.
pub(super) fn alloc(layout: Layout) -> *mut u8 {
    let Some(index) = class_of(layout) else {
        // Blocks of the buddy allocator are aligned to their size, which serves every alignment that the size reaches.
        let pages = layout.size().max(layout.align()).div_ceil(PAGE_SIZE);
        return frame::alloc_run(pages).map_or(null_mut(), direct::page_ptr);
    };
    let size = SIZES[index] as usize;
    loop {
        if let Some(object) = CLASSES.lock().0[index].take(size) {
            return object.as_ptr();
        }
        // The lock is not held here: looking for a page may make caches free objects.
        let Some(pfn) = frame::alloc_run(1) else { return null_mut() };
        frame::page_word(pfn).store(0, Ordering::Relaxed);
        let start = direct::page_ptr(pfn) as usize;
        let mut classes = CLASSES.lock();
        let class = &mut classes.0[index];
        if class.next < class.end {
            // Somebody else brought a page meanwhile.
            drop(classes);
            frame::free_run(pfn, 1);
        } else {
            (class.next, class.end) = (start, start + PAGE_SIZE);
        }
    }
}

/// Frees memory of [`alloc`].
///
/// # Safety
/// `ptr` came from `alloc` with this layout and was not freed since.
pub(super) unsafe fn dealloc(ptr: *mut u8, layout: Layout) {
    let Some(index) = class_of(layout) else {
        let pages = layout.size().max(layout.align()).div_ceil(PAGE_SIZE);
        frame::free_run(page_of(ptr as usize), pages);
        return;
    };
    let object = ptr.cast::<FreeObject>();
    let mut classes = CLASSES.lock();
    let class = &mut classes.0[index];
    // SAFETY: the caller gives the object up; it is at least 16 bytes long and aligned to 16.
    unsafe { object.write(FreeObject { next: class.free }) };
    class.free = NonNull::new(object);
    frame::page_word(page_of(ptr as usize)).fetch_sub(1, Ordering::Relaxed);
}

/// Gives pages without objects back and returns how many they were. Nothing when the heap is in use right now.
pub(super) fn shrink() -> usize {
    let Some(mut classes) = CLASSES.try_lock() else { return 0 };
    let mut pages = 0;
    for (class, size) in classes.0.iter_mut().zip(SIZES) {
        let per_page = (PAGE_SIZE / size as usize) as u32;
        let newest = if class.next < class.end { page_of(class.end - 1) } else { 0 };
        let mut list = class.free.take();
        while let Some(object) = list {
            // SAFETY: objects on the list are free, so their first bytes are the link.
            list = unsafe { object.as_ref() }.next;
            let pfn = page_of(object.as_ptr() as usize);
            let word = frame::page_word(pfn);
            let count = word.load(Ordering::Relaxed);
            if pfn == newest || (count != 0 && count & LEAVING == 0) {
                // SAFETY: as above; nobody else has the object.
                unsafe { object.as_ptr().write(FreeObject { next: class.free }) };
                class.free = Some(object);
            } else if (count & !LEAVING) + 1 == per_page {
                // All objects of the page have been taken off the list.
                frame::free_run(pfn, 1);
                pages += 1;
            } else {
                word.store(LEAVING | ((count & !LEAVING) + 1), Ordering::Relaxed);
            }
        }
    }
    pages
}

/// The kernel's global allocator.
#[cfg(ukc_kernel)]
struct KernelHeap;

#[cfg(ukc_kernel)]
#[global_allocator]
static HEAP: KernelHeap = KernelHeap;

#[cfg(ukc_kernel)]
// SAFETY: `alloc` hands out memory of the layout's size and alignment that nobody else has until `dealloc`.
unsafe impl core::alloc::GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        alloc(layout)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size with this alignment is a layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (class_of(layout), class_of(new_layout)) {
            (Some(a), Some(b)) if a == b => return ptr,
            (None, None) if layout.size().div_ceil(PAGE_SIZE) == new_size.div_ceil(PAGE_SIZE) => return ptr,
            _ => {}
        }
        let new = alloc(new_layout);
        if !new.is_null() {
            // SAFETY: the old memory is the caller's and at least as long as copied; the new one is ours; they do not overlap.
            unsafe {
                core::ptr::copy_nonoverlapping(ptr, new, layout.size().min(new_size));
                dealloc(ptr, layout);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_size_fits_its_class() {
        for size in 1..=SMALL_MAX {
            let class = class_of(Layout::from_size_align(size, 8).unwrap()).unwrap();
            assert!(SIZES[class] as usize >= size && (class == 0 || (SIZES[class - 1] as usize) < size), "{size}");
        }
        assert_eq!(class_of(Layout::from_size_align(2049, 8).unwrap()), None);
        assert_eq!(class_of(Layout::from_size_align(40, 64).unwrap()), Some(3));
        assert_eq!(class_of(Layout::from_size_align(64, 4096).unwrap()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn objects_keep_what_was_written(ops in prop::collection::vec((0usize..4, 1usize..9000, 0u32..8, any::<usize>()), 1..300)) {
            let mut live: Vec<(*mut u8, Layout, u8)> = Vec::new();
            for (i, (op, size, align, pick)) in ops.into_iter().enumerate() {
                if op < 2 || live.is_empty() {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    let ptr = alloc(layout);
                    prop_assert!(!ptr.is_null() && (ptr as usize).is_multiple_of(layout.align()));
                    // SAFETY: fresh memory of this size.
                    unsafe { ptr.write_bytes(i as u8, size) };
                    live.push((ptr, layout, i as u8));
                } else if op == 2 {
                    let (ptr, layout, fill) = live.swap_remove(pick % live.len());
                    // SAFETY: allocated above with this layout and filled.
                    unsafe {
                        prop_assert!(core::slice::from_raw_parts(ptr, layout.size()).iter().all(|b| *b == fill));
                        dealloc(ptr, layout);
                    }
                } else {
                    shrink();
                }
            }
            for (ptr, layout, fill) in live {
                // SAFETY: as above.
                unsafe {
                    prop_assert!(core::slice::from_raw_parts(ptr, layout.size()).iter().all(|b| *b == fill));
                    dealloc(ptr, layout);
                }
            }
        }
    }
}
