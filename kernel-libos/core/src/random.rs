//! Random bytes for programs and for the kernel: a ChaCha20 generator (RFC 8439) with fast key erasure.
//!
//! Each call makes one block from the key; its first half becomes the next key, so that what was given out cannot be computed from what is in memory
//! afterwards. The key comes from RDSEED or RDRAND, from a virtio entropy device when there is one, and from the jitter of the time stamp counter; the same
//! sources are mixed in again after every [`RESEED_BYTES`], and by [`reseed`] after a restore from a snapshot.

use crate::arch::rng;
use crate::device::DEVICES;
use crate::sync::SpinLock;

/// Bytes given out between two looks at the sources.
const RESEED_BYTES: u64 = 1 << 20;

struct Generator {
    key: [u32; 8],
    /// Bytes given out since the sources were mixed in; `u64::MAX` before the first time.
    given: u64,
}

static GENERATOR: SpinLock<Generator> = SpinLock::new(Generator { key: [0; 8], given: u64::MAX });

/// Fills `out` with bytes that nobody can predict.
pub fn fill(out: &mut [u8]) {
    for chunk in out.chunks_mut(256) {
        let mut generator = GENERATOR.lock();
        let is_stale = generator.given >= RESEED_BYTES;
        drop(generator);
        // A device must not be asked with the lock held.
        if is_stale {
            reseed();
        }
        generator = GENERATOR.lock();
        generator.fill(chunk);
    }
}

/// A random number.
pub fn next_u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Mixes bytes into the state, as writing to /dev/urandom does. They add to what is there and cannot take from it.
pub fn mix(bytes: &[u8]) {
    let mut generator = GENERATOR.lock();
    for chunk in bytes.chunks(32) {
        let mut padded = [0; 32];
        padded[..chunk.len()].copy_from_slice(chunk);
        generator.absorb(&padded);
    }
}

/// Mixes the sources of randomness in.
pub fn reseed() {
    let mut seed = [0u8; 32];
    for word in seed.chunks_exact_mut(8) {
        // Jitter takes thousands of instructions, so it stands in where the processor has nothing.
        let value = rng::rdseed().or_else(rng::rdrand).unwrap_or_else(rng::entropy_mix);
        word.copy_from_slice(&value.to_le_bytes());
    }
    let jitter = rng::entropy_mix().to_le_bytes();
    let mut from_device = [0u8; 32];
    let device = DEVICES.lock().entropy.first().cloned();
    if let Some(device) = device {
        device.read(&mut from_device);
    }
    // The processor's generator is not trusted alone.
    seed.iter_mut().zip(jitter).for_each(|(byte, more)| *byte ^= more);
    let mut generator = GENERATOR.lock();
    generator.absorb(&seed);
    generator.absorb(&from_device);
    generator.given = 0;
}

impl Generator {
    fn fill(&mut self, out: &mut [u8]) {
        let first = block(&self.key, 0);
        let (key, rest) = first.split_at(8);
        let old = self.key;
        self.key.copy_from_slice(key);
        self.given = self.given.saturating_add(out.len() as u64);
        let mut chunks = out.chunks_mut(32);
        if let Some(chunk) = chunks.next() {
            copy_words(rest, chunk);
        }
        // What does not fit into the rest of the first block comes from further ones, under the key that is now gone.
        for (counter, chunk) in (1..).zip(chunks) {
            copy_words(&block(&old, counter)[..8], chunk);
        }
    }

    /// The key becomes the first half of a block under the key with the seed added.
    fn absorb(&mut self, seed: &[u8; 32]) {
        for (word, bytes) in self.key.iter_mut().zip(seed.chunks_exact(4)) {
            *word ^= u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let mixed = block(&self.key, u32::MAX);
        self.key.copy_from_slice(&mixed[..8]);
    }
}

fn copy_words(words: &[u32], out: &mut [u8]) {
    for (bytes, word) in out.chunks_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
    }
}

/// One block of ChaCha20 with a nonce of zeros (RFC 8439, 2.3).
fn block(key: &[u32; 8], counter: u32) -> [u32; 16] {
    let mut start = [0; 16];
    // "expand 32-byte k"
    start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    start[4..12].copy_from_slice(key);
    start[12] = counter;
    let mut s = start;
    for _ in 0..10 {
        for (a, b, c, d) in
            [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
        {
            s[a] = s[a].wrapping_add(s[b]);
            s[d] = (s[d] ^ s[a]).rotate_left(16);
            s[c] = s[c].wrapping_add(s[d]);
            s[b] = (s[b] ^ s[c]).rotate_left(12);
            s[a] = s[a].wrapping_add(s[b]);
            s[d] = (s[d] ^ s[a]).rotate_left(8);
            s[c] = s[c].wrapping_add(s[d]);
            s[b] = (s[b] ^ s[c]).rotate_left(7);
        }
    }
    for (word, first) in s.iter_mut().zip(start) {
        *word = word.wrapping_add(first);
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_that_of_the_rfc() {
        // RFC 8439, A.1, test vectors 1 and 2: key and nonce of zeros.
        let words = block(&[0; 8], 0);
        assert_eq!(words[..4], [0xade0_b876, 0x903d_f1a0, 0xe56a_5d40, 0x28bd_8653]);
        assert_eq!(block(&[0; 8], 1)[..4], [0xbee7_079f, 0x7a38_5155, 0x7c97_ba98, 0x0d08_2d73]);
    }

    #[test]
    fn the_key_is_gone_after_each_use_and_seeds_change_it() {
        let mut g = Generator { key: [1; 8], given: 0 };
        let mut first = [0; 100];
        g.fill(&mut first);
        assert_ne!(g.key, [1; 8]);
        let mut second = [0; 100];
        g.fill(&mut second);
        assert_ne!(first, second);
        assert!(first.chunks(10).all(|c| c.iter().any(|&b| b != 0)));
        let before = g.key;
        g.absorb(&[0; 32]);
        assert_ne!(g.key, before, "a seed of zeros does not leave the key as it was");
    }

    #[test]
    fn short_and_odd_lengths_are_filled() {
        let mut g = Generator { key: [7; 8], given: 0 };
        for len in [1, 3, 31, 33, 64, 65] {
            let mut out = vec![0; len];
            g.fill(&mut out);
            assert!(len < 8 || out[len - 8..].iter().any(|&b| b != 0), "{len}");
        }
    }
}
