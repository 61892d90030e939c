//! `sha256:<64 hex digits>`, the name of everything (OCI image-spec, descriptor.md, "Digests").

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. Other algorithms are legal in the specification and used by nobody; they are refused where a digest is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Returns the digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Returns the 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Digest, ()> {
        let hex = text.strip_prefix("sha256:").ok_or(())?.as_bytes();
        if hex.len() != 64 || !hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(());
        }
        let nibble = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 };
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        Ok(Digest(out))
    }
}

/// A reader that knows the digest and length of what went through it.
pub struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    len_bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Wraps a reader.
    pub fn new(inner: R) -> Self {
        HashingReader { inner, hash: Sha256::new(), len_bytes: 0 }
    }

    /// Returns digest and length of what was read so far.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.hash.finalize().into()), self.len_bytes)
    }

    /// Returns the reader and the digest of what was read so far.
    pub fn into_parts(self) -> (R, Digest) {
        (self.inner, Digest(self.hash.finalize().into()))
    }

    /// Returns how many bytes were read so far.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        self.len_bytes += n as u64;
        Ok(n)
    }
}

/// A writer that knows the digest of what went through it.
pub struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
}

impl<W: io::Write> HashingWriter<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        HashingWriter { inner, hash: Sha256::new() }
    }

    /// Returns the writer and the digest.
    pub fn finish(self) -> (W, Digest) {
        (self.inner, Digest(self.hash.finalize().into()))
    }
}

impl<W: io::Write> io::Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_print() {
        // FIPS 180-4: the digest of "abc".
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), text);
        assert_eq!(text.parse(), Ok(Digest::of(b"abc")));
        for bad in
            ["", "sha256:", "sha512:00", &text[..70], &text.to_uppercase(), &text.replace("sha256", "md5"), "sha256:../../../etc/passwd"]
        {
            assert_eq!(bad.parse::<Digest>(), Err(()), "{bad}");
        }
    }
}
