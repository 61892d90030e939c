//! What a run changed → changes.
//!
//! Of an overlay, the upper directory holds just that (overlayfs.rst): a device 0:0 is a removed name, a directory with the attribute `overlay.opaque`
//! replaces one below. Of a plain tree, a file is unchanged when inode and change time are those of before: no program can set a change time.
//!
//! Directories made for mounts, and attributes that belong to the machine, are no part of the result.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ukc_rootfs::{Action, Change, Content, Kind, Meta};

use super::Trouble;
use crate::spec::{Hidden, ScanRoot};

/// Inode and change time of each path.
pub(super) type Before = HashMap<Vec<u8>, (u64, i64, i64)>;

/// Remembers what a plain tree looks like.
pub(super) fn remember(root: &Path) -> Result<Before, Trouble> {
    let mut out = Before::new();
    let mut todo = vec![Vec::new()];
    while let Some(dir) = todo.pop() {
        for (name, meta) in list(root, &dir)? {
            if meta.is_dir() {
                todo.push(name.clone());
            }
            out.insert(name, stamp(&meta));
        }
    }
    // The clock of change times ticks a few hundred times a second (timestamps are those of the last tick): what is written from now on differs.
    std::thread::sleep(std::time::Duration::from_millis(20));
    Ok(out)
}

fn stamp(meta: &fs::Metadata) -> (u64, i64, i64) {
    (meta.ino(), meta.ctime(), meta.ctime_nsec())
}

/// Returns the entries of the directory `dir` (a path inside the root) as paths inside the root, in byte order.
fn list(root: &Path, dir: &[u8]) -> Result<Vec<(Vec<u8>, fs::Metadata)>, Trouble> {
    let host = root.join(OsStr::from_bytes(dir));
    let trouble = |e: &io::Error| Trouble::at(root, dir, e, None);
    let mut out = vec![];
    for entry in fs::read_dir(&host).map_err(|e| trouble(&e))? {
        let entry = entry.map_err(|e| trouble(&e))?;
        let name = entry.file_name().into_vec();
        let path = if dir.is_empty() { name } else { [dir, b"/", &name].concat() };
        let meta = fs::symlink_metadata(entry.path()).map_err(|e| Trouble::at(root, &path, &e, None))?;
        out.push((path, meta));
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

/// Finds the changes; files that the owner of the store could not read are copied to `own_dir` if the process is in a user namespace.
pub(super) fn scan(
    root: &ScanRoot,
    before: Option<&Before>,
    own_dir: &Path,
    hidden: &[Hidden],
    is_rootless: bool,
) -> Result<Vec<Change>, Trouble> {
    let (dir, files) = match root {
        ScanRoot::Upper(dir) => (dir, None),
        ScanRoot::Copy(dir, files) => (dir, Some(files)),
    };
    let hidden = hidden.iter().map(|h| (h.path.as_slice(), h.is_dir)).collect();
    let none = Before::new();
    let before = before.unwrap_or(&none);
    let mut scan =
        Scan { root: dir, files, before, own_dir, hidden, is_rootless, out: vec![], inodes: HashMap::new(), seen: HashSet::new() };
    let meta = fs::symlink_metadata(dir).map_err(|e| Trouble::at(dir, b"", &e, None))?;
    scan.out.push(Change { path: vec![], action: Action::Put(scan.meta(b"", &meta)?, Kind::Dir(BTreeMap::new())) });
    let can_enter = scan.parent_can_enter(&meta);
    scan.dir(&[], can_enter)?;
    if files.is_some() {
        let mut gone: Vec<&Vec<u8>> = before.keys().filter(|path| !scan.seen.contains(*path)).collect();
        gone.sort();
        let mut last: Option<&Vec<u8>> = None;
        for path in gone {
            // What was in a removed directory goes with it.
            let is_below = |dir: &Vec<u8>| path.starts_with(dir) && path.get(dir.len()) == Some(&b'/');
            if !last.is_some_and(is_below) && !scan.hidden.contains_key(path.as_slice()) {
                scan.out.push(Change { path: path.clone(), action: Action::Whiteout });
                last = Some(path);
            }
        }
    }
    Ok(scan.out)
}

struct Scan<'a> {
    root: &'a Path,
    /// Where changed files of a plain tree are moved.
    files: Option<&'a PathBuf>,
    before: &'a Before,
    own_dir: &'a Path,
    hidden: HashMap<&'a [u8], bool>,
    is_rootless: bool,
    out: Vec<Change>,
    /// Files with several names.
    inodes: HashMap<u64, Vec<u8>>,
    /// Paths of a plain tree that are still there.
    seen: HashSet<Vec<u8>>,
}

impl Scan<'_> {
    fn dir(&mut self, dir: &[u8], can_enter: bool) -> Result<(), Trouble> {
        // Directories to read, with whether the parent of this process can come in, whether the directory replaces one below, and how long the
        // list of changes was before it, for one that is hidden unless something is in it.
        let mut todo = vec![(dir.to_vec(), can_enter, false)];
        let mut maybe = vec![];
        while let Some((dir, can_enter, is_new)) = todo.pop() {
            let mut below = vec![];
            for (path, meta) in list(self.root, &dir)? {
                if self.files.is_some() {
                    self.seen.insert(path.clone());
                }
                match self.hidden.get(path.as_slice()) {
                    Some(false) => continue,
                    Some(true) if meta.is_dir() => maybe.push(path.clone()),
                    _ => {}
                }
                let is_same = self.files.is_some() && self.before.get(&path) == Some(&stamp(&meta));
                let mut is_new_here = is_new;
                if !is_same {
                    is_new_here = self.entry(&path, &meta, can_enter, is_new)?;
                }
                if meta.is_dir() {
                    let can_enter = can_enter && self.parent_can_enter(&meta);
                    below.push((path, can_enter, is_new_here));
                }
            }
            todo.extend(below.into_iter().rev());
        }
        // Innermost first: a hidden directory in a hidden directory is nothing.
        maybe.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in maybe {
            let is_below = |other: &[u8]| other.starts_with(&path) && other.get(path.len()) == Some(&b'/');
            if !self.out.iter().any(|c| is_below(&c.path)) {
                self.out.retain(|c| c.path != path);
            }
        }
        Ok(())
    }

    /// Adds the change of one entry, and tells whether it is a directory that hides what is below it.
    fn entry(&mut self, path: &[u8], meta: &fs::Metadata, can_enter: bool, is_new: bool) -> Result<bool, Trouble> {
        let host = self.root.join(OsStr::from_bytes(path));
        let kind = meta.file_type();
        let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        if self.files.is_none() && kind.is_char_device() && device() == (0, 0) {
            if !is_new {
                self.out.push(Change { path: path.to_vec(), action: Action::Whiteout });
            }
            return Ok(false);
        }
        if !meta.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.inodes.get(&meta.ino()) {
                self.out.push(Change { path: path.to_vec(), action: Action::HardLink(first.clone()) });
                return Ok(false);
            }
            self.inodes.insert(meta.ino(), path.to_vec());
        }
        let facts = self.meta(path, meta)?;
        let mut replaces = is_new;
        let kind = if kind.is_dir() {
            if self.files.is_none() && is_opaque(&host) && !is_new {
                self.out.push(Change { path: path.to_vec(), action: Action::Whiteout });
                replaces = true;
            }
            Kind::Dir(BTreeMap::new())
        } else if kind.is_file() {
            Kind::File(self.content(path, meta, can_enter)?)
        } else if kind.is_symlink() {
            Kind::Symlink(fs::read_link(&host).map_err(|e| Trouble::at(self.root, path, &e, None))?.into_os_string().into_vec())
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_char_device() {
            Kind::CharDevice(device().0, device().1)
        } else if kind.is_block_device() {
            Kind::BlockDevice(device().0, device().1)
        } else {
            // A socket means nothing without the process that listened on it.
            return Ok(false);
        };
        self.out.push(Change { path: path.to_vec(), action: Action::Put(facts, kind) });
        Ok(replaces)
    }

    fn content(&mut self, path: &[u8], meta: &fs::Metadata, can_enter: bool) -> Result<Content, Trouble> {
        let host = self.root.join(OsStr::from_bytes(path));
        let trouble = |e: io::Error| Trouble::at(self.root, path, &e, None);
        let number = self.out.len();
        let place = if let Some(files) = self.files {
            let place = files.join(number.to_string());
            fs::hard_link(&host, &place).map_err(trouble)?;
            place
        } else {
            host
        };
        if self.is_rootless && !((self.files.is_some() || can_enter) && parent_can(meta, 4)) {
            let own = self.own_dir.join(number.to_string());
            fs::copy(&place, &own).map_err(trouble)?;
            fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(trouble)?;
            return Ok(Content::Host { path: Arc::new(own), offset: 0, len_bytes: meta.len() });
        }
        Ok(Content::Host { path: Arc::new(place), offset: 0, len_bytes: meta.len() })
    }

    fn meta(&self, path: &[u8], meta: &fs::Metadata) -> Result<Meta, Trouble> {
        let host = self.root.join(OsStr::from_bytes(path));
        Ok(Meta {
            mode: (meta.mode() & 0o7777) as u16,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: (meta.mtime(), meta.mtime_nsec() as u32),
            xattrs: xattrs(&host).map_err(|e| Trouble::at(self.root, path, &e, None))?,
        })
    }

    fn parent_can_enter(&self, meta: &fs::Metadata) -> bool {
        !self.is_rootless || parent_can(meta, 1)
    }
}

/// Whether the user whom the user namespace shows as 0 has a permission outside of it (4 read, 1 enter).
fn parent_can(meta: &fs::Metadata, wanted: u32) -> bool {
    let mode = meta.mode();
    let granted = match (meta.uid(), meta.gid()) {
        (0, _) => mode >> 6,
        (_, 0) => mode >> 3,
        _ => mode,
    };
    granted & wanted != 0
}

/// The attribute has another name for mounts that are made without privilege (overlayfs.rst, "User xattr").
fn is_opaque(path: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(path, *name, value.as_mut_slice()).is_ok_and(|len| value[..len] == *b"y")
    })
}

/// Returns the attributes that are part of the file: `user.*` and capabilities. Labels of security modules and the like are the machine's.
fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut out = BTreeMap::new();
    // xattr(7): the list of names is at most 64 KiB, and so is a value. Most files have no names, and one call says so.
    let mut names = vec![0; 256];
    let len = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Err(rustix::io::Errno::RANGE) => {
            names = vec![0; 1 << 16];
            rustix::fs::llistxattr(path, names.as_mut_slice())?
        }
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        result => result?,
    };
    let is_wanted = |name: &&[u8]| (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")) || **name == *b"security.capability";
    for name in names[..len].split(|&b| b == 0).filter(is_wanted) {
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
        value.truncate(len);
        out.insert(name.to_vec(), value);
    }
    Ok(out)
}
