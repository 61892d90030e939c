//! The machines of this user: what runs, what ran in the background, and how to speak with it.
//!
//! ```text
//! ROOT/<id>/machine.json    what it is: name, image, how QEMU is started; written once
//! ROOT/<id>/lock            locked by its supervisor, and by the QEMU that inherits the descriptor, for as long as one of them lives
//! ROOT/<id>/qemu            text: the process id of QEMU
//! ROOT/<id>/requests        socket of the supervisor; `ukc_runtime_qemu::Request` has the lines
//! ROOT/<id>/log, log.1      what its console printed, of a machine in the background; the second is the older part
//! ROOT/<id>/exit            text: the status of its program, or why there is none
//! ROOT/lock                 held while names are given
//! ```
//!
//! There is no daemon: every machine has a process of its own that supervises it, and the lock of the kernel says whether it lives, so a machine
//! whose supervisor was killed is seen for what it is. A machine in the foreground is removed when it ends; one in the background stays until it is
//! removed, so that its log can be read.
//!
//! What is absent: images (`compiler/store`), and QEMU's command line (`runtimes/qemu`).
#![forbid(unsafe_code)]

mod error;
mod log;
mod machine;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use error::MachineError;
pub use log::{Log, tail};
pub use machine::{Held, Known, State};
/// What a supervisor needs to start and stop the machine.
pub use ukc_runtime_qemu::{Machine, Request};

/// Making and removing a folder take milliseconds; a minute is beyond doubt.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// What a machine is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// 12 hexadecimal digits; given by [`Machines::create`].
    #[serde(default)]
    pub id: String,
    /// Its name; an empty one is made up by [`Machines::create`].
    pub name: String,
    /// The image as the user named it.
    pub image: String,
    /// What the program is called with.
    pub argv: Vec<String>,
    /// Seconds since 1970, UTC; given by [`Machines::create`].
    #[serde(default)]
    pub created: u64,
    /// Whether it runs in the background, and stays when it ends.
    pub is_detached: bool,
    /// Whether it is removed when it ends, though it ran in the background.
    pub is_removed_at_end: bool,
    /// Signal that asks its program to end.
    pub stop_signal: u8,
    /// How QEMU is started.
    pub machine: Machine,
}

/// The folder of all machines.
#[derive(Debug, Clone)]
pub struct Machines {
    root: PathBuf,
}

impl Machines {
    /// Opens the folder, making it when it is missing.
    ///
    /// # Errors
    /// [`MachineError::Io`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Machines, MachineError> {
        let machines = Machines { root: root.into() };
        fs::create_dir_all(&machines.root).map_err(MachineError::io(&machines.root))?;
        machines.sweep();
        Ok(machines)
    }

    /// Removes folders that somebody was killed in the middle of making or removing.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_partial = [&b".new-"[..], b".gone-"].iter().any(|p| name.as_encoded_bytes().starts_with(p));
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
            if is_partial && age > ABANDONED_AFTER {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Takes a machine in, locked for the caller, who is its supervisor or hands it to one by [`Held::release`].
    ///
    /// # Errors
    /// [`MachineError::NameTaken`], [`MachineError::BadName`], [`MachineError::Io`].
    pub fn create(&self, mut description: Description) -> Result<Held, MachineError> {
        let _names = self.lock_names()?;
        let all = self.all();
        description.id = loop {
            let id = random_id().map_err(MachineError::io(Path::new("/dev/urandom")))?;
            if !self.root.join(&id).exists() {
                break id;
            }
        };
        if description.name.is_empty() {
            description.name = invented_name(&description.image, &description.id);
        } else if let Some(other) = all.iter().find(|m| m.description.name == description.name) {
            return Err(MachineError::NameTaken { name: description.name, id: other.description.id.clone() });
        }
        check_name(&description.name)?;
        description.created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        // A folder gets its name when it is whole and locked: nobody sees, or sweeps, half of one.
        let dir = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.root).map_err(MachineError::io(&self.root))?;
        let held = Held::take(dir.path(), description)?;
        let path = self.root.join(&held.description.id);
        fs::rename(dir.keep(), &path).map_err(MachineError::io(&path))?;
        Ok(held.moved_to(path))
    }

    /// Returns the machine that was created and released, locked for the caller.
    ///
    /// # Errors
    /// [`MachineError::Unknown`], and [`MachineError::Io`] when it is locked already.
    pub fn hold(&self, id: &str) -> Result<Held, MachineError> {
        let known = self.find(id)?;
        Held::take(&known.dir, known.description)
    }

    /// Returns all machines, the newest first. Machines of the foreground whose supervisor was killed are removed on the way.
    pub fn all(&self) -> Vec<Known> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            // What is being made or removed right now has a name with a dot.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let Some(known) = Known::read(&entry.path()) else { continue };
            if !known.description.is_detached && !matches!(known.state, State::Running) {
                let _ = fs::remove_dir_all(&known.dir);
                continue;
            }
            all.push(known);
        }
        all.sort_by(|a, b| (b.description.created, &b.description.id).cmp(&(a.description.created, &a.description.id)));
        all
    }

    /// Finds a machine by its name or by the first digits of its id.
    ///
    /// # Errors
    /// [`MachineError::Unknown`], [`MachineError::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<Known, MachineError> {
        let mut all = self.all();
        if let Some(index) = all.iter().position(|m| m.description.name == text || m.description.id == text) {
            return Ok(all.swap_remove(index));
        }
        let names: Vec<String> = all.iter().map(|m| m.description.name.clone()).collect();
        let mut found: Vec<Known> = all.into_iter().filter(|m| !text.is_empty() && m.description.id.starts_with(text)).collect();
        match found.len() {
            0 => Err(MachineError::Unknown { text: text.to_owned(), names }),
            1 => Ok(found.remove(0)),
            count => Err(MachineError::Ambiguous { text: text.to_owned(), count }),
        }
    }

    fn lock_names(&self) -> Result<File, MachineError> {
        let path = self.root.join(".lock");
        let file = File::options().create(true).append(true).open(&path).map_err(MachineError::io(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| MachineError::io(&path)(e.into()))?;
        Ok(file)
    }
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Returns a name from the image's: `registry/shop/app:1` becomes `app-3fa29c`.
fn invented_name(image: &str, id: &str) -> String {
    let last = image.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let word: String = last.split([':', '@']).next().unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let word = if word.is_empty() { "machine" } else { &word[..word.len().min(30)] };
    format!("{word}-{}", &id[..6])
}

/// Names look as docker's do (moby: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`).
fn check_name(name: &str) -> Result<(), MachineError> {
    let is_first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let is_rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if is_first && is_rest && (2..=128).contains(&name.len()) { Ok(()) } else { Err(MachineError::BadName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests;
