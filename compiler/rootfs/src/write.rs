//! A tree → files of the host.
//!
//! Modes, times, links and hard links are kept. Owners are only kept for root, who alone may give files away; others' files belong to whoever runs this, as
//! with BuildKit's local output. Device nodes need root, too; they are left out otherwise, and counted.
//!
//! No link that is already there leads out of the directory: where a directory of the tree is something else on the host, that is removed first.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Dev, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};

use crate::{Content, Kind, Meta, Node, NodeId, Tree};

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Files, directories, links.
    pub count: u64,
    /// Device nodes that could not be made.
    pub left_out: u64,
}

impl Tree {
    /// Writes the tree into `dir`, which is created; what is there stays unless the tree has something of the same name. `is_cancelled` gives it up.
    ///
    /// # Errors
    /// Those of reading the contents and of writing, with the path.
    pub fn write_to(&self, dir: &Path, is_cancelled: &dyn Fn() -> bool) -> Result<Written, (PathBuf, io::Error)> {
        let is_root = rustix::process::geteuid().is_root();
        let mut written = Written::default();
        let mut first_names: HashMap<NodeId, PathBuf> = HashMap::new();
        let mut dirs: Vec<(PathBuf, NodeId)> = vec![];
        let mut result = Ok(());
        fs::create_dir_all(dir).map_err(|e| (dir.to_owned(), e))?;
        self.walk(&mut |path, id| {
            if result.is_err() {
                return;
            }
            let host = dir.join(std::ffi::OsStr::from_bytes(&path[1..]));
            let node = self.node(id);
            let mut write = || {
                if is_cancelled() {
                    return Err(io::Error::other("interrupted"));
                }
                if matches!(node.kind, Kind::Dir(_)) {
                    dirs.push((host.clone(), id));
                    return if path.len() > 1 { make_dir(&host) } else { Ok(()) };
                }
                remove(&host)?;
                if let Some(first) = first_names.get(&id) {
                    return fs::hard_link(first, &host);
                }
                first_names.insert(id, host.clone());
                match make(&host, node) {
                    Err(e) if is_device(node) && e.kind() == io::ErrorKind::PermissionDenied => {
                        first_names.remove(&id);
                        written.left_out += 1;
                        Ok(())
                    }
                    Err(e) => Err(e),
                    Ok(()) => finish(&host, &node.meta, matches!(node.kind, Kind::Symlink(_)), is_root),
                }
            };
            result = write().map_err(|e| (host.clone(), e));
            written.count += 1;
        });
        result?;
        // Writing into a directory changes its time, and its mode may forbid writing.
        for (host, id) in dirs.into_iter().rev() {
            finish(&host, &self.node(id).meta, false, is_root).map_err(|e| (host, e))?;
        }
        Ok(written)
    }
}

fn is_device(node: &Node) -> bool {
    matches!(node.kind, Kind::CharDevice(..) | Kind::BlockDevice(..))
}

fn make_dir(host: &Path) -> io::Result<()> {
    match fs::symlink_metadata(host) {
        Ok(meta) if meta.is_dir() => fs::set_permissions(host, fs::Permissions::from_mode(0o700)),
        Ok(_) => fs::remove_file(host).and_then(|()| fs::create_dir(host)),
        Err(_) => fs::create_dir(host),
    }
}

/// Removes what is in the way of something that is no directory.
fn remove(host: &Path) -> io::Result<()> {
    match fs::symlink_metadata(host) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(host),
        Ok(_) => fs::remove_file(host),
        Err(_) => Ok(()),
    }
}

fn make(host: &Path, node: &Node) -> io::Result<()> {
    let special = |kind: FileType, device: Dev| mknodat(CWD, host, kind, Mode::from_raw_mode(0o600), device).map_err(io::Error::from);
    match &node.kind {
        Kind::Dir(_) => Ok(()),
        Kind::File(content) => write_file(host, content, node.meta.mtime),
        Kind::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(target), host),
        Kind::Fifo => special(FileType::Fifo, 0),
        Kind::CharDevice(major, minor) => special(FileType::CharacterDevice, makedev(*major, *minor)),
        Kind::BlockDevice(major, minor) => special(FileType::BlockDevice, makedev(*major, *minor)),
    }
}

fn write_file(host: &Path, content: &Content, (seconds, nanos): (i64, u32)) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(host)?;
    let copied = io::copy(&mut content.open()?, &mut file)?;
    if copied != content.len_bytes() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was being read"));
    }
    let time = match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos),
        Err(_) => SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + Duration::from_nanos(u64::from(nanos)),
    };
    file.set_times(FileTimes::new().set_modified(time))
}

/// Gives owner, mode and time; the owner first, because that clears the set-user-id bit.
fn finish(host: &Path, meta: &Meta, is_link: bool, is_root: bool) -> io::Result<()> {
    if is_root {
        lchown(host, Some(meta.uid), Some(meta.gid))?;
    }
    if !is_link {
        fs::set_permissions(host, fs::Permissions::from_mode(u32::from(meta.mode)))?;
    }
    let time = Timespec { tv_sec: meta.mtime.0, tv_nsec: i64::from(meta.mtime.1) };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, host, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let add = |tree: &mut Tree, parent, name: &str, mode, kind| {
            let meta = Meta { mtime: (1000, 5), ..Meta::new(mode) };
            let id = tree.add(Node { meta, kind, origin: None });
            tree.link(parent, name.as_bytes(), id);
            id
        };
        let dir = add(&mut tree, Tree::ROOT, "d", 0o555, Kind::Dir(Default::default()));
        let file = add(&mut tree, dir, "f", 0o4755, Kind::File(Content::from_bytes(*b"hello")));
        tree.link(Tree::ROOT, b"hard", file);
        add(&mut tree, dir, "l", 0o777, Kind::Symlink(b"../nowhere".to_vec()));
        add(&mut tree, Tree::ROOT, "p", 0o640, Kind::Fifo);
        tree
    }

    #[test]
    fn what_is_written_is_what_the_tree_has() {
        let place = std::env::temp_dir().join(format!("ukc-rootfs-write-{}", std::process::id()));
        let outside = place.join("outside");
        let out = place.join("out");
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(&out).unwrap();
        fs::write(outside.join("precious"), "mine").unwrap();
        fs::write(out.join("stays"), "x").unwrap();
        // A link that leads away where the tree has a directory.
        symlink(&outside, out.join("d")).unwrap();
        for _ in 0..2 {
            let written = tree().write_to(&out, &|| false).unwrap();
            assert_eq!(written, Written { count: 6, left_out: 0 });
            let meta = fs::metadata(out.join("d/f")).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.nlink(), meta.mtime(), meta.mtime_nsec()), (0o4755, 2, 1000, 5));
            assert_eq!(meta.ino(), fs::metadata(out.join("hard")).unwrap().ino());
            let dir = fs::symlink_metadata(out.join("d")).unwrap();
            assert_eq!((dir.is_dir(), dir.mode() & 0o777, dir.mtime()), (true, 0o555, 1000));
            assert_eq!(fs::read_link(out.join("d/l")).unwrap(), Path::new("../nowhere"));
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert!(out.join("stays").exists());
        let (path, error) = tree().write_to(&out, &|| true).unwrap_err();
        assert_eq!((path, error.to_string().as_str()), (out.clone(), "interrupted"));
        fs::set_permissions(out.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_dir_all(&place).unwrap();
    }
}
