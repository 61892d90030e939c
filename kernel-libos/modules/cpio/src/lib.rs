//! cpio archives (newc, cpio(5)): an initrd that is one becomes the root, and archives that others append to an initrd are unpacked over it.
//!
//! ```text
//! "070701" | 13 numbers of 8 hexadecimal digits | name, NUL | padding to 4 | data | padding to 4         ...         the entry `TRAILER!!!`
//! ```
//!
//! Archives may follow each other, with zeros in between (Linux, Documentation/driver-api/early-userspace/buffer-format.rst): urunc passes files to a
//! guest by appending one. What is unpacked lies in memory and may be changed.
//!
//! Differences from Linux: archives that are compressed are not unpacked; a path that leads through a symbolic link or `..` is left out.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod archive;
#[cfg(test)]
mod tests;
mod unpack;

use alloc::sync::Arc;

use libos_core::vfs::registry::{self, FileSystemType};
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{FileSystem, Inode};
use libos_core::{Errno, Result};

libos_core::module! {
    name: cpio,
    needs: [ramfs],
    init: init,
    syscalls: {},
}

static TYPE: FileSystemType = FileSystemType { name: "cpio", needs_volume: true, probe, mount };

fn init() {
    registry::register(&TYPE);
    registry::set_appendix(unpack_behind);
}

fn probe(volume: &Arc<dyn Volume>) -> bool {
    archive::is_archive(&**volume, 0)
}

fn mount(volume: Option<Arc<dyn Volume>>, _options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let volume = volume.ok_or(Errno::ENOTBLK)?;
    let fs = registry::mount("tmpfs", None, b"mode=755")?;
    unpack::unpack(&*volume, 0, &fs.root())?;
    Ok(fs)
}

/// Unpacks what comes behind an ext4 image.
fn unpack_behind(volume: &Arc<dyn Volume>, root: &Arc<dyn Inode>) {
    if let Some(from) = archive::end_of_ext4(&**volume)
        && let Err(errno) = unpack::unpack(&**volume, from, root)
    {
        libos_core::arch::report!("ukc: an archive behind the root file system is not unpacked: error ", u64::from(errno.0));
    }
}
