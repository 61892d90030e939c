//! OCI layouts, layers and the content store.
//!
//! An *image* is a JSON *manifest* that names a JSON *configuration* and a list of *layers* (tar files, usually compressed), all by digest:
//!
//! ```text
//! DIR/oci-layout                 {"imageLayoutVersion": "1.0.0"}
//! DIR/index.json                 manifests by tag and platform
//! DIR/blobs/sha256/<hex>         manifest, configuration, layers
//! ```
//!
//! [`Image::from_layout`] reads such a directory, checks the size and digest of everything it touches, and leaves the uncompressed tar of each layer in
//! the [`Store`]; [`Image::tree`] applies the layers as values. Nothing is ever extracted: a file of the tree is a range of bytes of a stored tar, so
//! no privilege is needed, and no name in an archive can reach the host's file system.
//!
//! What is absent: `oci` knows no Dockerfile. Facts come from the OCI image-spec (image-layout.md, manifest.md, config.md, layer.md).
#![forbid(unsafe_code)]

mod bundle;
mod compress;
mod config;
mod container;
mod digest;
mod document;
mod error;
mod image;
mod layout;
mod reference;
pub mod registry;
mod resolve;
mod store;
pub mod tar;
mod writer;

pub use bundle::{Blob, Bundle, Made};
pub use compress::{Compression, is_archive, unpack_to_store};
pub use config::{History, ImageDocument, Timestamp};
pub use container::{ContainerParts, container, make_layer};
pub use digest::{Digest, HashingReader, HashingWriter};
pub use document::{Descriptor, Index, Manifest, Platform, media_type};
pub use error::{OciError, Place};
pub use image::{Image, Layer};
pub use layout::LayoutRef;
pub use reference::Reference;
pub use store::{BlobWriter, Store};
pub use writer::{LayoutWriter, write_layout};
