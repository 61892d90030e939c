//! virtio-rng (virtio 1.2, 5.4): one queue; each buffer comes back with random bytes.
//!
//! The device is started at the first read: a program that needs no randomness does not pay for it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::sync::Arc;

use libos_core::device::{DEVICES, EntropyDevice};
use libos_core::sync::SpinLock;
use libos_core::{Result, time};
use libos_virtio::{Device, Direction, Part, Queue};

/// Device type.
const KIND: u32 = 4;
/// Bytes asked for at once.
const BUFFER_BYTES: usize = 64;
/// How long a read waits for each answer. The monitor answers from a thread of its own in well under a millisecond, unless its host is very busy.
const PATIENCE_NS: u64 = 200_000_000;

libos_core::module! {
    name: virtio_rng,
    needs: [virtio],
    init: init,
    syscalls: {},
}

fn init() {
    for device in libos_virtio::find(KIND) {
        DEVICES.lock().entropy.push(Arc::new(Rng(SpinLock::new(State::Found(device)))));
    }
}

enum State {
    Found(Device),
    /// The device is kept, so that its registers are; `bool` is whether a buffer is with it.
    Running(#[allow(dead_code, reason = "kept")] Device, Queue<()>, bool),
    Broken,
}

struct Rng(SpinLock<State>);

fn start(mut device: Device) -> Result<State> {
    device.negotiate(0)?;
    let mut queue = device.queue(0, 1, BUFFER_BYTES, Arc::new(|| {}))?;
    queue.disable_interrupts();
    device.start();
    Ok(State::Running(device, queue, false))
}

impl EntropyDevice for Rng {
    fn read(&self, dst: &mut [u8]) -> usize {
        let mut filled = 0;
        let mut deadline = time::monotonic_ns() + PATIENCE_NS;
        while filled < dst.len() && time::monotonic_ns() < deadline {
            // Locked only for moments, not for the whole wait.
            let mut state = self.0.lock();
            if let State::Found(_) = &*state
                && let State::Found(device) = core::mem::replace(&mut *state, State::Broken)
            {
                *state = start(device).unwrap_or(State::Broken);
            }
            let State::Running(_, queue, asked) = &mut *state else { return filled };
            if !*asked {
                *asked = queue.add(&[(Part::Own(0, BUFFER_BYTES), Direction::FromDevice)], ()).is_ok();
                queue.kick();
            }
            if let Some(((), len)) = queue.pop() {
                *asked = false;
                let len = len.min(BUFFER_BYTES).min(dst.len() - filled);
                dst[filled..filled + len].copy_from_slice(queue.own().bytes(0..len));
                // Nobody else gets the same bytes.
                queue.own().write(0, &[0; BUFFER_BYTES]);
                filled += len;
                deadline = time::monotonic_ns() + PATIENCE_NS;
            }
            drop(state);
            libos_core::arch::cpu::relax();
        }
        filled
    }
}
