//! Files about a process or thread: the table, and the small ones.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicI32, Ordering};

use libos_core::file::{FileOps, OpenFile, OpenFlags, RawFd};
use libos_core::io::{IoDst, IoSrc};
use libos_core::task::Task;
use libos_core::task::process::Extension;
use libos_core::vfs::PathRef;
use libos_core::{Errno, Result};

use crate::text::Text;
use crate::{memory, stat, system};

/// Makes the text of a file about a task.
pub type Make = fn(&Task, &mut Text);

/// Takes what a program wrote.
pub type Set = fn(&Task, &[u8]) -> Result<()>;

/// What a name in the directory of a task is.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A text for everybody.
    Text(Make),
    /// A text for those who may look into the process.
    Private(Make),
    /// A text that can be written.
    Settable(Make, Set),
    /// A magic link.
    Link(fn(&Task) -> Result<PathRef>),
    /// `fd` (true), `fdinfo` (false).
    Fd(bool),
    /// `task`.
    Threads,
}

/// The directory of a task (proc(5)).
pub static TABLE: &[(&str, Kind)] = &[
    ("auxv", Kind::Private(memory::auxv)),
    ("cgroup", Kind::Text(|_, t| t.line(format_args!("0::/")))),
    ("cmdline", Kind::Text(memory::cmdline)),
    ("comm", Kind::Settable(comm, set_comm)),
    ("coredump_filter", Kind::Text(|_, t| t.line(format_args!("00000033")))),
    ("cwd", Kind::Link(|task| task.fs_opt().map(|fs| fs.cwd()).ok_or(Errno::ENOENT))),
    ("environ", Kind::Private(memory::environ)),
    ("exe", Kind::Link(exe)),
    ("fd", Kind::Fd(true)),
    ("fdinfo", Kind::Fd(false)),
    ("gid_map", Kind::Text(id_map)),
    ("io", Kind::Private(io)),
    ("limits", Kind::Text(stat::limits)),
    ("loginuid", Kind::Text(|_, t| t.part(format_args!("4294967295")))),
    ("maps", Kind::Private(memory::maps)),
    ("mountinfo", Kind::Text(|_, t| system::mount_info(t))),
    ("mounts", Kind::Text(|_, t| system::mount_table(t))),
    ("oom_adj", Kind::Text(|_, t| t.line(format_args!("0")))),
    ("oom_score", Kind::Text(|_, t| t.line(format_args!("0")))),
    ("oom_score_adj", Kind::Settable(oom_score_adj, set_oom_score_adj)),
    ("personality", Kind::Private(|task, t| t.line(format_args!("{:08x}", task.process.personality.load(Ordering::Relaxed))))),
    ("root", Kind::Link(|task| task.fs_opt().map(|fs| fs.root()).ok_or(Errno::ENOENT))),
    ("schedstat", Kind::Text(|task, t| t.line(format_args!("{} 0 0", task.sched.run_ns())))),
    ("setgroups", Kind::Text(|_, t| t.line(format_args!("allow")))),
    ("smaps", Kind::Private(memory::smaps)),
    ("smaps_rollup", Kind::Private(memory::smaps_rollup)),
    ("stat", Kind::Text(stat::stat)),
    ("statm", Kind::Text(stat::statm)),
    ("status", Kind::Text(stat::status)),
    ("task", Kind::Threads),
    ("uid_map", Kind::Text(id_map)),
    ("wchan", Kind::Text(|_, t| t.part(format_args!("0")))),
];

fn id_map(_task: &Task, text: &mut Text) {
    text.line(format_args!("         0          0 4294967295"));
}

fn io(_task: &Task, text: &mut Text) {
    for name in ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"] {
        text.line(format_args!("{name}: 0"));
    }
}

fn exe(task: &Task) -> Result<PathRef> {
    task.mm_opt().and_then(|mm| mm.program().exe?.path.clone()).ok_or(Errno::ENOENT)
}

fn comm(task: &Task, text: &mut Text) {
    text.bytes(&task.name_bytes());
    text.bytes(b"\n");
}

fn set_comm(task: &Task, bytes: &[u8]) -> Result<()> {
    // As it is written: Linux keeps the line end of `echo`, too.
    task.set_name(bytes);
    Ok(())
}

/// What is kept for a process because it was written here.
#[derive(Default)]
struct Kept {
    oom_score_adj: AtomicI32,
}

impl Extension for Kept {}

fn oom_score_adj(task: &Task, text: &mut Text) {
    let value = task.process.find_extension::<Kept>().map_or(0, |kept| kept.oom_score_adj.load(Ordering::Relaxed));
    text.line(format_args!("{value}"));
}

fn set_oom_score_adj(task: &Task, bytes: &[u8]) -> Result<()> {
    let value: i32 = core::str::from_utf8(bytes.trim_ascii()).ok().and_then(|t| t.parse().ok()).ok_or(Errno::EINVAL)?;
    if !(-1000..=1000).contains(&value) {
        return Err(Errno::EINVAL);
    }
    task.process.extension::<Kept>().oom_score_adj.store(value, Ordering::Relaxed);
    Ok(())
}

/// A file in fdinfo.
pub fn descriptor(task: &Task, fd: RawFd, text: &mut Text) -> Result<()> {
    let files = task.files();
    let file = files.get(fd).map_err(|_| Errno::ENOENT)?;
    let mut flags = file.flags();
    flags.set(OpenFlags::CLOEXEC, files.close_on_exec(fd).unwrap_or(false));
    let (mount, inode) = match &file.path {
        Some(place) => (place.mount.id, place.inode().stat().map_or(0, |s| s.ino)),
        None => (15, file.ops.stat().map_or(0, |s| s.ino)),
    };
    let position = *file.offset.lock();
    text.line(format_args!("pos:\t{position}\nflags:\t0{:o}\nmnt_id:\t{mount}\nino:\t{inode}", flags.bits()));
    Ok(())
}

/// A file whose text can be read and set.
pub struct SettableFile {
    task: Arc<Task>,
    text: Vec<u8>,
    set: Set,
}

impl SettableFile {
    pub fn new(task: Arc<Task>, text: Vec<u8>, set: Set) -> SettableFile {
        SettableFile { task, text, set }
    }
}

/// Longest value that is taken.
const VALUE_MAX: usize = 128;

impl FileOps for SettableFile {
    fn read_at(&self, _file: &OpenFile, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.text.len());
        dst.push(&self.text[from..])
    }

    fn write_at(&self, _file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        let total = src.remaining();
        let mut bytes = vec![0; total.min(VALUE_MAX)];
        let count = src.pull(&mut bytes)?;
        (self.set)(&self.task, &bytes[..count])?;
        Ok(total)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64> {
        libos_core::vfs::default_seek(self.text.len() as u64, file, offset, whence)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
