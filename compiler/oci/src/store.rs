//! The content store: a directory of blobs named by their digest.
//!
//! ```text
//! ROOT/blobs/sha256/<hex>          a complete, verified blob; never changed once it has this name
//! ROOT/blobs/sha256/.ingest-xxxx   being written by a running process, which holds a lock on it
//! ROOT/uncompressed/sha256/<hex>   text: the digest of what the blob <hex> uncompresses to
//! ROOT/refs/<hex>                  text: a digest, and the name that a registry gave it; <hex> is the digest of the name
//! ROOT/partial/<hex>               the first bytes of the blob <hex>, which a registry has not yet sent to its end; a lock says that somebody is at it
//! ROOT/sparse/<hex>-<offset>       a sparse member of the tar <hex>, expanded (with holes)
//! ```
//!
//! Everything gets its final name by link(2) or rename(2) after fsync(2), so a reader sees whole blobs or none, and two builds that write the same blob
//! do each other no harm. A killed writer leaves an `.ingest` file without a lock, which the next [`Store::open`] removes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{Digest, OciError};

/// Between creating a temporary file and locking it, another process could take it for an abandoned one; it waits this long.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);
const INGEST_PREFIX: &str = ".ingest-";

/// A content store; cheap to clone, safe to use from several processes.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `root`, creating it if it is missing, and removes what killed processes left behind.
    ///
    /// # Errors
    /// [`OciError::Write`] when the directories cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Store, OciError> {
        let root = root.into();
        let store = Store { root };
        for dir in
            [store.blobs(), store.root.join("uncompressed/sha256"), store.root.join("sparse"), store.root.join("refs"), store.partial_dir()]
        {
            fs::create_dir_all(&dir).map_err(|error| OciError::Write { path: dir.clone(), error })?;
            sweep(&dir);
        }
        Ok(store)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Returns the store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where a blob is or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Whether the store has a blob.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Starts a blob.
    ///
    /// # Errors
    /// [`OciError::Write`].
    pub fn writer(&self) -> Result<BlobWriter, OciError> {
        let dir = self.blobs();
        Ok(BlobWriter { file: temporary(&dir)?, hash: Sha256::new(), len_bytes: 0, store: self.clone() })
    }

    /// Stores some bytes and returns their digest.
    ///
    /// # Errors
    /// [`OciError::Write`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, OciError> {
        let digest = Digest::of(bytes);
        if !self.contains(&digest) {
            let mut writer = self.writer()?;
            writer.write_all(bytes).map_err(|error| OciError::Write { path: self.blobs(), error })?;
            writer.commit()?;
        }
        Ok(digest)
    }

    /// Returns what the blob `compressed` is known to uncompress to, if that is in the store.
    pub fn uncompressed(&self, compressed: &Digest) -> Option<Digest> {
        let text = fs::read_to_string(self.root.join("uncompressed/sha256").join(compressed.hex())).ok()?;
        text.trim().parse().ok().filter(|d| self.contains(d))
    }

    /// Remembers what the blob `compressed` uncompresses to.
    ///
    /// # Errors
    /// [`OciError::Write`].
    pub fn set_uncompressed(&self, compressed: &Digest, plain: &Digest) -> Result<(), OciError> {
        let path = self.root.join("uncompressed/sha256").join(compressed.hex());
        self.write_file(&path, |file| writeln!(file, "{plain}"))
    }

    /// Returns the bytes of a small blob, if it is there and whole.
    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        fs::read(self.blob_path(digest)).ok().filter(|bytes| Digest::of(bytes) == *digest)
    }

    /// Returns where downloads that are not finished lie.
    pub(crate) fn partial_dir(&self) -> PathBuf {
        self.root.join("partial")
    }

    fn ref_path(&self, name: &str) -> PathBuf {
        self.root.join("refs").join(Digest::of(name.as_bytes()).hex())
    }

    /// Remembers what a name stands for.
    ///
    /// # Errors
    /// [`OciError::Write`].
    pub fn set_ref(&self, name: &str, digest: &Digest) -> Result<(), OciError> {
        self.write_file(&self.ref_path(name), |file| writeln!(file, "{digest} {name}"))
    }

    /// Returns what a name stands for, as far as that was remembered.
    pub fn get_ref(&self, name: &str) -> Option<Digest> {
        let text = fs::read_to_string(self.ref_path(name)).ok()?;
        let (digest, found) = text.trim_end().split_once(' ')?;
        digest.parse().ok().filter(|_| found == name)
    }

    /// Returns the path of an expanded sparse file, made by `fill` if it is not there yet; `key` is unique for its contents.
    pub(crate) fn sparse(&self, key: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<PathBuf, OciError> {
        let path = self.root.join("sparse").join(key);
        if !path.is_file() {
            self.write_file(&path, fill)?;
        }
        Ok(path)
    }

    fn write_file(&self, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), OciError> {
        let fail = |error| OciError::Write { path: path.to_owned(), error };
        let mut file = temporary(path.parent().expect("a path inside the store"))?;
        fill(file.as_file_mut()).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist(path).map_err(|e| fail(e.error))?;
        Ok(())
    }
}

fn temporary(dir: &Path) -> Result<NamedTempFile, OciError> {
    let fail = |error| OciError::Write { path: dir.to_owned(), error };
    let file = tempfile::Builder::new().prefix(INGEST_PREFIX).tempfile_in(dir).map_err(fail)?;
    // The lock ends with the process, however that ends. A file system without locks leaves the age alone to decide.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Removes temporary files that no process holds. Trouble here is no reason to fail: the files are only garbage.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(INGEST_PREFIX) {
            continue;
        }
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
        if age > ABANDONED_AFTER && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A blob being written; dropped without [`BlobWriter::commit`], it leaves nothing behind.
pub struct BlobWriter {
    file: NamedTempFile,
    hash: Sha256,
    len_bytes: u64,
    store: Store,
}

impl BlobWriter {
    /// Returns how much was written so far.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Gives the blob its name and returns its digest.
    ///
    /// # Errors
    /// [`OciError::Write`]; then no file is left.
    pub fn commit(self) -> Result<Digest, OciError> {
        self.commit_if(|_| Ok(()))
    }

    /// As [`BlobWriter::commit`], but `check` may refuse the digest, and then nothing is stored.
    ///
    /// # Errors
    /// Those of `check`, and [`OciError::Write`].
    pub fn commit_if(self, check: impl FnOnce(Digest) -> Result<(), OciError>) -> Result<Digest, OciError> {
        let digest = Digest(self.hash.finalize().into());
        check(digest)?;
        let path = self.store.blob_path(&digest);
        let fail = |error| OciError::Write { path: path.clone(), error };
        self.file.as_file().sync_all().map_err(fail)?;
        self.file.persist(&path).map_err(|e| fail(e.error))?;
        Ok(digest)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.hash.update(&buf[..n]);
        self.len_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(store: &Store) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(store.blobs()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn put_is_idempotent_and_an_abandoned_writer_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("deep/er")).unwrap();
        let digest = store.put(b"abc").unwrap();
        assert_eq!(store.put(b"abc").unwrap(), digest);
        assert_eq!(fs::read(store.blob_path(&digest)).unwrap(), b"abc");
        let mut writer = store.writer().unwrap();
        writer.write_all(b"half").unwrap();
        drop(writer);
        let refused = store.writer().unwrap().commit_if(|found| {
            Err(OciError::WrongDigest { place: crate::Place::Layout("x".into()), role: "layer", expected: digest, found })
        });
        assert!(refused.is_err());
        assert_eq!(names(&store), [digest.hex()]);
        store.set_uncompressed(&Digest::of(b"packed"), &digest).unwrap();
        assert_eq!(store.uncompressed(&Digest::of(b"packed")), Some(digest));
        assert_eq!(store.uncompressed(&digest), None);
    }

    #[test]
    fn open_removes_what_killed_writers_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let age = |path: &Path| {
            let old = std::time::SystemTime::now() - 2 * ABANDONED_AFTER;
            File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        };
        let running = store.writer().unwrap();
        age(running.file.path());
        let killed = store.blobs().join(".ingest-killed");
        fs::write(&killed, "half").unwrap();
        age(&killed);
        let young = store.blobs().join(".ingest-young");
        fs::write(&young, "half").unwrap();
        Store::open(dir.path()).unwrap();
        assert!(!killed.exists());
        assert!(young.exists() && running.file.path().exists());
    }

    #[test]
    fn many_writers_of_one_blob() {
        let dir = tempfile::tempdir().unwrap();
        let data = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let store = Store::open(dir.path()).unwrap();
                    let mut writer = store.writer().unwrap();
                    writer.write_all(&data).unwrap();
                    let digest = writer.commit().unwrap();
                    assert_eq!(fs::read(store.blob_path(&digest)).unwrap(), data);
                });
            }
        });
        assert_eq!(names(&Store::open(dir.path()).unwrap()).len(), 1);
    }
}
