//! A device behind either transport.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::sync::SpinLock;
use libos_core::{Errno, Result};

use crate::area::Area;
use crate::queue::{self, Queue};
use crate::{feature, mmio, pci};

/// What is called, in interrupt context, when a queue has finished buffers.
pub type Handler = Arc<dyn Fn() + Send + Sync>;

/// Device status bits (virtio 1.2, 2.1).
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    pub(crate) const DRIVER: u8 = 2;
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const FAILED: u8 = 128;
}

/// How to reach the registers.
pub(crate) trait Transport: Send + Sync {
    /// Device type: 1 network, 2 disk, 4 entropy, ...
    fn kind(&self) -> u32;
    /// Whether this is the interface before 1.0.
    fn is_legacy(&self) -> bool {
        false
    }
    fn status(&self) -> u8;
    /// 0 resets.
    fn set_status(&self, status: u8);
    fn device_features(&self) -> u64;
    fn set_driver_features(&self, features: u64);
    /// Largest size of a queue, 0 when it does not exist.
    fn max_queue_size(&self, index: u16) -> u16;
    /// Enables a queue whose parts lie at the addresses and whose interrupts go to `handler`; returns its doorbell.
    fn enable_queue(&self, index: u16, size: u16, parts: [libos_core::arch::PhysAddr; 3], handler: Handler) -> Result<Doorbell>;
    /// A byte of the device's configuration.
    fn config8(&self, offset: usize) -> u8;
    /// Changes when the configuration does.
    fn config_generation(&self) -> u32;
}

/// Where to write to tell the device about a queue.
pub(crate) struct Doorbell {
    register: usize,
    value: u16,
    /// Whether the register takes 16 bits (PCI) or 32 (MMIO).
    is_word: bool,
}

impl Doorbell {
    /// # Safety
    /// `register` is the mapped notification register of the queue.
    pub(crate) unsafe fn new(register: *mut u8, value: u16, is_word: bool) -> Doorbell {
        Doorbell { register: register as usize, value, is_word }
    }

    #[cfg(test)]
    pub(crate) fn none() -> Doorbell {
        Doorbell { register: 0, value: 0, is_word: true }
    }

    pub(crate) fn ring(&self) {
        // SAFETY: `new` was given a mapped register; mappings of devices are never removed.
        unsafe {
            match (self.register, self.is_word) {
                (0, _) => {}
                (register, true) => (register as *mut u16).write_volatile(self.value),
                (register, false) => (register as *mut u32).write_volatile(u32::from(self.value)),
            }
        }
    }
}

/// A virtio device that a driver owns.
pub struct Device {
    transport: Box<dyn Transport>,
    features: u64,
}

/// The devices that no driver has taken; `None` before anybody asked.
static UNCLAIMED: SpinLock<Option<Vec<Box<dyn Transport>>>> = SpinLock::new(None);

/// Returns all devices of a kind (virtio 1.2, 5: 1 network, 2 disk, 4 entropy) that no driver has taken yet.
pub fn find(kind: u32) -> Vec<Device> {
    let known = UNCLAIMED.lock().is_some();
    if !known {
        let mut all: Vec<Box<dyn Transport>> = Vec::new();
        mmio::find(&mut all);
        pci::find(&mut all);
        *UNCLAIMED.lock() = Some(all);
    }
    let mut unclaimed = UNCLAIMED.lock();
    let Some(all) = unclaimed.as_mut() else { return Vec::new() };
    let (mine, rest) = core::mem::take(all).into_iter().partition(|t| t.kind() == kind);
    *all = rest;
    let mine: Vec<Box<dyn Transport>> = mine;
    mine.into_iter().map(|transport| Device { transport, features: 0 }).collect()
}

impl Device {
    /// Resets the device and agrees on features: those of `wanted` that it has, and the ring's. Returns them (virtio 1.2, 3.1.1).
    ///
    /// # Errors
    /// `ENODEV` when the device refuses.
    pub fn negotiate(&mut self, wanted: u64) -> Result<u64> {
        let t = &self.transport;
        t.set_status(0);
        // The reset is done when the status reads 0; at once on every monitor.
        let mut tries = 0;
        while t.status() != 0 {
            tries += 1;
            if tries > 1_000_000 {
                return Err(Errno::ENODEV);
            }
            libos_core::arch::cpu::relax();
        }
        t.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let offered = t.device_features();
        let mut features = offered & (wanted | feature::EVENT_IDX);
        if t.is_legacy() {
            t.set_driver_features(features & 0xffff_ffff);
        } else {
            if offered & feature::VERSION_1 == 0 {
                return Err(self.fail());
            }
            features |= feature::VERSION_1;
            t.set_driver_features(features);
            t.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
            if t.status() & status::FEATURES_OK == 0 {
                return Err(self.fail());
            }
        }
        self.features = features;
        Ok(features)
    }

    fn fail(&self) -> Errno {
        self.transport.set_status(self.transport.status() | status::FAILED);
        Errno::ENODEV
    }

    /// Makes a queue of at most `max_size` descriptors, with `own_bytes` of memory of its own.
    ///
    /// # Errors
    /// `ENODEV` when the device has no such queue; `ENOMEM`; `EBUSY` without an interrupt vector.
    pub fn queue<T>(&self, index: u16, max_size: u16, own_bytes: usize, handler: Handler) -> Result<Queue<T>> {
        let limit = self.transport.max_queue_size(index).min(max_size);
        if limit == 0 {
            return Err(Errno::ENODEV);
        }
        // The largest power of two.
        let size = 1 << limit.ilog2();
        let ring = queue::ring(size)?;
        let own = Area::new(own_bytes)?;
        let doorbell = self.transport.enable_queue(index, size, Queue::<T>::addresses(&ring, size), handler)?;
        Ok(Queue::new(size, own, ring, self.features & feature::EVENT_IDX != 0, doorbell))
    }

    /// Lets the device work.
    pub fn start(&self) {
        let before = self.transport.status();
        self.transport.set_status(before | status::DRIVER_OK);
    }

    /// The largest size of a queue, 0 when it does not exist.
    pub fn max_queue_size(&self, index: u16) -> u16 {
        self.transport.max_queue_size(index)
    }

    /// Bytes of the device's configuration as one consistent reading (virtio 1.2, 2.5.1).
    pub fn config<const N: usize>(&self, offset: usize) -> [u8; N] {
        loop {
            let before = self.transport.config_generation();
            let bytes = core::array::from_fn(|i| self.transport.config8(offset + i));
            if self.transport.config_generation() == before {
                return bytes;
            }
        }
    }

    /// Whether the device speaks the interface before 1.0.
    pub fn is_legacy(&self) -> bool {
        self.transport.is_legacy()
    }
}
