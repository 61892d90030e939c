//! The vDSO: code of the kernel that programs call for the time without a system call (vdso(7)).
//!
//! `arch::vdso` has the bytes. Here is their life: one page of code and one page of data for all programs, made when the first program touches them, and
//! the data kept up with the clocks. Until a program has asked for the time by a system call the clock may not be calibrated, nor the wall clock
//! read: the data say so, and the code makes the system call.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use libos_abi::{Errno, Result};

use crate::arch::vdso;
use crate::mm::{AddressSpace, Frame, MapRequest, PAGE_SIZE, PageSource, Placement, Protection, SourceName, VmaFlags};
use crate::sync::SpinLock;

struct Pages {
    code: Frame,
    data: Frame,
    /// What the data's sequence was last.
    sequence: u32,
}

static PAGES: SpinLock<Option<Pages>> = SpinLock::new(None);
static SOURCE: SpinLock<Option<Arc<dyn PageSource>>> = SpinLock::new(None);
/// The generation of the clock's scale that the data show.
static SHOWN: AtomicU32 = AtomicU32::new(0);

struct Source;

/// Maps the vDSO at an address and returns where it is; `None` without memory: then the program has none and makes system calls.
pub fn map(mm: &AddressSpace, at: usize) -> Option<usize> {
    let source = SOURCE.lock().get_or_insert_with(|| Arc::new(Source)).clone();
    let mut request = MapRequest::anonymous(2 * PAGE_SIZE, Protection::READ | Protection::EXEC);
    request.placement = Placement::FixedNoReplace(at);
    request.flags = VmaFlags::SPECIAL | VmaFlags::MAY_EXEC;
    request.source = Some((source, 0));
    mm.map(request).ok()
}

/// Makes the data say what the clocks are now. Called whenever the kernel looked at a clock or changed one; costs two loads when nothing changed.
pub fn follow_clock() {
    let generation = crate::arch::time::tsc_generation();
    if SHOWN.load(Ordering::Relaxed) != generation {
        publish();
    }
}

/// Makes the data say what the clocks are now, after the wall clock was set or first read.
pub fn publish() {
    if let Some(pages) = &mut *PAGES.lock() {
        pages.publish();
    }
}

impl Pages {
    fn new() -> Result<Pages> {
        let (code, data) = (Frame::alloc_zeroed()?, Frame::alloc_zeroed()?);
        code.write(0, vdso::image());
        Ok(Pages { code, data, sequence: 0 })
    }

    fn publish(&mut self) {
        let generation = crate::arch::time::tsc_generation();
        if generation == 0 {
            // Not calibrated: whoever asks makes the system call, and that calibrates.
            return;
        }
        // Odd while it changes. Readers are on this CPU only or see the stores in order, as x86 does.
        self.data.write(0, &(self.sequence | 1).to_le_bytes());
        core::sync::atomic::fence(Ordering::SeqCst);
        self.sequence = (self.sequence & !1).wrapping_add(2).max(2);
        let data = vdso::Data {
            sequence: self.sequence | 1,
            params: crate::arch::time::tsc_params(),
            wall_offset_ns: crate::time::known_wall_offset_ns(),
        };
        self.data.write(0, &data.to_bytes());
        core::sync::atomic::fence(Ordering::SeqCst);
        self.data.write(0, &self.sequence.to_le_bytes());
        SHOWN.store(generation, Ordering::Relaxed);
    }
}

impl PageSource for Source {
    fn page(&self, index: u64, _write: bool) -> Result<Frame> {
        let mut pages = PAGES.lock();
        let pages = match &mut *pages {
            Some(pages) => pages,
            none => {
                let pages = none.insert(Pages::new()?);
                pages.publish();
                pages
            }
        };
        match index {
            0 => Ok(pages.code.clone()),
            1 => Ok(pages.data.clone()),
            _ => Err(Errno::ENXIO),
        }
    }

    fn cached(&self, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        // Both are made together; the data come along with the code.
        for index in first..(first + count as u64).min(2) {
            if let Ok(frame) = self.page(index, false) {
                give(index, frame);
            }
        }
    }

    fn len_bytes(&self) -> u64 {
        2 * PAGE_SIZE as u64
    }

    fn describe(&self) -> SourceName {
        SourceName { path: b"[vdso]".to_vec(), ..SourceName::default() }
    }
}
