//! virtio-blk (virtio 1.2, 5.2): disks.
//!
//! A request is one buffer: a header that we write, the data, and a status byte that the device writes.
//!
//! ```text
//! header: 0 type u32 (0 read, 1 write, 4 flush, 8 serial number), 4 reserved, 8 sector u64 (of 512 bytes)      status: 0 good, 1 error, 2 unsupported
//! ```
//!
//! Pages go to and from the disk without a copy; bytes that are no whole pages go through pages of their own. Long transfers are cut into several requests
//! that are all in flight at once; whoever waits for them sleeps.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use libos_core::device::{BlockDevice, DEVICES};
use libos_core::mm::{Frame, PAGE_SIZE};
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::{Errno, Result};
use libos_virtio::{Device, Direction, Part, Queue};

/// Device type.
const KIND: u32 = 2;

// Features.
const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;

// Configuration.
const CAPACITY: usize = 0;
const SEG_MAX_AT: usize = 12;
const BLK_SIZE_AT: usize = 20;

const SECTOR_BYTES: u64 = 512;
const SERIAL_BYTES: usize = 20;
/// Requests in flight.
const SLOTS: usize = 32;
/// Bytes of a slot in the queue's memory: header, then status.
const SLOT_BYTES: usize = 32;
const HEADER_BYTES: usize = 16;
/// Descriptors: enough for all slots with a page each, or a few with many.
const QUEUE_SIZE: u16 = 128;
/// Pages of one request: 128 KiB, of which three fit the queue at once.
const PAGES_PER_REQUEST: usize = 32;

libos_core::module! {
    name: virtio_blk,
    needs: [virtio],
    init: init,
    syscalls: {},
}

fn init() {
    for device in libos_virtio::find(KIND) {
        match Disk::new(device) {
            Ok(disk) => DEVICES.lock().block.push(disk),
            Err(errno) => libos_core::arch::report!("ukc: a disk does not start (errno ", u64::from(errno.0), ")"),
        }
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read = 0,
    Write = 1,
    Flush = 4,
    Serial = 8,
}

/// A request slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    InFlight,
    /// The status byte.
    Done(u8),
}

struct State {
    queue: Queue<usize>,
    slots: [Slot; SLOTS],
}

/// A disk.
struct Disk {
    state: SpinLock<State>,
    /// Requests finished, or slots free.
    progress: WaitQueue,
    len_bytes: u64,
    sector_bytes: u32,
    is_read_only: bool,
    /// Whether the device has a cache that must be told to write.
    has_cache: bool,
    /// Something was written since the last flush.
    is_dirty: AtomicBool,
    pages_per_request: usize,
    _device: Device,
}

impl Disk {
    fn new(mut device: Device) -> Result<Arc<Disk>> {
        let features = device.negotiate(SEG_MAX | RO | BLK_SIZE | FLUSH)?;
        let capacity = u64::from_le_bytes(device.config(CAPACITY));
        let sector_bytes = if features & BLK_SIZE != 0 { u32::from_le_bytes(device.config(BLK_SIZE_AT)) } else { 512 };
        let segments = if features & SEG_MAX != 0 { u32::from_le_bytes(device.config(SEG_MAX_AT)) as usize } else { 1 };
        // The interrupt handler needs the disk, which needs the queue: the handler goes through a cell that is filled at the end.
        let cell: Arc<SpinLock<Option<alloc::sync::Weak<Disk>>>> = Arc::new(SpinLock::new(None));
        let seen = cell.clone();
        let handler = Arc::new(move || {
            let disk = seen.lock().as_ref().and_then(alloc::sync::Weak::upgrade);
            if let Some(disk) = disk {
                disk.collect();
            }
        });
        let mut queue = device.queue(0, QUEUE_SIZE, SLOTS * SLOT_BYTES, handler)?;
        queue.enable_interrupts();
        let pages = segments.clamp(1, PAGES_PER_REQUEST).min(usize::from(queue.size()).saturating_sub(2).max(1));
        device.start();
        let disk = Arc::new(Disk {
            state: SpinLock::new(State { queue, slots: [Slot::Free; SLOTS] }),
            progress: WaitQueue::new(),
            len_bytes: capacity.saturating_mul(SECTOR_BYTES),
            sector_bytes: if matches!(sector_bytes, 512 | 1024 | 2048 | 4096) { sector_bytes } else { 512 },
            is_read_only: features & RO != 0,
            has_cache: features & FLUSH != 0,
            is_dirty: AtomicBool::new(false),
            pages_per_request: pages,
            _device: device,
        });
        *cell.lock() = Some(Arc::downgrade(&disk));
        Ok(disk)
    }

    /// Takes finished requests from the device; called by the interrupt and by waiters.
    fn collect(&self) {
        let mut any = false;
        {
            let mut state = self.state.lock();
            loop {
                while let Some((slot, _)) = state.queue.pop() {
                    let status = state.queue.own().bytes(slot * SLOT_BYTES + HEADER_BYTES..slot * SLOT_BYTES + HEADER_BYTES + 1)[0];
                    state.slots[slot] = Slot::Done(status);
                    any = true;
                }
                if !state.queue.enable_interrupts() {
                    break;
                }
            }
        }
        if any {
            self.progress.wake_all();
        }
    }

    /// Hands a request to the device; `None` when there is no room now.
    fn try_submit(&self, kind: Kind, sector: u64, data: Option<Part<'_>>) -> Option<usize> {
        let mut state = self.state.lock();
        let slot = state.slots.iter().position(|s| *s == Slot::Free)?;
        let at = slot * SLOT_BYTES;
        let mut header = [0; HEADER_BYTES + 1];
        header[..4].copy_from_slice(&(kind as u32).to_le_bytes());
        header[8..16].copy_from_slice(&sector.to_le_bytes());
        header[HEADER_BYTES] = 0xff;
        state.queue.own().write(at, &header);
        let head = (Part::Own(at, HEADER_BYTES), Direction::ToDevice);
        let tail = (Part::Own(at + HEADER_BYTES, 1), Direction::FromDevice);
        let direction = if matches!(kind, Kind::Read | Kind::Serial) { Direction::FromDevice } else { Direction::ToDevice };
        let added = match data {
            None => state.queue.add(&[head, tail], slot),
            Some(data) => state.queue.add(&[head, (data, direction), tail], slot),
        };
        added.ok()?;
        state.slots[slot] = Slot::InFlight;
        Some(slot)
    }

    fn kick(&self) {
        self.state.lock().queue.kick();
    }

    /// Takes the answer of a finished request.
    fn try_finish(&self, slot: usize) -> Option<Result<()>> {
        let mut state = self.state.lock();
        let Slot::Done(status) = state.slots[slot] else { return None };
        state.slots[slot] = Slot::Free;
        Some(if status == 0 { Ok(()) } else { Err(Errno::EIO) })
    }

    fn finish(&self, slot: usize) -> Result<()> {
        let answer = self.progress.wait_uninterruptible(|| self.try_finish(slot));
        // The slot is free: somebody may be waiting for one.
        self.progress.wake_all();
        answer
    }

    /// Reads or writes pages that lie in a row on the disk. All requests are submitted before the first is waited for, as far as they fit.
    fn transfer(&self, kind: Kind, offset: u64, frames: &[Frame]) -> Result<()> {
        let mut result = Ok(());
        let mut in_flight: Vec<usize> = Vec::new();
        in_flight.try_reserve(frames.len().div_ceil(self.pages_per_request)).map_err(|_| Errno::ENOMEM)?;
        for (i, piece) in frames.chunks(self.pages_per_request).enumerate() {
            let sector = (offset + (i * self.pages_per_request * PAGE_SIZE) as u64) / SECTOR_BYTES;
            let slot = loop {
                if let Some(slot) = self.try_submit(kind, sector, Some(Part::Frames(piece))) {
                    break slot;
                }
                self.kick();
                if in_flight.is_empty() {
                    break self.progress.wait_uninterruptible(|| self.try_submit(kind, sector, Some(Part::Frames(piece))));
                }
                result = self.finish(in_flight.remove(0)).and(result);
            };
            in_flight.push(slot);
        }
        self.kick();
        for slot in in_flight {
            result = self.finish(slot).and(result);
        }
        result
    }

    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let end = offset.checked_add(len as u64).ok_or(Errno::ENXIO)?;
        if end > self.len_bytes {
            return Err(Errno::ENXIO);
        }
        if !offset.is_multiple_of(u64::from(self.sector_bytes)) || !len.is_multiple_of(self.sector_bytes as usize) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Moves bytes through pages of our own: `f(done, page, bytes)` fills or empties a page for the bytes from `done` on.
    fn bytes(&self, kind: Kind, offset: u64, len: usize, f: &mut dyn FnMut(usize, &Frame, usize)) -> Result<()> {
        let mut done = 0;
        while done < len {
            let pages = (len - done).div_ceil(PAGE_SIZE).min(PAGES_PER_REQUEST);
            let mut frames = Vec::new();
            frames.try_reserve_exact(pages).map_err(|_| Errno::ENOMEM)?;
            for _ in 0..pages {
                frames.push(Frame::alloc()?);
            }
            let each = |f: &mut dyn FnMut(usize, &Frame, usize)| {
                for (i, frame) in frames.iter().enumerate() {
                    let at = done + i * PAGE_SIZE;
                    f(at, frame, PAGE_SIZE.min(len - at));
                }
            };
            if kind == Kind::Write {
                each(f);
            }
            // Whole pages in one go; a last piece that is shorter in a request of its size.
            let whole = if len - done < pages * PAGE_SIZE { pages - 1 } else { pages };
            self.transfer(kind, offset + done as u64, &frames[..whole])?;
            if whole < pages {
                let rest = Part::Start(&frames[whole], (len - done) % PAGE_SIZE);
                let sector = (offset + (done + whole * PAGE_SIZE) as u64) / SECTOR_BYTES;
                let slot = self.progress.wait_uninterruptible(|| self.try_submit(kind, sector, Some(rest)));
                self.kick();
                self.finish(slot)?;
            }
            if kind == Kind::Read {
                each(f);
            }
            done += pages * PAGE_SIZE;
        }
        Ok(())
    }
}

impl BlockDevice for Disk {
    fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()> {
        self.check(offset, dst.len())?;
        self.bytes(Kind::Read, offset, dst.len(), &mut |at, frame, len| frame.read(0, &mut dst[at..at + len]))
    }

    fn read_frames(&self, offset: u64, frames: &[Frame]) -> Result<()> {
        self.check(offset, frames.len() * PAGE_SIZE)?;
        self.transfer(Kind::Read, offset, frames)
    }

    fn write(&self, offset: u64, src: &[u8]) -> Result<()> {
        if self.is_read_only {
            return Err(Errno::EROFS);
        }
        self.check(offset, src.len())?;
        self.is_dirty.store(true, Ordering::Release);
        self.bytes(Kind::Write, offset, src.len(), &mut |at, frame, len| frame.write(0, &src[at..at + len]))
    }

    fn write_frames(&self, offset: u64, frames: &[Frame]) -> Result<()> {
        if self.is_read_only {
            return Err(Errno::EROFS);
        }
        self.check(offset, frames.len() * PAGE_SIZE)?;
        self.is_dirty.store(true, Ordering::Release);
        self.transfer(Kind::Write, offset, frames)
    }

    fn flush(&self) -> Result<()> {
        if !self.has_cache || !self.is_dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let slot = self.progress.wait_uninterruptible(|| self.try_submit(Kind::Flush, 0, None));
        self.kick();
        let result = self.finish(slot);
        if result.is_err() {
            self.is_dirty.store(true, Ordering::Release);
        }
        result
    }

    fn serial(&self) -> Option<Vec<u8>> {
        let page = Frame::alloc_zeroed().ok()?;
        let slot = self.progress.wait_uninterruptible(|| self.try_submit(Kind::Serial, 0, Some(Part::Start(&page, SERIAL_BYTES))));
        self.kick();
        self.finish(slot).ok()?;
        let mut serial = alloc::vec![0; SERIAL_BYTES];
        page.read(0, &mut serial);
        // Shorter ones end with a NUL (virtio 1.2, 5.2.6).
        serial.truncate(serial.iter().position(|b| *b == 0).unwrap_or(SERIAL_BYTES));
        Some(serial)
    }

    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }
}
