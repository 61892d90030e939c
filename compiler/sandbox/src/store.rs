//! Layers on disk.
//!
//! ```text
//! ROOT/runs/<ids>/layers/<id>/fs/        files, as overlayfs wants a lower directory
//! ROOT/runs/<ids>/layers/<id>/own/       copies of files that the store's owner could not read
//! ROOT/runs/<ids>/layers/<id>/record     what the layer says, for layers that a RUN made
//! ROOT/runs/<ids>/layers/.tmp-xxxx/      being made by a process that holds a lock on .tmp-xxxx/lock
//! ROOT/runs/<ids>/steps/<key>            text: the layer that the step with this key made
//! ROOT/runs/<ids>/caches/<id>[-pN]/data/ directories of `--mount=type=cache`
//! ROOT/runs/<ids>/locks/<name>           locked while a layer or step of this name is made
//! ```
//!
//! `<ids>` is `root` or stands for the ids of a user: files of one mean nothing to another. Layers get their name by one rename(2) when they are whole,
//! and never change afterwards; steps are written after the layer that they name.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

const TEMPORARY: &str = ".tmp-";
/// Between making a directory and locking it, another process could take it for an abandoned one.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// The directories of one owner.
#[derive(Debug, Clone)]
pub(crate) struct RunStore {
    root: PathBuf,
}

impl RunStore {
    pub fn open(store: &Path, ids: &str) -> io::Result<RunStore> {
        // Orders and overlays take absolute paths.
        let root = std::path::absolute(store)?.join("runs").join(ids);
        for name in ["layers", "steps", "caches", "locks"] {
            fs::create_dir_all(root.join(name))?;
        }
        Ok(RunStore { root })
    }

    /// Where layers are; they have short names below it.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub fn layer(&self, id: &str) -> PathBuf {
        self.layers().join(id)
    }

    /// Whether a layer is there.
    pub fn has(&self, id: &str) -> bool {
        self.layer(id).is_dir()
    }

    /// Returns the layer that the step with this key made, if both are there.
    pub fn step(&self, key: &str) -> Option<String> {
        let id = fs::read_to_string(self.root.join("steps").join(key)).ok()?;
        let is_name = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (is_name && self.layer(&id).join("record").is_file()).then_some(id)
    }

    /// Remembers what a step made.
    pub fn set_step(&self, key: &str, id: &str) -> io::Result<()> {
        let steps = self.root.join("steps");
        let mut file = tempfile::NamedTempFile::new_in(&steps)?;
        io::Write::write_all(&mut file, id.as_bytes())?;
        file.persist(steps.join(key)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Makes a directory for something that is not whole yet.
    pub fn temporary(&self) -> io::Result<Temporary> {
        let dir = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(self.layers())?;
        // Others enter to use what becomes a layer.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let lock = File::create(dir.path().join("lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Temporary { dir: Some(dir), _lock: lock })
    }

    /// Gives a finished directory its name; `false` when another process was faster.
    pub fn keep(&self, temporary: &mut Temporary, id: &str) -> io::Result<bool> {
        fs::remove_file(temporary.path().join("lock"))?;
        match fs::rename(temporary.path(), self.layer(id)) {
            Ok(()) => {
                if let Some(dir) = temporary.dir.take() {
                    let _ = dir.keep();
                }
                Ok(true)
            }
            Err(_) if self.has(id) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Returns what killed processes left behind.
    pub fn abandoned(&self) -> Vec<PathBuf> {
        let is_abandoned = |path: &Path| {
            let age = fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
            age > ABANDONED_AFTER && File::open(path.join("lock")).map_or(true, |file| file.try_lock().is_ok())
        };
        let entries = fs::read_dir(self.layers()).into_iter().flatten().flatten();
        let temporary = entries.filter(|e| e.file_name().to_string_lossy().starts_with(TEMPORARY)).map(|e| e.path());
        temporary.filter(|path| is_abandoned(path)).collect()
    }

    /// Waits for the lock of a name; `None` when the build is given up meanwhile.
    pub fn lock(&self, name: &str, is_cancelled: &dyn Fn() -> bool) -> io::Result<Option<File>> {
        let file = File::create(self.root.join("locks").join(name))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if is_cancelled() => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
    }

    /// Takes the lock of a name if it is free.
    pub fn try_lock(&self, name: &str) -> io::Result<Option<File>> {
        let file = File::create(self.root.join("locks").join(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    pub fn cache(&self, name: &str) -> PathBuf {
        self.root.join("caches").join(name)
    }
}

/// A directory that vanishes unless it is kept. What others own in it has to be removed by the helper before.
#[derive(Debug)]
pub(crate) struct Temporary {
    dir: Option<TempDir>,
    _lock: File,
}

impl Temporary {
    pub fn path(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Makes a directory in it.
    pub fn make(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }
}
