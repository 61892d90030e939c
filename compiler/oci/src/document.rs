//! The JSON documents of an image, as far as they are read: index, manifest, descriptor (OCI image-spec; Docker's schema 2 has the same fields).
//!
//! Unknown fields are ignored, as the specification asks. `oci-spec` is not used here: its configuration type drops Docker's fields (`Shell`,
//! `Healthcheck`, `OnBuild`), and what remains is smaller than the conversion would be.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Reference to a blob (descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest, unparsed.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// For manifests in an index: what machine they are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form; the tag among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Returns the descriptor of some bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes).to_string(),
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// What machine an image is for (image-index.md), in Go's words: `linux`, `amd64`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// GOOS.
    pub os: String,
    /// GOARCH.
    pub architecture: String,
    /// `v8`, `v2`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Of the guest's kernel, in indexes for kraft.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What the guest needs, likewise.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl Platform {
    /// Returns a platform without a variant.
    pub fn new(os: &str, architecture: &str) -> Platform {
        Platform { os: os.into(), architecture: architecture.into(), variant: None, os_version: None, os_features: vec![] }
    }

    /// The platform that ukc makes images for.
    pub fn linux_amd64() -> Platform {
        Platform::new("linux", "amd64")
    }

    /// Parses `os[/arch[/variant]]`; `x86_64` and `aarch64` are understood.
    pub fn parse(text: &str) -> Option<Platform> {
        let mut parts = text.split('/');
        let os = parts.next().filter(|s| !s.is_empty())?.to_lowercase();
        let architecture = match parts.next() {
            None | Some("amd64" | "x86_64" | "x86-64") => "amd64".to_owned(),
            Some("aarch64" | "arm64") => "arm64".to_owned(),
            Some(other) if !other.is_empty() => other.to_lowercase(),
            Some(_) => return None,
        };
        let variant = parts.next().map(str::to_lowercase);
        if parts.next().is_some() {
            return None;
        }
        Some(Platform { variant, ..Platform::new(&os, &architecture) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// An index or a manifest: they are told apart by their fields, because the media type is optional in both.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestOrIndex {
    pub schema_version: Option<u32>,
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
}

/// An image: a configuration and layers (manifest.md).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
    /// Free-form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Returns a manifest of nothing.
    pub fn new(media_type: &str) -> Manifest {
        let config = Descriptor::of("", b"");
        Manifest { schema_version: 2, media_type: media_type.to_owned(), config, layers: vec![], annotations: BTreeMap::new() }
    }
}

/// A list of manifests (image-index.md).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Manifests, each for a platform, or further indexes.
    pub manifests: Vec<Descriptor>,
    /// Free-form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayoutFile {
    pub image_layout_version: String,
}

/// Annotation that holds the tag of a manifest in a layout (annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What documents and layers are (OCI image-spec, media-types.md; Docker image manifest v2, schema 2).
pub mod media_type {
    /// An index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// A configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A plain layer; `+gzip` and `+zstd` follow it.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's plain layer; `.gzip` follows it.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
}
pub(crate) use media_type::{CONFIG, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, INDEX, LAYER, MANIFEST};

/// How a layer's media type is dealt with: `Ok`, or why not.
pub(crate) fn check_layer_type(media_type: &str) -> Result<(), &'static str> {
    const DOCKER: &str = "application/vnd.docker.image.rootfs.";
    let rest = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"))
        .or_else(|| media_type.strip_prefix(DOCKER).and_then(|t| t.strip_prefix("foreign.").or(Some(t))?.strip_prefix("diff.tar")));
    match rest {
        Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd") => Ok(()),
        Some(rest) if rest.contains("encrypted") => Err("encrypted layers are not supported"),
        _ => Err("this is not a file system layer that ukc knows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let show = |text| Platform::parse(text).map(|p| p.to_string());
        for line in ["linux/amd64|linux/amd64", "linux/x86_64|linux/amd64", "Linux|linux/amd64", "linux/arm64/v8|linux/arm64/v8"] {
            let (input, expected) = line.split_once('|').unwrap();
            assert_eq!(show(input).as_deref(), Some(expected));
        }
        assert_eq!((show(""), show("linux/"), show("a/b/c/d")), (None, None, None));
    }

    #[test]
    fn layer_types() {
        for good in [
            LAYER,
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            assert_eq!(check_layer_type(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "application/json",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tar+brotli",
        ] {
            assert!(check_layer_type(bad).is_err(), "{bad}");
        }
    }
}
