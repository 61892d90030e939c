//! Where a file system's bytes are: the initrd in RAM, used in place, or a disk.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use crate::arch::addr::PhysAddr;
use crate::device::BlockDevice;
use crate::mm::{Frame, PAGE_SIZE};
use crate::sync::SpinLock;

/// The bytes of a file-system image.
pub trait Volume: Send + Sync {
    /// Size in bytes.
    fn len_bytes(&self) -> u64;

    /// Reads bytes; for metadata, so a disk answers from its cache of pages.
    ///
    /// # Errors
    /// `EIO`, also beyond the end.
    fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()>;

    /// Returns the page at a page-aligned offset as it lies in RAM, without copying; `None` when the volume is not in RAM or the page not inside it.
    fn frame(&self, offset: u64) -> Option<Frame>;

    /// Fills frames with pages that lie in a row; `offset` is a multiple of 512.
    ///
    /// # Errors
    /// As [`Volume::read`].
    fn read_frames(&self, offset: u64, frames: &[Frame]) -> Result<()>;

    /// Whether [`Volume::frame`] may answer, so that a cache of pages would be a waste.
    fn is_in_ram(&self) -> bool;

    /// The disk itself, for a file system that writes; `None` when the volume is not on one.
    fn disk(&self) -> Option<Arc<dyn BlockDevice>> {
        None
    }

    /// What /proc/mounts shows.
    fn name(&self) -> Vec<u8>;

    /// Device number.
    fn dev(&self) -> u64;
}

/// An image that the monitor loaded to RAM.
pub struct RamVolume {
    base: PhysAddr,
    len_bytes: u64,
}

impl RamVolume {
    /// Returns the volume at a page-aligned physical address. The memory manager keeps the pages for good.
    pub fn new(base: PhysAddr, len_bytes: u64) -> RamVolume {
        RamVolume { base, len_bytes }
    }
}

impl Volume for RamVolume {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(dst.len() as u64).ok_or(Errno::EIO)?;
        if end > self.len_bytes {
            return Err(Errno::EIO);
        }
        let mut done = 0;
        while done < dst.len() {
            let at = offset + done as u64;
            let in_page = at as usize % PAGE_SIZE;
            let piece = (PAGE_SIZE - in_page).min(dst.len() - done);
            let frame = Frame::from_phys(PhysAddr(self.base.0 + at - in_page as u64));
            frame.read(in_page, &mut dst[done..done + piece]);
            done += piece;
        }
        Ok(())
    }

    fn frame(&self, offset: u64) -> Option<Frame> {
        let is_inside = offset.is_multiple_of(PAGE_SIZE as u64) && offset.checked_add(PAGE_SIZE as u64)? <= self.len_bytes;
        is_inside.then(|| Frame::from_phys(PhysAddr(self.base.0 + offset)))
    }

    fn read_frames(&self, offset: u64, frames: &[Frame]) -> Result<()> {
        let mut page = [0; 512];
        for (i, frame) in frames.iter().enumerate() {
            for piece in (0..PAGE_SIZE).step_by(page.len()) {
                self.read(offset + (i * PAGE_SIZE + piece) as u64, &mut page)?;
                frame.write(piece, &page);
            }
        }
        Ok(())
    }

    fn is_in_ram(&self) -> bool {
        true
    }

    fn name(&self) -> Vec<u8> {
        b"/dev/ram0".to_vec()
    }

    fn dev(&self) -> u64 {
        super::registry::make_dev(1, 0)
    }
}

/// Pages of metadata that a disk volume remembers at most.
const METADATA_PAGES: usize = 256;

/// A disk or a partition of one, with a small cache of the pages that hold metadata. File data does not go through it: that is each inode's page cache.
pub struct DiskVolume {
    disk: Arc<dyn BlockDevice>,
    index: u32,
    /// Bytes of the disk in front of the volume.
    start: u64,
    len_bytes: u64,
    /// Offset, when it was used last, the page. Few, so a scan finds them.
    metadata: SpinLock<Vec<(u64, u64, Frame)>>,
    clock: core::sync::atomic::AtomicU64,
}

impl DiskVolume {
    /// Returns the volume of the `index`-th disk.
    pub fn new(disk: Arc<dyn BlockDevice>, index: u32) -> DiskVolume {
        let len_bytes = disk.len_bytes();
        DiskVolume { disk, index, start: 0, len_bytes, metadata: SpinLock::new(Vec::new()), clock: 0.into() }
    }

    /// Returns the volume of a part of the disk, in bytes; one that does not lie on the disk is empty.
    pub fn part(self, bytes: core::ops::Range<u64>) -> DiskVolume {
        let is_inside = bytes.start <= bytes.end && bytes.end <= self.disk.len_bytes();
        let len_bytes = if is_inside { bytes.end - bytes.start } else { 0 };
        DiskVolume { start: bytes.start, len_bytes, metadata: SpinLock::new(Vec::new()), ..self }
    }

    fn page(&self, offset: u64) -> Result<Frame> {
        let now = self.clock.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        if let Some((_, used, frame)) = self.metadata.lock().iter_mut().find(|(at, ..)| *at == offset) {
            *used = now;
            return Ok(frame.clone());
        }
        let frame = Frame::alloc_zeroed()?;
        let avail = self.len_bytes.saturating_sub(offset);
        if avail >= PAGE_SIZE as u64 {
            self.disk.read_frames(self.start + offset, core::slice::from_ref(&frame))?;
        } else {
            // The last page of a disk may be shorter than a page.
            let mut sectors = [0; PAGE_SIZE];
            self.disk.read(self.start + offset, &mut sectors[..avail as usize])?;
            frame.write(0, &sectors[..avail as usize]);
        }
        let mut cache = self.metadata.lock();
        let entry = (offset, now, frame.clone());
        if cache.len() < METADATA_PAGES {
            cache.push(entry);
        } else if let Some(oldest) = cache.iter_mut().min_by_key(|(_, used, _)| *used) {
            *oldest = entry;
        }
        drop(cache);
        Ok(frame)
    }
}

impl Volume for DiskVolume {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(dst.len() as u64).ok_or(Errno::EIO)?;
        if end > self.len_bytes() {
            return Err(Errno::EIO);
        }
        let mut done = 0;
        while done < dst.len() {
            let at = offset + done as u64;
            let in_page = at as usize % PAGE_SIZE;
            let piece = (PAGE_SIZE - in_page).min(dst.len() - done);
            self.page(at - in_page as u64)?.read(in_page, &mut dst[done..done + piece]);
            done += piece;
        }
        Ok(())
    }

    fn frame(&self, _offset: u64) -> Option<Frame> {
        None
    }

    fn read_frames(&self, offset: u64, frames: &[Frame]) -> Result<()> {
        let end = offset.checked_add((frames.len() * PAGE_SIZE) as u64).ok_or(Errno::EIO)?;
        if end > self.len_bytes {
            return Err(Errno::EIO);
        }
        self.disk.read_frames(self.start + offset, frames)
    }

    fn is_in_ram(&self) -> bool {
        false
    }

    fn disk(&self) -> Option<Arc<dyn BlockDevice>> {
        Some(self.disk.clone())
    }

    fn name(&self) -> Vec<u8> {
        let mut name = b"/dev/vd".to_vec();
        name.push(b'a' + (self.index % 26) as u8);
        name
    }

    fn dev(&self) -> u64 {
        // virtio-blk has the dynamic major 254 on Linux and 16 minors per disk.
        super::registry::make_dev(254, self.index * 16)
    }
}
