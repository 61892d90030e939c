//! virtio (OASIS virtio 1.2): how monitors offer disks, network cards and entropy.
//!
//! A device has registers (feature bits, status, its own configuration) behind a *transport*, memory-mapped or PCI, and one or more *virtqueues* in our
//! memory: rings through which we hand it buffers and get them back. See `queue` for a picture.
//!
//! ```text
//! find(KIND) -> Device -> negotiate(features) -> queue(0, ...) -> start() -> Queue::add, kick, pop
//! ```
//!
//! Own virtqueues instead of the `virtio-drivers` crate, because that one has no MSI-X (its PCI transport polls), copies network packets into buffers it
//! allocates per packet, holds a borrow of every buffer in flight (so nothing can sleep on several requests), and notifies per request; here one
//! notification covers a batch, `EVENT_IDX` keeps both sides quiet while they are busy, and pages go to the disk without a copy.
//!
//! Absent: INTx interrupts of PCI devices (all monitors have MSI-X), packed rings, devices that are plugged in later.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod area;
mod device;
mod mmio;
mod pci;
pub mod queue;

pub use area::Area;
pub use device::{Device, Handler, find};
pub use queue::{Direction, Part, Queue};

/// Feature bits that belong to the transport and ring (virtio 1.2, 6).
pub mod feature {
    /// Notifications by index: each side says from which entry on it wants to hear.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The 1.0 interface.
    pub const VERSION_1: u64 = 1 << 32;
}

libos_core::module! {
    name: virtio,
    needs: [],
    syscalls: {},
}
