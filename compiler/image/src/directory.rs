//! Replaces a directory in one step.
//!
//! The new contents are made in a sibling, `.NAME.ukc-XXXXXX`, which is renamed over nothing, or exchanged with what is there
//! (renameat2(2), `RENAME_EXCHANGE`) and then removed with the old contents in it. File systems that cannot exchange get two renames.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use tempfile::TempDir;
use ukc_image_json::FILE_NAME;

use crate::machine::{CLOUD_HYPERVISOR_NAME, DISK_NAME, FIRECRACKER_NAME, XEN_NAME};
use crate::{ANALYSIS_NAME, ImageError, KERNEL_NAME, MAP_NAME, ROOTFS_NAME};

/// What an image directory may hold.
const OURS: [&str; 9] =
    [KERNEL_NAME, ROOTFS_NAME, ANALYSIS_NAME, MAP_NAME, FILE_NAME, DISK_NAME, FIRECRACKER_NAME, CLOUD_HYPERVISOR_NAME, XEN_NAME];

/// Between making a directory and locking it lie microseconds; a minute is beyond doubt.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// A directory that is being made to take the place of another. Dropped without [`Replacement::commit`], it vanishes.
#[derive(Debug)]
pub(crate) struct Replacement {
    target: PathBuf,
    parent: PathBuf,
    work: TempDir,
    /// Holds the lock that tells others that the work goes on.
    _lock: File,
}

impl Replacement {
    /// Begins to replace `dir`, which need not exist; its parents are made.
    pub fn new(dir: &Path) -> Result<Replacement, ImageError> {
        let failed = |source| ImageError::Write { path: dir.to_owned(), source };
        // A symbolic link is followed, so that the directory it names is replaced and not the link.
        let target = match fs::canonicalize(dir) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => std::path::absolute(dir).map_err(failed)?,
            Err(e) => return Err(failed(e)),
        };
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a directory that can be replaced")));
        };
        let parent = parent.to_owned();
        fs::create_dir_all(&parent).map_err(failed)?;
        check(&target)?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".ukc-");
        remove_abandoned(&parent, &prefix);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Less the umask, as any directory that a command makes.
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let work = builder.tempdir_in(&parent).map_err(failed)?;
        let lock = File::open(work.path()).map_err(failed)?;
        flock(&lock, FlockOperation::LockShared).map_err(|e| failed(e.into()))?;
        Ok(Replacement { target, parent, work, _lock: lock })
    }

    /// Returns the directory to fill.
    pub fn path(&self) -> &Path {
        self.work.path()
    }

    /// Puts the new directory in place; its files must be synced.
    pub fn commit(self) -> Result<(), ImageError> {
        let target = self.target;
        let failed = |source| ImageError::Write { path: target.clone(), source };
        sync(self.work.path()).map_err(failed)?;
        // Somebody may have put something there meanwhile.
        check(&target)?;
        match renameat_with(CWD, self.work.path(), CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                // Nothing is left under the name that the guard would remove.
                let _ = self.work.keep();
            }
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {
                match renameat_with(CWD, self.work.path(), CWD, &target, RenameFlags::EXCHANGE) {
                    // The guard removes the old contents.
                    Ok(()) => drop(self.work),
                    Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                        swap(&target, self.work, &self.parent).map_err(failed)?;
                    }
                    Err(e) => return Err(failed(e.into())),
                }
            }
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                swap(&target, self.work, &self.parent).map_err(failed)?;
            }
            Err(e) => return Err(failed(e.into())),
        }
        sync(&self.parent).map_err(failed)
    }
}

/// Removes what killed processes left: siblings that nobody has locked, and that are old enough not to have been made this moment. Failures do not
/// matter; the next build tries again.
fn remove_abandoned(parent: &Path, prefix: &OsStr) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_sibling = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        let is_old = || entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > ABANDONED_AFTER));
        if is_sibling && is_old() {
            let is_free = |dir: File| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok();
            if File::open(entry.path()).is_ok_and(is_free) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Two renames where one is not possible: the old directory steps aside first, and comes back when the second fails.
fn swap(target: &Path, work: TempDir, parent: &Path) -> io::Result<()> {
    let aside = tempfile::Builder::new().prefix(".ukc-old-").tempdir_in(parent)?;
    let old = aside.path().join("old");
    let is_moved = match fs::rename(target, &old) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e),
    };
    match fs::rename(work.path(), target) {
        Ok(()) => {
            let _ = work.keep();
            Ok(())
        }
        Err(e) => {
            if is_moved {
                fs::rename(&old, target)?;
            }
            Err(e)
        }
    }
}

/// Refuses a directory that holds anything but an image.
fn check(target: &Path) -> Result<(), ImageError> {
    let failed = |source| ImageError::Write { path: target.to_owned(), source };
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let mut foreign = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if !OURS.iter().any(|ours| name == *ours) {
            foreign.push(name.to_string_lossy().into_owned());
        }
    }
    match foreign.into_iter().min() {
        Some(entry) => Err(ImageError::NotAnImage { path: target.to_owned(), entry }),
        None => Ok(()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_work_in_progress_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("image");
        let age = |path: &Path| File::open(path).unwrap().set_modified(std::time::SystemTime::now() - 2 * ABANDONED_AFTER).unwrap();
        let abandoned = parent.path().join(".image.ukc-killed");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join(ROOTFS_NAME), "half").unwrap();
        age(&abandoned);
        let running = Replacement::new(&target).unwrap();
        age(running.path());
        assert!(!abandoned.exists());
        let other = Replacement::new(&target).unwrap();
        assert!(running.path().exists() && other.path().exists());
    }

    #[test]
    fn two_renames_do_the_same() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("image");
        for round in ["one", "two"] {
            let replacement = Replacement::new(&target).unwrap();
            fs::write(replacement.path().join(KERNEL_NAME), round).unwrap();
            swap(&target, replacement.work, parent.path()).unwrap();
            assert_eq!(fs::read_to_string(target.join(KERNEL_NAME)).unwrap(), round);
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "nothing is left over");
        }
    }
}
