//! An image whose layers are verified and in the store, and the tree that they make.

use std::path::{Path, PathBuf};

use ukc_rootfs::{ImageConfig, Origin, Tree};

use crate::compress::unpack;
use crate::document::{Descriptor, Platform};
use crate::layout::{Layout, LayoutRef};
use crate::reference::Reference;
use crate::resolve::{Chosen, Documents};
use crate::tar::{Whiteouts, changes_of_file};
use crate::{Digest, History, OciError, Store};

/// An image ready for use.
#[derive(Debug, Clone)]
pub struct Image {
    /// Of the image manifest (not of an index that led to it).
    pub manifest_digest: Digest,
    /// The image id.
    pub config_digest: Digest,
    /// The process it starts.
    pub config: ImageConfig,
    /// Oldest first.
    pub history: Vec<History>,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// Where the layers can be had, when that is a registry.
    pub source: Option<Reference>,
}

/// A layer of an [`Image`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Of the blob as the manifest names it, usually compressed.
    pub digest: Digest,
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// The uncompressed tar, in the store.
    pub tar: PathBuf,
    /// Length of the blob.
    pub len_bytes: u64,
    /// What the manifest says the blob is.
    pub media_type: String,
    /// The blob, where it is a file of a layout.
    pub blob: Option<PathBuf>,
}

impl Layer {
    pub(crate) fn new(descriptor: &Descriptor, digest: Digest, diff_id: Digest, store: &Store) -> Layer {
        let (len_bytes, media_type) = (descriptor.size, descriptor.media_type.clone());
        Layer { digest, diff_id, tar: store.blob_path(&diff_id), len_bytes, media_type, blob: None }
    }
}

impl Image {
    /// Reads an image from a layout, with every size, digest and diffID checked. Layers whose uncompressed form the store already has (it was checked
    /// when it got there) are not read again: this is what makes a second build fast.
    ///
    /// # Errors
    /// [`OciError`] names the layout and the blob.
    pub fn from_layout(wanted: &LayoutRef, platform: &Platform, store: &Store) -> Result<Image, OciError> {
        let layout = Layout { dir: &wanted.dir };
        let chosen = layout.choose(wanted, platform)?;
        let mut layers = Vec::new();
        for (descriptor, &diff_id) in chosen.manifest.layers.iter().zip(&chosen.document.diff_ids) {
            let digest = layout.layer_digest(descriptor)?;
            let path = layout.check_size(descriptor, &digest, "layer")?;
            if !store.contains(&diff_id) {
                fetch(&layout, &path, digest, diff_id, store)?;
            }
            layers.push(Layer { blob: Some(path), ..Layer::new(descriptor, digest, diff_id, store) });
        }
        Ok(Image::of(chosen, layers, None))
    }

    pub(crate) fn of(chosen: Chosen, layers: Vec<Layer>, source: Option<Reference>) -> Image {
        Image {
            manifest_digest: chosen.manifest_digest,
            config_digest: chosen.config_digest,
            config: chosen.document.config,
            history: chosen.document.history,
            layers,
            source,
        }
    }

    /// Whether every layer is in the store; those of an image in a registry come when they are asked for.
    pub fn is_complete(&self) -> bool {
        self.layers.iter().all(|layer| layer.tar.is_file())
    }

    /// Applies the layers. Every node gets `origin`.
    ///
    /// # Errors
    /// [`OciError::Tar`] and [`OciError::Apply`] name the layer.
    pub fn tree(&self, origin: Option<Origin>, store: &Store) -> Result<Tree, OciError> {
        let mut tree = Tree::new();
        for layer in &self.layers {
            let what = format!("the layer {}", layer.digest);
            let changes = changes_of_file(&layer.tar, &what, Whiteouts::Apply, store)?;
            tree.apply(b"/", changes, origin).map_err(|error| OciError::Apply { archive: what, error })?;
        }
        Ok(tree)
    }
}

/// Brings one layer into the store, uncompressed and checked.
fn fetch(layout: &Layout<'_>, path: &Path, digest: Digest, diff_id: Digest, store: &Store) -> Result<(), OciError> {
    let what = format!("the layer {digest} of the layout `{}`", layout.dir.display());
    unpack(store, path, &what, |facts| {
        if facts.compressed != digest {
            return Err(OciError::WrongDigest { place: layout.place(), role: "layer", expected: digest, found: facts.compressed });
        }
        if facts.plain != diff_id {
            return Err(OciError::WrongDiffId { place: layout.place(), layer: Box::new(digest), expected: diff_id, found: facts.plain });
        }
        Ok(())
    })
    .map(drop)
}
