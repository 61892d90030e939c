//! Pushing: blobs that are missing, then manifests by their digests, then the names.
//!
//! A name is given last and in one request, so nobody ever finds an image of which something is missing. A blob that is there is not sent (HEAD); one that
//! another repository of the same registry has is mounted; an upload that breaks off goes on where the registry says it got to (OCI distribution-spec,
//! "Pushing blobs", "Pushing Manifests").

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ukc_fetch::{Again, Answer, Cancel, Method};
use ukc_rootfs::Content;

use super::endpoint::{Call, CallBody, Endpoint, Scope, no_body};
use super::error::{Cause, RegistryError};
use super::{Event, Registries};
use crate::bundle::{Blob, Bundle};
use crate::{Digest, OciError, Reference};

/// How many blobs go at once.
const AT_ONCE: usize = 3;
/// Blobs up to this size are sent in one request.
const SMALL_BYTES: u64 = 64 << 10;

/// See [`Registries::push`].
pub(super) fn push(client: &Registries, names: &[Reference], bundle: &Bundle) -> Result<Digest, OciError> {
    let digest = bundle.digest();
    let mut repositories: Vec<&Reference> = vec![];
    for name in names {
        if !repositories.iter().any(|r| r.name() == name.name()) {
            repositories.push(name);
        }
    }
    for repository in repositories {
        let push = Push { client, place: client.origin(repository.registry()), repository };
        push.blobs(&bundle.blobs)?;
        for (descriptor, bytes) in &bundle.manifests {
            push.manifest(&descriptor.digest, &descriptor.media_type, bytes)?;
        }
        let (root, bytes) = bundle.manifests.last().expect("a bundle has a manifest");
        for tag in names.iter().filter(|n| n.name() == repository.name()).filter_map(Reference::tag) {
            push.manifest(tag, &root.media_type, bytes)?;
        }
    }
    Ok(digest)
}

struct Push<'a> {
    client: &'a Registries,
    place: Arc<Endpoint>,
    repository: &'a Reference,
}

/// A blob that is being sent.
struct Upload<'a> {
    blob: &'a Blob,
    what: String,
    scope: Scope,
    /// Where the registry wants the next part.
    location: String,
    /// Bytes that the registry has.
    at: u64,
}

impl Push<'_> {
    fn scope(&self) -> Scope {
        Scope::push(self.repository.repository())
    }

    fn blobs(&self, blobs: &[Blob]) -> Result<(), OciError> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<OciError>> = Mutex::new(None);
        let work = || {
            while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.blob(blob) {
                    next.store(blobs.len(), Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..blobs.len().min(AT_ONCE) {
                scope.spawn(work);
            }
            work();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn blob(&self, blob: &Blob) -> Result<(), OciError> {
        let (digest, total) = (blob.digest, blob.content.len_bytes());
        let what = format!("the blob {digest} of {}", self.repository.name());
        let url = format!("/v2/{}/blobs/{digest}", self.repository.repository());
        let head = Call { method: Method::Head, url: &url, headers: &[], body: &mut no_body, is_once: false };
        // A registry that denies reading may still take the blob; what is wrong with that is said then.
        if self.place.call(&what, &self.scope(), head, &[200]).is_ok() {
            (self.client.observer)(Event::AlreadyThere { digest, total });
            return Ok(());
        }
        let settings = self.client.settings();
        let mut attempts = 0;
        loop {
            let Some(mut upload) = self.begin(blob, &what)? else {
                (self.client.observer)(Event::AlreadyThere { digest, total });
                return Ok(());
            };
            let error = loop {
                let before = upload.at;
                let Err(error) = self.send(&mut upload) else { return Ok(()) };
                // An upload that gets on is not given up.
                attempts = if upload.at > before { 1 } else { attempts + 1 };
                if !is_passing(&error) || !settings.retries.wait(&settings.cancel, attempts, Again::Soon) {
                    return Err(if settings.cancel.is_set() { self.place.error(&what, Cause::Interrupted).into() } else { error });
                }
                if !self.ask(&mut upload) {
                    break error;
                }
            };
            // The registry has forgotten the upload: it begins again, as long as there is patience.
            if attempts >= settings.retries.attempts {
                return Err(error);
            }
        }
    }

    /// Begins an upload, or says that a mount made it needless.
    fn begin<'a>(&self, blob: &'a Blob, what: &str) -> Result<Option<Upload<'a>>, OciError> {
        let repository = self.repository.repository();
        let from = blob
            .elsewhere
            .as_ref()
            .filter(|other| other.registry() == self.repository.registry() && other.repository() != repository)
            .map(|other| other.repository().to_owned());
        let query = from.as_ref().map(|from| format!("?mount={}&from={from}", blob.digest)).unwrap_or_default();
        let scope = Scope { also_from: from, ..self.scope() };
        let url = format!("/v2/{repository}/blobs/uploads/{query}");
        let call = Call { method: Method::Post, url: &url, headers: &[], body: &mut no_body, is_once: false };
        let answer = self.place.call(what, &scope, call, &[201, 202])?;
        if answer.status() == 201 {
            return Ok(None);
        }
        let location = self.location(what, &answer)?;
        Ok(Some(Upload { blob, what: what.to_owned(), scope, location, at: 0 }))
    }

    /// Returns the Location of an answer; it may be relative.
    fn location(&self, what: &str, answer: &Answer) -> Result<String, RegistryError> {
        let location = answer.header("location").filter(|l| !l.is_empty());
        let location =
            location.ok_or_else(|| self.place.error(what, Cause::Unexpected("it does not say where to send the blob".to_owned())))?;
        Ok(location.to_owned())
    }

    /// Sends what is missing, and ends the upload.
    fn send(&self, upload: &mut Upload<'_>) -> Result<(), OciError> {
        let total = upload.blob.content.len_bytes();
        let end = |location: &str| format!("{location}{}digest={}", if location.contains('?') { '&' } else { '?' }, upload.blob.digest);
        let octets = ("content-type", "application/octet-stream".to_owned());
        if upload.at == 0 && total <= SMALL_BYTES {
            let url = end(&upload.location);
            let bytes = upload.blob.content.read_all().map_err(|e| unreadable(&upload.blob.content, e))?;
            let mut body = || Ok(CallBody::Bytes(bytes.clone()));
            let call = Call { method: Method::Put, url: &url, headers: &[octets], body: &mut body, is_once: true };
            self.place.call(&upload.what, &upload.scope, call, &[201, 204])?;
            (self.client.observer)(Event::Sending { digest: upload.blob.digest, done: total, total });
            return Ok(());
        }
        if upload.at < total {
            let headers = [octets, ("content-range", format!("{}-{}", upload.at, total - 1))];
            // A first part without a range is what every registry understands.
            let headers = if upload.at == 0 { &headers[..1] } else { &headers[..] };
            let rest = rest_of(&upload.blob.content, upload.at);
            let (at, digest) = (upload.at, upload.blob.digest);
            let mut body = || {
                let (observer, cancel) = (self.client.observer.clone(), self.client.settings().cancel.clone());
                let report = move |done| observer(Event::Sending { digest, done: at + done, total });
                let reader = Counted { inner: rest.open()?, done: 0, report: Box::new(report), cancel };
                Ok(CallBody::Reader(Box::new(reader), total - at))
            };
            let call = Call { method: Method::Patch, url: &upload.location, headers, body: &mut body, is_once: true };
            let answer = self.place.call(&upload.what, &upload.scope, call, &[202, 201, 204])?;
            upload.at = total;
            upload.location = self.location(&upload.what, &answer)?;
        }
        let url = end(&upload.location);
        let call = Call { method: Method::Put, url: &url, headers: &[], body: &mut no_body, is_once: true };
        self.place.call(&upload.what, &upload.scope, call, &[201, 204])?;
        Ok(())
    }

    /// Asks how far an upload got. `false` when the registry does not know it.
    fn ask(&self, upload: &mut Upload<'_>) -> bool {
        let call = Call { method: Method::Get, url: &upload.location, headers: &[], body: &mut no_body, is_once: false };
        let Ok(answer) = self.place.call(&upload.what, &upload.scope, call, &[204]) else { return false };
        let last = answer.header("range").and_then(|r| r.rsplit('-').next()).and_then(|n| n.trim().parse::<u64>().ok());
        let total = upload.blob.content.len_bytes();
        // `0-0` is said of one byte and of none; sending from the start again needs a new upload then.
        match (last, self.location(&upload.what, &answer)) {
            (Some(last), Ok(location)) if last > 0 && last < total => {
                (upload.at, upload.location) = (last + 1, location);
                true
            }
            _ => false,
        }
    }

    fn manifest(&self, version: &str, media_type: &str, bytes: &[u8]) -> Result<(), OciError> {
        let what = format!("the manifest {version} of {}", self.repository.name());
        let url = format!("/v2/{}/manifests/{version}", self.repository.repository());
        let headers = [("content-type", media_type.to_owned())];
        let mut body = || Ok(CallBody::Bytes(bytes.to_vec()));
        let call = Call { method: Method::Put, url: &url, headers: &headers, body: &mut body, is_once: false };
        let answer = self.place.call(&what, &self.scope(), call, &[])?;
        let (expected, said) = (Digest::of(bytes), answer.header("docker-content-digest").and_then(|d| d.parse::<Digest>().ok()));
        match said {
            Some(found) if found != expected => {
                Err(OciError::WrongDigest { place: crate::Place::Registry(self.repository.name()), role: "manifest", expected, found })
            }
            _ => Ok(()),
        }
    }
}

/// Whether trying again may help.
fn is_passing(error: &OciError) -> bool {
    match error {
        OciError::Registry(e) => {
            matches!(e.cause, Cause::Unreachable { is_tls: false, .. } | Cause::Busy(_) | Cause::Failing { .. } | Cause::Cut(_))
        }
        _ => false,
    }
}

fn unreadable(content: &Content, error: io::Error) -> OciError {
    let path = match content {
        Content::Host { path, .. } => path.to_path_buf(),
        Content::Bytes(_) => "memory".into(),
    };
    OciError::Read { path, error }
}

fn rest_of(content: &Content, at: u64) -> Content {
    match content {
        Content::Bytes(bytes) => Content::from_bytes(&bytes[at as usize..]),
        Content::Host { path, offset, len_bytes } => Content::Host { path: path.clone(), offset: offset + at, len_bytes: len_bytes - at },
    }
}

/// Tells how much was read, and ends when the work is to.
struct Counted {
    inner: Box<dyn Read + Send>,
    done: u64,
    report: Box<dyn Fn(u64)>,
    cancel: Cancel,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_set() {
            return Err(io::Error::other("interrupted"));
        }
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        if n > 0 {
            (self.report)(self.done);
        }
        Ok(n)
    }
}
