//! Pulling: names → manifests → layers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ukc_fetch::Method;

use super::blob::BlobReader;
use super::endpoint::{Call, Endpoint, Scope, no_body};
use super::error::{Cause, RegistryError};
use super::{Event, Registries};
use crate::compress::unpack_from;
use crate::document::{Descriptor, Platform};
use crate::resolve::{self, Documents, MAX_DOCUMENT_BYTES};
use crate::{Digest, HashingReader, Image, Layer, OciError, Place, Reference, Store};

/// The manifests that we understand.
const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// How many layers come at once: docker's number. More would share the same line and the same cores.
const AT_ONCE: usize = 3;

pub(super) fn accept() -> Vec<(&'static str, String)> {
    vec![("accept", ACCEPT.join(", "))]
}

impl From<RegistryError> for OciError {
    fn from(error: RegistryError) -> OciError {
        OciError::Registry(Box::new(error))
    }
}

/// Calls `attempt` for one place after the other until one succeeds. That a mirror failed is a remark; the registry's own error is the error.
fn first_of<T>(
    client: &Registries,
    reference: &Reference,
    mut attempt: impl FnMut(&Arc<Endpoint>) -> Result<T, OciError>,
) -> Result<T, OciError> {
    for place in client.places(reference) {
        match attempt(&place) {
            Err(error) if place.is_mirror && is_of_the_place(&error) => {
                // A mirror that does not have an image is no news.
                if error.name() != "image-not-found" {
                    client.notice(format!("the mirror {} of {} is of no use: {error}", place.registry, reference.registry()));
                }
            }
            other => return other,
        }
    }
    unreachable!("the registry itself is the last place")
}

/// Whether another place may do better.
fn is_of_the_place(error: &OciError) -> bool {
    match error {
        OciError::Registry(e) => !matches!(e.cause, Cause::Interrupted | Cause::Offline),
        OciError::WrongDigest { .. } | OciError::WrongSize { .. } | OciError::Malformed { .. } | OciError::NoPlatform { .. } => true,
        _ => false,
    }
}

/// See [`Registries::resolve`].
pub(super) fn resolve(client: &Registries, reference: &Reference, platform: &Platform, store: &Store) -> Result<Image, OciError> {
    let name = reference.to_string();
    let remembered = store.get_ref(&name);
    let known = reference.digest().or_else(|| remembered.filter(|_| !client.settings.always_resolve));
    if let Some(root) = known.and_then(|digest| store.get(&digest)) {
        return with_root(client, reference, platform, store, root);
    }
    let what = format!("the image {}", reference.familiar());
    let found = first_of(client, reference, |place| root(place, reference, &what, remembered.as_ref(), store));
    let root = match (found, remembered.and_then(|digest| store.get(&digest))) {
        (Ok(bytes), _) => bytes,
        (Err(OciError::Registry(e)), Some(old)) if matches!(e.cause, Cause::Unreachable { .. } | Cause::Cut(_)) => {
            client.notice(format!("{e}; the image is used as it was pulled before"));
            old
        }
        (Err(error), _) => return Err(error),
    };
    let image = with_root(client, reference, platform, store, root.clone())?;
    // Only now, so that a name never leads to something that turned out to be broken.
    let digest = store.put(&root)?;
    store.set_ref(&name, &digest)?;
    Ok(image)
}

/// Fetches what a name stands for: an index or a manifest.
fn root(place: &Arc<Endpoint>, reference: &Reference, what: &str, remembered: Option<&Digest>, store: &Store) -> Result<Vec<u8>, OciError> {
    let repository = place.repository(reference.repository());
    let scope = Scope::pull(&repository);
    let url = format!("/v2/{repository}/manifests/{}", reference.version());
    // Asking for the digest alone costs no pull where those are counted.
    if let Some(old) = remembered.and_then(|digest| store.get(digest)) {
        let (headers, mut body) = (accept(), no_body);
        let call = Call { method: Method::Head, ..Call::get(&url, &headers, &mut body) };
        let answer = place.call(what, &scope, call, &[]);
        if answer.is_ok_and(|a| a.header("docker-content-digest").is_some_and(|d| d == Digest::of(&old).to_string())) {
            return Ok(old);
        }
    }
    let answer = place.call(what, &scope, Call::get(&url, &accept(), &mut no_body), &[])?;
    let said: Option<Digest> = answer.header("docker-content-digest").and_then(|d| d.parse().ok());
    let bytes = answer.into_bytes(MAX_DOCUMENT_BYTES).map_err(|e| place.error(what, Cause::Cut(e.to_string())))?;
    let found = Digest::of(&bytes);
    match reference.digest().or(said) {
        Some(expected) if expected != found => {
            Err(OciError::WrongDigest { place: Place::Registry(reference.name()), role: "manifest", expected, found })
        }
        _ => Ok(bytes),
    }
}

fn with_root(client: &Registries, reference: &Reference, platform: &Platform, store: &Store, root: Vec<u8>) -> Result<Image, OciError> {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(default, rename = "mediaType")]
        media_type: String,
    }
    let media_type = serde_json::from_slice::<Typed>(&root).map(|t| t.media_type).unwrap_or_default();
    let descriptor = Descriptor::of(&media_type, &root);
    let documents = Remote { client, reference, store, root: (descriptor.digest.clone(), root) };
    let chosen = resolve::choose(&documents, &[&descriptor], platform)?;
    let mut layers = vec![];
    for (descriptor, &diff_id) in chosen.manifest.layers.iter().zip(&chosen.document.diff_ids) {
        let digest = documents.layer_digest(descriptor)?;
        layers.push(Layer::new(descriptor, digest, diff_id, store));
    }
    let source = reference.at(chosen.manifest_digest);
    Ok(Image::of(chosen, layers, Some(source)))
}

/// The documents of a repository: from the store if they are there.
struct Remote<'a> {
    client: &'a Registries,
    reference: &'a Reference,
    store: &'a Store,
    root: (String, Vec<u8>),
}

impl Documents for Remote<'_> {
    fn place(&self) -> Place {
        Place::Registry(self.reference.name())
    }

    fn bytes(&self, descriptor: &Descriptor, digest: &Digest, role: &'static str) -> Result<Vec<u8>, OciError> {
        if descriptor.digest == self.root.0 {
            return Ok(self.root.1.clone());
        }
        if let Some(bytes) = self.store.get(digest) {
            return Ok(bytes);
        }
        let what = format!("the {role} of {}", self.reference.familiar());
        let kind = if role == "manifest" { "manifests" } else { "blobs" };
        first_of(self.client, self.reference, |place| {
            let repository = place.repository(self.reference.repository());
            let url = format!("/v2/{repository}/{kind}/{digest}");
            let headers = if role == "manifest" { accept() } else { vec![] };
            let answer = place.call(&what, &Scope::pull(&repository), Call::get(&url, &headers, &mut no_body), &[])?;
            let bytes = answer.into_bytes(MAX_DOCUMENT_BYTES).map_err(|e| place.error(&what, Cause::Cut(e.to_string())))?;
            let found = Digest::of(&bytes);
            if found != *digest {
                return Err(OciError::WrongDigest { place: self.place(), role, expected: *digest, found });
            }
            self.store.put(&bytes)?;
            Ok(bytes)
        })
    }
}

/// See [`Registries::layers`].
pub(super) fn layers(client: &Registries, image: &Image, store: &Store) -> Result<(), OciError> {
    let mut seen = BTreeSet::new();
    let missing: Vec<&Layer> = image.layers.iter().filter(|l| !store.contains(&l.diff_id) && seen.insert(l.diff_id)).collect();
    let Some(reference) = image.source.as_ref().filter(|_| !missing.is_empty()) else { return Ok(()) };
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<OciError>> = Mutex::new(None);
    let work = || {
        while let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = layer_of(client, reference, layer, store) {
                // The first error ends the others' work after the layers that they are at.
                next.store(missing.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..missing.len().min(AT_ONCE) {
            scope.spawn(work);
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Fetches one layer, uncompressed on the way.
fn layer_of(client: &Registries, reference: &Reference, layer: &Layer, store: &Store) -> Result<(), OciError> {
    let what = format!("the layer {} of {}", layer.digest, reference.name());
    let place_name = Place::Registry(reference.name());
    first_of(client, reference, |place| {
        // Bytes of an earlier attempt may be damaged on the disk, and a line may fail once: the second attempt starts from nothing.
        let attempt = || {
            let observe = |done| (client.observer)(Event::Receiving { digest: layer.digest, done, total: layer.len_bytes });
            let is_there = || store.contains(&layer.diff_id);
            let Some(mut reader) = BlobReader::new(place, reference, layer, store, &what, &observe, &is_there)? else { return Ok(()) };
            let read_error =
                |e: std::io::Error| e.downcast::<OciError>().unwrap_or_else(|e| place.error(&what, Cause::Cut(e.to_string())).into());
            let done = unpack_from(store, &mut reader, layer.len_bytes, &what, &read_error, |facts| {
                if facts.compressed != layer.digest {
                    let (expected, found) = (layer.digest, facts.compressed);
                    return Err(OciError::WrongDigest { place: place_name.clone(), role: "layer", expected, found });
                }
                if facts.plain != layer.diff_id {
                    let (expected, found) = (layer.diff_id, facts.plain);
                    return Err(OciError::WrongDiffId { place: place_name.clone(), layer: Box::new(layer.digest), expected, found });
                }
                Ok(())
            });
            // What is not to be trusted must not be gone on with.
            match done {
                Ok(_) if client.settings.keeps_blobs => reader.keep(store),
                Ok(_) => {
                    reader.finish(true);
                    Ok(())
                }
                Err(error) => {
                    reader.finish(!is_resumable(&error));
                    Err(error)
                }
            }
        };
        match attempt() {
            Err(OciError::WrongDigest { .. } | OciError::WrongSize { .. } | OciError::Decompress { .. }) => attempt(),
            other => other,
        }
    })
}

/// See [`Registries::blob`].
pub(super) fn compressed(client: &Registries, reference: &Reference, layer: &Layer, store: &Store) -> Result<(), OciError> {
    let what = format!("the layer {} of {}", layer.digest, reference.name());
    first_of(client, reference, |place| {
        let observe = |done| (client.observer)(Event::Receiving { digest: layer.digest, done, total: layer.len_bytes });
        let is_there = || store.contains(&layer.digest);
        let Some(reader) = BlobReader::new(place, reference, layer, store, &what, &observe, &is_there)? else { return Ok(()) };
        let mut reader = HashingReader::new(reader);
        let read = std::io::copy(&mut reader, &mut std::io::sink());
        let (reader, found) = reader.into_parts();
        if let Err(e) = read {
            let error = e.downcast::<OciError>().unwrap_or_else(|e| place.error(&what, Cause::Cut(e.to_string())).into());
            reader.finish(!is_resumable(&error));
            return Err(error);
        }
        if found != layer.digest {
            reader.finish(true);
            return Err(OciError::WrongDigest { place: Place::Registry(reference.name()), role: "layer", expected: layer.digest, found });
        }
        reader.keep(store)
    })
}

/// Whether the bytes that came are good as far as they go.
fn is_resumable(error: &OciError) -> bool {
    matches!(error, OciError::Registry(_) | OciError::Write { .. })
}
