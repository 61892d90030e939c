//! virtio over memory-mapped registers (virtio 1.2, 4.2): microvm and Firecracker.
//!
//! The monitor names the devices on the kernel command line, as Linux' `virtio_mmio.device=` (Documentation/admin-guide/kernel-parameters):
//! `virtio_mmio.device=512@0xfeb00e00:12` is 512 bytes at 0xfeb00e00 with interrupt line 12. QEMU speaks the interface before 1.0 here unless told
//! otherwise (`-global virtio-mmio.force-legacy=false`), so both are understood.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::arch::addr::map_mmio;
use libos_core::arch::irq::Trigger;
use libos_core::arch::{PAGE_SIZE, PhysAddr};
use libos_core::sync::SpinLock;
use libos_core::{Errno, Result, irq};

use crate::device::{Doorbell, Handler, Transport};

const MAGIC: u32 = u32::from_le_bytes(*b"virt");

// Registers.
const MAGIC_VALUE: usize = 0x00;
const VERSION: usize = 0x04;
const DEVICE_ID: usize = 0x08;
const DEVICE_FEATURES: usize = 0x10;
const DEVICE_FEATURES_SELECT: usize = 0x14;
const DRIVER_FEATURES: usize = 0x20;
const DRIVER_FEATURES_SELECT: usize = 0x24;
const GUEST_PAGE_SIZE: usize = 0x28;
const QUEUE_SELECT: usize = 0x30;
const QUEUE_SIZE_MAX: usize = 0x34;
const QUEUE_SIZE: usize = 0x38;
const QUEUE_ALIGN: usize = 0x3c;
const QUEUE_PAGE: usize = 0x40;
const QUEUE_READY: usize = 0x44;
const QUEUE_NOTIFY: usize = 0x50;
const INTERRUPT_STATUS: usize = 0x60;
const INTERRUPT_ACK: usize = 0x64;
const STATUS: usize = 0x70;
const QUEUE_PARTS: [usize; 3] = [0x80, 0x90, 0xa0];
const CONFIG_GENERATION: usize = 0xfc;
const CONFIG: usize = 0x100;

/// One device as the command line gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    addr: u64,
    len: usize,
    gsi: u32,
}

/// Returns the devices of a command line.
fn named(cmdline: &[u8]) -> impl Iterator<Item = Named> {
    cmdline.split(|&b| b == b' ').filter_map(|word| {
        let text = core::str::from_utf8(word.strip_prefix(b"virtio_mmio.device=")?).ok()?;
        let (size, rest) = text.split_once('@')?;
        let mut fields = rest.split(':');
        let addr = number(fields.next()?)?;
        let gsi = u32::try_from(number(fields.next()?)?).ok()?;
        Some(Named { addr, len: usize::try_from(size_of(size)?).ok()?, gsi })
    })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A size with K, M or G.
fn size_of(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

/// Adds the devices of the kernel command line.
pub(crate) fn find(all: &mut Vec<Box<dyn Transport>>) {
    for device in named(libos_core::start::command_line()) {
        if device.len < CONFIG || !device.addr.is_multiple_of(4) {
            continue;
        }
        let base = map_mmio(PhysAddr(device.addr), device.len) as usize;
        let mmio = Mmio { base, len: device.len, gsi: device.gsi, is_legacy: false, handlers: SpinLock::new(None) };
        let (magic, version, kind) = (mmio.read(MAGIC_VALUE), mmio.read(VERSION), mmio.read(DEVICE_ID));
        // Kind 0 is a slot without a device.
        if magic == MAGIC && (version == 1 || version == 2) && kind != 0 {
            all.push(Box::new(Mmio { is_legacy: version == 1, ..mmio }));
        }
    }
}

type Handlers = Arc<SpinLock<Vec<Handler>>>;

struct Mmio {
    base: usize,
    len: usize,
    gsi: u32,
    is_legacy: bool,
    /// The handlers of all queues, which share one line; `None` before the line is registered.
    handlers: SpinLock<Option<Handlers>>,
}

impl Mmio {
    fn read(&self, register: usize) -> u32 {
        debug_assert!(register + 4 <= self.len.max(CONFIG));
        // SAFETY: the registers are mapped for good, and reading them is harmless.
        unsafe { ((self.base + register) as *const u32).read_volatile() }
    }

    fn write(&self, register: usize, value: u32) {
        debug_assert!(register + 4 <= self.len.max(CONFIG));
        // SAFETY: mapped; addresses given to the device are those of areas that live as long as their queues, which are never dropped while it runs.
        unsafe { ((self.base + register) as *mut u32).write_volatile(value) }
    }

    /// Calls `handler` at the device's interrupts.
    fn listen(&self, handler: Handler) -> Result<()> {
        if let Some(handlers) = &*self.handlers.lock() {
            handlers.lock().push(handler);
            return Ok(());
        }
        let handlers: Handlers = Arc::new(SpinLock::new(alloc::vec![handler]));
        let (base, called) = (self.base, handlers.clone());
        let on_interrupt = move || {
            // SAFETY: as in `read` and `write`; acknowledging is what the device waits for.
            unsafe {
                let pending = ((base + INTERRUPT_STATUS) as *const u32).read_volatile();
                ((base + INTERRUPT_ACK) as *mut u32).write_volatile(pending);
            }
            // Not under the lock: few handlers, cloned one by one.
            let mut i = 0;
            while let Some(handler) = { called.lock().get(i).cloned() } {
                handler();
                i += 1;
            }
        };
        *self.handlers.lock() = Some(handlers);
        irq::register_gsi(self.gsi, Trigger::Edge, Arc::new(on_interrupt)).map(|_| ())
    }
}

impl Transport for Mmio {
    fn kind(&self) -> u32 {
        self.read(DEVICE_ID)
    }

    fn is_legacy(&self) -> bool {
        self.is_legacy
    }

    fn status(&self) -> u8 {
        self.read(STATUS) as u8
    }

    fn set_status(&self, status: u8) {
        self.write(STATUS, u32::from(status));
        if self.is_legacy && status == 0 {
            self.write(GUEST_PAGE_SIZE, PAGE_SIZE as u32);
        }
    }

    fn device_features(&self) -> u64 {
        self.write(DEVICE_FEATURES_SELECT, 0);
        let low = u64::from(self.read(DEVICE_FEATURES));
        if self.is_legacy {
            return low;
        }
        self.write(DEVICE_FEATURES_SELECT, 1);
        low | u64::from(self.read(DEVICE_FEATURES)) << 32
    }

    fn set_driver_features(&self, features: u64) {
        self.write(DRIVER_FEATURES_SELECT, 0);
        self.write(DRIVER_FEATURES, features as u32);
        if !self.is_legacy {
            self.write(DRIVER_FEATURES_SELECT, 1);
            self.write(DRIVER_FEATURES, (features >> 32) as u32);
        }
    }

    fn max_queue_size(&self, index: u16) -> u16 {
        self.write(QUEUE_SELECT, u32::from(index));
        self.read(QUEUE_SIZE_MAX).min(1 << 15) as u16
    }

    fn enable_queue(&self, index: u16, size: u16, parts: [PhysAddr; 3], handler: Handler) -> Result<Doorbell> {
        self.listen(handler)?;
        self.write(QUEUE_SELECT, u32::from(index));
        self.write(QUEUE_SIZE, u32::from(size));
        if self.is_legacy {
            let page = u32::try_from(parts[0].0 / PAGE_SIZE as u64).map_err(|_| Errno::ENOMEM)?;
            self.write(QUEUE_ALIGN, PAGE_SIZE as u32);
            self.write(QUEUE_PAGE, page);
        } else {
            for (register, addr) in QUEUE_PARTS.into_iter().zip(parts) {
                self.write(register, addr.0 as u32);
                self.write(register + 4, (addr.0 >> 32) as u32);
            }
            self.write(QUEUE_READY, 1);
        }
        // SAFETY: the notification register of this device.
        Ok(unsafe { Doorbell::new((self.base + QUEUE_NOTIFY) as *mut u8, index, false) })
    }

    fn config8(&self, offset: usize) -> u8 {
        if CONFIG + offset >= self.len {
            return 0;
        }
        // SAFETY: inside the mapped registers.
        unsafe { ((self.base + CONFIG + offset) as *const u8).read_volatile() }
    }

    fn config_generation(&self) -> u32 {
        if self.is_legacy { 0 } else { self.read(CONFIG_GENERATION) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_the_command_line() {
        let line = b"quiet virtio_mmio.device=512@0xfeb02e00:12 virtio_mmio.device=4K@0xd0000000:5:0 virtio_mmio.device=x virtio_mmio.device=1@2 a=b";
        let all: Vec<Named> = named(line).collect();
        assert_eq!(all, [Named { addr: 0xfeb0_2e00, len: 512, gsi: 12 }, Named { addr: 0xd000_0000, len: 4096, gsi: 5 }]);
        assert_eq!(named(b"virtio_mmio.device=\xff@1:2").count(), 0);
        assert_eq!(size_of("99999999999G"), None);
    }
}
