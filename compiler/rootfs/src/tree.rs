//! The tree itself: an arena of nodes (inodes), and directories that name them.
//!
//! A hard link is two directory entries with one [`NodeId`], as in a real file system, so link counts and shared contents need no special case.

use std::collections::BTreeMap;

use crate::Content;

/// One path component: any bytes but `/` and NUL, 1 to 255 of them.
pub type Name = Box<[u8]>;

/// Index of a node in its [`Tree`]; the root directory is [`Tree::ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// What brought a node into the tree: a number that the build stage gives a meaning (it maps to the span of an instruction), so that a missing
/// library found three stages later still points at its `COPY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(pub u32);

/// Metadata that every kind of node has (inode(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-user-ID, set-group-ID and sticky: `0o7777` at most, no file type.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time: seconds since the epoch (may be negative) and nanoseconds in `0..1_000_000_000`.
    pub mtime: (i64, u32),
    /// Extended attributes with their full names (`security.capability`), xattr(7).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Returns the metadata of a node made by nobody in particular: root-owned, at the epoch.
    pub fn new(mode: u16) -> Meta {
        Meta { mode, uid: 0, gid: 0, mtime: (0, 0), xattrs: BTreeMap::new() }
    }
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory: its entries by name, in byte order.
    Dir(BTreeMap<Name, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target, uninterpreted.
    Symlink(Vec<u8>),
    /// A character device with its major and minor number.
    CharDevice(u32, u32),
    /// A block device with its major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// An inode.
#[derive(Debug, Clone)]
pub struct Node {
    /// Owner, mode, times, attributes.
    pub meta: Meta,
    /// Type and contents.
    pub kind: Kind,
    /// The instruction that brought this node here, when known.
    pub origin: Option<Origin>,
}

/// A file tree. Nodes that no directory names any more stay in the arena until [`Tree::compact`].
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// Returns a tree with nothing but a root directory (0755, root-owned).
    pub fn new() -> Tree {
        Tree { nodes: vec![Node { meta: Meta::new(0o755), kind: Kind::Dir(BTreeMap::new()), origin: None }] }
    }

    /// Adds a node that no directory names yet.
    ///
    /// # Panics
    /// When the tree would hold more than `u32::MAX` nodes.
    pub fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("a tree of more than 4 G nodes"));
        self.nodes.push(node);
        id
    }

    /// Names `child` in the directory `dir`, replacing what had that name.
    ///
    /// # Panics
    /// When `dir` is not a directory.
    pub fn link(&mut self, dir: NodeId, name: &[u8], child: NodeId) -> Option<NodeId> {
        self.entries_mut(dir).insert(name.into(), child)
    }

    /// Removes the entry `name` of the directory `dir` and returns what it named.
    ///
    /// # Panics
    /// When `dir` is not a directory.
    pub fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.entries_mut(dir).remove(name)
    }

    /// Returns the node of an id of this tree.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Returns the node of an id of this tree, to change it.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// Returns the number of nodes in the arena, named or not; ids are `0..len`.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A tree always has its root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns the entries of a directory, or `None` when `id` is something else.
    pub fn entries(&self, id: NodeId) -> Option<&BTreeMap<Name, NodeId>> {
        match &self.node(id).kind {
            Kind::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, id: NodeId) -> &mut BTreeMap<Name, NodeId> {
        match &mut self.node_mut(id).kind {
            Kind::Dir(entries) => entries,
            other => panic!("not a directory: {other:?}"),
        }
    }

    /// Calls `visit` with the path (`/` first, then `/bin`, `/bin/sh`, ... in byte order, parents before children) and id of every named node.
    /// A node with several names is visited once for each.
    pub fn walk(&self, visit: &mut dyn FnMut(&[u8], NodeId)) {
        visit(b"/", Tree::ROOT);
        self.walk_from(Tree::ROOT, &mut |path, id| visit(path, id));
    }

    /// Calls `visit` for everything below the directory `dir`, as [`Tree::walk`] does, with paths that start with `/` at `dir`; not for `dir` itself.
    pub fn walk_from(&self, dir: NodeId, visit: &mut dyn FnMut(&[u8], NodeId)) {
        // A stack of our own: a tree may be deeper than a thread's.
        let mut path: Vec<u8> = Vec::new();
        let mut stack = Vec::new();
        if let Some(entries) = self.entries(dir) {
            stack.push((0, entries.iter()));
        }
        while let Some((parent_len, entries)) = stack.last_mut() {
            path.truncate(*parent_len);
            let Some((name, &id)) = entries.next() else {
                stack.pop();
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(name);
            visit(&path, id);
            if let Some(below) = self.entries(id) {
                stack.push((path.len(), below.iter()));
            }
        }
    }

    /// Returns a tree with the same names and only the nodes that have one.
    pub fn compact(&self) -> Tree {
        self.subtree(Tree::ROOT)
    }

    /// Returns the directory `dir` as the root of a tree of its own.
    ///
    /// # Panics
    /// When `dir` is not a directory.
    pub fn subtree(&self, dir: NodeId) -> Tree {
        let mut new_ids = vec![None; self.nodes.len()];
        let root = self.node(dir);
        assert!(matches!(root.kind, Kind::Dir(_)), "not a directory: {:?}", root.kind);
        let mut out = Tree { nodes: vec![Node { meta: root.meta.clone(), kind: Kind::Dir(BTreeMap::new()), origin: root.origin }] };
        let mut todo = vec![(dir, Tree::ROOT)];
        while let Some((old_dir, new_dir)) = todo.pop() {
            for (name, &old) in self.entries(old_dir).into_iter().flatten() {
                let new = *new_ids[old.0 as usize].get_or_insert_with(|| {
                    let node = self.node(old);
                    match &node.kind {
                        Kind::Dir(_) => {
                            let new = out.add(Node { meta: node.meta.clone(), kind: Kind::Dir(BTreeMap::new()), origin: node.origin });
                            todo.push((old, new));
                            new
                        }
                        _ => out.add(node.clone()),
                    }
                });
                out.link(new_dir, name, new);
            }
        }
        out
    }
}
