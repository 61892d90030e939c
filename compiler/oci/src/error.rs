//! Everything that can be wrong with a layout, an image in it, or the store.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ukc_rootfs::ApplyError;

use crate::Digest;
use crate::tar::TarError;

/// Trouble with an image or the store. `layout` is the directory as the user gave it.
#[derive(Debug)]
pub enum OciError {
    /// The directory does not exist or has no `oci-layout` file.
    NotALayout { layout: PathBuf, why: String },
    /// A blob that something refers to is not there.
    MissingBlob { layout: PathBuf, digest: Digest, role: &'static str },
    /// A blob has another length than its descriptor says.
    WrongSize { layout: PathBuf, digest: Digest, role: &'static str, expected: u64, found: u64 },
    /// A blob's bytes have another digest than its name.
    WrongDigest { layout: PathBuf, role: &'static str, expected: Digest, found: Digest },
    /// A layer uncompresses to something else than the configuration's `diff_ids` say.
    WrongDiffId { layout: PathBuf, layer: Digest, expected: Digest, found: Digest },
    /// A document cannot be understood.
    Malformed { layout: PathBuf, what: String, why: String },
    /// The tag or digest asked for is not there.
    NoSuchImage { layout: PathBuf, wanted: String, available: Vec<String> },
    /// Several images and nothing says which.
    Ambiguous { layout: PathBuf, available: Vec<String> },
    /// No image for the platform.
    NoPlatform { layout: PathBuf, wanted: String, available: Vec<String> },
    /// A layer whose kind is not supported.
    UnsupportedLayer { layout: PathBuf, layer: Digest, media_type: String, why: &'static str },
    /// A layer's archive is broken.
    Tar { archive: String, error: TarError },
    /// A layer's archive cannot be applied.
    Apply { archive: String, error: ApplyError },
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
            OciError::Read { .. } => "unreadable-file",
            OciError::Write { error, .. } if error.kind() == io::ErrorKind::StorageFull => "disk-full",
            OciError::Write { .. } => "cannot-write",
        }
    }

    /// Returns one useful next step, where there is one.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            OciError::MissingBlob { .. } | OciError::WrongSize { .. } | OciError::WrongDigest { .. } | OciError::WrongDiffId { .. } => {
                "the layout is damaged or incomplete: make or copy it again".into()
            }
            OciError::NotALayout { .. } => "an OCI layout is a directory with `oci-layout`, `index.json` and `blobs/`; \
                 `skopeo copy docker://IMAGE oci:DIR:TAG` makes one"
                .into(),
            OciError::NoSuchImage { available, .. } | OciError::Ambiguous { available, .. } if !available.is_empty() => {
                format!("it has {}: write `oci-layout://DIR:TAG`", list(available))
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
            OciError::MissingBlob { layout, digest, role } => {
                write!(f, "the layout `{}` has no blob {digest}, its {role}", layout.display())
            }
            OciError::WrongSize { layout, digest, role, expected, found } => {
                write!(f, "in the layout `{}`, the {role} {digest} should have {expected} bytes and has {found}", layout.display())
            }
            OciError::WrongDigest { layout, role, expected, found } => {
                write!(f, "in the layout `{}`, the {role} {expected} has the digest {found}", layout.display())
            }
            OciError::WrongDiffId { layout, layer, expected, found } => write!(
                f,
                "in the layout `{}`, the layer {layer} uncompresses to {found}, and the image configuration says {expected}",
                layout.display()
            ),
            OciError::Malformed { layout, what, why } => write!(f, "in the layout `{}`, {what}: {why}", layout.display()),
            OciError::NoSuchImage { layout, wanted, .. } => write!(f, "the layout `{}` has no image `{wanted}`", layout.display()),
            OciError::Ambiguous { layout, available } => {
                write!(f, "the layout `{}` has {} images, and nothing says which one is meant", layout.display(), available.len())
            }
            OciError::NoPlatform { layout, wanted, .. } => write!(f, "the layout `{}` has no image for {wanted}", layout.display()),
            OciError::UnsupportedLayer { layout, layer, media_type, why } => {
                write!(f, "in the layout `{}`, the layer {layer} has the media type `{media_type}`: {why}", layout.display())
            }
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
