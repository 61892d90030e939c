//! Writing OCI layouts: bases for tests and tools, without any other program. The same tree gives the same bytes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ukc_rootfs::{ImageConfig, Tree};

use crate::document::{CONFIG, Descriptor, INDEX, Index, LAYER, LayoutFile, MANIFEST, Manifest, Platform, REF_NAME};
use crate::{Compression, Digest, ImageDocument, OciError, Place, tar};

/// Writes one image, layer by layer; [`LayoutWriter::finish`] makes it visible.
pub struct LayoutWriter {
    dir: PathBuf,
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
}

impl LayoutWriter {
    /// Starts an image in the layout at `dir`, which is created if it is missing.
    ///
    /// # Errors
    /// [`OciError::Write`].
    pub fn new(dir: &Path) -> Result<LayoutWriter, OciError> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|error| OciError::Write { path: blobs, error })?;
        Ok(LayoutWriter { dir: dir.to_owned(), layers: vec![], diff_ids: vec![] })
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, OciError> {
        let digest = Digest::of(bytes);
        self.file(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        Ok(Descriptor::of(media_type, bytes))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), OciError> {
        let path = self.dir.join(name);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(path.parent().expect("inside the layout"))?;
            file.write_all(bytes)?;
            // Layouts are read by other users' tools too; temporary files are private.
            fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.persist(&path).map_err(|e| e.error)
        };
        write().map(drop).map_err(|error| OciError::Write { path: path.clone(), error })
    }

    /// Adds a layer from an uncompressed tar.
    ///
    /// # Errors
    /// [`OciError::Write`]; also for a compression that layers cannot have (bzip2, xz).
    pub fn layer(&mut self, tar: &[u8], compression: Compression) -> Result<(), OciError> {
        let fail = |error| OciError::Write { path: self.dir.clone(), error };
        let descriptor = match compression {
            Compression::Plain => self.blob(LAYER, tar)?,
            Compression::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                let bytes = out.write_all(tar).and_then(|()| out.finish()).map_err(fail)?;
                self.blob(&format!("{LAYER}+gzip"), &bytes)?
            }
            Compression::Zstd => self.blob(&format!("{LAYER}+zstd"), &zstd::encode_all(tar, 3).map_err(fail)?)?,
            Compression::Bzip2 | Compression::Xz => return Err(fail(std::io::ErrorKind::Unsupported.into())),
        };
        self.layers.push(descriptor);
        self.diff_ids.push(Digest::of(tar));
        Ok(())
    }

    /// Writes configuration, manifest and index entry. An image with the same tag in the layout is replaced in the index, others stay.
    /// `document.diff_ids` is filled in. Returns the manifest's digest.
    ///
    /// # Errors
    /// [`OciError::Write`], or [`OciError::Malformed`] when the layout's index is broken.
    pub fn finish(self, mut document: ImageDocument, tag: &str) -> Result<Digest, OciError> {
        document.diff_ids.clone_from(&self.diff_ids);
        let json = |value: serde_json::Result<Vec<u8>>| value.expect("strings and numbers always serialise");
        let config = self.blob(CONFIG, &document.to_json())?;
        let manifest = Manifest { config, layers: self.layers.clone(), ..Manifest::new(MANIFEST) };
        let mut entry = self.blob(MANIFEST, &json(serde_json::to_vec(&manifest)))?;
        let or = |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
        entry.platform = Some(Platform::new(&or(&document.config.os, "linux"), &or(&document.config.architecture, "amd64")));
        entry.annotations.insert(REF_NAME.into(), tag.into());
        let digest = Digest::of(&json(serde_json::to_vec(&manifest)));
        let mut index = match fs::read(self.dir.join("index.json")) {
            Ok(bytes) => serde_json::from_slice::<Index>(&bytes).map_err(|e| OciError::Malformed {
                place: Place::Layout(self.dir.clone()),
                what: "`index.json`".into(),
                why: e.to_string(),
            })?,
            Err(_) => Index { schema_version: 2, media_type: INDEX.into(), manifests: vec![], annotations: Default::default() },
        };
        index.manifests.retain(|d| d.annotations.get(REF_NAME).is_none_or(|t| t != tag) || d.platform != entry.platform);
        index.manifests.push(entry);
        self.file("oci-layout", &json(serde_json::to_vec(&LayoutFile { image_layout_version: "1.0.0".into() })))?;
        self.file("index.json", &json(serde_json::to_vec(&index)))?;
        Ok(digest)
    }
}

/// Writes `tree` as an image of one gzip layer to the layout at `dir` and returns the manifest's digest.
///
/// # Errors
/// As [`LayoutWriter`], and those of reading the tree's files.
pub fn write_layout(tree: &Tree, config: &ImageConfig, dir: &Path, tag: &str) -> Result<Digest, OciError> {
    let mut bytes = Vec::new();
    tar::write_tree(tree, &mut bytes).map_err(|error| OciError::Write { path: dir.to_owned(), error })?;
    let mut writer = LayoutWriter::new(dir)?;
    writer.layer(&bytes, Compression::Gzip)?;
    writer.finish(ImageDocument { config: config.clone(), ..Default::default() }, tag)
}
