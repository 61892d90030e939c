//! Digests of artefacts, taken while they are written.
//!
//! Hashing runs on a thread of its own: SHA-256 is about as fast as a disk where the CPU has instructions for it, and slower elsewhere, so in one thread
//! the two would add up.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use ukc_image_json::Digest;

/// Buffers that may wait to be hashed; more would only use memory.
const QUEUE: usize = 8;

/// Passes bytes on and hashes those that were taken.
pub(crate) struct HashingWriter<'a, W> {
    out: W,
    is_cancelled: &'a dyn Fn() -> bool,
    queue: SyncSender<Vec<u8>>,
    worker: JoinHandle<Digest>,
}

impl<'a, W: Write> HashingWriter<'a, W> {
    pub fn new(out: W, is_cancelled: &'a dyn Fn() -> bool) -> HashingWriter<'a, W> {
        let (queue, buffers) = sync_channel::<Vec<u8>>(QUEUE);
        let worker = std::thread::spawn(move || {
            let mut hash = Sha256::new();
            buffers.iter().for_each(|bytes| hash.update(bytes));
            Digest::from_sha256(&hash.finalize().into())
        });
        HashingWriter { out, is_cancelled, queue, worker }
    }

    /// Waits for the rest to be hashed.
    ///
    /// # Errors
    /// Only if the hashing thread is gone.
    pub fn finish(self) -> io::Result<Digest> {
        drop(self.queue);
        self.worker.join().map_err(|_| gone())
    }
}

impl<W: Write> Write for HashingWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.is_cancelled)() {
            // Not `Interrupted`, which callers try again.
            return Err(io::Error::other("interrupted"));
        }
        let n = self.out.write(bytes)?;
        self.queue.send(bytes[..n].to_vec()).map_err(|_| gone())?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn gone() -> io::Error {
    io::Error::other("the hashing thread ended early")
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}
