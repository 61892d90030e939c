//! The files in /dev: what every container finds there (OCI runtime specification, "Default Devices"), and the memory devices themselves.
//!
//! The list below is a tiny read-only file system; the writable layer goes above it, so that programs can add to /dev and /dev/shm.
//!
//! Differences from Linux: there are no pseudo-terminals (`/dev/ptmx`), and `/dev/kmsg` is written only.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod memory;

use alloc::sync::Arc;
use core::any::Any;

use libos_core::abi::general as linux;
use libos_core::vfs::registry::{self, FileSystemType, make_dev};
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{Attachment, Attributes, DirEntry, FileSystem, Inode, Link, Stat, StatFs, dirent_kind};
use libos_core::{Errno, Result};

libos_core::module! {
    name: devfs,
    needs: [ramfs],
    init: init,
    syscalls: {},
}

static TYPE: FileSystemType = FileSystemType { name: "devtmpfs", needs_volume: false, probe: |_| false, mount };

fn init() {
    registry::register(&TYPE);
    registry::register_devices(memory::MAJOR, memory::open);
}

fn mount(_volume: Option<Arc<dyn Volume>>, _options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    registry::overlay(Arc::new(DevFs { dev: registry::anonymous_dev() }))
}

/// A file in /dev.
struct Entry {
    name: &'static [u8],
    mode: u32,
    rdev: u64,
    target: &'static [u8],
}

const fn device(name: &'static [u8], permissions: u32, major: u32, minor: u32) -> Entry {
    Entry { name, mode: linux::S_IFCHR | permissions, rdev: make_dev(major, minor), target: b"" }
}

const fn link(name: &'static [u8], target: &'static [u8]) -> Entry {
    Entry { name, mode: linux::S_IFLNK | 0o777, rdev: 0, target }
}

const fn dir(name: &'static [u8], permissions: u32) -> Entry {
    Entry { name, mode: linux::S_IFDIR | permissions, rdev: 0, target: b"" }
}

/// Device numbers: Documentation/admin-guide/devices.txt.
static ENTRIES: [Entry; 17] = [
    device(b"null", 0o666, memory::MAJOR, memory::NULL),
    device(b"zero", 0o666, memory::MAJOR, memory::ZERO),
    device(b"full", 0o666, memory::MAJOR, memory::FULL),
    device(b"random", 0o666, memory::MAJOR, memory::RANDOM),
    device(b"urandom", 0o666, memory::MAJOR, memory::URANDOM),
    device(b"kmsg", 0o644, memory::MAJOR, memory::KMSG),
    device(b"tty", 0o666, 5, 0),
    device(b"console", 0o620, 5, 1),
    device(b"ptmx", 0o666, 5, 2),
    link(b"fd", b"/proc/self/fd"),
    link(b"stdin", b"/proc/self/fd/0"),
    link(b"stdout", b"/proc/self/fd/1"),
    link(b"stderr", b"/proc/self/fd/2"),
    link(b"core", b"/proc/kcore"),
    dir(b"shm", 0o1777),
    dir(b"mqueue", 0o1777),
    dir(b"pts", 0o755),
];

struct DevFs {
    dev: u64,
}

impl FileSystem for DevFs {
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(Node { dev: self.dev, place: Place::Root, attachment: Attachment::new(None) })
    }

    fn type_name(&self) -> &'static str {
        "devtmpfs"
    }

    fn stat_fs(&self) -> StatFs {
        StatFs { magic: 0x0102_1994, block_bytes: 4096, name_max: 255, ..StatFs::default() }
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy)]
enum Place {
    Root,
    Entry(usize),
}

struct Node {
    dev: u64,
    place: Place,
    attachment: Attachment,
}

impl Node {
    fn mode(&self) -> u32 {
        match self.place {
            Place::Root => linux::S_IFDIR | 0o755,
            Place::Entry(i) => ENTRIES[i].mode,
        }
    }

    /// Root is 1, the entries follow.
    fn number(&self) -> u64 {
        match self.place {
            Place::Root => 1,
            Place::Entry(i) => i as u64 + 2,
        }
    }
}

impl Inode for Node {
    fn attributes(&self) -> Result<Attributes> {
        Ok(Attributes { mode: self.mode(), uid: 0, gid: 0 })
    }

    fn stat(&self) -> Result<Stat> {
        let (rdev, target) = match self.place {
            Place::Root => (0, &b""[..]),
            Place::Entry(i) => (ENTRIES[i].rdev, ENTRIES[i].target),
        };
        let is_dir = self.mode() & linux::S_IFMT == linux::S_IFDIR;
        Ok(Stat {
            dev: self.dev,
            ino: self.number(),
            mode: self.mode(),
            nlink: if is_dir { 2 } else { 1 },
            rdev,
            size: target.len() as u64,
            block_bytes: 4096,
            // Times stay 0. Linux shows when it booted; but every program of glibc's asks fstat(2) of its output, and reading and calibrating the clocks
            // for that answer, which nobody looks at, takes longer than all else such a program does.
            ..Stat::default()
        })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let index = match self.place {
            Place::Root => ENTRIES.iter().position(|entry| entry.name == name).ok_or(Errno::ENOENT)?,
            Place::Entry(_) => return Err(Errno::ENOENT),
        };
        Ok(Arc::new(Node { dev: self.dev, place: Place::Entry(index), attachment: Attachment::new(None) }))
    }

    fn read_dir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let entries: &[Entry] = if matches!(self.place, Place::Root) { &ENTRIES } else { &[] };
        let dots = [(&b"."[..], self.number(), linux::S_IFDIR), (b"..", 1, linux::S_IFDIR)];
        let rest = entries.iter().enumerate().map(|(i, entry)| (entry.name, i as u64 + 2, entry.mode));
        for (i, (name, ino, mode)) in dots.into_iter().chain(rest).enumerate() {
            let entry = DirEntry { name, ino, kind: dirent_kind(mode), next: i as u64 + 1 };
            if i as u64 >= from && !emit(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self) -> Result<Link> {
        match self.place {
            Place::Entry(i) if self.mode() & linux::S_IFMT == linux::S_IFLNK => Ok(Link::Path(ENTRIES[i].target.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn attachment(&self) -> Option<&Attachment> {
        Some(&self.attachment)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_found_by_the_name_it_is_listed_under() {
        let root = DevFs { dev: 1 }.root();
        let mut listed = 0;
        root.read_dir(2, &mut |entry| {
            let inode = root.lookup(entry.name).unwrap();
            assert_eq!((inode.stat().unwrap().ino, dirent_kind(inode.stat().unwrap().mode)), (entry.ino, entry.kind));
            listed += 1;
            true
        })
        .unwrap();
        assert_eq!(listed, ENTRIES.len());
        assert_eq!(root.lookup(b"nothing").err(), Some(Errno::ENOENT));
        assert!(matches!(root.lookup(b"stdout").unwrap().read_link(), Ok(Link::Path(target)) if target == b"/proc/self/fd/1"));
    }
}
