//! Path lookup inside a tree, with symbolic links confined to it (path_resolution(7), as if after chroot(2)).

use crate::{Kind, NodeId, Tree};

/// How many symbolic links one lookup may follow (path_resolution(7): 40).
pub(crate) const MAX_LINKS: usize = 40;

/// A successful lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The node, which is not a symbolic link unless asked for.
    pub id: NodeId,
    /// Its path without symbolic links: absolute inside the tree.
    pub path: Vec<u8>,
}

/// Why a lookup failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// A component does not exist (`ENOENT`).
    NotFound,
    /// A component that should be a directory is something else (`ENOTDIR`).
    NotADirectory,
    /// Too many symbolic links (`ELOOP`).
    Loop,
}

impl Tree {
    /// Looks `path` up from the root, following every symbolic link. Relative paths start at the root, `..` stops there.
    ///
    /// # Errors
    /// [`ResolveError`] as path_resolution(7) has it.
    pub fn resolve(&self, path: &[u8]) -> Result<Resolved, ResolveError> {
        self.resolve_from(b"/", path, true)
    }

    /// Looks `path` up as [`Tree::resolve`] does, but does not follow a symbolic link in the last component.
    ///
    /// # Errors
    /// As [`Tree::resolve`].
    pub fn resolve_nofollow(&self, path: &[u8]) -> Result<Resolved, ResolveError> {
        self.resolve_from(b"/", path, false)
    }

    /// Looks `path` up; a relative one starts at the directory `cwd` (an absolute path).
    ///
    /// # Errors
    /// As [`Tree::resolve`].
    pub fn resolve_from(&self, cwd: &[u8], path: &[u8], follow_last: bool) -> Result<Resolved, ResolveError> {
        // The stack of directories above and including the current node; `todo` holds the components still to walk, last first.
        let mut stack = vec![(Vec::new(), Tree::ROOT)];
        let mut todo: Vec<Vec<u8>> = Vec::new();
        let push =
            |todo: &mut Vec<Vec<u8>>, p: &[u8]| todo.extend(p.split(|&b| b == b'/').rev().filter(|c| !c.is_empty()).map(<[u8]>::to_vec));
        push(&mut todo, path);
        if !path.starts_with(b"/") {
            push(&mut todo, cwd);
        }
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let dir = stack.last().expect("the root stays").1;
            let Some(entries) = self.entries(dir) else { return Err(ResolveError::NotADirectory) };
            match name.as_slice() {
                b"." => {}
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                }
                _ => {
                    let id = *entries.get(name.as_slice()).ok_or(ResolveError::NotFound)?;
                    match &self.node(id).kind {
                        Kind::Symlink(target) if follow_last || !todo.is_empty() => {
                            links += 1;
                            if links > MAX_LINKS {
                                return Err(ResolveError::Loop);
                            }
                            if target.starts_with(b"/") {
                                stack.truncate(1);
                            }
                            push(&mut todo, target);
                        }
                        _ => stack.push((name, id)),
                    }
                }
            }
        }
        if path.ends_with(b"/") && self.entries(stack.last().expect("the root stays").1).is_none() {
            return Err(ResolveError::NotADirectory);
        }
        let id = stack.last().expect("the root stays").1;
        let mut out = Vec::new();
        for (name, _) in &stack[1..] {
            out.push(b'/');
            out.extend_from_slice(name);
        }
        if out.is_empty() {
            out.push(b'/');
        }
        Ok(Resolved { id, path: out })
    }

    /// Returns where `path` (absolute) would lie once all symbolic links on the way, the last component's included, are followed inside the tree;
    /// components that do not exist yet are taken as they stand. This is what opening a file for creation does (open(2), `O_CREAT`).
    ///
    /// # Errors
    /// [`ResolveError::Loop`], and [`ResolveError::NotADirectory`] when something lies below a file.
    pub fn resolve_for_creation(&self, path: &[u8]) -> Result<Vec<u8>, ResolveError> {
        let mut at: Vec<u8> = Vec::new();
        let mut todo: Vec<Vec<u8>> = crate::path::components(path).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    at.truncate(at.iter().rposition(|&b| b == b'/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let here = [at.as_slice(), b"/", &name].concat();
            match self.resolve_from(b"/", &here, false) {
                Ok(found) => match &self.node(found.id).kind {
                    Kind::Symlink(target) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(ResolveError::Loop);
                        }
                        if target.starts_with(b"/") {
                            at.clear();
                        }
                        todo.extend(crate::path::components(target).rev().map(<[u8]>::to_vec));
                    }
                    _ => at = here,
                },
                Err(ResolveError::NotFound) => at = here,
                Err(error) => return Err(error),
            }
        }
        Ok(if at.is_empty() { b"/".to_vec() } else { at })
    }
}
