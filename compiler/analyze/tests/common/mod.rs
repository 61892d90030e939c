//! Trees for tests: small ones made by hand, and views of the machine's own directories.
#![allow(dead_code)]

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use ukc_rootfs::{Content, ImageConfig, Kind, Meta, Node, NodeId, Origin, Tree};

/// Returns the directory at `path`, making it and those above it.
pub fn dir(tree: &mut Tree, path: &str) -> NodeId {
    let mut at = Tree::ROOT;
    for name in path.split('/').filter(|c| !c.is_empty()) {
        let existing = tree.entries(at).and_then(|e| e.get(name.as_bytes())).copied();
        at = existing.unwrap_or_else(|| {
            let id = tree.add(Node { meta: Meta::new(0o755), kind: Kind::Dir(Default::default()), origin: None });
            tree.link(at, name.as_bytes(), id);
            id
        });
    }
    at
}

/// Adds a file.
pub fn file(tree: &mut Tree, path: &str, mode: u16, bytes: impl Into<Arc<[u8]>>) -> NodeId {
    node(tree, path, mode, Kind::File(Content::from_bytes(bytes)))
}

/// Adds a symbolic link.
pub fn symlink(tree: &mut Tree, path: &str, target: &str) {
    node(tree, path, 0o777, Kind::Symlink(target.as_bytes().to_vec()));
}

fn node(tree: &mut Tree, path: &str, mode: u16, kind: Kind) -> NodeId {
    let (parent, name) = path.rsplit_once('/').expect("an absolute path");
    let parent = dir(tree, parent);
    let id = tree.add(Node { meta: Meta::new(mode), kind, origin: Some(Origin(1)) });
    tree.link(parent, name.as_bytes(), id);
    id
}

/// Adds the machine's directory `path` by reference.
pub fn host(tree: &mut Tree, path: &str) {
    if let Ok(target) = std::fs::read_link(path) {
        symlink(tree, path, target.to_str().expect("a link of the machine"));
        return;
    }
    let parent = dir(tree, path);
    host_below(tree, parent, Path::new(path));
}

fn host_below(tree: &mut Tree, parent: NodeId, path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = path.symlink_metadata() else { continue };
        let kind = if meta.is_dir() {
            Kind::Dir(Default::default())
        } else if meta.is_symlink() {
            Kind::Symlink(std::fs::read_link(&path).map(|t| t.as_os_str().as_bytes().to_vec()).unwrap_or_default())
        } else if meta.is_file() {
            Kind::File(Content::Host { path: Arc::new(path.clone()), offset: 0, len_bytes: meta.len() })
        } else {
            continue;
        };
        let own = Meta { uid: meta.uid(), gid: meta.gid(), ..Meta::new((meta.permissions().mode() & 0o7777) as u16) };
        let id = tree.add(Node { meta: own, kind, origin: None });
        tree.link(parent, entry.file_name().as_bytes(), id);
        if meta.is_dir() {
            host_below(tree, id, &path);
        }
    }
}

/// Returns a view of the machine's programs and libraries.
pub fn host_tree() -> Tree {
    let mut tree = Tree::new();
    for path in ["/bin", "/sbin", "/lib", "/lib64", "/etc", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64"] {
        host(&mut tree, path);
    }
    tree
}

/// Returns the tree below the machine's directory `path`.
pub fn tree_of(path: &str) -> Tree {
    let mut tree = Tree::new();
    host_below(&mut tree, Tree::ROOT, Path::new(path));
    tree
}

/// Returns a configuration that starts `argv`.
pub fn starts(argv: &[&str]) -> ImageConfig {
    ImageConfig { cmd: Some(argv.iter().map(|a| a.to_string()).collect()), ..ImageConfig::default() }
}
