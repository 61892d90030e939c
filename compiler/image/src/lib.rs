//! The image stage: kernel, root file tree and facts → a directory with `kernel.elf`, `rootfs.ext4` and `image.json`.
//!
//! The directory appears complete or not at all: everything is written and synced in a sibling directory, which then takes the place of the old one in
//! one step. A full disk, a changed input or a killed process leaves the previous image as it was. A directory that holds anything but an image is never
//! replaced.
//!
//! [`ext4`] is usable alone, for volumes and for other stages that need a file system image.
//!
//! What is absent: this stage decides nothing about what is in an image, and opens no file but the contents that the tree refers to.
#![forbid(unsafe_code)]

mod directory;
pub mod disk;
mod error;
pub mod ext4;
mod hash;
pub mod machine;
pub mod volume;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

pub use error::ImageError;
use ukc_image_json::{Artefact, ArtefactKind, ArtefactName, FILE_NAME, Image};
use ukc_rootfs::Tree;

/// File name of the kernel.
pub const KERNEL_NAME: &str = "kernel.elf";

/// File name of the root file system, which serves as a disk and as an initrd.
pub const ROOTFS_NAME: &str = "rootfs.ext4";

/// File name of the linker's map.
pub const MAP_NAME: &str = "kernel.map";

/// File name of what the analysis found and the selection chose.
pub const ANALYSIS_NAME: &str = "analysis.json";

/// What goes into an image.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The kernel's bytes.
    pub kernel: &'a [u8],
    /// The linker's map, when there is one.
    pub map: Option<&'a str>,
    /// What the analysis found and the selection chose, when it is to be kept.
    pub analysis: Option<&'a str>,
    /// The root file tree.
    pub tree: &'a Tree,
    /// How the root file system is written.
    pub options: &'a ext4::Options,
}

/// Writes an image directory and returns its document: `facts` with the artefacts, the count of files and the kernel's size filled in.
///
/// # Errors
/// [`ImageError`]; nothing has changed then, at `dir` or beside it.
pub fn write(dir: &Path, parts: &Parts<'_>, facts: Image) -> Result<Image, ImageError> {
    write_unless(dir, parts, facts, &|| false)
}

/// As [`write()`], but gives up as soon as `is_cancelled` answers `true`; it is asked for every block that is written.
///
/// # Errors
/// As [`write()`], and [`ImageError::Write`] after giving up.
pub fn write_unless(dir: &Path, parts: &Parts<'_>, facts: Image, is_cancelled: &dyn Fn() -> bool) -> Result<Image, ImageError> {
    let target = directory::Replacement::new(dir)?;
    let mut image = facts;
    image.artefacts.clear();
    image.artefacts.push(small(target.path(), ArtefactKind::Kernel, KERNEL_NAME, parts.kernel)?);
    image.kernel.len_bytes = parts.kernel.len() as u64;
    let (rootfs, written) = rootfs(target.path(), parts, is_cancelled)?;
    image.artefacts.push(rootfs);
    image.files.count = written.inodes;
    image.files.len_bytes = written.data_bytes;
    if let Some(map) = parts.map {
        image.artefacts.push(small(target.path(), ArtefactKind::Map, MAP_NAME, map.as_bytes())?);
    }
    if let Some(analysis) = parts.analysis {
        image.artefacts.push(small(target.path(), ArtefactKind::Other, ANALYSIS_NAME, analysis.as_bytes())?);
    }
    small(target.path(), ArtefactKind::Other, FILE_NAME, image.to_json().as_bytes())?;
    target.commit()?;
    Ok(image)
}

fn rootfs(dir: &Path, parts: &Parts<'_>, is_cancelled: &dyn Fn() -> bool) -> Result<(Artefact, ext4::Written), ImageError> {
    let path = dir.join(ROOTFS_NAME);
    let failed = |source| ImageError::Write { path: path.clone(), source };
    let file = File::create_new(&path).map_err(failed)?;
    let mut out = hash::HashingWriter::new(&file, is_cancelled);
    let written = ext4::write(parts.tree, parts.options, &mut out)?;
    let digest = out.finish().map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok((Artefact { kind: ArtefactKind::Rootfs, name: name(ROOTFS_NAME)?, len_bytes: written.len_bytes, digest }, written))
}

fn small(dir: &Path, kind: ArtefactKind, file_name: &str, bytes: &[u8]) -> Result<Artefact, ImageError> {
    let path = dir.join(file_name);
    let failed = |source| ImageError::Write { path: path.clone(), source };
    let mut file = File::create_new(&path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(Artefact { kind, name: name(file_name)?, len_bytes: bytes.len() as u64, digest: hash::digest(bytes) })
}

fn name(text: &str) -> Result<ArtefactName, ImageError> {
    ArtefactName::try_from(text.to_owned()).map_err(|reason| ImageError::Name { reason })
}
