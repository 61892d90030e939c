//! An image whose layers are verified and in the store, and the tree that they make.

use std::path::{Path, PathBuf};

use ukc_rootfs::{ImageConfig, Origin, Tree};

use crate::compress::unpack;
use crate::document::{Platform, check_layer_type};
use crate::layout::{Layout, LayoutRef};
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
            let digest = layout.digest_of(descriptor, "layer")?;
            check_layer_type(&descriptor.media_type).map_err(|why| OciError::UnsupportedLayer {
                layout: wanted.dir.clone(),
                layer: digest,
                media_type: descriptor.media_type.clone(),
                why,
            })?;
            let path = layout.check_size(descriptor, &digest, "layer")?;
            if !store.contains(&diff_id) {
                fetch(&wanted.dir, &path, digest, diff_id, store)?;
            }
            layers.push(Layer { digest, diff_id, tar: store.blob_path(&diff_id) });
        }
        Ok(Image {
            manifest_digest: chosen.manifest_digest,
            config_digest: chosen.config_digest,
            config: chosen.document.config,
            history: chosen.document.history,
            layers,
        })
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
fn fetch(layout: &Path, path: &Path, digest: Digest, diff_id: Digest, store: &Store) -> Result<(), OciError> {
    let what = format!("the layer {digest} of the layout `{}`", layout.display());
    unpack(store, path, &what, |facts| {
        if facts.compressed != digest {
            return Err(OciError::WrongDigest { layout: layout.to_owned(), role: "layer", expected: digest, found: facts.compressed });
        }
        if facts.plain != diff_id {
            return Err(OciError::WrongDiffId { layout: layout.to_owned(), layer: digest, expected: diff_id, found: facts.plain });
        }
        Ok(())
    })
    .map(drop)
}
