//! What a build gets from other machines, as far as `build` knows: a trait that the caller fills.
//!
//! Tests and checks have none: then remote sources are an error with a sentence.

use std::sync::Arc;

use ukc_oci::{Image, OciError, Platform, Reference, Store};

/// Gets things from other machines. Called from several threads.
pub trait Remote: std::fmt::Debug + Send + Sync {
    /// Finds an image; its layers need not be in the store yet.
    ///
    /// # Errors
    /// [`OciError`] names the registry and what was asked for.
    fn image(&self, reference: &Reference, platform: &Platform, store: &Store) -> Result<Image, OciError>;

    /// Brings the layers of an image of [`Remote::image`] into the store.
    ///
    /// # Errors
    /// As [`Remote::image`].
    fn layers(&self, image: &Image, store: &Store) -> Result<(), OciError>;
}

/// A [`Remote`], or none.
pub type RemoteHandle = Option<Arc<dyn Remote>>;
