//! A blob of a registry as a stream of bytes that does not break: when the connection does, it goes on where that was (RFC 9110, 14: Range).
//!
//! What came is also written to `partial/<hex>` of the store, so that a build that is interrupted or killed need not begin again. The file is locked
//! while somebody is at it; others wait, and then find the finished blob.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Call, Endpoint, Scope, no_body};
use super::error::{Cause, RegistryError};
use crate::{Layer, OciError, Place, Reference, Store};

/// How often it is looked whether another process is done.
const WAIT: Duration = Duration::from_millis(100);

pub(super) struct BlobReader<'a> {
    place: &'a Arc<Endpoint>,
    scope: Scope,
    url: String,
    what: &'a str,
    name: String,
    layer: &'a Layer,
    observe: &'a dyn Fn(u64),
    partial: Partial,
    /// What an earlier process left.
    saved: Option<io::Take<File>>,
    response: Option<Box<dyn Read + Send>>,
    /// Bytes that were handed out.
    at: u64,
    /// Attempts since the last byte came.
    attempts: u32,
}

impl<'a> BlobReader<'a> {
    /// Begins a blob, or says that it came by another way while we waited for it: `is_there` knows.
    pub fn new(
        place: &'a Arc<Endpoint>,
        reference: &Reference,
        layer: &'a Layer,
        store: &Store,
        what: &'a str,
        observe: &'a dyn Fn(u64),
        is_there: &dyn Fn() -> bool,
    ) -> Result<Option<BlobReader<'a>>, OciError> {
        let path = store.partial_dir().join(layer.digest.hex());
        let cancel = &place.settings().cancel;
        let Some(partial) = Partial::lock(&path, || cancel.sleep(WAIT))? else { return Err(place.error(what, Cause::Interrupted).into()) };
        if is_there() {
            partial.remove();
            return Ok(None);
        }
        let fail = |error| OciError::Read { path: path.clone(), error };
        let len = partial.file.metadata().map_err(fail)?.len();
        if len > layer.len_bytes {
            partial.file.set_len(0).map_err(|error| OciError::Write { path: path.clone(), error })?;
        }
        let saved = (len > 0 && len <= layer.len_bytes).then(|| File::open(&path)).transpose().map_err(fail)?.map(|file| file.take(len));
        let repository = place.repository(reference.repository());
        Ok(Some(BlobReader {
            place,
            scope: Scope::pull(&repository),
            url: format!("/v2/{repository}/blobs/{}", layer.digest),
            what,
            name: reference.name(),
            layer,
            observe,
            partial,
            saved,
            response: None,
            at: 0,
            attempts: 0,
        }))
    }

    /// Gives the saved bytes, which were found to be right, the name of the blob.
    pub fn keep(self, store: &Store) -> Result<(), OciError> {
        let path = store.blob_path(&self.layer.digest);
        let kept = self.partial.file.sync_all().and_then(|()| fs::rename(&self.partial.path, &path));
        kept.map_err(|error| OciError::Write { path, error })
    }

    /// Ends it; what was saved is removed when it is of no further use.
    pub fn finish(self, is_over: bool) {
        if is_over {
            self.partial.remove();
        }
    }

    fn wrong_size(&self, found: u64) -> OciError {
        let place = Place::Registry(self.name.clone());
        OciError::WrongSize { place, digest: self.layer.digest, role: "layer", expected: self.layer.len_bytes, found }
    }

    /// Asks for the bytes from `at` on.
    fn open(&mut self) -> Result<(), RegistryError> {
        let headers = if self.at == 0 { vec![] } else { vec![("range", format!("bytes={}-", self.at))] };
        let answer = self.place.call(self.what, &self.scope, Call::get(&self.url, &headers, &mut no_body), &[200, 206])?;
        let starts_at = match answer.status() {
            206 => answer.header("content-range").and_then(range_start).unwrap_or(self.at),
            _ => 0,
        };
        let skip = self.at.checked_sub(starts_at);
        let mut reader = answer.into_reader();
        match skip {
            Some(0) => {}
            // A server without ranges sends all again.
            Some(skip) => {
                io::copy(&mut (&mut reader).take(skip), &mut io::sink())
                    .map_err(|e| self.place.error(self.what, Cause::Cut(e.to_string())))?;
            }
            None => return Err(self.place.error(self.what, Cause::Unexpected("it sends other bytes than those asked for".to_owned()))),
        }
        self.response = Some(reader);
        Ok(())
    }

    /// Reads from the network; the outer error is ours, the inner one the line's.
    fn receive(&mut self, buf: &mut [u8]) -> Result<Result<usize, RegistryError>, OciError> {
        if self.response.is_none()
            && let Err(error) = self.open()
        {
            return match error.cause {
                Cause::Cut(_) => Ok(Err(error)),
                _ => Err(error.into()),
            };
        }
        let response = self.response.as_mut().expect("just opened");
        let n = match response.read(buf) {
            Ok(0) => return Ok(Err(self.place.error(self.what, Cause::Cut(format!("it ends after {} bytes", self.at))))),
            Ok(n) => n,
            Err(e) => return Ok(Err(self.place.error(self.what, Cause::Cut(e.to_string())))),
        };
        if self.at + n as u64 > self.layer.len_bytes {
            return Err(self.wrong_size(self.at + n as u64));
        }
        self.partial.file.write_all(&buf[..n]).map_err(|error| OciError::Write { path: self.partial.path.clone(), error })?;
        Ok(Ok(n))
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let settings = self.place.settings();
        loop {
            if settings.cancel.is_set() {
                return Err(io::Error::other(OciError::from(self.place.error(self.what, Cause::Interrupted))));
            }
            if let Some(saved) = &mut self.saved {
                let n = saved.read(buf)?;
                if n > 0 {
                    self.at += n as u64;
                    (self.observe)(self.at);
                    return Ok(n);
                }
                self.saved = None;
            }
            if self.at == self.layer.len_bytes || buf.is_empty() {
                return Ok(0);
            }
            match self.receive(buf).map_err(io::Error::other)? {
                Ok(n) => {
                    self.at += n as u64;
                    self.attempts = 0;
                    (self.observe)(self.at);
                    return Ok(n);
                }
                Err(cut) => {
                    self.response = None;
                    self.attempts += 1;
                    if !settings.retries.wait(&settings.cancel, self.attempts, ukc_fetch::Again::Soon) && !settings.cancel.is_set() {
                        return Err(io::Error::other(OciError::from(cut)));
                    }
                }
            }
        }
    }
}

/// Returns the first number of `bytes 100-199/200`.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A locked file of bytes that are not all there.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Locks the file; while another process has it, `wait` is called, and may give up.
    fn lock(path: &Path, wait: impl Fn() -> bool) -> Result<Option<Partial>, OciError> {
        let fail = |error| OciError::Write { path: path.to_owned(), error };
        loop {
            let file = File::options().create(true).append(true).open(path).map_err(fail)?;
            match file.try_lock() {
                // Whoever had it may have removed the name.
                Ok(()) if fs::metadata(path).is_ok_and(|named| file.metadata().is_ok_and(|held| held.ino() == named.ino())) => {
                    return Ok(Some(Partial { path: path.to_owned(), file }));
                }
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) if !wait() => return Ok(None),
                Err(fs::TryLockError::WouldBlock) => {}
                // A file system without locks: two builds at once do the work twice, and neither trusts the other's bytes.
                Err(fs::TryLockError::Error(_)) => return Ok(Some(Partial { path: path.to_owned(), file })),
            }
        }
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}
