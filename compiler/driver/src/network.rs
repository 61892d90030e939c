//! What a build gets from other machines: registries.

use ukc_build::Remote;
use ukc_oci::registry::Registries;
use ukc_oci::{Image, OciError, Platform, Reference, Store};

/// A [`Remote`] that uses the network.
#[derive(Debug)]
pub struct Network {
    registries: Registries,
}

impl Network {
    /// Returns one that pulls with this client.
    pub fn new(registries: Registries) -> Network {
        Network { registries }
    }
}

impl Remote for Network {
    fn image(&self, reference: &Reference, platform: &Platform, store: &Store) -> Result<Image, OciError> {
        self.registries.resolve(reference, platform, store)
    }

    fn layers(&self, image: &Image, store: &Store) -> Result<(), OciError> {
        self.registries.layers(image, store)
    }
}
