//! Digests of artefacts, taken while they are written.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use ukc_image_json::Digest;

/// Passes bytes on and hashes those that were taken.
#[derive(Debug)]
pub(crate) struct HashingWriter<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> HashingWriter<W> {
    pub fn new(out: W) -> HashingWriter<W> {
        HashingWriter { out, hash: Sha256::new() }
    }

    pub fn finish(self) -> Digest {
        Digest::from_sha256(&self.hash.finalize().into())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}
