//! The result of a build as what docker would make of it: a container image, an archive of its files, or the files.

use std::io::{self, Write};

use ukc_build::{Built, BuiltLayers};
use ukc_oci::registry::Registries;
use ukc_oci::{Bundle, Compression, ContainerParts, Digest, History, ImageDocument, Made, OciError, Store, Timestamp};
use ukc_rootfs::{Change, ImageConfig, Tree};

use crate::output::{Output, OutputKind};

/// A result that needs no kernel.
#[derive(Debug)]
pub struct Container {
    /// The file tree.
    pub tree: Tree,
    config: ImageConfig,
    history: Vec<History>,
    layers: Option<BuiltLayers>,
    /// `SOURCE_DATE_EPOCH`.
    newest: Option<i64>,
}

/// A container image that is ready to be written or sent.
#[derive(Debug)]
pub struct ContainerImage {
    /// All of it.
    pub bundle: Bundle,
    /// Lowest first.
    pub layers: Vec<Made>,
    /// The image's id.
    pub config: Digest,
}

impl Container {
    pub(crate) fn new(built: &Built, newest: Option<i64>) -> Container {
        Container {
            tree: built.tree.clone(),
            config: built.config.clone(),
            history: built.history.clone(),
            layers: built.layers.clone(),
            newest,
        }
    }

    /// Makes the image as `output` wants it. `registries` fetches layers of the base that are not here in the form that an image has them in.
    ///
    /// # Errors
    /// A sentence for a field that makes no sense; else what is wrong.
    pub fn image(&self, output: &Output, registries: &Registries, store: &Store) -> Result<ContainerImage, String> {
        let compression = match output.field("compression") {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::Plain,
            Some(other) => return Err(format!("`compression={other}`: there are `gzip`, `zstd` and `uncompressed`")),
        };
        let level =
            output.field("compression-level").map(|text| text.parse().map_err(|_| format!("`compression-level={text}` is no number")));
        let docker_types = !output.flag("oci-mediatypes")?.unwrap_or(output.kind != OutputKind::Docker);
        let (base, changes) = self.parts();
        let mut history = self.history.clone();
        if self.layers.as_ref().is_some_and(|l| l.whole.is_some()) {
            // A directory as a base is a layer, and has no line of its own.
            history.insert(0, History { created_by: "FROM a directory".into(), comment: "ukc".into(), ..History::default() });
        }
        let created = self.newest.map(|t| Timestamp(t).to_string());
        let document = ImageDocument { config: self.config.clone(), created, diff_ids: vec![], history };
        let newest = self.newest;
        let parts = ContainerParts {
            base: base.as_ref(),
            changes: &changes,
            document,
            compression,
            level: level.transpose()?,
            docker_types,
            newest,
        };
        let made = ukc_oci::container(parts, Some(registries), store).map_err(|e| said(&e))?;
        Ok(ContainerImage { bundle: made.0, layers: made.1, config: made.2 })
    }

    fn parts(&self) -> (Option<ukc_oci::Image>, Vec<Vec<Change>>) {
        match &self.layers {
            Some(layers) => {
                let all = layers.whole.iter().chain(&layers.changes).cloned().collect();
                (layers.base.clone(), all)
            }
            None => (None, vec![self.tree.changes_since(&Tree::new())]),
        }
    }

    /// Writes all files as one archive.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn write_tar(&self, out: &mut dyn Write) -> io::Result<()> {
        ukc_oci::tar::write_tree(&self.tree, out)
    }
}

/// An error with what to do about it, in one line.
pub fn said(error: &OciError) -> String {
    match error.help() {
        Some(help) => format!("{error}; {help}"),
        None => error.to_string(),
    }
}
