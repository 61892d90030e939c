//! The console's output of a machine in the background, bounded in size.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How long `log` grows before it becomes `log.1`: with both, no machine fills a disk.
const PART_BYTES: u64 = 16 << 20;

/// The two parts, the older one first.
pub(crate) const PARTS: [&str; 2] = ["log.1", "log"];

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    file: File,
    len_bytes: u64,
}

impl Log {
    /// Begins a log in a machine's folder.
    ///
    /// # Errors
    /// As `File::create`.
    pub fn create(dir: &Path) -> io::Result<Log> {
        Ok(Log { dir: dir.to_owned(), file: File::create(dir.join(PARTS[1]))?, len_bytes: 0 })
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len_bytes >= PART_BYTES {
            fs::rename(self.dir.join(PARTS[1]), self.dir.join(PARTS[0]))?;
            self.file = File::create(self.dir.join(PARTS[1]))?;
            self.len_bytes = 0;
        }
        let count = self.file.write(bytes)?;
        self.len_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns the last `lines` lines of a file from its end, reading no more than needed, and leaves the file at its end.
///
/// # Errors
/// As reading.
pub fn tail(file: &mut File, lines: usize) -> io::Result<Vec<u8>> {
    const CHUNK: u64 = 64 << 10;
    let end = file.seek(SeekFrom::End(0))?;
    let mut start = end;
    let mut bytes = Vec::new();
    while start > 0 && first_of_last(&bytes, lines).is_none() {
        let len = start.min(CHUNK);
        start -= len;
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = vec![0; len as usize];
        file.read_exact(&mut chunk)?;
        chunk.append(&mut bytes);
        bytes = chunk;
    }
    file.seek(SeekFrom::Start(end))?;
    let first = first_of_last(&bytes, lines).unwrap_or(0);
    Ok(bytes.split_off(first))
}

/// Returns where the last `lines` lines begin, if that many begin here after a newline.
fn first_of_last(bytes: &[u8], lines: usize) -> Option<usize> {
    let Some(before) = lines.checked_sub(1) else { return Some(bytes.len()) };
    // The newline that ends the last line begins none.
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').nth(before).map(|(at, _)| at + 1)
}
