//! Kernel stacks.

use alloc::vec::Vec;

use libos_abi::Result;

use super::{Frame, PAGE_SIZE};

/// Bytes of a kernel stack.
pub const STACK_BYTES: usize = 4 * PAGE_SIZE;

/// What lies at the lower end; gone when the stack ran over.
const CANARY: u64 = 0x5741_4348_5354_4b21;

/// The stack on which a task runs in the kernel.
pub struct KernelStack {
    frames: Vec<Frame>,
}

impl KernelStack {
    /// Allocates a stack.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<KernelStack> {
        let frames = Frame::alloc_contiguous(STACK_BYTES / PAGE_SIZE)?;
        frames[0].write(0, &CANARY.to_ne_bytes());
        Ok(KernelStack { frames })
    }

    /// Address behind the highest byte: where the stack pointer starts.
    pub fn top(&self) -> usize {
        self.frames[0].as_ptr() as usize + STACK_BYTES
    }

    /// Whether the stack never ran over its lower end, which the direct map does not guard by an unmapped page. The scheduler asks at every switch.
    pub fn is_intact(&self) -> bool {
        let mut canary = [0; 8];
        self.frames[0].read(0, &mut canary);
        u64::from_ne_bytes(canary) == CANARY
    }
}
