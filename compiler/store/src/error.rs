//! What can be wrong with the store, or with what is asked of it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Trouble with the store.
#[derive(Debug)]
pub enum StoreError {
    /// No image has this name or id.
    Unknown {
        /// As asked for.
        text: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Several images' ids begin like this.
    Ambiguous {
        /// As asked for.
        text: String,
        /// How many.
        count: usize,
    },
    /// An image was to be removed by its id, but has several names.
    HasNames {
        /// As asked for.
        text: String,
        /// Its names.
        names: Vec<String>,
    },
    /// A name that no image can have.
    BadName {
        /// As asked for.
        text: String,
        /// Why.
        why: &'static str,
    },
    /// A document that cannot be understood.
    Document {
        /// Where.
        path: PathBuf,
        /// Why.
        error: ukc_image_json::Error,
    },
    /// Reading failed.
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Writing failed.
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl StoreError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |error| StoreError::Read { path, error }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |error| StoreError::Write { path, error }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Unknown { text, known } if known.is_empty() => write!(f, "there is no image `{text}`: no image has a name yet"),
            StoreError::Unknown { text, known } => {
                write!(f, "there is no image `{text}`")?;
                let shown = known.len().min(5);
                write!(f, "; there {} {}", if known.len() == 1 { "is" } else { "are" }, known[..shown].join(", "))?;
                if known.len() > shown {
                    write!(f, " and {} more", known.len() - shown)?;
                }
                Ok(())
            }
            StoreError::Ambiguous { text, count } => write!(f, "`{text}` begins the ids of {count} images; give more digits"),
            StoreError::HasNames { text, names } => {
                write!(f, "the image `{text}` has several names ({}); remove it by name, or with --force", names.join(", "))
            }
            StoreError::BadName { text, why } => write!(f, "`{text}` cannot be a name: {why}"),
            StoreError::Document { path, error } => write!(f, "cannot read `{}`: {error}", path.display()),
            StoreError::Read { path, error } => write!(f, "cannot read `{}`: {error}", path.display()),
            StoreError::Write { path, error } => write!(f, "cannot write `{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Read { error, .. } | StoreError::Write { error, .. } => Some(error),
            StoreError::Document { error, .. } => Some(error),
            _ => None,
        }
    }
}
