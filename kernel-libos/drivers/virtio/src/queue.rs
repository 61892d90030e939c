//! Split virtqueues (virtio 1.2, 2.7).
//!
//! ```text
//! descriptors   16 bytes each: address u64, bytes u32, flags u16 (1 next, 2 device writes), next u16      a buffer is a chain of them
//! available     flags u16, index u16, heads of chains u16 ..., used_event u16     written by us: "these buffers are yours"
//! used          flags u16, index u16, (head u32, bytes written u32) ..., avail_event u16    written by the device: "these are done"
//! ```
//!
//! Both indices only grow (modulo 2^16). With `EVENT_IDX` the device asks to be notified when the available index passes `avail_event`, and we to be
//! interrupted when the used index passes `used_event`; so a busy side is left alone.
//!
//! The three parts lie in a row as the older interface demands: used starts at the next page after available.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::sync::atomic::{Ordering, fence};

use libos_core::Result;
use libos_core::arch::addr::{PAGE_SIZE, PhysAddr};
use libos_core::mm::Frame;

use crate::area::Area;
use crate::device::Doorbell;

const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
/// No-interrupt flag of the available ring, no-notify flag of the used ring; without `EVENT_IDX`.
const QUIET: u16 = 1;

/// Who fills a part of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// We did; the device reads.
    ToDevice,
    /// The device does.
    FromDevice,
}

/// A part of a buffer.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// Bytes of the queue's own area: offset and length.
    Own(usize, usize),
    /// Whole pages.
    Frames(&'a [Frame]),
    /// The first bytes of a page.
    Start(&'a Frame, usize),
}

/// Byte offsets of the parts for a queue size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) available: usize,
    pub(crate) used: usize,
    pub(crate) len: usize,
}

impl Layout {
    pub(crate) fn new(size: u16) -> Layout {
        let size = usize::from(size);
        let available = 16 * size;
        let used = (available + 6 + 2 * size).next_multiple_of(PAGE_SIZE);
        Layout { available, used, len: used + 6 + 8 * size }
    }
}

/// What the device has of one buffer.
struct InFlight<T> {
    token: T,
    /// Keeps the pages that are no part of the queue's area.
    _frames: Vec<Frame>,
}

/// A virtqueue. `T` is what the driver wants back with a finished buffer.
pub struct Queue<T> {
    // Not freed with the queue: the device knows the addresses. (Drivers keep their queues for good.)
    ring: ManuallyDrop<Area>,
    layout: Layout,
    own: ManuallyDrop<Arc<Area>>,
    size: u16,
    /// First free descriptor; they are chained by their `next`.
    free: u16,
    free_count: u16,
    /// Index of the next available entry, and what it was at the last notification.
    available: u16,
    notified: u16,
    /// Index of the next used entry to look at.
    used: u16,
    event_idx: bool,
    doorbell: Doorbell,
    in_flight: ManuallyDrop<Vec<Option<InFlight<T>>>>,
}

impl<T> Queue<T> {
    pub(crate) fn new(size: u16, own: Area, ring: Area, event_idx: bool, doorbell: Doorbell) -> Queue<T> {
        let layout = Layout::new(size);
        debug_assert!(ring.len() >= layout.len && size.is_power_of_two());
        for i in 0..size {
            ring.store16(16 * usize::from(i) + 14, i + 1);
        }
        Queue {
            ring: ManuallyDrop::new(ring),
            layout,
            own: ManuallyDrop::new(Arc::new(own)),
            size,
            free: 0,
            free_count: size,
            available: 0,
            notified: 0,
            used: 0,
            event_idx,
            doorbell,
            in_flight: ManuallyDrop::new((0..size).map(|_| None).collect()),
        }
    }

    /// Physical addresses of descriptors, available and used ring.
    pub(crate) fn addresses(ring: &Area, size: u16) -> [PhysAddr; 3] {
        let layout = Layout::new(size);
        [ring.phys(0), ring.phys(layout.available), ring.phys(layout.used)]
    }

    /// The queue's own memory, for headers and packet buffers.
    pub fn own(&self) -> &Arc<Area> {
        &self.own
    }

    /// Descriptors in all.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Descriptors that are free: as many parts and pages fit.
    pub fn room(&self) -> u16 {
        self.free_count
    }

    /// Hands the device a buffer made of parts; those we filled come first. Gives the token back when there are not enough descriptors.
    ///
    /// # Errors
    /// The token.
    pub fn add(&mut self, parts: &[(Part<'_>, Direction)], token: T) -> core::result::Result<(), T> {
        let count: usize = parts.iter().map(|(part, _)| if let Part::Frames(frames) = part { frames.len() } else { 1 }).sum();
        if count == 0 || count > usize::from(self.free_count) {
            return Err(token);
        }
        let head = self.free;
        let mut frames_kept = Vec::new();
        let mut left = count;
        for &(part, direction) in parts {
            match part {
                Part::Own(offset, len) => {
                    assert!(offset + len <= self.own.len(), "outside of the area");
                    let addr = self.own.phys(offset);
                    self.describe(addr, len, direction, &mut left);
                }
                Part::Start(frame, len) => {
                    assert!(len <= PAGE_SIZE, "more than a page");
                    frames_kept.push(frame.clone());
                    self.describe(frame.phys(), len, direction, &mut left);
                }
                Part::Frames(frames) => {
                    frames_kept.extend(frames.iter().cloned());
                    for frame in frames {
                        self.describe(frame.phys(), PAGE_SIZE, direction, &mut left);
                    }
                }
            }
        }
        self.in_flight[usize::from(head)] = Some(InFlight { token, _frames: frames_kept });
        let slot = usize::from(self.available & (self.size - 1));
        self.ring.store16(self.layout.available + 4 + 2 * slot, head);
        self.available = self.available.wrapping_add(1);
        // The device must see the entry before the index that covers it.
        fence(Ordering::Release);
        self.ring.store16(self.layout.available + 2, self.available);
        Ok(())
    }

    /// Fills the next free descriptor.
    fn describe(&mut self, addr: PhysAddr, len: usize, direction: Direction, left: &mut usize) {
        let at = 16 * usize::from(self.free);
        *left -= 1;
        let mut flags = if *left > 0 { NEXT } else { 0 };
        if direction == Direction::FromDevice {
            flags |= DEVICE_WRITES;
        }
        self.ring.store64(at, addr.0);
        self.ring.store32(at + 8, len as u32);
        self.ring.store16(at + 12, flags);
        // `next` is the free list already.
        self.free = self.ring.load16(at + 14);
        self.free_count -= 1;
    }

    /// Tells the device about what was added since the last call, if it wants to know.
    pub fn kick(&mut self) {
        if self.available == self.notified {
            return;
        }
        // The index must be visible before we look at what the device wants (2.7.13.4).
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = self.ring.load16(self.layout.used + 4 + 8 * usize::from(self.size));
            passes(event, self.available, self.notified)
        } else {
            self.ring.load16(self.layout.used) & QUIET == 0
        };
        self.notified = self.available;
        if wanted {
            self.doorbell.ring();
        }
    }

    /// Whether a finished buffer waits.
    pub fn has_used(&self) -> bool {
        self.ring.load16(self.layout.used + 2) != self.used
    }

    /// Takes a finished buffer: its token and how many bytes the device wrote.
    pub fn pop(&mut self) -> Option<(T, usize)> {
        while self.has_used() {
            // The entry must not be read before the index that covers it.
            fence(Ordering::Acquire);
            let slot = self.layout.used + 4 + 8 * usize::from(self.used & (self.size - 1));
            let (head, written) = (self.ring.load32(slot), self.ring.load32(slot + 4));
            self.used = self.used.wrapping_add(1);
            // A head that is not in flight is a device that is broken: skipped.
            let Some(buffer) = self.in_flight.get_mut(head as usize).and_then(Option::take) else { continue };
            self.release(head as u16);
            return Some((buffer.token, written as usize));
        }
        None
    }

    /// Puts a chain back to the free list.
    fn release(&mut self, head: u16) {
        let mut last = head;
        let mut count = 1;
        while self.ring.load16(16 * usize::from(last) + 12) & NEXT != 0 {
            last = self.ring.load16(16 * usize::from(last) + 14);
            count += 1;
        }
        self.ring.store16(16 * usize::from(last) + 14, self.free);
        self.free = head;
        self.free_count += count;
    }

    /// Asks for an interrupt at the next finished buffer. Returns true when one is there already, for which no interrupt comes.
    pub fn enable_interrupts(&mut self) -> bool {
        if self.event_idx {
            self.ring.store16(self.layout.available + 4 + 2 * usize::from(self.size), self.used);
        } else {
            self.ring.store16(self.layout.available, 0);
        }
        fence(Ordering::SeqCst);
        self.has_used()
    }

    /// Asks for an interrupt when about three quarters of what is in flight is finished. Returns true when that is so already.
    pub fn enable_interrupts_delayed(&mut self) -> bool {
        let in_flight = self.available.wrapping_sub(self.used);
        let wait = in_flight / 4 * 3;
        if self.event_idx {
            self.ring.store16(self.layout.available + 4 + 2 * usize::from(self.size), self.used.wrapping_add(wait));
            fence(Ordering::SeqCst);
            self.ring.load16(self.layout.used + 2).wrapping_sub(self.used) > wait
        } else {
            self.enable_interrupts()
        }
    }

    /// Says that interrupts are of no use now. (With `EVENT_IDX` nothing need be done: the event index is passed only once.)
    pub fn disable_interrupts(&mut self) {
        if !self.event_idx {
            self.ring.store16(self.layout.available, QUIET);
        }
    }
}

/// Whether an index that went from `old` to `new` passed `event` (virtio 1.2, 2.7.10.1).
fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Allocates the ring of a queue.
///
/// # Errors
/// `ENOMEM`.
pub(crate) fn ring(size: u16) -> Result<Area> {
    Area::new(Layout::new(size).len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, bytes, flags.
    type Described = (u64, u32, u16);

    /// The device's side.
    struct Device {
        available: u16,
        used: u16,
    }

    impl Device {
        /// Takes the next buffer: head and (address, bytes, flags) of its parts.
        fn take<T>(&mut self, q: &Queue<T>) -> Option<(u16, Vec<Described>)> {
            if q.ring.load16(q.layout.available + 2) == self.available {
                return None;
            }
            let head = q.ring.load16(q.layout.available + 4 + 2 * usize::from(self.available % q.size));
            self.available = self.available.wrapping_add(1);
            let mut parts = vec![];
            let mut at = head;
            loop {
                let d = 16 * usize::from(at);
                let addr = u64::from(q.ring.load32(d)) | u64::from(q.ring.load32(d + 4)) << 32;
                let flags = q.ring.load16(d + 12);
                parts.push((addr, q.ring.load32(d + 8), flags));
                if flags & NEXT == 0 {
                    return Some((head, parts));
                }
                at = q.ring.load16(d + 14);
            }
        }

        fn give<T>(&mut self, q: &Queue<T>, head: u32, written: u32) {
            let slot = q.layout.used + 4 + 8 * usize::from(self.used % q.size);
            q.ring.store32(slot, head);
            q.ring.store32(slot + 4, written);
            self.used = self.used.wrapping_add(1);
            q.ring.store16(q.layout.used + 2, self.used);
        }
    }

    fn queue(size: u16, event_idx: bool) -> (Queue<u32>, Device) {
        let ring = Area::for_test(Layout::new(size).len);
        (Queue::new(size, Area::for_test(4096), ring, event_idx, Doorbell::none()), Device { available: 0, used: 0 })
    }

    #[test]
    fn layout_of_the_older_interface() {
        assert_eq!(Layout::new(256), Layout { available: 4096, used: 8192, len: 8192 + 6 + 2048 });
        assert_eq!(Layout::new(8), Layout { available: 128, used: 4096, len: 4096 + 6 + 64 });
    }

    #[test]
    fn buffers_go_and_come_back_in_any_order() {
        let (mut q, mut device) = queue(8, true);
        let base = q.own().phys(0).0;
        for round in 0..20_000u32 {
            q.add(&[(Part::Own(0, 16), Direction::ToDevice), (Part::Own(16, 1), Direction::FromDevice)], round).unwrap();
            q.add(&[(Part::Own(64, 64), Direction::FromDevice)], round + 1_000_000).unwrap();
            assert_eq!(q.room(), 5);
            let (first, parts) = device.take(&q).unwrap();
            assert_eq!(parts, [(base, 16, NEXT), (base + 16, 1, DEVICE_WRITES)]);
            let (second, parts) = device.take(&q).unwrap();
            assert_eq!(parts, [(base + 64, 64, DEVICE_WRITES)]);
            assert!(device.take(&q).is_none());
            assert_eq!(q.pop(), None);
            device.give(&q, u32::from(second), 60);
            device.give(&q, u32::from(first), 1);
            assert_eq!(q.pop(), Some((round + 1_000_000, 60)));
            assert_eq!(q.pop(), Some((round, 1)));
            assert_eq!(q.pop(), None);
            assert_eq!(q.room(), 8);
        }
    }

    #[test]
    fn a_full_queue_gives_the_token_back() {
        let (mut q, mut device) = queue(4, false);
        for i in 0..4 {
            q.add(&[(Part::Own(0, 1), Direction::ToDevice)], i).unwrap();
        }
        assert_eq!(q.add(&[(Part::Own(0, 1), Direction::ToDevice)], 9), Err(9));
        let (head, _) = device.take(&q).unwrap();
        device.give(&q, u32::from(head), 0);
        assert_eq!(q.pop(), Some((0, 0)));
        assert!(q.add(&[(Part::Own(0, 1), Direction::ToDevice), (Part::Own(1, 1), Direction::ToDevice)], 9).is_err());
        assert!(q.add(&[(Part::Own(0, 1), Direction::ToDevice)], 9).is_ok());
    }

    #[test]
    fn a_device_that_lies_is_ignored() {
        let (mut q, mut device) = queue(4, false);
        q.add(&[(Part::Own(0, 1), Direction::ToDevice)], 7).unwrap();
        device.give(&q, 3, 1);
        device.give(&q, 0xffff_ffff, 1);
        device.give(&q, 0, 1);
        device.give(&q, 0, 1);
        assert_eq!(q.pop(), Some((7, 1)));
        assert_eq!(q.pop(), None);
        assert_eq!(q.room(), 4);
    }

    #[test]
    fn event_indices() {
        assert!(passes(0, 1, 0) && !passes(1, 1, 0) && passes(1, 3, 0) && passes(0xffff, 0, 0xffff) && !passes(5, 5, 5));
        let (mut q, mut device) = queue(8, true);
        for i in 0..4 {
            q.add(&[(Part::Own(0, 1), Direction::ToDevice)], i).unwrap();
        }
        assert!(!q.enable_interrupts());
        assert_eq!(q.ring.load16(q.layout.available + 4 + 16), 0);
        let (head, _) = device.take(&q).unwrap();
        device.give(&q, u32::from(head), 0);
        assert!(q.enable_interrupts(), "one is there already");
        assert!(!q.enable_interrupts_delayed());
        assert_eq!(q.ring.load16(q.layout.available + 4 + 16), 3, "after three of four");
    }
}
