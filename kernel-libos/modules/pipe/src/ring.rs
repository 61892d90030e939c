//! A ring of bytes that grows on demand up to a capacity.

use alloc::vec::Vec;

use libos_core::io::{IoDst, IoSrc};
use libos_core::{Errno, Result};

/// Smallest buffer; grows by doubling.
const FIRST: usize = 4096;

/// Bytes in order.
pub struct Ring {
    buffer: Vec<u8>,
    head: usize,
    len: usize,
    capacity: usize,
}

impl Ring {
    /// Returns an empty ring.
    pub const fn new(capacity: usize) -> Ring {
        Ring { buffer: Vec::new(), head: 0, len: 0, capacity }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that fit.
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// Changes the capacity.
    ///
    /// # Errors
    /// `EBUSY` when more bytes are in it than that.
    pub fn set_capacity(&mut self, capacity: usize) -> Result<()> {
        if capacity < self.len {
            return Err(Errno::EBUSY);
        }
        if capacity < self.buffer.len() {
            self.reshape(capacity)?;
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Forgets all bytes and gives the memory back.
    pub fn clear(&mut self) {
        *self = Ring::new(self.capacity);
    }

    /// The bytes in order, in two pieces.
    pub fn pieces(&self) -> (&[u8], &[u8]) {
        let first = self.len.min(self.buffer.len() - self.head);
        (&self.buffer[self.head..self.head + first], &self.buffer[..self.len - first])
    }

    /// Removes bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.len -= count;
        self.head = if self.len == 0 { 0 } else { (self.head + count) % self.buffer.len() };
    }

    /// Moves bytes out; returns how many.
    ///
    /// # Errors
    /// `EFAULT` when none could be.
    pub fn pop(&mut self, dst: &mut IoDst<'_>) -> Result<usize> {
        let mut moved = 0;
        while self.len > 0 && dst.remaining() > 0 {
            let (first, _) = self.pieces();
            match dst.push(first) {
                Ok(0) => break,
                Ok(count) => {
                    self.consume(count);
                    moved += count;
                }
                Err(errno) if moved == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(moved)
    }

    /// Moves at most `max` bytes in, which fit; returns how many.
    ///
    /// # Errors
    /// `EFAULT` when none could be, `ENOMEM`.
    pub fn push(&mut self, src: &mut IoSrc<'_>, max: usize) -> Result<usize> {
        let want = max.min(src.remaining()).min(self.room());
        if self.buffer.len() < self.len + want {
            let size = (self.len + want).next_power_of_two().max(FIRST).min(self.capacity);
            self.reshape(size)?;
        }
        let mut moved = 0;
        while moved < want {
            let tail = (self.head + self.len) % self.buffer.len();
            let free = if tail >= self.head && self.len < self.buffer.len() { self.buffer.len() - tail } else { self.head - tail };
            let piece = free.min(want - moved);
            match src.pull(&mut self.buffer[tail..tail + piece]) {
                Ok(0) => break,
                Ok(count) => {
                    self.len += count;
                    moved += count;
                }
                Err(errno) if moved == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(moved)
    }

    fn reshape(&mut self, size: usize) -> Result<()> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
        let (first, second) = self.pieces();
        buffer.extend_from_slice(first);
        buffer.extend_from_slice(second);
        buffer.resize(size, 0);
        self.buffer = buffer;
        self.head = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring and a plain queue of bytes agree, whatever is done to them.
    #[test]
    fn a_ring_is_a_queue() {
        let mut ring = Ring::new(10_000);
        let mut model = std::collections::VecDeque::new();
        let mut seed = 1u32;
        for step in 0..20_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let count = (seed >> 8) as usize % 3000;
            if seed & 1 == 0 {
                let bytes: Vec<u8> = (0..count).map(|i| (i as u32 ^ step) as u8).collect();
                let pushed = ring.push(&mut IoSrc::kernel(&bytes), usize::MAX).unwrap();
                assert_eq!(pushed, count.min(10_000 - model.len()));
                model.extend(&bytes[..pushed]);
            } else {
                let mut bytes = vec![0; count];
                let popped = ring.pop(&mut IoDst::kernel(&mut bytes)).unwrap();
                let expected: Vec<u8> = model.drain(..count.min(model.len())).collect();
                assert_eq!(bytes[..popped], expected);
            }
            if step % 500 == 0 {
                let capacity = ring.len().max(1) + 10_000 - model.len();
                ring.set_capacity(capacity.max(ring.len())).unwrap();
                ring.set_capacity(10_000.max(ring.len())).unwrap();
            }
            assert_eq!(ring.len(), model.len());
        }
    }

    #[test]
    fn a_full_ring_does_not_shrink() {
        let mut ring = Ring::new(100);
        ring.push(&mut IoSrc::kernel(&[1; 60]), usize::MAX).unwrap();
        assert_eq!(ring.set_capacity(59), Err(Errno::EBUSY));
        assert_eq!(ring.set_capacity(60), Ok(()));
        assert_eq!(ring.room(), 0);
    }
}
