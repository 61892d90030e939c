//! A directory of the host → a tree: the build context and named contexts.
//!
//! Kept: names (any bytes), modes, modification times, links, hard links, fifos, device nodes, and the extended attributes that belong to the file
//! rather than to the host (`user.*`, `security.capability`). Dropped: owners (everything is root's, as in BuildKit), sockets, and what
//! `.dockerignore` excludes. Symbolic links are not followed, so cycles are no trouble. What cannot be read is only remembered: it is an error when
//! an instruction asks for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ukc_diagnostics::{Diagnostic, SourceMap};
use ukc_rootfs::{Content, Kind, Meta, Node, NodeId, Tree};

use crate::ignore::Matcher;

/// A scanned context.
#[derive(Debug)]
pub(crate) struct Context {
    /// What an instruction can copy.
    pub tree: Tree,
    /// What `.dockerignore` excludes.
    pub ignore: Matcher,
    /// Paths that are there but cannot be read, with the system's words.
    pub unreadable: BTreeMap<Vec<u8>, String>,
    /// The directory, to look whether an excluded path exists.
    root: PathBuf,
}

impl Context {
    /// Opens the directory `root`; [`Context::fill`] then reads it. Its ignore file is `<dockerfile>.dockerignore` if that exists, else
    /// `.dockerignore` in the context.
    ///
    /// # Errors
    /// Diagnostics for a context that is no readable directory and for an ignore file that is broken.
    pub fn open(root: &Path, dockerfile: Option<&Path>, sources: &mut SourceMap) -> Result<Context, Vec<Diagnostic>> {
        let shown = root.display();
        let bad = |message: String| vec![Diagnostic::error("bad-context", message)];
        match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(bad(format!("the build context `{shown}` is not a directory"))),
            Err(e) => return Err(bad(format!("cannot read the build context `{shown}`: {e}"))),
        }
        let mut candidates = vec![root.join(".dockerignore")];
        if let Some(dockerfile) = dockerfile {
            let mut name: OsString = dockerfile.as_os_str().to_owned();
            name.push(".dockerignore");
            candidates.insert(0, name.into());
        }
        let mut ignore = Matcher::default();
        for path in candidates {
            match fs::read(&path) {
                Ok(bytes) => {
                    let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                    let file = sources.add(name, bytes.clone());
                    ignore = Matcher::from_file(&bytes, file).map_err(|found| found.into_iter().map(bad_line).collect::<Vec<_>>())?;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(bad(format!("cannot read `{}`: {e}", path.display()))),
            }
        }
        Ok(Context { tree: Tree::new(), ignore, unreadable: BTreeMap::new(), root: root.to_owned() })
    }

    /// Reads the directory into the tree, or only the entries of it that have these names.
    pub fn fill(mut self, only: Option<&BTreeSet<Vec<u8>>>) -> Context {
        (self.tree, self.unreadable) = (Tree::new(), BTreeMap::new());
        let mut scan = Scan { context: self, inodes: HashMap::new() };
        scan.run(only);
        scan.context
    }

    /// Whether the path (relative, clean) exists on the host, whatever `.dockerignore` says.
    pub fn exists_on_host(&self, path: &[u8]) -> bool {
        fs::symlink_metadata(self.root.join(OsStr::from_bytes(path))).is_ok()
    }
}

fn bad_line(bad: crate::BadPattern) -> Diagnostic {
    let diagnostic = Diagnostic::error("invalid-pattern", format!("`{}` cannot be used as a pattern: {}", bad.pattern, bad.why));
    match bad.span {
        Some(span) => diagnostic.at(span, ""),
        None => diagnostic,
    }
}

struct Scan {
    context: Context,
    /// Files with several names, by device and inode.
    inodes: HashMap<(u64, u64), NodeId>,
}

impl Scan {
    fn run(&mut self, only: Option<&BTreeSet<Vec<u8>>>) {
        let root = self.context.root.clone();
        if let Ok(meta) = fs::metadata(&root) {
            self.context.tree.node_mut(Tree::ROOT).meta.mtime = (meta.mtime(), meta.mtime_nsec() as u32);
        }
        // Directories to read: their path in the context, and their node unless they are excluded themselves.
        let mut todo: Vec<(Vec<u8>, Option<NodeId>)> = vec![(Vec::new(), Some(Tree::ROOT))];
        while let Some((dir, node)) = todo.pop() {
            let host_dir = root.join(OsStr::from_bytes(&dir));
            let entries = match fs::read_dir(&host_dir) {
                Ok(entries) => entries,
                Err(e) => {
                    self.context.unreadable.insert(dir, e.to_string());
                    continue;
                }
            };
            // The order of a directory is the file system's; ids of nodes must not depend on it.
            let mut names: Vec<Vec<u8>> = Vec::new();
            for entry in entries {
                match entry {
                    Ok(entry) => names.push(entry.file_name().into_vec()),
                    Err(e) => drop(self.context.unreadable.insert(dir.clone(), e.to_string())),
                }
            }
            if dir.is_empty()
                && let Some(only) = only
            {
                names.retain(|name| only.contains(name));
            }
            names.sort();
            let mut node = node;
            for name in names {
                let path = if dir.is_empty() { name.clone() } else { [dir.as_slice(), b"/", &name].concat() };
                let host = host_dir.join(OsStr::from_bytes(&name));
                let excluded = self.context.ignore.matches(&path);
                let meta = match fs::symlink_metadata(&host) {
                    Ok(meta) => meta,
                    Err(e) => {
                        // It vanished since the directory was read, or its path is too long for the system.
                        if !excluded {
                            self.context.unreadable.insert(path, e.to_string());
                        }
                        continue;
                    }
                };
                if excluded {
                    if meta.is_dir() && self.context.ignore.has_exceptions_below(&path) {
                        todo.push((path, None));
                    }
                    continue;
                }
                let parent = *node.get_or_insert_with(|| self.parents_of(&path));
                let Some(id) = self.node(&path, &host, &meta) else { continue };
                self.context.tree.link(parent, &name, id);
                if meta.is_dir() {
                    todo.push((path, Some(id)));
                }
            }
        }
    }

    /// Makes the directories above an included path that are excluded themselves.
    fn parents_of(&mut self, path: &[u8]) -> NodeId {
        let mut at = Tree::ROOT;
        for (end, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            let name = ukc_rootfs::path::base(&path[..end]);
            let known = self.context.tree.entries(at).and_then(|e| e.get(name)).copied();
            at = known.unwrap_or_else(|| {
                let host = self.context.root.join(OsStr::from_bytes(&path[..end]));
                let meta = fs::symlink_metadata(&host).map_or(Meta::new(0o755), |m| meta_of(&m, &host));
                let id = self.context.tree.add(Node { meta, kind: Kind::Dir(BTreeMap::new()), origin: None });
                self.context.tree.link(at, name, id);
                id
            });
        }
        at
    }

    fn node(&mut self, path: &[u8], host: &Path, meta: &fs::Metadata) -> Option<NodeId> {
        let key = (meta.dev(), meta.ino());
        if !meta.is_dir()
            && meta.nlink() > 1
            && let Some(&id) = self.inodes.get(&key)
        {
            return Some(id);
        }
        let kind = meta.file_type();
        let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let kind = if kind.is_dir() {
            Kind::Dir(BTreeMap::new())
        } else if kind.is_file() {
            Kind::File(Content::Host { path: Arc::new(host.to_owned()), offset: 0, len_bytes: meta.len() })
        } else if kind.is_symlink() {
            match fs::read_link(host) {
                Ok(target) => Kind::Symlink(target.into_os_string().into_vec()),
                Err(e) => {
                    self.context.unreadable.insert(path.to_vec(), e.to_string());
                    return None;
                }
            }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_char_device() {
            Kind::CharDevice(device().0, device().1)
        } else if kind.is_block_device() {
            Kind::BlockDevice(device().0, device().1)
        } else {
            // A socket means nothing without the process that listens on it.
            return None;
        };
        let id = self.context.tree.add(Node { meta: meta_of(meta, host), kind, origin: None });
        if meta.nlink() > 1 && !meta.is_dir() {
            self.inodes.insert(key, id);
        }
        Some(id)
    }
}

fn meta_of(meta: &fs::Metadata, host: &Path) -> Meta {
    Meta { mode: (meta.mode() & 0o7777) as u16, uid: 0, gid: 0, mtime: (meta.mtime(), meta.mtime_nsec() as u32), xattrs: xattrs(host) }
}

/// Returns the attributes that are part of the file. Labels of security modules, ACLs and the like are the host's own.
fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut out = BTreeMap::new();
    // xattr(7): the list of names is at most 64 KiB, and so is a value. Most files have no names, and one call says so.
    let mut names = vec![0; 256];
    let len = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(0) => return out,
        Ok(len) => len,
        Err(rustix::io::Errno::RANGE) => {
            names = vec![0; 1 << 16];
            rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0)
        }
        Err(_) => return out,
    };
    for name in names[..len].split(|&b| b == 0).filter(|n| n.starts_with(b"user.") || *n == b"security.capability") {
        let mut value = vec![0; 1 << 16];
        if let Ok(len) = rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
            value.truncate(len);
            out.insert(name.to_vec(), value);
        }
    }
    out
}
