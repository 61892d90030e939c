//! What can be wrong with machines, or with what is asked of them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Trouble with machines.
#[derive(Debug)]
pub enum MachineError {
    /// No machine has this name or id.
    Unknown {
        /// As asked for.
        text: String,
        /// The names there are.
        names: Vec<String>,
    },
    /// Several ids begin like this.
    Ambiguous {
        /// As asked for.
        text: String,
        /// How many.
        count: usize,
    },
    /// A name that another machine has.
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A name that no machine can have.
    BadName {
        /// The name.
        name: String,
    },
    /// It cannot be removed while it runs.
    Running {
        /// Its name.
        name: String,
    },
    /// It does not run, so nothing can be asked of it.
    NotRunning {
        /// Its name.
        name: String,
    },
    /// It ended without a status.
    Ended {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// Its supervisor did not take what was asked for.
    Refused {
        /// Its name.
        name: String,
    },
    /// A file.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl MachineError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> MachineError {
        let path = path.to_owned();
        move |error| MachineError::Io { path, error }
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MachineError::Unknown { text, names } if names.is_empty() => {
                write!(f, "there is no machine `{text}`: none runs, and none is kept")
            }
            MachineError::Unknown { text, names } => {
                let shown = names.len().min(5);
                write!(
                    f,
                    "there is no machine `{text}`; there {} {}",
                    if names.len() == 1 { "is" } else { "are" },
                    names[..shown].join(", ")
                )?;
                if names.len() > shown { write!(f, " and {} more", names.len() - shown) } else { Ok(()) }
            }
            MachineError::Ambiguous { text, count } => write!(f, "`{text}` begins the ids of {count} machines; give more digits"),
            MachineError::NameTaken { name, id } => {
                write!(f, "the machine {id} has the name `{name}`; remove it with `ukc rm {name}`, or give another name")
            }
            MachineError::BadName { name } => write!(
                f,
                "`{name}` cannot be a machine's name: it has 2 to 128 letters, digits, `_`, `.` and `-`, and begins with a letter or digit"
            ),
            MachineError::Running { name } => {
                write!(f, "the machine `{name}` runs; stop it first with `ukc stop {name}`, or remove it with --force")
            }
            MachineError::NotRunning { name } => write!(f, "the machine `{name}` does not run"),
            MachineError::Ended { name, why } => write!(f, "the machine `{name}` ended without a status: {why}"),
            MachineError::Refused { name } => write!(f, "the machine `{name}` is ending and takes no more requests"),
            MachineError::Io { path, error } => write!(f, "`{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for MachineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MachineError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
