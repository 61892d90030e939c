//! Finding an image in an OCI layout: tag, digest and platform → manifest (OCI image-spec, image-layout.md).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::document::{Descriptor, Index, LayoutFile, Platform, REF_NAME};
use crate::resolve::{self, Chosen, Documents, MAX_DOCUMENT_BYTES, is_attachment};
use crate::{Digest, OciError, Place};

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

pub(crate) struct Layout<'a> {
    pub dir: &'a Path,
}

impl Layout<'_> {
    fn not_a_layout(&self, why: impl Into<String>) -> OciError {
        OciError::NotALayout { layout: self.dir.to_owned(), why: why.into() }
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

    /// Checks existence and length of a blob and returns its path.
    pub fn check_size(&self, descriptor: &Descriptor, digest: &Digest, role: &'static str) -> Result<PathBuf, OciError> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() != descriptor.size => {
                Err(OciError::WrongSize { place: self.place(), digest: *digest, role, expected: descriptor.size, found: meta.len() })
            }
            Ok(_) => Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(OciError::MissingBlob { place: self.place(), digest: *digest, role }),
            Err(error) => Err(OciError::Read { path, error }),
        }
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
        resolve::choose(self, &roots, platform)
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
            return Err(OciError::NoSuchImage { place: self.place(), wanted, available });
        }
        if wanted.tag.is_none() && wanted.digest.is_none() {
            let names: std::collections::BTreeSet<_> = left.iter().map(|d| tag_of(d)).collect();
            if names.len() > 1 {
                if !left.iter().any(|d| is_tagged(d, "latest")) {
                    return Err(OciError::Ambiguous { place: self.place(), available });
                }
                left.retain(|d| is_tagged(d, "latest"));
            }
        }
        Ok(left)
    }
}

impl Documents for Layout<'_> {
    fn place(&self) -> Place {
        Place::Layout(self.dir.to_owned())
    }

    fn bytes(&self, descriptor: &Descriptor, digest: &Digest, role: &'static str) -> Result<Vec<u8>, OciError> {
        let path = self.check_size(descriptor, digest, role)?;
        fs::read(&path).map_err(|error| OciError::Read { path, error })
    }
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
