//! Why an image could not be written.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::ext4::Ext4Error;

/// Why an image could not be written. The previous image, if there was one, is as it was.
#[derive(Debug)]
pub enum ImageError {
    /// The root file system.
    Ext4(Ext4Error),
    /// A file or directory of the image.
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that the image is made of.
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory holds something that is not part of an image; replacing it would lose that.
    NotAnImage {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        entry: String,
    },
    /// An artefact has an impossible name.
    Name {
        /// Why.
        reason: String,
    },
}

impl From<Ext4Error> for ImageError {
    fn from(error: Ext4Error) -> ImageError {
        ImageError::Ext4(error)
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Ext4(error) => error.fmt(f),
            ImageError::Write { path, source } => write!(f, "cannot write `{}`: {source}", path.display()),
            ImageError::Read { path, source } => write!(f, "cannot read `{}`: {source}", path.display()),
            ImageError::NotAnImage { path, entry } => {
                write!(f, "`{}` holds `{entry}`, which is not part of an image; choose an empty or a new directory", path.display())
            }
            ImageError::Name { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for ImageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ImageError::Ext4(error) => error.source(),
            ImageError::Write { source, .. } | ImageError::Read { source, .. } => Some(source),
            ImageError::NotAnImage { .. } | ImageError::Name { .. } => None,
        }
    }
}
