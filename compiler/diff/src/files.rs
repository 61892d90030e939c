//! The files of root file systems, and what changed between two.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ext4_view::{Ext4, Ext4Error, FileType};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::Names;

/// All files of a root file system by path.
pub struct Listing {
    file_system: Ext4,
    entries: BTreeMap<String, Entry>,
}

/// What is compared without reading contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    kind: FileType,
    mode: u16,
    uid: u32,
    gid: u32,
    len_bytes: u64,
}

/// A root file system that cannot be read.
#[derive(Debug)]
pub struct FilesError(Ext4Error);

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the root file system cannot be read: {}", self.0)
    }
}

impl std::error::Error for FilesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl From<Ext4Error> for FilesError {
    fn from(error: Ext4Error) -> FilesError {
        FilesError(error)
    }
}

impl Listing {
    /// Lists the ext4 image at `path`.
    ///
    /// # Errors
    /// [`FilesError`] names what is wrong with it.
    pub fn read(path: &Path) -> Result<Listing, FilesError> {
        let file_system = Ext4::load_from_path(path)?;
        let mut entries = BTreeMap::new();
        let mut left = vec![ext4_view::PathBuf::new("/")];
        while let Some(dir) = left.pop() {
            for entry in file_system.read_dir(&dir)? {
                let entry = entry?;
                let name = entry.file_name();
                if name == "." || name == ".." {
                    continue;
                }
                let path = entry.path();
                let meta = file_system.symlink_metadata(&path)?;
                let kind = meta.file_type();
                let known = Entry { kind, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), len_bytes: meta.len() };
                entries.insert(String::from_utf8_lossy(path.as_ref()).into_owned(), known);
                if kind.is_dir() {
                    left.push(path);
                }
            }
        }
        Ok(Listing { file_system, entries })
    }

    /// Returns a digest of a file's content or a link's target; equal ones are equal. What cannot be read is equal to nothing.
    fn content(&self, path: &str, kind: FileType) -> Option<[u8; 32]> {
        let bytes = match kind {
            FileType::Regular => self.file_system.read(path).ok()?,
            FileType::Symlink => self.file_system.read_link(path).ok()?.as_ref().to_vec(),
            _ => Vec::new(),
        };
        Some(Sha256::digest(bytes).into())
    }
}

/// Files that came, went and changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Which came and went; of a directory that came or went whole, everything in it.
    #[serde(flatten)]
    pub names: Names,
    /// Which are different.
    pub changed: Vec<FileChange>,
}

impl Files {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.changed.is_empty()
    }
}

/// A file that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Where.
    pub path: String,
    /// In what: `content`, `mode 755 → 4755`.
    pub what: Vec<String>,
}

/// Compares two root file systems. Times do not count.
pub fn between(old: &Listing, new: &Listing) -> Files {
    let names = Names::between(old.entries.keys().cloned(), new.entries.keys().cloned());
    let changed = new.entries.iter().filter_map(|(path, after)| {
        let before = old.entries.get(path)?;
        let mut what = Vec::new();
        if before.kind != after.kind {
            what.push(format!("{} → {}", kind(before.kind), kind(after.kind)));
        } else if !after.kind.is_dir()
            && (before.len_bytes != after.len_bytes || {
                let content = new.content(path, after.kind);
                content.is_none() || old.content(path, before.kind) != content
            })
        {
            what.push("content".to_owned());
        }
        if before.mode != after.mode {
            what.push(format!("mode {:o} → {:o}", before.mode, after.mode));
        }
        if (before.uid, before.gid) != (after.uid, after.gid) {
            what.push(format!("owner {}:{} → {}:{}", before.uid, before.gid, after.uid, after.gid));
        }
        (!what.is_empty()).then(|| FileChange { path: path.clone(), what })
    });
    Files { names, changed: changed.collect() }
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::BlockDevice => "block device",
        FileType::CharacterDevice => "character device",
        FileType::Directory => "directory",
        FileType::Fifo => "pipe",
        FileType::Regular => "file",
        FileType::Socket => "socket",
        FileType::Symlink => "link",
    }
}
