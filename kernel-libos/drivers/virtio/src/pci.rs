//! virtio over PCI (virtio 1.2, 4.1): pc, q35, Cloud Hypervisor.
//!
//! Functions are found through the configuration ports 0xcf8/0xcfc (PCI Local Bus 3.0, 3.2.2.3.2), on bus 0 and behind the bridges that firmware set up.
//! A virtio function has vendor id 0x1af4 and lists, as vendor capabilities (id 9), where in its memory bars the register groups lie:
//!
//! ```text
//! capability: 0 id, 1 next, 2 bytes, 3 group (1 common, 2 notify, 4 device), 4 bar, 8 offset u32, 12 length u32, 16 notify multiplier u32
//! ```
//!
//! Each queue gets a vector of its own by MSI-X (capability 0x11).

use alloc::boxed::Box;
use alloc::vec::Vec;

use libos_core::arch::PhysAddr;
use libos_core::arch::addr::map_mmio;
use libos_core::arch::io::{inl, outl};
use libos_core::arch::irq::msi_address_data;
use libos_core::sync::SpinLock;
use libos_core::{Errno, Result, irq};

use crate::device::{Doorbell, Handler, Transport};

const VENDOR: u16 = 0x1af4;
const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;

// Common configuration.
const DEVICE_FEATURE_SELECT: usize = 0;
const DEVICE_FEATURE: usize = 4;
const DRIVER_FEATURE_SELECT: usize = 8;
const DRIVER_FEATURE: usize = 12;
const CONFIG_MSIX_VECTOR: usize = 16;
const DEVICE_STATUS: usize = 20;
const CONFIG_GENERATION: usize = 21;
const QUEUE_SELECT: usize = 22;
const QUEUE_SIZE: usize = 24;
const QUEUE_MSIX_VECTOR: usize = 26;
const QUEUE_ENABLE: usize = 28;
const QUEUE_NOTIFY_OFF: usize = 30;
const QUEUE_PARTS: [usize; 3] = [32, 40, 48];
const NO_VECTOR: u16 = 0xffff;

/// A function's address: bus, device, function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Function {
    bus: u8,
    device: u8,
    function: u8,
}

impl Function {
    fn read32(self, register: u8) -> u32 {
        outl(0xcf8, self.address(register));
        inl(0xcfc)
    }

    fn write32(self, register: u8, value: u32) {
        outl(0xcf8, self.address(register));
        outl(0xcfc, value);
    }

    fn address(self, register: u8) -> u32 {
        1 << 31
            | u32::from(self.bus) << 16
            | u32::from(self.device & 31) << 11
            | u32::from(self.function & 7) << 8
            | u32::from(register & 0xfc)
    }

    fn read16(self, register: u8) -> u16 {
        (self.read32(register) >> (u32::from(register & 2) * 8)) as u16
    }

    fn read8(self, register: u8) -> u8 {
        (self.read32(register) >> (u32::from(register & 3) * 8)) as u8
    }

    /// Offset of each capability; at most 48 fit.
    fn capabilities(self) -> impl Iterator<Item = (u8, u8)> {
        // Status bit 4 says that there is a list.
        let first = if self.read16(0x06) & 0x10 != 0 { self.read8(0x34) & 0xfc } else { 0 };
        let mut next = first;
        (0..48).map_while(move |_| {
            let at = next;
            if at < 0x40 {
                return None;
            }
            next = self.read8(at + 1) & 0xfc;
            Some((self.read8(at), at))
        })
    }

    /// Address of a memory bar, `None` for port bars and unassigned ones.
    fn bar(self, index: u8) -> Option<u64> {
        if index > 5 {
            return None;
        }
        let low = self.read32(0x10 + 4 * index);
        if low & 1 != 0 {
            return None;
        }
        // Type 2 is a 64-bit bar.
        let high = if low >> 1 & 3 == 2 && index < 5 { self.read32(0x14 + 4 * index) } else { 0 };
        let addr = u64::from(low & !0xf) | u64::from(high) << 32;
        (addr != 0).then_some(addr)
    }
}

/// Adds the functions of all buses.
pub(crate) fn find(all: &mut Vec<Box<dyn Transport>>) {
    // Machines without PCI read as all ones.
    outl(0xcf8, 1 << 31);
    if inl(0xcf8) != 1 << 31 {
        return;
    }
    let mut buses = alloc::vec![0u8];
    let mut i = 0;
    while let Some(&bus) = buses.get(i) {
        scan(bus, &mut buses, all);
        i += 1;
    }
}

fn scan(bus: u8, buses: &mut Vec<u8>, all: &mut Vec<Box<dyn Transport>>) {
    for device in 0..32 {
        let mut functions = 1;
        let mut function = 0;
        while function < functions {
            let f = Function { bus, device, function };
            function += 1;
            let id = f.read32(0);
            if id as u16 == 0xffff {
                continue;
            }
            let header = f.read8(0x0e);
            if f.function == 0 && header & 0x80 != 0 {
                functions = 8;
            }
            if header & 0x7f == 1 {
                // A bridge: its secondary bus, if firmware gave it one.
                let secondary = f.read8(0x19);
                if secondary != 0 && !buses.contains(&secondary) {
                    buses.push(secondary);
                }
            } else if id as u16 == VENDOR
                && let Some(pci) = Pci::new(f, (id >> 16) as u16)
            {
                all.push(Box::new(pci));
            }
        }
    }
}

/// A mapped group of registers.
#[derive(Debug, Clone, Copy)]
struct Group {
    base: usize,
    len: usize,
}

impl Group {
    fn map(f: Function, bar: u8, offset: u64, len: usize) -> Option<Group> {
        Some(Group { base: map_mmio(PhysAddr(f.bar(bar)?.checked_add(offset)?), len) as usize, len })
    }

    fn check(&self, at: usize, len: usize) {
        assert!(at + len <= self.len, "a register outside of its group");
    }

    fn read8(&self, at: usize) -> u8 {
        self.check(at, 1);
        // SAFETY: mapped for good and in bounds; reading is harmless.
        unsafe { ((self.base + at) as *const u8).read_volatile() }
    }

    fn read16(&self, at: usize) -> u16 {
        self.check(at, 2);
        // SAFETY: as above.
        unsafe { ((self.base + at) as *const u16).read_volatile() }
    }

    fn read32(&self, at: usize) -> u32 {
        self.check(at, 4);
        // SAFETY: as above.
        unsafe { ((self.base + at) as *const u32).read_volatile() }
    }

    fn write8(&self, at: usize, value: u8) {
        self.check(at, 1);
        // SAFETY: mapped and in bounds; addresses given to the device are those of areas that outlive its use of them.
        unsafe { ((self.base + at) as *mut u8).write_volatile(value) }
    }

    fn write16(&self, at: usize, value: u16) {
        self.check(at, 2);
        // SAFETY: as above.
        unsafe { ((self.base + at) as *mut u16).write_volatile(value) }
    }

    fn write32(&self, at: usize, value: u32) {
        self.check(at, 4);
        // SAFETY: as above.
        unsafe { ((self.base + at) as *mut u32).write_volatile(value) }
    }
}

struct Pci {
    kind: u32,
    common: Group,
    notify: Group,
    notify_multiplier: u32,
    config: Option<Group>,
    /// MSI-X table, and how many of its entries are in use.
    table: Group,
    entries_used: SpinLock<u16>,
}

impl Pci {
    /// Returns the function when it has what 1.0 demands, assigned bars and MSI-X.
    fn new(f: Function, device_id: u16) -> Option<Pci> {
        let kind = match device_id {
            0x1040..=0x107f => u32::from(device_id - 0x1040),
            // A device that also speaks the older interface says its kind in the subsystem id.
            0x1000..=0x103f => u32::from(f.read16(0x2e)),
            _ => return None,
        };
        let (mut common, mut notify, mut config, mut msix) = (None, None, None, None);
        let mut multiplier = 0;
        // Memory accesses and bus mastering on, line interrupt off.
        let command = f.read16(0x04) | 0x2 | 0x4 | 0x400;
        f.write32(0x04, u32::from(command));
        for (id, at) in f.capabilities() {
            match id {
                CAPABILITY_VENDOR => {
                    let group = || {
                        let (offset, len) = (f.read32(at + 8), f.read32(at + 12));
                        Group::map(f, f.read8(at + 4), u64::from(offset), (len as usize).min(1 << 20))
                    };
                    match f.read8(at + 3) {
                        1 if common.is_none() => common = group(),
                        2 if notify.is_none() => {
                            notify = group();
                            multiplier = f.read32(at + 16);
                        }
                        4 if config.is_none() => config = group(),
                        _ => {}
                    }
                }
                CAPABILITY_MSIX => msix = Some(at),
                _ => {}
            }
        }
        let msix = msix?;
        let entries = usize::from(f.read16(msix + 2) & 0x7ff) + 1;
        let place = f.read32(msix + 4);
        let table = Group::map(f, (place & 7) as u8, u64::from(place & !7), entries * 16)?;
        // Message control, the upper half of the word: bit 15 enables, bit 14 masks all.
        let word = f.read32(msix);
        f.write32(msix, (word | 1 << 31) & !(1 << 30));
        Some(Pci { kind, common: common?, notify: notify?, notify_multiplier: multiplier, config, table, entries_used: SpinLock::new(0) })
    }

    /// Points the next free entry of the MSI-X table at a vector.
    fn message(&self, vector: u8) -> Result<u16> {
        let mut used = self.entries_used.lock();
        let entry = usize::from(*used) * 16;
        if entry + 16 > self.table.len {
            return Err(Errno::EBUSY);
        }
        let (addr, data) = msi_address_data(vector);
        self.table.write32(entry, addr as u32);
        self.table.write32(entry + 4, (addr >> 32) as u32);
        self.table.write32(entry + 8, data);
        self.table.write32(entry + 12, 0); // not masked
        *used += 1;
        Ok(*used - 1)
    }
}

impl Transport for Pci {
    fn kind(&self) -> u32 {
        self.kind
    }

    fn status(&self) -> u8 {
        self.common.read8(DEVICE_STATUS)
    }

    fn set_status(&self, status: u8) {
        self.common.write8(DEVICE_STATUS, status);
    }

    fn device_features(&self) -> u64 {
        self.common.write32(DEVICE_FEATURE_SELECT, 0);
        let low = u64::from(self.common.read32(DEVICE_FEATURE));
        self.common.write32(DEVICE_FEATURE_SELECT, 1);
        low | u64::from(self.common.read32(DEVICE_FEATURE)) << 32
    }

    fn set_driver_features(&self, features: u64) {
        for half in 0..2 {
            self.common.write32(DRIVER_FEATURE_SELECT, half);
            self.common.write32(DRIVER_FEATURE, (features >> (32 * half)) as u32);
        }
    }

    fn max_queue_size(&self, index: u16) -> u16 {
        self.common.write16(QUEUE_SELECT, index);
        self.common.read16(QUEUE_SIZE).min(1 << 15)
    }

    fn enable_queue(&self, index: u16, size: u16, parts: [PhysAddr; 3], handler: Handler) -> Result<Doorbell> {
        let entry = self.message(irq::register(handler)?)?;
        self.common.write16(CONFIG_MSIX_VECTOR, NO_VECTOR);
        self.common.write16(QUEUE_SELECT, index);
        self.common.write16(QUEUE_SIZE, size);
        self.common.write16(QUEUE_MSIX_VECTOR, entry);
        if self.common.read16(QUEUE_MSIX_VECTOR) != entry {
            return Err(Errno::EBUSY);
        }
        for (register, addr) in QUEUE_PARTS.into_iter().zip(parts) {
            self.common.write32(register, addr.0 as u32);
            self.common.write32(register + 4, (addr.0 >> 32) as u32);
        }
        let offset = usize::from(self.common.read16(QUEUE_NOTIFY_OFF)) * self.notify_multiplier as usize;
        self.notify.check(offset, 2);
        self.common.write16(QUEUE_ENABLE, 1);
        // SAFETY: inside the mapped notification group.
        Ok(unsafe { Doorbell::new((self.notify.base + offset) as *mut u8, index, true) })
    }

    fn config8(&self, offset: usize) -> u8 {
        match &self.config {
            Some(config) if offset < config.len => config.read8(offset),
            _ => 0,
        }
    }

    fn config_generation(&self) -> u32 {
        u32::from(self.common.read8(CONFIG_GENERATION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_addresses() {
        assert_eq!(Function { bus: 1, device: 31, function: 7 }.address(0x3d), 0x8001_ff3c);
    }

    #[test]
    fn a_machine_without_pci_has_no_devices() {
        let mut all = Vec::new();
        find(&mut all);
        assert!(all.is_empty());
    }
}
