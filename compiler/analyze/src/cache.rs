//! A cache of object summaries by content, so that a file that was analysed once is not analysed again.

use std::path::PathBuf;

use crate::object::{Summary, VERSION};

/// Where summaries are kept. Losing entries costs time only; a wrong entry cannot be told from a right one, so a cache must return what was put.
pub trait Cache: Sync {
    /// Returns what was put under `key`.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps `value`; failing to is not an error.
    fn put(&self, key: &str, value: &[u8]);
}

/// A cache in a directory: one file per key. Writers rename finished files into place, so readers never see half of one.
pub struct DirCache {
    dir: PathBuf,
}

impl DirCache {
    /// Returns a cache in `dir`, which is made when the first entry is put.
    pub fn new(dir: impl Into<PathBuf>) -> DirCache {
        DirCache { dir: dir.into() }
    }
}

impl Cache for DirCache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir.join(key)).ok()
    }

    fn put(&self, key: &str, value: &[u8]) {
        let temporary = self.dir.join(format!(".{key}.{}", std::process::id()));
        let written = std::fs::create_dir_all(&self.dir)
            .and_then(|()| std::fs::write(&temporary, value))
            .and_then(|()| std::fs::rename(&temporary, self.dir.join(key)));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
    }
}

/// Returns the key of a summary: the file's hash, the version of the analysis, and the wrappers that were asked for.
pub fn key(hash: &blake3::Hash, wrappers: &[(String, u8)]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash.as_bytes());
    hasher.update(&VERSION.to_le_bytes());
    for (name, param) in wrappers {
        hasher.update(name.as_bytes());
        hasher.update(&[0, *param]);
    }
    hasher.finalize().to_hex()[..40].to_owned()
}

/// Returns the summary under `key`, or makes and keeps it.
pub fn summary(cache: Option<&dyn Cache>, key: &str, make: impl FnOnce() -> Summary) -> Summary {
    if let Some(found) = cache.and_then(|c| c.get(key)).and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return found;
    }
    let made = make();
    if let Some(c) = cache
        && let Ok(bytes) = serde_json::to_vec(&made)
    {
        c.put(key, &bytes);
    }
    made
}
