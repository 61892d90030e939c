//! Reading and writing the document. The reader first looks at format and version alone, so that a newer document is reported as newer and not by
//! whichever of its fields happens to look wrong.

use std::fmt;

use serde::Deserialize;

use crate::{FORMAT, Image, VERSION};

/// Why bytes are not an `image.json` that we read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not JSON, or not an object with `format` and `version`.
    NotAnImage {
        /// Why.
        reason: String,
    },
    /// A version that this program does not read.
    Version {
        /// The document's version.
        found: u32,
    },
    /// A field is missing or has the wrong type or value.
    Field {
        /// The field, in the form `modules[3].name`; the object that lacks it, when it is missing.
        path: String,
        /// What is wrong, with line and column.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotAnImage { reason } => write!(f, "not an image.json: {reason}"),
            Error::Version { found } => {
                write!(
                    f,
                    "image.json has version {found}; this ukc reads version {VERSION}: rebuild the image, or use the ukc that made it"
                )
            }
            Error::Field { path, reason } if path == "." => write!(f, "image.json: {reason}"),
            Error::Field { path, reason } => write!(f, "image.json: `{path}`: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// The two fields that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl Image {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Error`] names the first field that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Image, Error> {
        let head: Head = serde_json::from_slice(bytes).map_err(|e| Error::NotAnImage { reason: e.to_string() })?;
        if head.format != FORMAT {
            return Err(Error::NotAnImage { reason: format!("`format` is `{}` instead of `{FORMAT}`", head.format) });
        }
        if head.version != VERSION {
            return Err(Error::Version { found: head.version });
        }
        let deserializer = &mut serde_json::Deserializer::from_slice(bytes);
        let image: Image = serde_path_to_error::deserialize(deserializer)
            .map_err(|e| Error::Field { path: e.path().to_string(), reason: e.inner().to_string() })?;
        let field = |path: &str, reason: &str| Err(Error::Field { path: path.to_owned(), reason: reason.to_owned() });
        if !image.program.cwd.starts_with('/') {
            return field("program.cwd", "not an absolute path");
        }
        for (i, variable) in image.program.env.iter().enumerate() {
            if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                return field(&format!("program.env[{i}]"), "not of the form `NAME=value`");
            }
        }
        for (i, volume) in image.volumes.iter().enumerate() {
            if !volume.starts_with('/') {
                return field(&format!("volumes[{i}]"), "not an absolute path");
            }
        }
        for (i, artefact) in image.artefacts.iter().enumerate() {
            if image.artefacts[..i].iter().any(|a| a.name == artefact.name) {
                return field(&format!("artefacts[{i}].name"), "a second artefact of this name");
            }
        }
        Ok(image)
    }

    /// Returns the document, indented, with a line feed at its end.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists always have a JSON form.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Returns the artefact of a kind, the first of several.
    pub fn artefact(&self, kind: crate::ArtefactKind) -> Option<&crate::Artefact> {
        self.artefacts.iter().find(|a| a.kind == kind)
    }
}
