//! From an entry of an index to the manifest for a platform, wherever the documents are (OCI image-spec, image-index.md).
//!
//! Entries for other platforms are not read: a registry would charge for them. Only where an index does not say what an entry is for, its configuration
//! does.

use crate::document::{Descriptor, Manifest, ManifestOrIndex, Platform, check_layer_type};
use crate::{Digest, ImageDocument, OciError, Place};

/// How deep indexes may lie in indexes.
const MAX_DEPTH: u32 = 8;
/// Manifests, indexes and configurations are refused beyond this (registries refuse more than 4 MiB).
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// A manifest that was chosen, with its configuration.
pub(crate) struct Chosen {
    pub manifest_digest: Digest,
    pub manifest: Manifest,
    pub config_digest: Digest,
    pub document: ImageDocument,
}

/// A place that has documents by digest.
pub(crate) trait Documents {
    /// For messages.
    fn place(&self) -> Place;

    /// Returns the bytes of a document; whoever calls checks length and digest.
    fn bytes(&self, descriptor: &Descriptor, digest: &Digest, role: &'static str) -> Result<Vec<u8>, OciError>;

    /// Returns the error of a document that cannot be understood.
    fn malformed(&self, what: impl Into<String>, why: impl ToString) -> OciError {
        OciError::Malformed { place: self.place(), what: what.into(), why: why.to_string() }
    }

    /// Parses a descriptor's digest.
    fn digest_of(&self, descriptor: &Descriptor, role: &'static str) -> Result<Digest, OciError> {
        let text = &descriptor.digest;
        text.parse().map_err(|()| self.malformed(format!("the {role} has the digest `{text}`"), "only sha256 is supported"))
    }

    /// Returns a layer's digest, if it is of a kind that can be unpacked.
    fn layer_digest(&self, descriptor: &Descriptor) -> Result<Digest, OciError> {
        let layer = self.digest_of(descriptor, "layer")?;
        check_layer_type(&descriptor.media_type).map_err(|why| OciError::UnsupportedLayer {
            place: self.place(),
            layer,
            media_type: descriptor.media_type.clone(),
            why,
        })?;
        Ok(layer)
    }

    /// Reads a document and checks its length and digest.
    fn document(&self, descriptor: &Descriptor, role: &'static str) -> Result<(Digest, Vec<u8>), OciError> {
        let expected = self.digest_of(descriptor, role)?;
        if descriptor.size > MAX_DOCUMENT_BYTES {
            return Err(self.malformed(format!("the {role} {expected}"), format!("it is larger than {} MiB", MAX_DOCUMENT_BYTES >> 20)));
        }
        let bytes = self.bytes(descriptor, &expected, role)?;
        if bytes.len() as u64 != descriptor.size {
            let (expected_size, found) = (descriptor.size, bytes.len() as u64);
            return Err(OciError::WrongSize { place: self.place(), digest: expected, role, expected: expected_size, found });
        }
        let found = Digest::of(&bytes);
        if found != expected {
            return Err(OciError::WrongDigest { place: self.place(), role, expected, found });
        }
        Ok((expected, bytes))
    }

    /// Reads the configuration that a manifest names.
    fn config(&self, manifest: &Manifest) -> Result<(Digest, ImageDocument), OciError> {
        let (digest, bytes) = self.document(&manifest.config, "image configuration")?;
        let what = || format!("the image configuration {digest}");
        let document = ImageDocument::from_json(&bytes).map_err(|why| self.malformed(what(), why))?;
        if document.diff_ids.len() != manifest.layers.len() {
            let why = format!("it lists {} layers, and the manifest {}", document.diff_ids.len(), manifest.layers.len());
            return Err(self.malformed(what(), why));
        }
        Ok((digest, document))
    }
}

/// Finds the image for `platform` among these entries and what lies below them.
pub(crate) fn choose(documents: &impl Documents, roots: &[&Descriptor], platform: &Platform) -> Result<Chosen, OciError> {
    let mut search = Search { documents, platform, available: vec![], best: None };
    for root in roots {
        search.entry(root, 0)?;
    }
    let Search { mut available, best, .. } = search;
    available.sort();
    available.dedup();
    best.map(|(_, chosen)| chosen).ok_or_else(|| OciError::NoPlatform { place: documents.place(), wanted: platform.to_string(), available })
}

struct Search<'a, D> {
    documents: &'a D,
    platform: &'a Platform,
    available: Vec<String>,
    best: Option<(usize, Chosen)>,
}

impl<D: Documents> Search<'_, D> {
    /// How well a platform fits; the smallest number fits best.
    fn rank(&self, found: &Platform) -> Option<usize> {
        if found.os != self.platform.os || found.architecture != self.platform.architecture {
            return None;
        }
        let variant = found.variant.as_deref().unwrap_or("");
        Some(match &self.platform.variant {
            Some(wanted) if wanted == variant => 0,
            // Without a wish, the plainest variant runs everywhere.
            _ => 1 + variant.len(),
        })
    }

    fn is_better(&self, rank: usize) -> bool {
        self.best.as_ref().is_none_or(|(best, _)| rank < *best)
    }

    fn entry(&mut self, entry: &Descriptor, depth: u32) -> Result<(), OciError> {
        if is_attachment(entry) {
            return Ok(());
        }
        if let Some(platform) = &entry.platform {
            self.available.push(platform.to_string());
            if !self.rank(platform).is_some_and(|rank| self.is_better(rank)) {
                return Ok(());
            }
        }
        let (digest, bytes) = self.documents.document(entry, "manifest")?;
        let what = || format!("the manifest {digest} is broken");
        let either: ManifestOrIndex = serde_json::from_slice(&bytes).map_err(|e| self.documents.malformed(what(), e))?;
        match (either.manifests, either.config, either.layers) {
            // A document that is both would be read differently by different tools (CVE-2021-41190).
            (Some(_), config, layers) if config.is_some() || layers.is_some() => {
                Err(self.documents.malformed(what(), "it is an index and a manifest at once"))
            }
            (Some(_), ..) if depth == MAX_DEPTH => Err(self.documents.malformed(what(), "indexes lie in indexes without end")),
            (Some(entries), ..) => entries.iter().try_for_each(|below| self.entry(below, depth + 1)),
            (None, Some(config), Some(layers)) => {
                let manifest = Manifest { config, layers, ..Manifest::new(&entry.media_type) };
                self.manifest(entry.platform.as_ref(), digest, manifest)
            }
            _ if either.schema_version == Some(1) => Err(self
                .documents
                .malformed(what(), "it has the form of Docker before 2016 (schema 1), which is not supported; push the image again")),
            _ => Err(self.documents.malformed(what(), "it has neither `manifests` nor `config` and `layers`")),
        }
    }

    fn manifest(&mut self, listed: Option<&Platform>, manifest_digest: Digest, manifest: Manifest) -> Result<(), OciError> {
        let (config_digest, document) = self.documents.config(&manifest)?;
        let own = || Platform::new(&document.config.os, &document.config.architecture);
        let found = listed.cloned().unwrap_or_else(own);
        if listed.is_none() {
            self.available.push(found.to_string());
        }
        if let Some(rank) = self.rank(&found).filter(|rank| self.is_better(*rank)) {
            self.best = Some((rank, Chosen { manifest_digest, manifest, config_digest, document }));
        }
        Ok(())
    }
}

/// Signatures, provenance and the like: not images (BuildKit marks them with the platform `unknown/unknown`).
pub(crate) fn is_attachment(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
        || entry.annotations.get("vnd.docker.reference.type").is_some_and(|t| t == "attestation-manifest")
}
