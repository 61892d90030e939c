//! Directories: the entries below, minus what was removed, plus what was added.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::sync::SpinLock;
use libos_core::vfs::{DirEntry, Inode, RenameFlags, dirent_kind};
use libos_core::{Errno, Result};

use crate::inode::{Body, RamInode};

/// Cookies from here on are of added entries; those before are the lower directory's own. A directory with nothing below starts at half of it (before
/// that, 0, 1 and 2 are its dots), so that a layer can be put above a tmpfs.
const ADDED: u64 = 1 << 62;

/// What was changed in a directory.
#[derive(Default)]
pub struct Entries {
    state: SpinLock<State>,
}

#[derive(Default)]
struct State {
    /// Added names, and removed ones (`None`) that exist below.
    names: BTreeMap<Box<[u8]>, Entry>,
    next: u64,
}

struct Entry {
    /// Grows with every addition, so that a reader of the directory can go on where it was.
    order: u64,
    inode: Option<Arc<RamInode>>,
}

impl Entries {
    fn set(&self, name: &[u8], inode: Option<Arc<RamInode>>) {
        let mut state = self.state.lock();
        let order = state.next;
        state.next += 1;
        let old = state.names.insert(name.into(), Entry { order, inode });
        drop(state);
        drop(old);
    }

    fn remove(&self, name: &[u8]) {
        let old = self.state.lock().names.remove(name);
        drop(old);
    }
}

impl RamInode {
    fn entries(&self) -> Result<&Entries> {
        match &self.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The inode of a name.
    pub fn child(&self, name: &[u8]) -> Result<Arc<RamInode>> {
        if let Some(entry) = self.entries()?.state.lock().names.get(name) {
            return entry.inode.clone().ok_or(Errno::ENOENT);
        }
        match &self.below {
            Some(below) => self.shared.above(below.lookup(name)?),
            None => Err(Errno::ENOENT),
        }
    }

    /// Adds a name that does not exist.
    pub fn add(&self, name: &[u8], inode: Arc<RamInode>) -> Result<()> {
        if self.is_removed() {
            return Err(Errno::ENOENT);
        }
        self.entries()?.set(name, Some(inode));
        self.touch();
        self.shared.keep(self);
        Ok(())
    }

    /// Takes a name away; one that exists below is hidden.
    fn take_away(&self, name: &[u8]) -> Result<()> {
        let entries = self.entries()?;
        let exists_below = match &self.below {
            Some(below) => match below.lookup(name) {
                Ok(_) => true,
                Err(Errno::ENOENT) => false,
                Err(errno) => return Err(errno),
            },
            None => false,
        };
        if exists_below {
            entries.set(name, None);
        } else {
            entries.remove(name);
        }
        self.touch();
        self.shared.keep(self);
        Ok(())
    }

    fn check_empty(&self) -> Result<()> {
        let mut is_empty = true;
        self.list(0, &mut |entry| {
            is_empty = matches!(entry.name, b"." | b"..");
            is_empty
        })?;
        if is_empty { Ok(()) } else { Err(Errno::ENOTEMPTY) }
    }

    /// See `Inode::unlink`.
    pub fn remove_name(&self, name: &[u8], is_dir: bool) -> Result<()> {
        let child = self.child(name)?;
        if is_dir {
            child.check_empty()?;
        }
        self.take_away(name)?;
        child.drop_link(is_dir);
        if is_dir {
            self.count_links(-1);
        }
        Ok(())
    }

    /// See `Inode::rename`.
    pub fn move_name(&self, name: &[u8], new_dir: &RamInode, new_name: &[u8], flags: RenameFlags) -> Result<()> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let moved = self.child(name)?;
        let replaced = match new_dir.child(new_name) {
            Ok(inode) => Some(inode),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        let subdirs = |inode: &RamInode| i32::from(matches!(inode.body, Body::Dir(_)));
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = replaced.ok_or(Errno::ENOENT)?;
            let difference = subdirs(&other) - subdirs(&moved);
            new_dir.add(new_name, moved)?;
            self.add(name, other)?;
            self.count_links(difference);
            new_dir.count_links(-difference);
            return Ok(());
        }
        if let Some(replaced) = &replaced
            && matches!(replaced.body, Body::Dir(_))
        {
            replaced.check_empty()?;
        }
        let moved_dirs = subdirs(&moved);
        // The old name goes first: this step reads below and can fail, the other cannot.
        self.take_away(name)?;
        moved.touch_change();
        new_dir.add(new_name, moved)?;
        if let Some(replaced) = replaced {
            let was_dir = subdirs(&replaced);
            replaced.drop_link(was_dir != 0);
            new_dir.count_links(-was_dir);
        }
        self.count_links(-moved_dirs);
        new_dir.count_links(moved_dirs);
        Ok(())
    }

    /// See `Inode::read_dir`.
    pub fn list(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let entries = self.entries()?;
        let added_from = if self.has_below() { ADDED } else { ADDED / 2 };
        let mut goes_on = true;
        if from < added_from {
            match &self.below {
                Some(below) => below.read_dir(from, &mut |entry| {
                    let is_changed = entries.state.lock().names.contains_key(entry.name);
                    goes_on = is_changed || emit(entry);
                    goes_on
                })?,
                None => {
                    for (cookie, name) in [(0, &b"."[..]), (1, b"..")] {
                        let entry = DirEntry { name, ino: self.number, kind: libos_core::abi::general::DT_DIR as u8, next: cookie + 1 };
                        goes_on = goes_on && (from > cookie || emit(&entry));
                    }
                }
            }
        }
        if !goes_on {
            return Ok(());
        }
        let first = from.saturating_sub(added_from);
        // `emit` may look at other inodes, so it is called without the lock, on a copy.
        let mut added: Vec<(u64, Box<[u8]>, Arc<RamInode>)> = Vec::new();
        for (name, entry) in &entries.state.lock().names {
            if let (Some(inode), true) = (&entry.inode, entry.order >= first) {
                added.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                added.push((entry.order, name.clone(), inode.clone()));
            }
        }
        added.sort_unstable_by_key(|(order, ..)| *order);
        for (order, name, inode) in added {
            let entry =
                DirEntry { name: &name, ino: inode.number, kind: dirent_kind(inode.attributes()?.mode), next: added_from + order + 1 };
            if !emit(&entry) {
                break;
            }
        }
        Ok(())
    }
}
