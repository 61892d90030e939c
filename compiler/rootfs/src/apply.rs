//! Layer application: changes, as a layer lists them, on a tree (OCI image-spec, layer.md, "Applying Changesets").
//!
//! ```text
//! etc/                     a directory: its metadata replaces that of a directory below, its children stay
//! etc/passwd               a file: replaces whatever had the name
//! etc/.wh.shadow           whiteout: the lower layers' etc/shadow is gone
//! var/cache/.wh..wh..opq   opaque: everything the lower layers have in var/cache is gone
//! ```
//!
//! All paths are confined to the tree: `..` stops at the root and symbolic links are followed inside it. Whiteouts see only what the lower layers
//! brought, so the result does not depend on where in the layer they stand (image-spec, layer.md, "Whiteouts").

use crate::{Kind, Meta, Node, NodeId, Origin, ResolveError, Tree, path};

/// Longest path of a change: PATH_MAX of Linux (limits.h). It also bounds the depth of a tree.
const MAX_PATH_BYTES: usize = 4096;
/// Longest name (NAME_MAX, limits.h).
const MAX_NAME_BYTES: usize = 255;
/// Deepest directory: what a path of PATH_MAX bytes can name. Links among the parents could go further; no later stage should have to care.
const MAX_DEPTH: usize = MAX_PATH_BYTES / 2;

/// One entry of a layer or an archive.
#[derive(Debug, Clone)]
pub struct Change {
    /// Where, relative to the directory the changes are applied to; any bytes.
    pub path: Vec<u8>,
    /// What happens there.
    pub action: Action,
}

/// What a [`Change`] does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Creates or replaces. A [`Kind::Dir`] must be empty.
    Put(Meta, Kind),
    /// Makes another name of the file at this path (relative to the same directory).
    HardLink(Vec<u8>),
    /// Removes what the lower layers have at the path.
    Whiteout,
    /// Removes the children that the lower layers have in the directory at the path.
    Opaque,
}

/// Why a change could not be applied; `path` is the change's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyError {
    /// The path as the layer spells it.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub why: ApplyErrorKind,
}

/// See [`ApplyError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyErrorKind {
    /// A component is longer than 255 bytes or holds a NUL, or the path is longer than 4096 bytes.
    BadName,
    /// Symbolic links among its parents lead nowhere (a loop).
    LinkLoop,
    /// A hard link's target is not in the tree.
    MissingTarget(Vec<u8>),
    /// A hard link to a directory (link(2): EPERM).
    LinkToDirectory(Vec<u8>),
    /// The root can only be a directory.
    RootReplaced,
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry `{}`: ", self.path.escape_ascii())?;
        match &self.why {
            ApplyErrorKind::BadName => f.write_str("its name is too long or holds a NUL byte"),
            ApplyErrorKind::LinkLoop => f.write_str("too many symbolic links on the way to it"),
            ApplyErrorKind::MissingTarget(target) => write!(f, "hard link to `{}`, which does not exist", target.escape_ascii()),
            ApplyErrorKind::LinkToDirectory(target) => write!(f, "hard link to the directory `{}`", target.escape_ascii()),
            ApplyErrorKind::RootReplaced => f.write_str("the root directory cannot be replaced by something else"),
        }
    }
}

impl std::error::Error for ApplyError {}

impl Tree {
    /// Applies the changes of one layer to the directory at `base` (created if missing). New nodes get `origin`.
    ///
    /// Order: first all whiteouts and opaque marks, then entries in their order, then hard links whose target came later.
    ///
    /// # Errors
    /// [`ApplyError`] for the first change that cannot be applied; the tree is then half changed and should be dropped.
    pub fn apply(&mut self, base: &[u8], changes: Vec<Change>, origin: Option<Origin>) -> Result<(), ApplyError> {
        let base = path::absolute(b"/", base);
        let mut puts = Vec::new();
        for change in changes {
            check(&change.path)?;
            let target = path::join(&base, &path::absolute(b"/", &change.path));
            match change.action {
                Action::Whiteout => self.whiteout(&target),
                Action::Opaque => {
                    if let Ok(found) = self.resolve(&target)
                        && let Kind::Dir(entries) = &mut self.node_mut(found.id).kind
                    {
                        entries.clear();
                    }
                }
                action => puts.push((change.path, target, action)),
            }
        }
        let mut late_links = Vec::new();
        for (name, target, action) in puts {
            match action {
                Action::Put(meta, kind) => {
                    self.put(&target, meta, kind, origin).map_err(|why| ApplyError { path: name, why })?;
                }
                Action::HardLink(to) => {
                    let to_abs = path::join(&base, &path::absolute(b"/", &to));
                    match self.hard_link(&to_abs, &target, origin) {
                        Err(ApplyErrorKind::MissingTarget(_)) => late_links.push((name, target, to, to_abs)),
                        result => result.map_err(|why| ApplyError { path: name, why })?,
                    }
                }
                Action::Whiteout | Action::Opaque => {}
            }
        }
        for (name, target, to, to_abs) in late_links {
            self.hard_link(&to_abs, &target, origin).map_err(|why| {
                let why = if matches!(why, ApplyErrorKind::MissingTarget(_)) { ApplyErrorKind::MissingTarget(to) } else { why };
                ApplyError { path: name, why }
            })?;
        }
        Ok(())
    }

    /// Removes the entry at `path`; a symbolic link is removed itself, a missing path is fine (layer.md: a whiteout may name what is not there).
    fn whiteout(&mut self, target: &[u8]) {
        let (dir, name) = path::split(target);
        if let Ok(dir) = self.resolve(dir)
            && self.entries(dir.id).is_some()
        {
            self.unlink(dir.id, name);
        }
    }

    /// Creates or replaces what is at `path` (absolute), with the parents that are missing (0755, root-owned). A directory over a directory keeps
    /// the children and takes the new metadata; everything else replaces.
    fn put(&mut self, target: &[u8], meta: Meta, kind: Kind, origin: Option<Origin>) -> Result<NodeId, ApplyErrorKind> {
        let (dir, name) = path::split(target);
        if name.is_empty() {
            if !matches!(kind, Kind::Dir(_)) {
                return Err(ApplyErrorKind::RootReplaced);
            }
            self.node_mut(Tree::ROOT).meta = meta;
            return Ok(Tree::ROOT);
        }
        let dir = self.make_dirs(dir, &Meta::new(0o755), origin).map_err(|_| ApplyErrorKind::LinkLoop)?;
        let existing = self.entries(dir).and_then(|e| e.get(name)).copied();
        if let (Some(id), Kind::Dir(_)) = (existing, &kind)
            && self.entries(id).is_some()
        {
            self.node_mut(id).meta = meta;
            return Ok(id);
        }
        let id = self.add(Node { meta, kind, origin });
        self.link(dir, name, id);
        Ok(id)
    }

    fn hard_link(&mut self, to: &[u8], target: &[u8], origin: Option<Origin>) -> Result<(), ApplyErrorKind> {
        // A hard link to a symbolic link names the link itself (linkat(2) without AT_SYMLINK_FOLLOW).
        let id = self.resolve_nofollow(to).map_err(|_| ApplyErrorKind::MissingTarget(to.to_vec()))?.id;
        if self.entries(id).is_some() {
            return Err(ApplyErrorKind::LinkToDirectory(to.to_vec()));
        }
        let (dir, name) = path::split(target);
        if name.is_empty() {
            return Err(ApplyErrorKind::RootReplaced);
        }
        let dir = self.make_dirs(dir, &Meta::new(0o755), origin).map_err(|_| ApplyErrorKind::LinkLoop)?;
        self.link(dir, name, id);
        Ok(())
    }

    /// Returns the directory at `path`, creating the components that are missing with `meta`. Symbolic links are followed inside the tree, also
    /// dangling ones (their target is created); a file in the way is replaced, because the caller says that something lies below it.
    ///
    /// # Errors
    /// [`ResolveError::Loop`].
    pub fn make_dirs(&mut self, target: &[u8], meta: &Meta, origin: Option<Origin>) -> Result<NodeId, ResolveError> {
        self.make_dirs_with(target, true, &mut |_| meta.clone(), origin)
    }

    /// As [`Tree::make_dirs`], with the metadata of each new directory by its path, and optionally refusing to replace a file.
    ///
    /// # Errors
    /// [`ResolveError::Loop`], and [`ResolveError::NotADirectory`] unless `replace`.
    pub fn make_dirs_with(
        &mut self,
        target: &[u8],
        replace: bool,
        meta: &mut dyn FnMut(&[u8]) -> Meta,
        origin: Option<Origin>,
    ) -> Result<NodeId, ResolveError> {
        let mut stack: Vec<(Vec<u8>, NodeId)> = vec![(Vec::new(), Tree::ROOT)];
        let mut todo: Vec<Vec<u8>> = path::components(target).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let dir = stack.last().expect("the root stays").1;
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let child = self.entries(dir).and_then(|e| e.get(name.as_slice())).copied();
            if let Some(child) = child {
                match &self.node(child).kind {
                    Kind::Dir(_) => {
                        stack.push((name, child));
                        continue;
                    }
                    Kind::Symlink(link) => {
                        links += 1;
                        // A link may add at most PATH_MAX bytes, 40 times: the depth stays bounded.
                        if links > crate::resolve::MAX_LINKS || link.len() > MAX_PATH_BYTES {
                            return Err(ResolveError::Loop);
                        }
                        if link.starts_with(b"/") {
                            stack.truncate(1);
                        }
                        todo.extend(path::components(link).rev().map(<[u8]>::to_vec));
                        continue;
                    }
                    _ if replace => {}
                    _ => return Err(ResolveError::NotADirectory),
                }
            }
            if stack.len() > MAX_DEPTH {
                return Err(ResolveError::Loop);
            }
            let mut at = Vec::new();
            for part in stack[1..].iter().map(|(n, _)| n).chain([&name]) {
                at.push(b'/');
                at.extend_from_slice(part);
            }
            let new = self.add(Node { meta: meta(&at), kind: Kind::Dir(Default::default()), origin });
            self.link(dir, &name, new);
            stack.push((name, new));
        }
        Ok(stack.last().expect("the root stays").1)
    }

    /// Creates or replaces a regular file at an absolute path, with its parents.
    ///
    /// # Errors
    /// [`ApplyErrorKind`] as [`Tree::apply`] gives it.
    pub fn write_file(&mut self, target: &[u8], content: crate::Content, meta: Meta) -> Result<NodeId, ApplyErrorKind> {
        check(target).map_err(|e| e.why)?;
        self.put(&path::absolute(b"/", target), meta, Kind::File(content), None)
    }
}

fn check(name: &[u8]) -> Result<(), ApplyError> {
    if name.len() > MAX_PATH_BYTES || name.contains(&0) || path::components(name).any(|c| c.len() > MAX_NAME_BYTES) {
        return Err(ApplyError { path: name.to_vec(), why: ApplyErrorKind::BadName });
    }
    Ok(())
}
