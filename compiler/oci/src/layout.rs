//! Finding an image in an OCI layout: tag, digest and platform → manifest (OCI image-spec, image-layout.md).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::document::{Descriptor, Index, LayoutFile, Manifest, ManifestOrIndex, Platform, REF_NAME};
use crate::{Digest, ImageDocument, OciError};

/// Manifests, indexes and configurations are refused beyond this (registries refuse more than 4 MiB).
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;
/// How deep indexes may lie in indexes.
const MAX_DEPTH: u32 = 8;

/// An image in a layout on disk: `DIR[:tag][@digest]`, as it stands behind `oci-layout://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutRef {
    /// The layout's directory.
    pub dir: PathBuf,
    /// Which image, by `org.opencontainers.image.ref.name`.
    pub tag: Option<String>,
    /// Which image, by the digest of its manifest or index.
    pub digest: Option<Digest>,
}

impl LayoutRef {
    /// Parses `DIR[:tag][@sha256:hex]`. A colon that is followed by a `/` belongs to the directory's name.
    ///
    /// # Errors
    /// A sentence for a digest that is none and an empty directory or tag.
    pub fn parse(text: &str) -> Result<LayoutRef, String> {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) if digest.contains(':') && !digest.contains('/') => {
                (rest, Some(digest.parse().map_err(|()| format!("`{digest}` is not a sha256 digest"))?))
            }
            _ => (text, None),
        };
        let (dir, tag) = match rest.rsplit_once(':') {
            Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if dir.is_empty() || tag.as_deref() == Some("") {
            return Err(format!("`{text}` should have the form DIR[:TAG][@DIGEST]"));
        }
        Ok(LayoutRef { dir: dir.into(), tag, digest })
    }
}

/// A manifest that was chosen, with its configuration.
pub(crate) struct Chosen {
    pub manifest_digest: Digest,
    pub manifest: Manifest,
    pub config_digest: Digest,
    pub document: ImageDocument,
}

pub(crate) struct Layout<'a> {
    pub dir: &'a Path,
}

impl Layout<'_> {
    fn not_a_layout(&self, why: impl Into<String>) -> OciError {
        OciError::NotALayout { layout: self.dir.to_owned(), why: why.into() }
    }

    fn malformed(&self, what: impl Into<String>, why: impl ToString) -> OciError {
        OciError::Malformed { layout: self.dir.to_owned(), what: what.into(), why: why.to_string() }
    }

    fn file<T: DeserializeOwned>(&self, name: &str) -> Result<T, OciError> {
        let path = self.dir.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|f| f.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes));
        match read {
            Ok(_) => serde_json::from_slice(&bytes).map_err(|e| self.malformed(format!("`{name}` is broken"), e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(self.not_a_layout(format!("it has no `{name}`"))),
            Err(error) => Err(OciError::Read { path, error }),
        }
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    pub fn digest_of(&self, descriptor: &Descriptor, role: &'static str) -> Result<Digest, OciError> {
        let text = &descriptor.digest;
        text.parse().map_err(|()| self.malformed(format!("the {role} has the digest `{text}`"), "only sha256 is supported"))
    }

    /// Checks existence and length of a blob and returns its path.
    pub fn check_size(&self, descriptor: &Descriptor, digest: &Digest, role: &'static str) -> Result<PathBuf, OciError> {
        let path = self.blob_path(digest);
        let layout = || self.dir.to_owned();
        match fs::metadata(&path) {
            Ok(meta) if meta.len() != descriptor.size => {
                Err(OciError::WrongSize { layout: layout(), digest: *digest, role, expected: descriptor.size, found: meta.len() })
            }
            Ok(_) => Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(OciError::MissingBlob { layout: layout(), digest: *digest, role }),
            Err(error) => Err(OciError::Read { path, error }),
        }
    }

    /// Reads a document and checks its length and digest.
    fn document(&self, descriptor: &Descriptor, role: &'static str) -> Result<(Digest, Vec<u8>), OciError> {
        let expected = self.digest_of(descriptor, role)?;
        if descriptor.size > MAX_DOCUMENT_BYTES {
            return Err(self.malformed(format!("the {role} {expected}"), format!("it is larger than {} MiB", MAX_DOCUMENT_BYTES >> 20)));
        }
        let path = self.check_size(descriptor, &expected, role)?;
        let bytes = fs::read(&path).map_err(|error| OciError::Read { path, error })?;
        let found = Digest::of(&bytes);
        if found != expected {
            return Err(OciError::WrongDigest { layout: self.dir.to_owned(), role, expected, found });
        }
        Ok((expected, bytes))
    }

    /// Finds the image that `wanted` names, for `platform`.
    pub fn choose(&self, wanted: &LayoutRef, platform: &Platform) -> Result<Chosen, OciError> {
        if !self.dir.is_dir() {
            return Err(self.not_a_layout("there is no such directory"));
        }
        let version = self.file::<LayoutFile>("oci-layout")?.image_layout_version;
        if !version.starts_with("1.") {
            return Err(self.not_a_layout(format!("its version is `{version}`, and ukc knows 1.0.0")));
        }
        let index: Index = self.file("index.json")?;
        let roots = self.roots(&index, wanted)?;
        let mut images = Vec::new();
        for root in roots {
            self.images(root, 0, &mut images)?;
        }
        self.for_platform(images, platform)
    }

    /// Returns the entries of index.json that tag and digest leave over.
    fn roots<'a>(&self, index: &'a Index, wanted: &LayoutRef) -> Result<Vec<&'a Descriptor>, OciError> {
        let all: Vec<&Descriptor> = index.manifests.iter().filter(|d| !is_attachment(d)).collect();
        let tag_of = |d: &Descriptor| d.annotations.get(REF_NAME).cloned();
        let is_tagged = |d: &Descriptor, tag: &str| {
            // skopeo writes the tag alone, others a whole reference.
            tag_of(d).is_some_and(|name| name == tag || name.strip_suffix(tag).is_some_and(|rest| rest.ends_with(':')))
        };
        let mut available: Vec<String> = all.iter().filter_map(|d| tag_of(d)).collect();
        available.sort();
        available.dedup();
        let mut left = all.clone();
        if let Some(tag) = &wanted.tag {
            left.retain(|d| is_tagged(d, tag));
        }
        if let Some(digest) = &wanted.digest {
            let digest = digest.to_string();
            left.retain(|d| d.digest == digest);
        }
        if left.is_empty() {
            let wanted = match (&wanted.tag, &wanted.digest) {
                (Some(tag), None) => tag.clone(),
                (_, Some(digest)) => digest.to_string(),
                (None, None) => return Err(self.malformed("`index.json`", "it lists no image")),
            };
            return Err(OciError::NoSuchImage { layout: self.dir.to_owned(), wanted, available });
        }
        if wanted.tag.is_none() && wanted.digest.is_none() {
            let names: std::collections::BTreeSet<_> = left.iter().map(|d| tag_of(d)).collect();
            if names.len() > 1 {
                if !left.iter().any(|d| is_tagged(d, "latest")) {
                    return Err(OciError::Ambiguous { layout: self.dir.to_owned(), available });
                }
                left.retain(|d| is_tagged(d, "latest"));
            }
        }
        Ok(left)
    }

    /// Collects the image manifests below an entry, through nested indexes.
    fn images(&self, entry: &Descriptor, depth: u32, out: &mut Vec<(Option<Platform>, Digest, Manifest)>) -> Result<(), OciError> {
        let (digest, bytes) = self.document(entry, "manifest")?;
        let what = || format!("the manifest {digest} is broken");
        let either: ManifestOrIndex = serde_json::from_slice(&bytes).map_err(|e| self.malformed(what(), e))?;
        match (either.manifests, either.config, either.layers) {
            // A document that is both would be read differently by different tools (CVE-2021-41190).
            (Some(_), config, layers) if config.is_some() || layers.is_some() => {
                Err(self.malformed(what(), "it is an index and a manifest at once"))
            }
            (Some(_), ..) if depth == MAX_DEPTH => Err(self.malformed(what(), "indexes lie in indexes without end")),
            (Some(entries), ..) => entries.iter().filter(|d| !is_attachment(d)).try_for_each(|below| self.images(below, depth + 1, out)),
            (None, Some(config), Some(layers)) => {
                let manifest = Manifest { schema_version: 2, media_type: entry.media_type.clone(), config, layers };
                out.push((entry.platform.clone(), digest, manifest));
                Ok(())
            }
            _ => Err(self.malformed(what(), "it has neither `manifests` nor `config` and `layers`")),
        }
    }

    fn for_platform(&self, images: Vec<(Option<Platform>, Digest, Manifest)>, platform: &Platform) -> Result<Chosen, OciError> {
        let mut available = Vec::new();
        let mut best: Option<(usize, Chosen)> = None;
        for (listed, manifest_digest, manifest) in images {
            // The configuration is only read where the index does not say.
            let mut config = None;
            let found = match listed {
                Some(platform) => platform,
                None => {
                    let (digest, document) = self.config(&manifest)?;
                    let found =
                        Platform { os: document.config.os.clone(), architecture: document.config.architecture.clone(), variant: None };
                    config = Some((digest, document));
                    found
                }
            };
            available.push(found.to_string());
            if found.os != platform.os || found.architecture != platform.architecture {
                continue;
            }
            let variant = found.variant.as_deref().unwrap_or("");
            let rank = match &platform.variant {
                Some(wanted) if wanted == variant => 0,
                // Without a wish, the plainest variant runs everywhere.
                _ => 1 + variant.len(),
            };
            if best.as_ref().is_none_or(|(r, _)| rank < *r) {
                let (config_digest, document) = config.map_or_else(|| self.config(&manifest), Ok)?;
                best = Some((rank, Chosen { manifest_digest, manifest, config_digest, document }));
            }
        }
        available.sort();
        available.dedup();
        best.map(|(_, chosen)| chosen).ok_or_else(|| OciError::NoPlatform {
            layout: self.dir.to_owned(),
            wanted: platform.to_string(),
            available,
        })
    }

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

/// Signatures, provenance and the like: not images (BuildKit marks them with the platform `unknown/unknown`).
fn is_attachment(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
        || entry.annotations.get("vnd.docker.reference.type").is_some_and(|t| t == "attestation-manifest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let hex = Digest::of(b"abc");
        let at = format!("dir:tag@{hex}");
        for (text, dir, tag, digest) in [
            ("dir", "dir", None, None),
            ("/a/b:1.0", "/a/b", Some("1.0"), None),
            ("./a:b/c", "./a:b/c", None, None),
            (at.as_str(), "dir", Some("tag"), Some(hex)),
            ("me@home/dir", "me@home/dir", None, None),
        ] {
            let expected = LayoutRef { dir: dir.into(), tag: tag.map(str::to_owned), digest };
            assert_eq!(LayoutRef::parse(text), Ok(expected), "{text}");
        }
        for bad in ["", ":tag", "dir:", "dir@sha256:12", "dir@md5:12"] {
            assert!(LayoutRef::parse(bad).is_err(), "{bad}");
        }
    }
}
