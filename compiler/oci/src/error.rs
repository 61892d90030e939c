//! Everything that can be wrong with an image, wherever it is, or with the store.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ukc_rootfs::ApplyError;

use crate::Digest;
use crate::registry::RegistryError;
use crate::tar::TarError;

/// Where an image is, as the user called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An OCI layout's directory.
    Layout(PathBuf),
    /// An archive of `docker save`, or of an OCI layout.
    Archive(PathBuf),
    /// A repository in a registry: `registry/repository`.
    Registry(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Layout(dir) => write!(f, "the layout `{}`", dir.display()),
            Place::Archive(file) => write!(f, "the archive `{}`", file.display()),
            Place::Registry(name) => write!(f, "the repository `{name}`"),
        }
    }
}

/// Trouble with an image or the store.
#[derive(Debug)]
pub enum OciError {
    /// The directory does not exist or has no `oci-layout` file.
    NotALayout { layout: PathBuf, why: String },
    /// A blob that something refers to is not there.
    MissingBlob { place: Place, digest: Digest, role: &'static str },
    /// A blob has another length than its descriptor says.
    WrongSize { place: Place, digest: Digest, role: &'static str, expected: u64, found: u64 },
    /// A blob's bytes have another digest than its name.
    WrongDigest { place: Place, role: &'static str, expected: Digest, found: Digest },
    /// A layer uncompresses to something else than the configuration's `diff_ids` say.
    WrongDiffId { place: Place, layer: Box<Digest>, expected: Digest, found: Digest },
    /// A document cannot be understood.
    Malformed { place: Place, what: String, why: String },
    /// The tag or digest asked for is not there.
    NoSuchImage { place: Place, wanted: String, available: Vec<String> },
    /// Several images and nothing says which.
    Ambiguous { place: Place, available: Vec<String> },
    /// No image for the platform.
    NoPlatform { place: Place, wanted: String, available: Vec<String> },
    /// A layer whose kind is not supported.
    UnsupportedLayer { place: Place, layer: Digest, media_type: String, why: &'static str },
    /// A layer's archive is broken.
    Tar { archive: String, error: TarError },
    /// A layer's archive cannot be applied.
    Apply { archive: String, error: ApplyError },
    /// A registry does not do what it was asked for.
    Registry(Box<RegistryError>),
    /// Uncompressing failed: the compressed bytes are damaged or cut off.
    Decompress { archive: String, why: String },
    /// Reading failed.
    Read { path: PathBuf, error: io::Error },
    /// Writing to the store or a new layout failed.
    Write { path: PathBuf, error: io::Error },
}

impl OciError {
    /// Returns the stable name that a diagnostic about this carries.
    pub fn name(&self) -> &'static str {
        match self {
            OciError::NotALayout { .. } => "not-a-layout",
            OciError::MissingBlob { .. } => "missing-blob",
            OciError::WrongSize { .. } | OciError::WrongDigest { .. } | OciError::WrongDiffId { .. } => "wrong-digest",
            OciError::Malformed { .. } => "malformed-image",
            OciError::NoSuchImage { .. } => "unknown-tag",
            OciError::Ambiguous { .. } => "ambiguous-image",
            OciError::NoPlatform { .. } => "no-such-platform",
            OciError::UnsupportedLayer { .. } => "unsupported-layer",
            OciError::Tar { .. } | OciError::Apply { .. } | OciError::Decompress { .. } => "broken-archive",
            OciError::Registry(error) => error.name(),
            OciError::Read { .. } => "unreadable-file",
            OciError::Write { error, .. } if error.kind() == io::ErrorKind::StorageFull => "disk-full",
            OciError::Write { .. } => "cannot-write",
        }
    }

    /// Returns one useful next step, where there is one.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            OciError::MissingBlob { place, .. }
            | OciError::WrongSize { place, .. }
            | OciError::WrongDigest { place, .. }
            | OciError::WrongDiffId { place, .. } => match place {
                Place::Layout(_) => "the layout is damaged or incomplete: make or copy it again".into(),
                Place::Archive(_) => "the archive is damaged or incomplete: make or copy it again".into(),
                Place::Registry(_) => {
                    "what the registry sent is damaged, or something on the way changed it; nothing of it was kept".into()
                }
            },
            OciError::Registry(error) => return error.help(),
            OciError::NotALayout { .. } => "an OCI layout is a directory with `oci-layout`, `index.json` and `blobs/`; \
                 `skopeo copy docker://IMAGE oci:DIR:TAG` makes one"
                .into(),
            OciError::NoSuchImage { place, available, .. } | OciError::Ambiguous { place, available } if !available.is_empty() => {
                let form = if matches!(place, Place::Archive(_)) {
                    "FILE:TAG` behind `docker-archive:` or `oci-archive:"
                } else {
                    "oci-layout://DIR:TAG"
                };
                format!("it has {}: write `{form}`", list(available))
            }
            OciError::NoPlatform { available, .. } if !available.is_empty() => format!("it has {}", list(available)),
            OciError::Write { path, error } if error.kind() == io::ErrorKind::StorageFull => {
                format!(
                    "free some space on the file system of {}, or choose another cache directory; nothing was left half written",
                    path.display()
                )
            }
            _ => return None,
        })
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for OciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OciError::NotALayout { layout, why } => write!(f, "`{}` is not an OCI layout: {why}", layout.display()),
            OciError::MissingBlob { place, digest, role } => write!(f, "{place} has no blob {digest}, its {role}"),
            OciError::WrongSize { place, digest, role, expected, found } => {
                write!(f, "in {place}, the {role} {digest} should have {expected} bytes and has {found}")
            }
            OciError::WrongDigest { place, role, expected, found } => write!(f, "in {place}, the {role} {expected} has the digest {found}"),
            OciError::WrongDiffId { place, layer, expected, found } => {
                write!(f, "in {place}, the layer {layer} uncompresses to {found}, and the image configuration says {expected}")
            }
            OciError::Malformed { place, what, why } => write!(f, "in {place}, {what}: {why}"),
            OciError::NoSuchImage { place, wanted, .. } => write!(f, "{place} has no image `{wanted}`"),
            OciError::Ambiguous { place, available } => {
                write!(f, "{place} has {} images, and nothing says which one is meant", available.len())
            }
            OciError::NoPlatform { place, wanted, .. } => write!(f, "{place} has no image for {wanted}"),
            OciError::UnsupportedLayer { place, layer, media_type, why } => {
                write!(f, "in {place}, the layer {layer} has the media type `{media_type}`: {why}")
            }
            OciError::Registry(error) => error.fmt(f),
            OciError::Tar { archive, error } => write!(f, "{archive}: {error}"),
            OciError::Apply { archive, error } => write!(f, "{archive}: {error}"),
            OciError::Decompress { archive, why } => write!(f, "{archive} cannot be uncompressed: {why}"),
            OciError::Read { path, error } => write!(f, "cannot read `{}`: {error}", path.display()),
            OciError::Write { path, error } if error.kind() == io::ErrorKind::StorageFull => {
                write!(f, "the disk is full: cannot write to `{}`", path.display())
            }
            OciError::Write { path, error } => write!(f, "cannot write to `{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for OciError {}
