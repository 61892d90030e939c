//! virtio-net (virtio 1.2, 5.1): network cards.
//!
//! Queue 0 receives, queue 1 transmits. Every packet is preceded by a header that says who completes its checksum:
//!
//! ```text
//! 0 flags u8 (1 needs checksum, 2 checksum is good), 1 segmentation u8, 2 header bytes u16, 4 segment bytes u16, 6 checksum start u16,
//! 8 checksum offset u16, 10 buffers u16 (absent before 1.0 without mergeable buffers)
//! ```
//!
//! A packet is handed up in the buffer the device wrote it to, and written by the stack into the buffer the device reads. While packets keep coming,
//! [`NetDevice::receive`] is polled and the device stays silent; an interrupt is asked for again only when the ring was found empty. Transmitted buffers
//! are taken back when new ones are needed, without interrupts, unless the ring is full.
//!
//! Absent: segmentation offload, more than one pair of queues, the control queue.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod header;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use libos_core::Result;
use libos_core::device::{DEVICES, NetDevice, TxChecksum};
use libos_core::mm::frame;
use libos_core::sync::SpinLock;
use libos_virtio::{Area, Device, Direction, Part, Queue, feature};

use header::Header;

/// Device type.
const KIND: u32 = 1;

// Features.
const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const MRG_RXBUF: u64 = 1 << 15;

// Configuration.
const MAC_AT: usize = 0;
const MTU_AT: usize = 10;

/// Bytes of a packet buffer: header, Ethernet frame of the usual size, and room to spare.
const BUFFER_BYTES: usize = 2048;
/// Largest IP packet that fits a buffer with its headers (12 + 14, and 4 for a VLAN tag).
const MTU_MAX: usize = BUFFER_BYTES - 30;
/// Packets that wait to be received, and to be sent.
const BUFFERS_MAX: u16 = 256;
/// On small machines: one buffer of each ring for this many pages of memory, so that all of them take less than a thirtieth.
const PAGES_PER_BUFFER: usize = 32;
const BUFFERS_MIN: u16 = 32;
/// Received buffers go back to the device in batches of this many.
const REFILL: usize = 16;

libos_core::module! {
    name: virtio_net,
    needs: [virtio],
    init: init,
    syscalls: {},
}

fn init() {
    for device in libos_virtio::find(KIND) {
        match Card::new(device) {
            Ok(card) => DEVICES.lock().net.push(Arc::new(card)),
            Err(errno) => libos_core::arch::report!("ukc: a network card does not start (errno ", u64::from(errno.0), ")"),
        }
    }
}

/// A ring whose buffers are numbered; a token is a buffer's number.
struct Ring {
    queue: Queue<u16>,
    /// Buffers that are ours.
    free: Vec<u16>,
}

/// Where a buffer lies in the queue's own memory.
fn offset(buffer: u16) -> usize {
    usize::from(buffer) * BUFFER_BYTES
}

type Callback = SpinLock<Option<Arc<dyn Fn() + Send + Sync>>>;

/// A network card.
struct Card {
    receive: SpinLock<Ring>,
    transmit: SpinLock<Ring>,
    receive_memory: Memory,
    transmit_memory: Memory,
    /// The stack wants to hear of room in the transmit ring.
    is_starved: Arc<AtomicBool>,
    handler: Arc<Callback>,
    mac: [u8; 6],
    mtu: usize,
    can_checksum: bool,
    header_bytes: usize,
    _device: Device,
}

/// The buffers of a ring, reachable while the ring itself is not locked: each belongs to whoever holds its number.
type Memory = Arc<Area>;

impl Card {
    fn new(mut device: Device) -> Result<Card> {
        let features = device.negotiate(CSUM | GUEST_CSUM | MTU | MAC | MRG_RXBUF)?;
        let header_bytes = if features & (feature::VERSION_1 | MRG_RXBUF) != 0 { 12 } else { 10 };
        let mac = if features & MAC != 0 { device.config(MAC_AT) } else { [0x02, 0x75, 0x6b, 0x63, 0, 1] };
        let mtu = if features & MTU != 0 { usize::from(u16::from_le_bytes(device.config(MTU_AT))) } else { 1500 };
        let buffers = (frame::count().1 / PAGES_PER_BUFFER).clamp(usize::from(BUFFERS_MIN), usize::from(BUFFERS_MAX)) as u16;
        let handler: Arc<Callback> = Arc::new(SpinLock::new(None));
        let call = |handler: &Arc<Callback>| {
            let handler = handler.clone();
            move || {
                let f = handler.lock().clone();
                if let Some(f) = f {
                    f();
                }
            }
        };
        let is_starved = Arc::new(AtomicBool::new(false));
        let starved = is_starved.clone();
        let tell = call(&handler);
        let room = Arc::new(move || {
            if starved.swap(false, Ordering::AcqRel) {
                tell();
            }
        });
        let (receive, receive_memory) = ring(&device, 0, buffers, Arc::new(call(&handler)))?;
        let (mut transmit, transmit_memory) = ring(&device, 1, buffers, room)?;
        transmit.queue.disable_interrupts();
        device.start();
        let card = Card {
            receive: SpinLock::new(receive),
            transmit: SpinLock::new(transmit),
            receive_memory,
            transmit_memory,
            is_starved,
            handler,
            mac,
            mtu: mtu.clamp(68, MTU_MAX),
            can_checksum: features & CSUM != 0,
            header_bytes,
            _device: device,
        };
        {
            let mut ring = card.receive.lock();
            ring.refill();
            ring.queue.enable_interrupts();
        }
        Ok(card)
    }
}

fn ring(device: &Device, index: u16, buffers: u16, handler: libos_virtio::Handler) -> Result<(Ring, Memory)> {
    let size = 1u16 << device.max_queue_size(index).clamp(1, buffers).ilog2();
    let queue = device.queue(index, size, usize::from(size) * BUFFER_BYTES, handler)?;
    let memory = queue.own().clone();
    let free = (0..queue.size()).collect();
    Ok((Ring { queue, free }, memory))
}

impl Ring {
    /// Gives the device all free buffers to fill.
    fn refill(&mut self) {
        while let Some(buffer) = self.free.pop() {
            if self.queue.add(&[(Part::Own(offset(buffer), BUFFER_BYTES), Direction::FromDevice)], buffer).is_err() {
                self.free.push(buffer);
                break;
            }
        }
        self.queue.kick();
    }

    /// Takes back what the device has sent.
    fn reclaim(&mut self) {
        while let Some((buffer, _)) = self.queue.pop() {
            self.free.push(buffer);
        }
    }
}

impl NetDevice for Card {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn receive(&self, f: &mut dyn FnMut(&[u8], bool)) -> bool {
        let (buffer, len) = {
            let mut ring = self.receive.lock();
            match ring.queue.pop() {
                Some(received) => received,
                None => {
                    ring.refill();
                    // Something may have arrived just now, of which no interrupt tells.
                    if !ring.queue.enable_interrupts() {
                        return false;
                    }
                    match ring.queue.pop() {
                        Some(received) => received,
                        None => return false,
                    }
                }
            }
        };
        let start = offset(buffer);
        let len = len.min(BUFFER_BYTES);
        if len > self.header_bytes {
            let header = Header::parse(self.receive_memory.bytes(start..start + self.header_bytes));
            // A packet that was spread over several buffers is larger than any we asked for.
            if header.buffers <= 1 {
                f(self.receive_memory.bytes(start + self.header_bytes..start + len), header.is_good());
            }
        }
        let mut ring = self.receive.lock();
        ring.free.push(buffer);
        if ring.free.len() >= REFILL {
            ring.refill();
        }
        true
    }

    fn transmit(&self, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8]) -> TxChecksum) -> bool {
        let buffer = {
            let mut ring = self.transmit.lock();
            if ring.free.is_empty() {
                ring.reclaim();
            }
            match ring.free.pop() {
                Some(buffer) => buffer,
                None => {
                    ring.queue.kick();
                    self.is_starved.store(true, Ordering::Release);
                    if !ring.queue.enable_interrupts_delayed() {
                        return false;
                    }
                    ring.reclaim();
                    match ring.free.pop() {
                        Some(buffer) => buffer,
                        None => return false,
                    }
                }
            }
        };
        let start = offset(buffer);
        if len_bytes > BUFFER_BYTES - self.header_bytes {
            // Larger than the MTU we announced: it can only be dropped.
            self.transmit.lock().free.push(buffer);
            return true;
        }
        let body = start + self.header_bytes..start + self.header_bytes + len_bytes;
        let checksum = self.transmit_memory.with_mut(body, |bytes| fill(bytes));
        let header = Header::for_transmit(checksum).to_bytes();
        self.transmit_memory.write(start, &header[..self.header_bytes]);
        let mut ring = self.transmit.lock();
        if let Err(buffer) = ring.queue.add(&[(Part::Own(start, self.header_bytes + len_bytes), Direction::ToDevice)], buffer) {
            // Cannot be: there are as many descriptors as buffers.
            ring.free.push(buffer);
        }
        true
    }

    fn flush(&self) {
        self.transmit.lock().queue.kick();
    }

    fn set_handler(&self, handler: Arc<dyn Fn() + Send + Sync>) {
        *self.handler.lock() = Some(handler);
    }

    fn can_checksum(&self) -> bool {
        self.can_checksum
    }
}
