//! The bytes of a regular file, by reference.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

/// Where the bytes of a regular file are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory: heredocs, generated files.
    Bytes(Arc<[u8]>),
    /// `len_bytes` bytes at `offset` of a file on the host: a build context file, a blob of an unpacked layer, a member of an uncompressed tar.
    Host {
        /// Path on the host.
        path: Arc<PathBuf>,
        /// First byte.
        offset: u64,
        /// How many bytes.
        len_bytes: u64,
    },
}

impl Content {
    /// Returns contents held in memory.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Content {
        Content::Bytes(bytes.into())
    }

    /// Returns the length in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Host { len_bytes, .. } => *len_bytes,
        }
    }

    /// Opens the contents for reading from their start to their end.
    ///
    /// # Errors
    /// Those of opening the host's file. A file that has become shorter since the tree was made ends early; callers that write an image compare
    /// what they read with [`Content::len_bytes`].
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Content::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Content::Host { path, offset, len_bytes } => {
                let mut file = File::open(path.as_path())?;
                if *offset != 0 {
                    file.seek(SeekFrom::Start(*offset))?;
                }
                Box::new(file.take(*len_bytes))
            }
        })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// As [`Content::open`] and reading; `UnexpectedEof` when the host's file has become shorter.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != self.len_bytes() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was being read"));
        }
        Ok(bytes)
    }
}
