//! Names that the kernel itself adds to the tree and takes away: the terminals in /dev/pts.

use alloc::vec::Vec;

use libos_abi::Result;

use super::{NewNode, PathRef, boot, dentry, walk};
use crate::sync::SpinLock;
use crate::task::Task;

/// Directories that got names, by path: whoever removes one may not have a root of its own any more.
static PLACES: SpinLock<Vec<(Vec<u8>, PathRef)>> = SpinLock::new(Vec::new());

/// Adds a name to a directory, replacing what is there; nobody's permission is asked.
///
/// # Errors
/// `ENOTDIR`, `ENOMEM`, and what the file system answers.
pub fn add(task: &Task, dir: &[u8], name: &[u8], node: &NewNode<'_>) -> Result<()> {
    let known = PLACES.lock().iter().find(|(path, _)| path == dir).map(|(_, place)| place.clone());
    let place = match known {
        Some(place) => place,
        None => {
            let place = boot::make_dirs(&task.fs().root(), dir)?;
            PLACES.lock().push((dir.to_vec(), place.clone()));
            place
        }
    };
    remove_at(&place, name);
    let entry = walk::child(&place, name)?;
    let _guard = place.dentry.lock();
    dentry::instantiate(&entry, place.inode().create(name, node)?)?;
    Ok(())
}

/// Removes a name that [`add`] made, if it is still there.
pub fn remove(dir: &[u8], name: &[u8]) {
    let place = PLACES.lock().iter().find(|(path, _)| path == dir).map(|(_, place)| place.clone());
    if let Some(place) = place {
        remove_at(&place, name);
    }
}

fn remove_at(place: &PathRef, name: &[u8]) {
    let Ok(entry) = walk::child(place, name) else { return };
    let _guard = place.dentry.lock();
    if entry.inode().is_some() && place.inode().unlink(name, false).is_ok() {
        dentry::forget(&entry);
    }
}
