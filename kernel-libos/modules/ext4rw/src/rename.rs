//! Moving and exchanging names, in one transaction.

use alloc::sync::Arc;

use libos_core::{Errno, Result};
use ukc_ext4_layout::dir::Entry;

use crate::dir;
use crate::inode::Inode;
use crate::state::{Fs, State, now};

/// Moves `name` of one directory to `new_name` of another, or the same, replacing what is there; or exchanges both.
///
/// # Errors
/// `ENOENT`, `ENOTEMPTY`, `ENOSPC`, `EUCLEAN`, `EIO`.
pub fn rename(
    fs: &Arc<Fs>,
    state: &mut State,
    (old_dir, name): (&Arc<Inode>, &[u8]),
    (new_dir, new_name): (&Arc<Inode>, &[u8]),
    exchanges: bool,
) -> Result<()> {
    let found = dir::find(state, old_dir, &old_dir.meta.lock(), name)?.ok_or(Errno::ENOENT)?;
    let target = dir::find(state, new_dir, &new_dir.meta.lock(), new_name)?;
    let moved = fs.inode(found.inode, state)?;
    let moved_mode = moved.meta.lock().mode;
    let moved_is_dir = moved.meta.lock().is_dir();
    let replaced = target.map(|t| fs.inode(t.inode, state)).transpose()?;
    let (replaced_mode, replaced_is_dir) = replaced.as_ref().map_or((0, false), |r| {
        let meta = r.meta.lock();
        (meta.mode, meta.is_dir())
    });
    if let (Some(replaced), true, false) = (&replaced, replaced_is_dir, exchanges)
        && !dir::is_empty(state, &replaced.meta.lock())?
    {
        return Err(Errno::ENOTEMPTY);
    }
    match &target {
        Some(target) => dir::set(state, new_dir, &mut new_dir.meta.lock(), target, moved.number, dir::kind_of(moved_mode))?,
        None => {
            let entry = Entry { inode: moved.number, file_type: dir::kind_of(moved_mode), name: new_name };
            dir::insert(state, new_dir, &mut new_dir.meta.lock(), &entry)?;
        }
    }
    // Looked up again: adding the new name may have moved the old one's surroundings.
    let found = dir::find(state, old_dir, &old_dir.meta.lock(), name)?.ok_or(Errno::ENOENT)?;
    match (&replaced, exchanges) {
        (Some(replaced), true) => {
            dir::set(state, old_dir, &mut old_dir.meta.lock(), &found, replaced.number, dir::kind_of(replaced_mode))?;
        }
        _ => dir::remove(state, old_dir, &mut old_dir.meta.lock(), name, &found)?,
    }
    let is_same_dir = Arc::ptr_eq(old_dir, new_dir);
    if !is_same_dir && moved_is_dir {
        set_parent(state, &moved, new_dir)?;
    }
    if let (Some(replaced), true, true, false) = (&replaced, exchanges, replaced_is_dir, is_same_dir) {
        set_parent(state, replaced, old_dir)?;
    }
    // Directories count those below them: one moves away, one comes, one may go for good.
    let (from_new, from_old) = match exchanges {
        true => (i32::from(moved_is_dir) - i32::from(replaced_is_dir), i32::from(replaced_is_dir) - i32::from(moved_is_dir)),
        false => (i32::from(moved_is_dir) - i32::from(replaced_is_dir), -i32::from(moved_is_dir)),
    };
    let time = now();
    for (dir, change) in [(old_dir, from_old), (new_dir, from_new)] {
        let mut meta = dir.meta.lock();
        meta.links = meta.links.saturating_add_signed(change);
        (meta.mtime, meta.ctime) = (time, time);
        state.touch(dir, &mut meta)?;
    }
    let mut meta = moved.meta.lock();
    meta.ctime = time;
    state.touch(&moved, &mut meta)?;
    drop(meta);
    match replaced {
        Some(replaced) if !exchanges => replaced.drop_name(state, replaced_is_dir),
        _ => Ok(()),
    }
}

fn set_parent(state: &mut State, moved: &Arc<Inode>, parent: &Arc<Inode>) -> Result<()> {
    let mut meta = moved.meta.lock();
    let dots = dir::find(state, moved, &meta, b"..")?.ok_or(Errno::EUCLEAN)?;
    dir::set(state, moved, &mut meta, &dots, parent.number, dir::kind_of(libos_core::abi::general::S_IFDIR))
}
