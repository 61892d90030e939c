//! Registries: images over HTTP (OCI distribution-spec 1.1; Docker Registry HTTP API V2).
//!
//! [`Registries`] is the client. It asks mirrors first and the registry itself last, checks every byte against its digest, tries again where that may
//! help, goes on where a connection broke off, and keeps in the [`Store`] what it got, so that an image that was pulled needs no network.
//!
//! ```text
//! Reference ──resolve──▶ Image (manifest and configuration) ──layers──▶ uncompressed tars in the store
//! blobs + manifests ──push──▶ registry: blobs that are missing, manifests by digest, the tag last
//! ```
//!
//! What is absent: no async runtime (a thread for each layer does), no opinion about what images are for.

mod base64;
mod blob;
mod challenge;
mod credentials;
mod endpoint;
mod error;
mod pull;
mod push;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use credentials::{Credential, CredentialFiles};
pub use error::{Cause, RegistryError};
pub use settings::Settings;

use crate::{Digest, Reference, Store};
use endpoint::Endpoint;

/// What a client says while it works. Events come from several threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A blob comes in: `done` of `total` bytes are here.
    Receiving { digest: Digest, done: u64, total: u64 },
    /// A blob goes out, likewise.
    Sending { digest: Digest, done: u64, total: u64 },
    /// A blob need not be sent: it is there already.
    AlreadyThere { digest: Digest, total: u64 },
    /// Something that the user should know, though it does not end the work.
    Notice(String),
}

/// Hears events.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// A client of all registries; cheap to clone.
#[derive(Clone)]
pub struct Registries {
    settings: Arc<Settings>,
    endpoints: Arc<Mutex<HashMap<String, Arc<Endpoint>>>>,
    observer: Observer,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Registries {
    /// Returns a client.
    pub fn new(settings: Settings, observer: Observer) -> Registries {
        Registries { settings: Arc::new(settings), endpoints: Arc::default(), observer }
    }

    /// Returns what it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn notice(&self, text: String) {
        (self.observer)(Event::Notice(text));
    }

    /// Returns the endpoint of a registry itself.
    fn origin(&self, registry: &str) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.entry(registry.to_owned()).or_insert_with(|| Arc::new(Endpoint::new(registry, &self.settings))).clone()
    }

    /// Returns where an image can be had: mirrors, then the registry.
    fn places(&self, reference: &Reference) -> Vec<Arc<Endpoint>> {
        let mirrors = self.settings.mirrors.get(reference.registry()).into_iter().flatten().map(|place| {
            let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            endpoints.entry(format!("mirror {place}")).or_insert_with(|| Arc::new(Endpoint::mirror(place, &self.settings))).clone()
        });
        mirrors.chain([self.origin(reference.registry())]).collect()
    }
}

/// Finds an image: in the store if its name is known there, else in the registry.
impl Registries {
    /// Returns the image for `platform` with manifest and configuration checked. Its layers come with [`Registries::layers`].
    ///
    /// # Errors
    /// [`crate::OciError`] names the registry and what was asked for.
    pub fn resolve(&self, reference: &Reference, platform: &crate::Platform, store: &Store) -> Result<crate::Image, crate::OciError> {
        pull::resolve(self, reference, platform, store)
    }

    /// Brings those layers of an image into the store that are not there, several at once.
    ///
    /// # Errors
    /// As [`Registries::resolve`]; layers that came whole stay.
    pub fn layers(&self, image: &crate::Image, store: &Store) -> Result<(), crate::OciError> {
        pull::layers(self, image, store)
    }

    /// Brings a layer into the store as the registry has it, compressed.
    ///
    /// # Errors
    /// As [`Registries::resolve`].
    pub fn blob(&self, reference: &Reference, layer: &crate::Layer, store: &Store) -> Result<(), crate::OciError> {
        pull::compressed(self, reference, layer, store)
    }

    /// Sends an image, under names that may be of several repositories. Returns the digest of what stands for the whole.
    ///
    /// # Errors
    /// [`crate::OciError`]; names that were not yet given keep their meaning then.
    pub fn push(&self, names: &[Reference], bundle: &crate::Bundle) -> Result<Digest, crate::OciError> {
        push::push(self, names, bundle)
    }
}
