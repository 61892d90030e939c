//! Which compression some bytes have, by their first bytes, and how to undo it.
//!
//! Layers are gzip, zstd or plain (OCI image-spec, layer.md); archives of `ADD` also bzip2 and xz (Dockerfile reference, "ADD").

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::digest::HashingReader;
use crate::{Digest, OciError, Store};

/// Archives that claim more than this, at a ratio no honest archive has, are refused rather than allowed to fill the disk.
const BOMB_BYTES: u64 = 64 << 30;
/// deflate cannot exceed 1032:1 (RFC 1951: 258 bytes from 2 bits); images full of zeros come near it.
const BOMB_RATIO: u64 = 1100;

/// What an xz file may ask for: a dictionary can claim 4 GiB, and `xz -9` uses 64 MiB.
const XZ_MEMORY_KIB: u32 = 1 << 20;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Plain,
    /// RFC 1952: `1f 8b`.
    Gzip,
    /// RFC 8878: `28 b5 2f fd`, or a skippable frame `5x 2a 4d 18`.
    Zstd,
    /// `BZh`.
    Bzip2,
    /// `fd 37 7a 58 5a 00` (xz file format, 2.1.1.1).
    Xz,
}

impl Compression {
    /// Recognises a format by its first bytes (six are enough).
    pub fn sniff(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            _ => Compression::Plain,
        }
    }

    /// Recognises the format of a file.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn of_file(path: &Path) -> io::Result<Compression> {
        let mut start = Vec::new();
        File::open(path)?.take(6).read_to_end(&mut start)?;
        Ok(Compression::sniff(&start))
    }

    /// Copies `input` to `output`, uncompressed.
    ///
    /// # Errors
    /// Those of both sides, and `InvalidData` or `UnexpectedEof` for damaged input. An error of `output` is passed on as it is.
    pub fn uncompress(self, input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
        match self {
            Compression::Plain => io::copy(input, output),
            Compression::Gzip => io::copy(&mut flate2::read::MultiGzDecoder::new(input), output),
            Compression::Zstd => io::copy(&mut zstd::stream::read::Decoder::new(input)?, output),
            Compression::Bzip2 => io::copy(&mut bzip2::read::MultiBzDecoder::new(input), output),
            Compression::Xz => io::copy(&mut lzma_rust2::XzReader::new_mem_limit(BufReader::new(input), true, XZ_MEMORY_KIB), output),
        }
        .map(drop)
    }
}

/// Writes what goes through to a blob and remembers whether it was the writing that failed, not the reading.
struct Guard<'a> {
    out: &'a mut dyn Write,
    error: Option<io::Error>,
    len_bytes: u64,
    compressed_bytes: u64,
}

impl Write for Guard<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.len_bytes += buf.len() as u64;
        if self.len_bytes > BOMB_BYTES && self.len_bytes / BOMB_RATIO > self.compressed_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it grows beyond {} GiB, {BOMB_RATIO} times its size", BOMB_BYTES >> 30),
            ));
        }
        self.out.write_all(buf).map(|()| buf.len()).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            self.error = Some(error);
            copy
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Facts about a file that went through [`unpack_to_store`].
pub(crate) struct Unpacked {
    /// Of the compressed bytes.
    pub compressed: Digest,
    /// Of the uncompressed bytes; the blob has this name unless `check` refused it.
    pub plain: Digest,
}

/// Uncompresses `path` into the store. `check` may refuse the result before it gets a name.
pub(crate) fn unpack(
    store: &Store,
    path: &Path,
    what: &str,
    check: impl FnOnce(&Unpacked) -> Result<(), OciError>,
) -> Result<Unpacked, OciError> {
    let read_error = |error| OciError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(read_error)?;
    let compressed_bytes = file.metadata().map_err(read_error)?.len();
    unpack_from(store, &mut BufReader::with_capacity(1 << 17, file), compressed_bytes, what, &read_error, check)
}

/// As [`unpack`], from a reader of which `compressed_bytes` are expected; `read_error` says what its errors are.
pub(crate) fn unpack_from(
    store: &Store,
    input: &mut dyn Read,
    compressed_bytes: u64,
    what: &str,
    read_error: &dyn Fn(io::Error) -> OciError,
    check: impl FnOnce(&Unpacked) -> Result<(), OciError>,
) -> Result<Unpacked, OciError> {
    let mut start = Vec::with_capacity(6);
    input.take(6).read_to_end(&mut start).map_err(read_error)?;
    let compression = Compression::sniff(&start);
    let mut input = HashingReader::new(start.as_slice().chain(input));
    let mut blob = store.writer()?;
    let mut buffered = BufWriter::with_capacity(1 << 17, &mut blob);
    let mut guard = Guard { out: &mut buffered, error: None, len_bytes: 0, compressed_bytes };
    let done = compression.uncompress(&mut input, &mut guard);
    let write_error = |error| OciError::Write { path: store.root().to_owned(), error };
    if let Some(error) = guard.error {
        return Err(write_error(error));
    }
    let uncompressed = match done.map_err(io::Error::downcast::<OciError>) {
        Ok(()) => Ok(()),
        // The reader knows better what is wrong.
        Err(Ok(error)) => return Err(error),
        Err(Err(e)) => Err(OciError::Decompress { archive: what.to_owned(), why: e.to_string() }),
    };
    // What stands behind the end of the compressed stream belongs to the digest too. A damaged stream is read to its end as well: when the
    // digest is wrong, that is the better message.
    io::copy(&mut input, &mut io::sink()).map_err(read_error)?;
    buffered.flush().map_err(write_error)?;
    drop(buffered);
    let (compressed, _) = input.finish();
    let mut facts = Unpacked { compressed, plain: compressed };
    match uncompressed {
        Ok(()) => {
            blob.commit_if(|plain| {
                facts.plain = plain;
                check(&facts)
            })?;
            Ok(facts)
        }
        Err(error) => {
            // Let a wrong digest speak first; a right one means that the archive was broken when it was made.
            check(&facts).err().filter(|e| !matches!(e, OciError::WrongDiffId { .. })).map_or(Err(error), Err)
        }
    }
}

/// Whether a file is a tar archive, plain or compressed: by its content, never by its name (Dockerfile reference, "ADD").
///
/// # Errors
/// [`OciError::Read`]. A file that starts like a compressed one and cannot be uncompressed is not an archive.
pub fn is_archive(path: &Path) -> Result<bool, OciError> {
    /// Takes one block and then refuses more, which ends the decompression.
    struct Head(Vec<u8>);
    impl Write for Head {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0.len() >= 512 {
                return Err(io::ErrorKind::Other.into());
            }
            self.0.extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let read_error = |error| OciError::Read { path: path.to_owned(), error };
    let compression = Compression::of_file(path).map_err(read_error)?;
    let mut head = Head(Vec::new());
    let mut file = File::open(path).map_err(read_error)?;
    // An error is either ours or the archive's; both leave the head to judge.
    let _ = match compression {
        Compression::Plain => Compression::Plain.uncompress(&mut file.take(512), &mut head),
        other => other.uncompress(&mut file, &mut head),
    };
    head.0.truncate(512);
    Ok(crate::tar::is_header(&head.0))
}

/// Uncompresses a local file (an archive of `ADD`) into the store and returns the path of the result; the second time it is found there.
///
/// # Errors
/// [`OciError::Read`], [`OciError::Decompress`], [`OciError::Write`].
pub fn unpack_to_store(store: &Store, path: &Path) -> Result<std::path::PathBuf, OciError> {
    let read_error = |error| OciError::Read { path: path.to_owned(), error };
    let mut input = HashingReader::new(File::open(path).map_err(read_error)?);
    io::copy(&mut input, &mut io::sink()).map_err(read_error)?;
    let (compressed, _) = input.finish();
    if let Some(plain) = store.uncompressed(&compressed) {
        return Ok(store.blob_path(&plain));
    }
    let facts = unpack(store, path, &format!("`{}`", path.display()), |_| Ok(()))?;
    store.set_uncompressed(&facts.compressed, &facts.plain)?;
    Ok(store.blob_path(&facts.plain))
}
