//! Inodes of /proc: each is a place in the tree, and everything is worked out from that.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFlags, RawFd};
use libos_core::task::{Task, Tid, current, table};
use libos_core::vfs::files::TextFile;
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{self, Attributes, DirEntry, FileSystem, Inode, Link, Stat, StatFs, dirent_kind};
use libos_core::{Errno, Result};

use crate::process::{self, Kind as ProcessKind};
use crate::system::{self, Entry, Kind as SystemKind};
use crate::text::Text;

const PROC_MAGIC: u64 = 0x9fa0;

/// Device number; there is one such file system, however often it is mounted.
const DEV: u64 = 0x15;

pub fn mount(_volume: Option<Arc<dyn Volume>>, _options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    Ok(Arc::new(ProcFs))
}

struct ProcFs;

impl FileSystem for ProcFs {
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(Node(Place::System(&system::ROOT)))
    }

    fn type_name(&self) -> &'static str {
        "proc"
    }

    fn stat_fs(&self) -> StatFs {
        StatFs { magic: PROC_MAGIC, block_bytes: 4096, name_max: 255, ..StatFs::default() }
    }
}

/// Where in the tree.
#[derive(Clone, Copy)]
enum Place {
    /// A file about the machine, or a directory of such; the root is one.
    System(&'static Entry),
    /// The directory of a task: of the process (false) or of one thread below `task` (true).
    Task(Tid, bool),
    /// A file in such a directory, by its number in the table.
    File(Tid, usize),
    /// A descriptor in `fd` (true) or `fdinfo` (false).
    Descriptor(Tid, RawFd, bool),
}

struct Node(Place);

fn node(place: Place) -> Arc<dyn Inode> {
    Arc::new(Node(place))
}

/// Who is looking: `/proc/self` is the process that asks.
fn find(tid: Tid) -> Result<Arc<Task>> {
    // A process that has ended keeps its directory until somebody waits for it, but nothing of it can be read any more.
    table::task(tid).map_err(|_| Errno::ESRCH)
}

fn number(name: &[u8]) -> Option<Tid> {
    let is_canonical = name.first().is_some_and(|b| *b != b'0' || name.len() == 1) && name.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(name).ok().filter(|_| is_canonical)?.parse().ok()
}

impl Node {
    fn mode(&self) -> u32 {
        let dir = linux::S_IFDIR | 0o555;
        let link = linux::S_IFLNK | 0o777;
        match self.0 {
            Place::System(entry) => match entry.kind {
                SystemKind::Dir(_) => dir,
                SystemKind::Link(_) => link,
                SystemKind::Text(_) | SystemKind::Fixed(_) => linux::S_IFREG | 0o444,
            },
            Place::Task(..) => dir,
            Place::File(_, index) => match process::TABLE[index].1 {
                ProcessKind::Link(_) => link,
                ProcessKind::Fd(_) => linux::S_IFDIR | 0o500,
                ProcessKind::Threads => dir,
                ProcessKind::Text(_) => linux::S_IFREG | 0o444,
                ProcessKind::Private(_) => linux::S_IFREG | 0o400,
                ProcessKind::Settable(..) => linux::S_IFREG | 0o644,
            },
            Place::Descriptor(tid, fd, true) => {
                // The permission bits of these links say how the file is open (proc(5)).
                let flags = find(tid).ok().and_then(|task| task.files().get(fd).ok()).map(|file| file.flags());
                let bit = |is_set: bool, bits: u32| if is_set { bits } else { 0 };
                flags.map_or(link, |f| linux::S_IFLNK | 0o100 | bit(f.can_read(), 0o400) | bit(f.can_write(), 0o200))
            }
            Place::Descriptor(_, _, false) => linux::S_IFREG | 0o400,
        }
    }

    /// A number that is the same each time: the place packed into bits.
    fn inode_number(&self) -> u64 {
        match self.0 {
            Place::System(entry) => 1 + core::ptr::from_ref(entry) as u64 % (1 << 31),
            Place::Task(tid, is_thread) => 1 << 32 | (tid as u64) << 12 | u64::from(is_thread) << 33,
            Place::File(tid, index) => 1 << 32 | (tid as u64) << 12 | (1 + index as u64),
            Place::Descriptor(tid, fd, is_link) => 1 << 62 | (tid as u64) << 32 | (fd as u64) << 1 | u64::from(is_link),
        }
    }

    fn task(&self) -> Result<Option<Arc<Task>>> {
        match self.0 {
            Place::System(_) => Ok(None),
            Place::Task(tid, _) | Place::File(tid, _) | Place::Descriptor(tid, ..) => find(tid).map(Some),
        }
    }

    /// Whether the caller may look into a process: it is his own, or he is privileged (ptrace(2), "Ptrace access mode checking").
    fn check_access(task: &Task) -> Result<()> {
        let me = current();
        let (mine, theirs) = (me.creds(), task.creds());
        let is_own = me.pid() == task.pid()
            || (mine.fsuid == theirs.uid && mine.fsuid == theirs.euid && mine.fsuid == theirs.suid && mine.fsgid == theirs.gid);
        if is_own || mine.has_capability(linux::CAP_SYS_PTRACE) { Ok(()) } else { Err(Errno::EACCES) }
    }
}

impl Inode for Node {
    fn attributes(&self) -> Result<Attributes> {
        let owner = match self.task() {
            Ok(Some(task)) => task.creds(),
            _ => return Ok(Attributes { mode: self.mode(), uid: 0, gid: 0 }),
        };
        Ok(Attributes { mode: self.mode(), uid: owner.euid, gid: owner.egid })
    }

    fn stat(&self) -> Result<Stat> {
        let attributes = self.attributes()?;
        let now = libos_core::time::realtime_ns();
        let now = ((now / 1_000_000_000) as i64, (now % 1_000_000_000) as u32);
        Ok(Stat {
            dev: DEV,
            ino: self.inode_number(),
            mode: attributes.mode,
            nlink: if attributes.is_dir() { 2 } else { 1 },
            uid: attributes.uid,
            gid: attributes.gid,
            size: if attributes.is_symlink() { 64 } else { 0 },
            block_bytes: 1024,
            atime: now,
            mtime: now,
            ctime: now,
            ..Stat::default()
        })
    }

    fn caches_names(&self) -> bool {
        false
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        match self.0 {
            Place::System(entry) => {
                let SystemKind::Dir(entries) = entry.kind else { return Err(Errno::ENOTDIR) };
                if let Some(found) = entries.iter().find(|e| e.name.as_bytes() == name) {
                    return Ok(node(Place::System(found)));
                }
                let is_root = core::ptr::eq(entry, &system::ROOT);
                let tid = number(name).filter(|_| is_root).ok_or(Errno::ENOENT)?;
                table::task(tid).map_err(|_| Errno::ENOENT)?;
                Ok(node(Place::Task(tid, false)))
            }
            Place::Task(tid, is_thread) => {
                let index = process::TABLE.iter().position(|(n, _)| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
                if is_thread && matches!(process::TABLE[index].1, ProcessKind::Threads) {
                    return Err(Errno::ENOENT);
                }
                Ok(node(Place::File(tid, index)))
            }
            Place::File(tid, index) => {
                let task = find(tid).map_err(|_| Errno::ENOENT)?;
                let wanted = number(name).ok_or(Errno::ENOENT)?;
                match process::TABLE[index].1 {
                    ProcessKind::Fd(is_link) => {
                        Node::check_access(&task)?;
                        task.files().get(wanted).map_err(|_| Errno::ENOENT)?;
                        Ok(node(Place::Descriptor(tid, wanted, is_link)))
                    }
                    ProcessKind::Threads => {
                        let is_member = task.process.threads().iter().any(|t| t.tid() == wanted);
                        if is_member { Ok(node(Place::Task(wanted, true))) } else { Err(Errno::ENOENT) }
                    }
                    _ => Err(Errno::ENOTDIR),
                }
            }
            Place::Descriptor(..) => Err(Errno::ENOTDIR),
        }
    }

    fn read_dir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        // Fixed names come first, numbers after them with the number in the cookie, so that a directory may change while it is read.
        const NUMBERS: u64 = 1 << 32;
        let mut names: Vec<(&str, u32)> = alloc::vec![(".", linux::S_IFDIR), ("..", linux::S_IFDIR)];
        let mut numbers: Vec<(Tid, u32)> = Vec::new();
        let add = |numbers: &mut Vec<(Tid, u32)>, more: Vec<Tid>, mode: u32| numbers.extend(more.into_iter().map(|n| (n, mode)));
        match self.0 {
            Place::System(entry) => {
                let SystemKind::Dir(entries) = entry.kind else { return Err(Errno::ENOTDIR) };
                names.extend(entries.iter().map(|e| (e.name, Node(Place::System(e)).mode())));
                if core::ptr::eq(entry, &system::ROOT) {
                    add(&mut numbers, table::processes().iter().map(|p| p.pid).collect(), linux::S_IFDIR);
                }
            }
            Place::Task(tid, is_thread) => {
                let shown = process::TABLE.iter().enumerate().filter(|(_, e)| !is_thread || !matches!(e.1, ProcessKind::Threads));
                names.extend(shown.map(|(i, e)| (e.0, Node(Place::File(tid, i)).mode())));
            }
            Place::File(tid, index) => {
                let task = find(tid)?;
                match process::TABLE[index].1 {
                    ProcessKind::Fd(is_link) => {
                        Node::check_access(&task)?;
                        let mode = if is_link { linux::S_IFLNK } else { linux::S_IFREG };
                        add(&mut numbers, task.files().descriptors(), mode);
                    }
                    ProcessKind::Threads => {
                        add(&mut numbers, task.process.threads().iter().map(|t| t.tid()).collect(), linux::S_IFDIR);
                    }
                    _ => return Err(Errno::ENOTDIR),
                }
            }
            Place::Descriptor(..) => return Err(Errno::ENOTDIR),
        }
        for (i, (name, mode)) in names.into_iter().enumerate() {
            let entry = DirEntry { name: name.as_bytes(), ino: i as u64 + 1, kind: dirent_kind(mode), next: i as u64 + 1 };
            if i as u64 >= from && !emit(&entry) {
                return Ok(());
            }
        }
        numbers.sort_unstable_by_key(|(number, _)| *number);
        for (number, mode) in numbers {
            let cookie = NUMBERS + number as u64;
            let name = format!("{number}");
            let entry = DirEntry { name: name.as_bytes(), ino: cookie, kind: dirent_kind(mode), next: cookie + 1 };
            if cookie >= from && !emit(&entry) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_link(&self) -> Result<Link> {
        match self.0 {
            Place::System(Entry { kind: SystemKind::Link(target), .. }) => {
                let mut text = Text::default();
                target(&mut text);
                Ok(Link::Path(text.0))
            }
            Place::File(tid, index) => {
                let ProcessKind::Link(target) = process::TABLE[index].1 else { return Err(Errno::EINVAL) };
                let task = find(tid).map_err(|_| Errno::ENOENT)?;
                Node::check_access(&task)?;
                target(&task).map(Link::Jump)
            }
            Place::Descriptor(tid, fd, true) => {
                let task = find(tid).map_err(|_| Errno::ENOENT)?;
                let file = task.files().get(fd).map_err(|_| Errno::ENOENT)?;
                match (&file.path, file.ops.inode()) {
                    (Some(place), _) => Ok(Link::Jump(place.clone())),
                    (None, Some(inode)) => {
                        let name = file.ops.anonymous_name().unwrap_or_default();
                        vfs::open::anonymous_place(inode, name.as_bytes()).map(Link::Jump)
                    }
                    // A socket or an epoll instance cannot be opened again.
                    (None, None) => Err(Errno::ENXIO),
                }
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn link_text(&self) -> Result<Vec<u8>> {
        if let Place::Descriptor(tid, fd, true) = self.0 {
            let task = find(tid).map_err(|_| Errno::ENOENT)?;
            let file = task.files().get(fd).map_err(|_| Errno::ENOENT)?;
            return Ok(match &file.path {
                Some(place) => vfs::path_from(&current().fs().root(), place),
                None => file.ops.anonymous_name().unwrap_or_else(|| format!("anon_inode:[file {fd}]")).into_bytes(),
            });
        }
        match self.read_link()? {
            Link::Path(path) => Ok(path),
            Link::Jump(place) => Ok(vfs::path_from(&current().fs().root(), &place)),
        }
    }

    fn open(self: Arc<Self>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let mut text = Text::default();
        match self.0 {
            Place::System(entry) => {
                if flags.can_write() {
                    return Err(Errno::EROFS);
                }
                match entry.kind {
                    SystemKind::Text(make) => make(&mut text),
                    SystemKind::Fixed(fixed) => text.line(format_args!("{fixed}")),
                    _ => return Err(Errno::EINVAL),
                }
            }
            Place::File(tid, index) => {
                let task = find(tid).map_err(|_| Errno::ENOENT)?;
                match process::TABLE[index].1 {
                    ProcessKind::Text(make) => make(&task, &mut text),
                    ProcessKind::Private(make) => {
                        Node::check_access(&task)?;
                        make(&task, &mut text);
                    }
                    ProcessKind::Settable(make, set) => {
                        make(&task, &mut text);
                        return Ok(Arc::new(process::SettableFile::new(task, text.0, set)));
                    }
                    _ => return Err(Errno::EINVAL),
                }
            }
            Place::Descriptor(tid, fd, false) => {
                let task = find(tid).map_err(|_| Errno::ENOENT)?;
                process::descriptor(&task, fd, &mut text)?;
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(Arc::new(TextFile::new(text.0)))
    }

    fn truncate(&self, _len_bytes: u64) -> Result<()> {
        // `echo 5 > /proc/self/oom_score_adj` opens with O_TRUNC.
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
