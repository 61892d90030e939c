//! What programs look for in /sys: the CPUs, transparent huge pages.
//!
//! A fixed tree; the table below is the list. Control groups are absent, which programs take for "no limit".
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::sync::Arc;
use core::any::Any;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFlags};
use libos_core::vfs::files::TextFile;
use libos_core::vfs::registry::{self, FileSystemType};
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{Attributes, DirEntry, FileSystem, Inode, Stat, StatFs, dirent_kind};
use libos_core::{Errno, Result};

libos_core::module! {
    name: sysfs,
    needs: [],
    init: init,
    syscalls: {},
}

static TYPE: FileSystemType = FileSystemType { name: "sysfs", needs_volume: false, probe: |_| false, mount };

fn init() {
    registry::register(&TYPE);
}

fn mount(_volume: Option<Arc<dyn Volume>>, _options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    Ok(Arc::new(SysFs))
}

const SYSFS_MAGIC: u64 = 0x6265_6572;
const DEV: u64 = 0x16;

struct SysFs;

impl FileSystem for SysFs {
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(Node(&ROOT))
    }

    fn type_name(&self) -> &'static str {
        "sysfs"
    }

    fn stat_fs(&self) -> StatFs {
        StatFs { magic: SYSFS_MAGIC, block_bytes: 4096, name_max: 255, ..StatFs::default() }
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

struct Entry {
    name: &'static str,
    content: Content,
}

enum Content {
    Dir(&'static [Entry]),
    Line(&'static str),
}

const fn dir(name: &'static str, entries: &'static [Entry]) -> Entry {
    Entry { name, content: Content::Dir(entries) }
}

const fn line(name: &'static str, text: &'static str) -> Entry {
    Entry { name, content: Content::Line(text) }
}

/// Pages are never huge here, which is what `never` says.
static ROOT: Entry = dir(
    "/",
    &[
        dir("block", &[]),
        dir("class", &[dir("net", &[])]),
        dir(
            "devices",
            &[dir(
                "system",
                &[
                    dir(
                        "cpu",
                        &[dir("cpu0", &[]), line("online", "0"), line("possible", "0"), line("present", "0"), line("kernel_max", "0")],
                    ),
                    dir("node", &[dir("node0", &[line("cpulist", "0"), line("cpumap", "1")]), line("online", "0"), line("possible", "0")]),
                ],
            )],
        ),
        dir("fs", &[dir("cgroup", &[])]),
        dir(
            "kernel",
            &[dir(
                "mm",
                &[
                    dir("hugepages", &[]),
                    dir(
                        "transparent_hugepage",
                        &[
                            line("defrag", "always defer defer+madvise madvise [never]"),
                            line("enabled", "always madvise [never]"),
                            line("hpage_pmd_size", "2097152"),
                            line("shmem_enabled", "always within_size advise [never] deny force"),
                            line("use_zero_page", "0"),
                        ],
                    ),
                ],
            )],
        ),
    ],
);

struct Node(&'static Entry);

impl Node {
    fn mode(&self) -> u32 {
        match self.0.content {
            Content::Dir(_) => linux::S_IFDIR | 0o555,
            Content::Line(_) => linux::S_IFREG | 0o444,
        }
    }

    /// The address of the entry, which never changes.
    fn number(&self) -> u64 {
        1 + core::ptr::from_ref(self.0) as u64 % (1 << 31)
    }
}

impl Inode for Node {
    fn attributes(&self) -> Result<Attributes> {
        Ok(Attributes { mode: self.mode(), uid: 0, gid: 0 })
    }

    fn stat(&self) -> Result<Stat> {
        let size = match self.0.content {
            Content::Dir(_) => 0,
            Content::Line(_) => 4096,
        };
        let nlink = if size == 0 { 2 } else { 1 };
        Ok(Stat { dev: DEV, ino: self.number(), mode: self.mode(), nlink, size, block_bytes: 4096, ..Stat::default() })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Content::Dir(entries) = self.0.content else { return Err(Errno::ENOTDIR) };
        let entry = entries.iter().find(|entry| entry.name.as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(Arc::new(Node(entry)))
    }

    fn read_dir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let Content::Dir(entries) = self.0.content else { return Err(Errno::ENOTDIR) };
        let dots = [(".", self.number(), self.mode()), ("..", self.number(), self.mode())];
        let rest = entries.iter().map(|entry| (entry.name, Node(entry).number(), Node(entry).mode()));
        for (i, (name, ino, mode)) in dots.into_iter().chain(rest).enumerate() {
            let entry = DirEntry { name: name.as_bytes(), ino, kind: dirent_kind(mode), next: i as u64 + 1 };
            if i as u64 >= from && !emit(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let Content::Line(text) = self.0.content else { return Err(Errno::EINVAL) };
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(b'\n');
        Ok(Arc::new(TextFile::new(bytes)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_their_paths() {
        let mut at = SysFs.root();
        for name in ["devices", "system", "cpu", "online"] {
            at = at.lookup(name.as_bytes()).unwrap();
        }
        assert_eq!(at.attributes().unwrap().mode, linux::S_IFREG | 0o444);
        assert_eq!(at.lookup(b"x").err(), Some(Errno::ENOTDIR));
    }
}
