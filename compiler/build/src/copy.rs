//! Copying from one tree into another, with the rules of COPY (BuildKit's fsutil, `copy.Copy`):
//!
//! | source | destination | result |
//! |---|---|---|
//! | file | `dir/`, or a directory | `dir/<name of the source>` |
//! | file | something else | that path, replacing a file or link |
//! | directory | missing | a new directory, 0755, with the source's contents |
//! | directory | a directory | the contents go in; directories of both are merged and take the source's metadata |
//! | directory | a file | an error |
//!
//! Symbolic links in the destination path are followed inside the target, the last component's included; links below it are replaced by files, and
//! are an error for directories.

use std::collections::{BTreeMap, HashMap};

use ukc_dockerfile::chmod::Chmod;
use ukc_rootfs::{Kind, Meta, Node, NodeId, Origin, ResolveError, Tree, path};

/// What becomes of the things that are copied.
pub(crate) struct Rules<'a> {
    /// `--chown`; else the source's owners.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`; else the source's modes.
    pub mode: Option<&'a Chmod>,
    /// What to mark new nodes with.
    pub origin: Origin,
    /// Date of directories that no source has.
    pub date: (i64, u32),
}

/// Why something could not be copied; paths are in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// A directory would have to replace something else.
    DirectoryOverOther(Vec<u8>),
    /// Something would have to replace a directory.
    OtherOverDirectory(Vec<u8>),
    /// The destination lies below something that is no directory.
    NotADirectory(Vec<u8>),
    /// Too many symbolic links on the way to the destination.
    LinkLoop(Vec<u8>),
}

/// What to copy of a directory.
pub(crate) enum Select<'a> {
    /// Everything.
    All,
    /// Paths (relative to the source directory) for which this holds, with the directories above them.
    If(&'a dyn Fn(&[u8]) -> bool),
}

impl Rules<'_> {
    /// Metadata of a directory that no source has.
    pub fn new_dir(&self) -> Meta {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Meta { uid, gid, mtime: self.date, ..Meta::new(0o755) }
    }

    fn apply(&self, node: &Node) -> Meta {
        let mut meta = node.meta.clone();
        if let Some((uid, gid)) = self.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if let Some(mode) = self.mode
            && !matches!(node.kind, Kind::Symlink(_))
        {
            meta.mode = mode.apply(u32::from(meta.mode), matches!(node.kind, Kind::Dir(_))) as u16;
        }
        meta
    }
}

/// Returns the directory at `dir`, with the missing ones made.
pub(crate) fn make_dirs(target: &mut Tree, dir: &[u8], rules: &Rules) -> Result<NodeId, Conflict> {
    let meta = rules.new_dir();
    target.make_dirs_with(dir, false, &mut |_| meta.clone(), Some(rules.origin)).map_err(|e| conflict(e, dir))
}

fn conflict(error: ResolveError, at: &[u8]) -> Conflict {
    match error {
        ResolveError::Loop => Conflict::LinkLoop(at.to_vec()),
        _ => Conflict::NotADirectory(at.to_vec()),
    }
}

/// Copies the node `from` of `source`, which was asked for as `name`, to `dest` of `target` (absolute; a trailing `/` means a directory). Returns how
/// many things were copied.
pub(crate) fn copy(
    source: &Tree,
    from: NodeId,
    name: &[u8],
    target: &mut Tree,
    dest: &[u8],
    select: &Select,
    rules: &Rules,
) -> Result<usize, Conflict> {
    let parent = if dest.ends_with(b"/") { dest } else { path::split(dest).0 };
    make_dirs(target, parent, rules)?;
    let mut at = target.resolve_for_creation(dest).map_err(|e| conflict(e, dest))?;
    let existing = target.resolve_nofollow(&at).ok();
    let is_dir_there = existing.is_some_and(|found| target.entries(found.id).is_some());
    let mut copier = Copier { source, target, rules, links: HashMap::new(), count: 0 };
    if source.entries(from).is_some() {
        if !is_dir_there && copier.target.resolve_nofollow(&at).is_ok() {
            return Err(Conflict::DirectoryOverOther(at));
        }
        let dir = make_dirs(copier.target, &at, rules)?;
        copier.contents(from, dir, &at, select)?;
    } else {
        if is_dir_there {
            at = path::join(&at, name);
        }
        let (dir, name) = path::split(&at);
        let dir = make_dirs(copier.target, dir, rules)?;
        copier.leaf(from, dir, name, &at)?;
    }
    Ok(copier.count)
}

struct Copier<'a> {
    source: &'a Tree,
    target: &'a mut Tree,
    rules: &'a Rules<'a>,
    /// Files of the source that are in the target already: hard links stay hard links.
    links: HashMap<NodeId, NodeId>,
    count: usize,
}

impl Copier<'_> {
    /// Copies what is in the directory `from` into the directory `to`, whose path is `at`.
    fn contents(&mut self, from: NodeId, to: NodeId, at: &[u8], select: &Select) -> Result<(), Conflict> {
        // Everything below, parents first.
        let mut all: Vec<(Vec<u8>, NodeId)> = Vec::new();
        self.source.walk_from(from, &mut |path, id| all.push((path[1..].to_vec(), id)));
        // Directories of the source by path: the target's node, once it is there.
        let mut dirs: BTreeMap<&[u8], (NodeId, Option<NodeId>)> = BTreeMap::from([(&b""[..], (from, Some(to)))]);
        for (rel, id) in &all {
            let is_dir = self.source.entries(*id).is_some();
            let is_selected = match select {
                Select::All => true,
                Select::If(test) => test(rel),
            };
            if is_dir {
                dirs.insert(rel, (*id, None));
            }
            if !is_selected {
                continue;
            }
            let (parent, name) = rel.iter().rposition(|&b| b == b'/').map_or((&b""[..], rel.as_slice()), |s| (&rel[..s], &rel[s + 1..]));
            let parent = self.dir(&mut dirs, parent, at)?;
            let here = || path::join(at, rel);
            if is_dir {
                let made = self.enter(*id, parent, name, &here(), true)?;
                dirs.insert(rel, (*id, Some(made)));
            } else {
                self.leaf(*id, parent, name, &here())?;
            }
        }
        Ok(())
    }

    /// Returns the target's directory for the source directory `rel`, making it and those above it if they were not selected themselves.
    fn dir<'p>(&mut self, dirs: &mut BTreeMap<&'p [u8], (NodeId, Option<NodeId>)>, rel: &'p [u8], at: &[u8]) -> Result<NodeId, Conflict> {
        // Upwards to what is there, then down again.
        let mut missing = vec![];
        let mut above = rel;
        let mut dir = loop {
            match dirs.get(above) {
                Some((_, Some(made))) => break *made,
                _ => missing.push(above),
            }
            above = above.iter().rposition(|&b| b == b'/').map_or(&b""[..], |s| &above[..s]);
        };
        for path_of_dir in missing.into_iter().rev() {
            let source = dirs[path_of_dir].0;
            dir = self.enter(source, dir, path::base(path_of_dir), &path::join(at, path_of_dir), false)?;
            dirs.insert(path_of_dir, (source, Some(dir)));
        }
        Ok(dir)
    }

    /// Makes or enters a directory; one that exists takes the source's metadata only if it was itself selected.
    fn enter(&mut self, from: NodeId, parent: NodeId, name: &[u8], at: &[u8], is_selected: bool) -> Result<NodeId, Conflict> {
        let node = self.source.node(from);
        let meta = self.rules.apply(node);
        self.count += usize::from(is_selected);
        match self.target.entries(parent).and_then(|e| e.get(name)).copied() {
            Some(id) if self.target.entries(id).is_none() => Err(Conflict::DirectoryOverOther(at.to_vec())),
            Some(id) => {
                if is_selected {
                    self.target.node_mut(id).meta = meta;
                }
                Ok(id)
            }
            None => {
                let id = self.target.add(Node { meta, kind: Kind::Dir(BTreeMap::new()), origin: Some(self.rules.origin) });
                self.target.link(parent, name, id);
                Ok(id)
            }
        }
    }

    /// Copies something that is not a directory.
    fn leaf(&mut self, from: NodeId, parent: NodeId, name: &[u8], at: &[u8]) -> Result<(), Conflict> {
        if let Some(&id) = self.target.entries(parent).and_then(|e| e.get(name))
            && self.target.entries(id).is_some()
        {
            return Err(Conflict::OtherOverDirectory(at.to_vec()));
        }
        let id = match self.links.get(&from) {
            Some(&id) => id,
            None => {
                let node = self.source.node(from);
                let new = Node { meta: self.rules.apply(node), kind: node.kind.clone(), origin: Some(self.rules.origin) };
                let id = self.target.add(new);
                self.links.insert(from, id);
                id
            }
        };
        self.target.link(parent, name, id);
        self.count += 1;
        Ok(())
    }
}
