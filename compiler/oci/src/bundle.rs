//! An image that goes somewhere: blobs, the manifests that name them, and what stands for the whole.
//!
//! The same value is written as a layout, as an archive, or sent to a registry, so all of them hold the same bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use ukc_rootfs::Content;

use crate::document::{Descriptor, INDEX, Index, LayoutFile, REF_NAME};
use crate::{Digest, OciError, Reference, Store, tar};

/// Annotation with the whole name, which containerd's import reads (containerd, images/annotations.go).
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A configuration or layer.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub content: Content,
    /// A repository that has it already, of the same registry perhaps.
    pub elsewhere: Option<Reference>,
}

/// What a bundle is made of.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// Each once.
    pub blobs: Vec<Blob>,
    /// Manifests and indexes with their bytes: those that others name before the others, what stands for the whole last.
    pub manifests: Vec<(Descriptor, Vec<u8>)>,
}

/// A layer that was made: its descriptor and what it uncompresses to.
#[derive(Debug, Clone)]
pub struct Made {
    /// Of the blob.
    pub descriptor: Descriptor,
    /// Of the tar.
    pub diff_id: Digest,
}

impl Bundle {
    /// Adds a blob unless it is there.
    pub fn add(&mut self, blob: Blob) {
        if !self.blobs.iter().any(|b| b.digest == blob.digest) {
            self.blobs.push(blob);
        }
    }

    /// Adds a small blob and returns its descriptor.
    pub fn add_bytes(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        self.add(Blob { digest: Digest::of(bytes), content: Content::from_bytes(bytes), elsewhere: None });
        Descriptor::of(media_type, bytes)
    }

    /// Adds a manifest or index and returns its descriptor; the last one added stands for the whole.
    pub fn add_manifest(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.manifests.push((descriptor.clone(), bytes));
        descriptor
    }

    /// Returns what stands for the whole.
    ///
    /// # Panics
    /// When the bundle has no manifest.
    pub fn root(&self) -> &Descriptor {
        &self.manifests.last().expect("a bundle has a manifest").0
    }

    /// Returns the digest of what stands for the whole.
    pub fn digest(&self) -> Digest {
        self.root().digest.parse().expect("a digest that was computed")
    }

    /// The index of a layout with this image under these names.
    fn index(&self, names: &[Reference]) -> Index {
        let entry = |name: Option<&Reference>| {
            let mut entry = self.root().clone();
            if let Some(name) = name {
                entry.annotations.insert(REF_NAME.into(), name.tag().unwrap_or("latest").to_owned());
                entry.annotations.insert(CONTAINERD_NAME.into(), name.to_string());
            }
            entry
        };
        let manifests = if names.is_empty() { vec![entry(None)] } else { names.iter().map(|n| entry(Some(n))).collect() };
        Index { schema_version: 2, media_type: INDEX.into(), manifests, annotations: BTreeMap::new() }
    }

    /// Returns the files of a layout, blobs first and the index last.
    fn files(&self, names: &[Reference]) -> Vec<(String, Content)> {
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let mut blobs: BTreeMap<String, Content> = self.blobs.iter().map(|b| (path(&b.digest), b.content.clone())).collect();
        for (_, bytes) in &self.manifests {
            blobs.insert(path(&Digest::of(bytes)), Content::from_bytes(bytes.as_slice()));
        }
        let json = |value: serde_json::Result<Vec<u8>>| Content::from_bytes(value.expect("strings and numbers always serialise"));
        let dirs = ["blobs/", "blobs/sha256/"].map(|dir| (dir.to_owned(), Content::from_bytes(vec![])));
        let layout = json(serde_json::to_vec(&LayoutFile { image_layout_version: "1.0.0".into() }));
        let ends = [("oci-layout".to_owned(), layout), ("index.json".to_owned(), json(serde_json::to_vec(&self.index(names))))];
        dirs.into_iter().chain(blobs).chain(ends).collect()
    }

    /// Writes an OCI archive: a layout in a tar.
    ///
    /// # Errors
    /// Those of reading the blobs and of writing.
    pub fn write_archive(&self, names: &[Reference], out: &mut dyn Write) -> io::Result<()> {
        tar::write_files(&self.files(names), out)
    }

    /// Writes what `docker load` takes: an OCI archive with a `manifest.json` that older ones read (moby, image/tarexport). `config` and `layers` are
    /// those of the one image in it.
    ///
    /// # Errors
    /// As [`Bundle::write_archive`].
    pub fn write_docker_archive(&self, names: &[Reference], config: &Digest, layers: &[Digest], out: &mut dyn Write) -> io::Result<()> {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
        let entry =
            Entry { config: path(config), repo_tags: Some(tags).filter(|t| !t.is_empty()), layers: layers.iter().map(path).collect() };
        let mut files = self.files(names);
        let json = serde_json::to_vec(&[entry]).expect("strings always serialise");
        files.push(("manifest.json".to_owned(), Content::from_bytes(json)));
        tar::write_files(&files, out)
    }

    /// Writes a layout directory. Images of other names that are there stay; the index is replaced last, in one step.
    ///
    /// # Errors
    /// [`OciError::Write`], or [`OciError::Malformed`] when the index that is there is broken.
    pub fn write_layout(&self, dir: &Path, names: &[Reference]) -> Result<(), OciError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |error| OciError::Write { path, error }
        };
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(fail(&blobs))?;
        let mut index = self.index(names);
        let index_path = dir.join("index.json");
        if let Ok(bytes) = fs::read(&index_path) {
            let old: Index = serde_json::from_slice(&bytes).map_err(|e| OciError::Malformed {
                place: crate::Place::Layout(dir.to_owned()),
                what: "`index.json`".into(),
                why: e.to_string(),
            })?;
            let is_new = |entry: &Descriptor| {
                let name = |d: &Descriptor| d.annotations.get(REF_NAME).cloned();
                index.manifests.iter().any(|new| name(new) == name(entry) && (name(entry).is_some() || new.digest == entry.digest))
            };
            let kept: Vec<Descriptor> = old.manifests.into_iter().filter(|entry| !is_new(entry)).collect();
            index.manifests.extend(kept);
        }
        let index = serde_json::to_vec(&index).expect("strings and numbers always serialise");
        for (name, content) in self.files(names) {
            let path = dir.join(&name);
            if name.ends_with('/') || name.starts_with("blobs/") && path.is_file() {
                continue;
            }
            let content = if name == "index.json" { Content::from_bytes(index.as_slice()) } else { content };
            write_file(&path, &content).map_err(fail(&path))?;
        }
        Ok(())
    }
}

/// Writes a file that others may read, in one step.
fn write_file(path: &Path, content: &Content) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    io::copy(&mut content.open()?, file.as_file_mut())?;
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Returns a file of the store as a blob's content.
pub(crate) fn stored(store: &Store, digest: &Digest) -> Result<Content, OciError> {
    let path = store.blob_path(digest);
    let len_bytes = File::open(&path).and_then(|f| f.metadata()).map_err(|error| OciError::Read { path: path.clone(), error })?.len();
    Ok(Content::Host { path: path.into(), offset: 0, len_bytes })
}
