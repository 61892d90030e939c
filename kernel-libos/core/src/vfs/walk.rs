//! From a path to a place, as path_resolution(7) says.
//!
//! A [`Walker`] holds what a walk depends on (credentials, root, limits of openat2(2)); a [`Cursor`] holds the path and how far the walk is in it. Components
//! are slices of the path, and known entries are found in the cache, so an ordinary walk allocates nothing; only symbolic links make a new path (the link's
//! text and what is left of the old path).

use alloc::sync::Arc;
use alloc::vec::Vec;

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::dentry::{self, Dentry, NAME_MAX};
use super::inode::Link;
use super::permission::{self, Want};
use super::{PathRef, mount};
use crate::task::Credentials;

/// Symbolic links that one walk follows at most (path_resolution(7)).
const LINKS_MAX: u32 = 40;

bitflags! {
    /// `RESOLVE_*` of openat2(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Resolve: u64 {
        const NO_XDEV = linux::RESOLVE_NO_XDEV as u64;
        const NO_MAGICLINKS = linux::RESOLVE_NO_MAGICLINKS as u64;
        const NO_SYMLINKS = linux::RESOLVE_NO_SYMLINKS as u64;
        const BENEATH = linux::RESOLVE_BENEATH as u64;
        const IN_ROOT = linux::RESOLVE_IN_ROOT as u64;
        const CACHED = linux::RESOLVE_CACHED as u64;
    }
}

/// What a walk depends on.
pub struct Walker<'a> {
    /// Who walks.
    pub creds: &'a Credentials,
    /// Where `/` is and `..` stops.
    pub root: PathRef,
    /// Limits of openat2(2).
    pub resolve: Resolve,
    /// With `BENEATH`, the directory that must not be left.
    pub beneath: Option<PathRef>,
    /// Links followed so far.
    pub links: u32,
}

/// A path and the position in it.
pub struct Cursor<'p> {
    original: &'p [u8],
    /// Takes the place of the original after a symbolic link.
    spliced: Option<Vec<u8>>,
    at: usize,
}

/// The last component of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Last {
    /// An ordinary name: a range of the cursor's path.
    Name(core::ops::Range<usize>),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// The path has no component: `/`.
    Root,
}

/// Where the last component is to be looked up or created.
pub struct Parent {
    /// The directory.
    pub dir: PathRef,
    /// The last component.
    pub last: Last,
    /// Whether slashes follow it.
    pub trailing_slash: bool,
}

impl<'p> Cursor<'p> {
    /// Returns a cursor at the start of a path.
    pub fn new(path: &'p [u8]) -> Cursor<'p> {
        Cursor { original: path, spliced: None, at: 0 }
    }

    /// The path walked now.
    pub fn path(&self) -> &[u8] {
        self.spliced.as_deref().unwrap_or(self.original)
    }

    /// The name of a last component.
    pub fn name(&self, last: &Last) -> &[u8] {
        match last {
            Last::Name(range) => &self.path()[range.clone()],
            Last::Dot => b".",
            Last::DotDot => b"..",
            Last::Root => b"/",
        }
    }

    fn skip_slashes(&mut self) -> bool {
        let rest = &self.path()[self.at..];
        let count = rest.iter().take_while(|&&b| b == b'/').count();
        self.at += count;
        count > 0
    }

    /// Puts a link's text in front of what is left.
    fn splice(&mut self, text: &[u8]) -> Result<()> {
        let rest = &self.path()[self.at..];
        let mut path = Vec::new();
        path.try_reserve_exact(text.len() + rest.len()).map_err(|_| Errno::ENOMEM)?;
        path.extend_from_slice(text);
        path.extend_from_slice(rest);
        self.spliced = Some(path);
        self.at = 0;
        Ok(())
    }
}

impl Walker<'_> {
    /// Walks to the end of the path. A symbolic link in last place is followed when `follow` or when slashes come after it.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`; `EXDEV` for what [`Resolve`] forbids; `EIO`.
    pub fn walk(&mut self, start: PathRef, path: &[u8], follow: bool) -> Result<PathRef> {
        let mut cursor = Cursor::new(path);
        let mut start = start;
        loop {
            let parent = self.parent(start, &mut cursor)?;
            match self.finish(&mut cursor, parent, follow)? {
                Step::At(place) => return Ok(place),
                Step::Again(from) => start = from,
                Step::Missing(..) => return Err(Errno::ENOENT),
            }
        }
    }

    /// Walks to the directory that holds the last component, from `start` or, when the path says so, from the root.
    ///
    /// # Errors
    /// As [`Walker::walk`].
    pub fn parent(&mut self, start: PathRef, cursor: &mut Cursor<'_>) -> Result<Parent> {
        if cursor.path().is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut dir = self.enter(start, cursor)?;
        if cursor.at == cursor.path().len() {
            return Ok(Parent { dir, last: Last::Root, trailing_slash: true });
        }
        loop {
            let attributes = dir.inode().attributes()?;
            if !attributes.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            permission::check(self.creds, attributes, Want::EXEC)?;
            let from = cursor.at;
            let path = cursor.path();
            let to = path[from..].iter().position(|&b| b == b'/').map_or(path.len(), |len| from + len);
            if to - from > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            let last = match &path[from..to] {
                b"." => Last::Dot,
                b".." => Last::DotDot,
                _ => Last::Name(from..to),
            };
            cursor.at = to;
            let trailing_slash = cursor.skip_slashes();
            if cursor.at == cursor.path().len() {
                return Ok(Parent { dir, last, trailing_slash });
            }
            let parent = Parent { dir, last, trailing_slash: true };
            dir = match self.finish(cursor, parent, true)? {
                Step::At(place) => place,
                Step::Missing(..) => return Err(Errno::ENOENT),
                Step::Again(from) => {
                    let dir = self.enter(from, cursor)?;
                    if cursor.at == cursor.path().len() {
                        return Ok(Parent { dir, last: Last::Root, trailing_slash: true });
                    }
                    dir
                }
            };
        }
    }

    /// Starts on a path: it is relative to `dir`, or absolute.
    fn enter(&self, dir: PathRef, cursor: &mut Cursor<'_>) -> Result<PathRef> {
        let is_absolute = cursor.at == 0 && cursor.path().first() == Some(&b'/');
        if !is_absolute {
            return Ok(dir);
        }
        cursor.skip_slashes();
        if self.resolve.contains(Resolve::BENEATH) {
            return Err(Errno::EXDEV);
        }
        self.crossed(&dir, self.root.clone())
    }

    /// Looks the last component up.
    ///
    /// # Errors
    /// As [`Walker::walk`].
    pub fn finish(&mut self, cursor: &mut Cursor<'_>, parent: Parent, follow: bool) -> Result<Step> {
        let Parent { dir, last, trailing_slash } = parent;
        let name = match &last {
            Last::Root | Last::Dot => return Ok(Step::At(dir)),
            Last::DotDot => {
                if self.resolve.contains(Resolve::BENEATH) && self.beneath.as_ref().is_some_and(|b| b.is_same(&dir)) {
                    return Err(Errno::EXDEV);
                }
                let up = dir.parent(&self.root);
                return self.crossed(&dir, up.cross()).map(Step::At);
            }
            Last::Name(range) => range.clone(),
        };
        let entry = child(&dir, &cursor.path()[name])?;
        let Some(inode) = entry.inode() else { return Ok(Step::Missing(Parent { dir, last, trailing_slash }, entry)) };
        let attributes = inode.attributes()?;
        if attributes.is_symlink() {
            if !follow && !trailing_slash {
                return Ok(Step::At(PathRef { mount: dir.mount, dentry: entry }));
            }
            if self.resolve.contains(Resolve::NO_SYMLINKS) {
                return Err(Errno::ELOOP);
            }
            self.links += 1;
            if self.links > LINKS_MAX {
                return Err(Errno::ELOOP);
            }
            return match inode.read_link()? {
                Link::Path(text) => {
                    if text.is_empty() {
                        return Err(Errno::ENOENT);
                    }
                    // The slashes after the component were skipped, but they say that the target must be a directory, and separate the rest.
                    cursor.at -= usize::from(trailing_slash);
                    cursor.splice(&text)?;
                    Ok(Step::Again(dir))
                }
                Link::Jump(place) => {
                    if self.resolve.intersects(Resolve::NO_MAGICLINKS | Resolve::BENEATH | Resolve::IN_ROOT) {
                        return Err(if self.resolve.contains(Resolve::NO_MAGICLINKS) { Errno::ELOOP } else { Errno::EXDEV });
                    }
                    let place = self.crossed(&dir, place)?;
                    if trailing_slash && !place.inode().attributes()?.is_dir() {
                        return Err(Errno::ENOTDIR);
                    }
                    Ok(Step::At(place))
                }
            };
        }
        if trailing_slash && !attributes.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let is_mount_point = entry.is_mount_point();
        let place = PathRef { mount: dir.mount.clone(), dentry: entry };
        if !is_mount_point {
            return Ok(Step::At(place));
        }
        self.crossed(&dir, place.cross()).map(Step::At)
    }

    fn crossed(&self, from: &PathRef, to: PathRef) -> Result<PathRef> {
        if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&from.mount, &to.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(to)
    }
}

/// Outcome of looking up the last component.
pub enum Step {
    /// It exists.
    At(PathRef),
    /// It is a symbolic link whose text is now in the cursor: go on from this directory.
    Again(PathRef),
    /// It does not exist: the negative entry, and where it would be.
    Missing(Parent, Arc<Dentry>),
}

/// The entry for a name in a directory, after promised mounts were made.
pub(super) fn child(dir: &PathRef, name: &[u8]) -> Result<Arc<Dentry>> {
    if Arc::ptr_eq(&dir.dentry, &dir.mount.root) && mount::has_promises() {
        mount::keep_promises(dir, Some(name));
    }
    dentry::lookup(&dir.dentry, name)
}
