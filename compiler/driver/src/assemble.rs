//! An image whose parts are all there, and that only has to be written.

use std::path::Path;

use ukc_image::{ImageError, Parts, ext4};
use ukc_image_json::Image;
use ukc_link::Linked;
use ukc_rootfs::Tree;

/// Volume label of root file systems.
const LABEL: &[u8] = b"ukc-root";

/// The parts of an image.
#[derive(Debug)]
pub struct Assembled {
    /// The root file tree.
    pub tree: Tree,
    /// The kernel.
    pub kernel: Linked,
    /// Text of `analysis.json`.
    pub analysis: String,
    /// What `image.json` says, without what only writing finds out: artefacts, count of files, memory.
    pub facts: Image,
}

impl Assembled {
    /// Writes the image directory and returns its document. `is_cancelled` is asked again and again and gives the writing up.
    ///
    /// # Errors
    /// [`ImageError`]; what was at `dir` before is still there then.
    pub fn write(&self, dir: &Path, is_cancelled: &dyn Fn() -> bool) -> Result<Image, ImageError> {
        let options = ext4::Options { label: LABEL.to_vec(), ..ext4::Options::default() };
        let parts = Parts {
            kernel: &self.kernel.elf,
            map: Some(&self.kernel.map),
            analysis: Some(&self.analysis),
            tree: &self.tree,
            options: &options,
        };
        ukc_image::write_unless(dir, &parts, self.facts.clone(), is_cancelled)
    }
}
