//! The images of this user: finished image directories by the digest of their document, and names for them.
//!
//! ```text
//! ROOT/images/<hex>/        kernel.elf, rootfs.ext4, kernel.map, analysis.json, image.json; <hex> is the SHA-256 of image.json; never changed once it has this name
//! ROOT/names/app:latest     text: <hex>; a `/` in a name is written %2f
//! ROOT/tmp/xxxx/            being written by a running process, which holds a lock on it
//! ROOT/lock                 held while images and names come and go
//! ```
//!
//! Everything gets its name by rename(2), so readers see whole images or none, however many builds run and whenever they are killed. What a killed build
//! left in `tmp` is removed by the next one.
//!
//! What is absent: this crate does not write images (that is `compiler/image`) and does not know how they came to be.
#![forbid(unsafe_code)]

mod error;
mod name;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};
use ukc_image_json::{FILE_NAME, Image};

pub use error::StoreError;
pub use name::Name;

/// Between making a directory and locking it lie microseconds; a minute is beyond doubt.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// An image store.
#[derive(Debug, Clone)]
pub struct ImageStore {
    root: PathBuf,
}

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The directory with its artefacts.
    pub dir: PathBuf,
    /// Its names, sorted.
    pub names: Vec<Name>,
    /// Its document.
    pub image: Image,
}

/// What [`ImageStore::remove`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub names: Vec<Name>,
    /// The image that is gone, unless it has other names.
    pub id: Option<String>,
}

/// A place for an image that is being written; dropped without [`ImageStore::commit`], it vanishes.
#[derive(Debug)]
pub struct Staging {
    dir: TempDir,
    _lock: File,
}

impl Staging {
    /// Returns the image directory to write; it does not exist yet.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }
}

impl ImageStore {
    /// Opens the store at `root`, making what is missing, and removes what killed builds left.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn open(root: impl Into<PathBuf>) -> Result<ImageStore, StoreError> {
        let store = ImageStore { root: root.into() };
        for dir in ["images", "names", "tmp"] {
            let dir = store.root.join(dir);
            fs::create_dir_all(&dir).map_err(StoreError::write(&dir))?;
        }
        store.sweep();
        Ok(store)
    }

    fn sweep(&self) {
        for entry in fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
            let is_free = |dir: File| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok();
            if age > ABANDONED_AFTER && File::open(entry.path()).is_ok_and(is_free) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Begins an image.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn begin(&self) -> Result<Staging, StoreError> {
        let tmp = self.root.join("tmp");
        let dir = tempfile::tempdir_in(&tmp).map_err(StoreError::write(&tmp))?;
        let lock = File::open(dir.path()).map_err(StoreError::write(dir.path()))?;
        flock(&lock, FlockOperation::LockShared).map_err(|e| StoreError::write(dir.path())(e.into()))?;
        Ok(Staging { dir, _lock: lock })
    }

    /// Takes a finished image in and gives it the names, which may have belonged to other images. Returns its id.
    ///
    /// # Errors
    /// [`StoreError`]; names that were not yet given keep their meaning then.
    pub fn commit(&self, staging: Staging, names: &[Name]) -> Result<String, StoreError> {
        let made = staging.path();
        let document = made.join(FILE_NAME);
        let bytes = fs::read(&document).map_err(StoreError::read(&document))?;
        let id: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let _lock = self.lock()?;
        let dir = self.dir_of(&id);
        // An image of this id holds the same bytes.
        if !dir.exists() {
            fs::rename(&made, &dir).map_err(StoreError::write(&dir))?;
            sync(&self.root.join("images"))?;
        }
        names.iter().try_for_each(|name| self.set_name(name, &id))?;
        Ok(id)
    }

    fn set_name(&self, name: &Name, id: &str) -> Result<(), StoreError> {
        let path = self.name_path(name);
        let mut file = NamedTempFile::new_in(self.root.join("tmp")).map_err(StoreError::write(&path))?;
        file.write_all(id.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(StoreError::write(&path))?;
        file.persist(&path).map_err(|e| StoreError::write(&path)(e.error))?;
        sync(&self.root.join("names"))
    }

    /// Finds an image by name (`app`, `app:tag`) or by the first digits of its id, with or without `sha256:`.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Ambiguous`], and trouble with reading.
    pub fn find(&self, text: &str) -> Result<Stored, StoreError> {
        let by_id = self.names()?;
        let id = match Name::parse(text).ok().and_then(|name| self.read_name(&name)) {
            Some(id) => id,
            None => self.by_prefix(text, &by_id)?,
        };
        self.stored(&id, by_id.get(&id).cloned().unwrap_or_default())
    }

    fn by_prefix(&self, text: &str, by_id: &BTreeMap<String, Vec<Name>>) -> Result<String, StoreError> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = !prefix.is_empty() && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut found: Vec<String> = self.ids()?.into_iter().filter(|id| is_hex && id.starts_with(prefix)).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                let known = by_id.values().flatten().map(ToString::to_string).collect();
                Err(StoreError::Unknown { text: text.to_owned(), known })
            }
            count => Err(StoreError::Ambiguous { text: text.to_owned(), count }),
        }
    }

    /// Returns all images, those with names first, by name.
    ///
    /// # Errors
    /// Trouble with reading the directories; an image whose document cannot be read is left out.
    pub fn list(&self) -> Result<Vec<Stored>, StoreError> {
        let by_id = self.names()?;
        let stored = self.ids()?.into_iter().filter_map(|id| self.stored(&id, by_id.get(&id).cloned().unwrap_or_default()).ok());
        let mut all: Vec<Stored> = stored.collect();
        all.sort_by(|a, b| (a.names.is_empty(), &a.names, &a.id).cmp(&(b.names.is_empty(), &b.names, &b.id)));
        Ok(all)
    }

    /// Removes a name, and the image when that was its last one. An id removes the image with its names: without `force` only if there is at most one.
    ///
    /// # Errors
    /// As [`ImageStore::find`]; [`StoreError::HasNames`].
    pub fn remove(&self, text: &str, force: bool) -> Result<Removed, StoreError> {
        let _lock = self.lock()?;
        let name = Name::parse(text).ok().filter(|name| self.read_name(name).is_some());
        let by_id = self.names()?;
        let (id, names) = match &name {
            Some(name) => (self.read_name(name).unwrap_or_default(), vec![name.clone()]),
            None => {
                let id = self.by_prefix(text, &by_id)?;
                let names = by_id.get(&id).cloned().unwrap_or_default();
                if names.len() > 1 && !force {
                    return Err(StoreError::HasNames { text: text.to_owned(), names: names.iter().map(ToString::to_string).collect() });
                }
                (id, names)
            }
        };
        for name in &names {
            let path = self.name_path(name);
            fs::remove_file(&path).map_err(StoreError::write(&path))?;
        }
        let is_last = by_id.get(&id).is_none_or(|all| all.iter().all(|n| names.contains(n)));
        if is_last {
            self.remove_image(&id)?;
        }
        Ok(Removed { names, id: is_last.then_some(id) })
    }

    /// Removes the images that have no name and returns their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prune(&self) -> Result<Vec<String>, StoreError> {
        let _lock = self.lock()?;
        let by_id = self.names()?;
        let nameless: Vec<String> = self.ids()?.into_iter().filter(|id| !by_id.contains_key(id)).collect();
        nameless.iter().try_for_each(|id| self.remove_image(id))?;
        Ok(nameless)
    }

    /// Moves the image out of sight first, so that nobody finds half of one. A machine that runs from it keeps the files it has open.
    fn remove_image(&self, id: &str) -> Result<(), StoreError> {
        let dir = self.dir_of(id);
        let staging = self.begin()?;
        match fs::rename(&dir, staging.path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::write(&dir)(e)),
            _ => Ok(()),
        }
    }

    fn stored(&self, id: &str, names: Vec<Name>) -> Result<Stored, StoreError> {
        let dir = self.dir_of(id);
        let image = read_document(&dir)?;
        Ok(Stored { id: id.to_owned(), dir, names, image })
    }

    fn ids(&self) -> Result<Vec<String>, StoreError> {
        let dir = self.root.join("images");
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::read(&dir))? {
            ids.extend(entry.map_err(StoreError::read(&dir))?.file_name().into_string());
        }
        ids.sort();
        Ok(ids)
    }

    /// Returns the names of each image that has some.
    fn names(&self) -> Result<BTreeMap<String, Vec<Name>>, StoreError> {
        let dir = self.root.join("names");
        let mut names: BTreeMap<String, Vec<Name>> = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::read(&dir))? {
            let file_name = entry.map_err(StoreError::read(&dir))?.file_name();
            let Some(name) = file_name.to_str().and_then(Name::from_file_name) else { continue };
            if let Some(id) = self.read_name(&name) {
                names.entry(id).or_default().push(name);
            }
        }
        names.values_mut().for_each(|n| n.sort());
        Ok(names)
    }

    fn read_name(&self, name: &Name) -> Option<String> {
        let id = fs::read_to_string(self.name_path(name)).ok()?;
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    }

    fn dir_of(&self, id: &str) -> PathBuf {
        self.root.join("images").join(id)
    }

    fn name_path(&self, name: &Name) -> PathBuf {
        self.root.join("names").join(name.file_name())
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::write(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| StoreError::write(&path)(e.into()))?;
        Ok(file)
    }
}

/// Reads the document of an image directory, in a store or not.
///
/// # Errors
/// [`StoreError::Read`], [`StoreError::Document`].
pub fn read_document(dir: &Path) -> Result<Image, StoreError> {
    let path = dir.join(FILE_NAME);
    let bytes = fs::read(&path).map_err(StoreError::read(&path))?;
    Image::parse(&bytes).map_err(|error| StoreError::Document { path, error })
}

fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(StoreError::write(dir))
}

#[cfg(test)]
mod tests;
