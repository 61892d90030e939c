//! Interrupts of devices: which function handles which vector.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use crate::arch::irq::{self, Trigger};
use crate::sync::SpinLock;

/// What is called when a device interrupts: in interrupt context, interrupts off. It must not sleep.
pub type Handler = Arc<dyn Fn() + Send + Sync>;

/// Handlers by vector; few, so a list does.
static HANDLERS: SpinLock<Vec<(u8, Handler)>> = SpinLock::new(Vec::new());

/// Registers a handler and returns its vector, for a device that signals by message (MSI-X).
///
/// # Errors
/// `EBUSY` when there is no vector left.
pub fn register(handler: Handler) -> Result<u8> {
    let vector = irq::allocate_vector().ok_or(Errno::EBUSY)?;
    HANDLERS.lock().push((vector, handler));
    Ok(vector)
}

/// Registers a handler for an interrupt line (global system interrupt) and lets it through.
///
/// # Errors
/// `EBUSY` when there is no vector left, `ENXIO` when no I/O APIC has the line.
pub fn register_gsi(gsi: u32, trigger: Trigger, handler: Handler) -> Result<u8> {
    let vector = register(handler)?;
    if irq::enable_gsi(gsi, vector, trigger) { Ok(vector) } else { Err(Errno::ENXIO) }
}

/// Calls the handlers of a vector.
pub(crate) fn on_interrupt(vector: u8) {
    let mut next = 0;
    loop {
        // One at a time, so that the list is not locked while a handler runs.
        let handler = {
            let handlers = HANDLERS.lock();
            let found = handlers.iter().enumerate().skip(next).find(|(_, (v, _))| *v == vector);
            match found {
                Some((at, (_, handler))) => {
                    next = at + 1;
                    handler.clone()
                }
                None => return,
            }
        };
        handler();
    }
}
