//! Files as programs hold them: the trait every kind of file implements, file descriptions, and descriptor tables.
//!
//! open(2) names the layers: a *file descriptor* is an index into a process's [`FdTable`]; it refers to an open *file description* ([`OpenFile`]), which
//! has the offset and the status flags and may be shared after dup(2) or fork(2); the description refers to the file itself ([`FileOps`]): an inode of a
//! file system, a pipe's end, a socket, an epoll instance.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use crate::io::{IoDst, IoSrc};
use crate::mm::PageSource;
use crate::poll::{PollEvents, PollTable};
use crate::sync::{Mutex, SpinLock};
use crate::vfs::{Inode, PathRef, locks, notify};

/// A file descriptor number.
pub type RawFd = i32;

bitflags! {
    /// Status and access flags of a file description: the `O_` constants of open(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        const WRONLY = linux::O_WRONLY;
        const RDWR = linux::O_RDWR;
        const CREAT = linux::O_CREAT;
        const EXCL = linux::O_EXCL;
        const NOCTTY = linux::O_NOCTTY;
        const TRUNC = linux::O_TRUNC;
        const APPEND = linux::O_APPEND;
        const NONBLOCK = linux::O_NONBLOCK;
        const DSYNC = linux::O_DSYNC;
        const SYNC = linux::O_SYNC;
        const ASYNC = linux::FASYNC;
        const DIRECT = linux::O_DIRECT;
        const LARGEFILE = linux::O_LARGEFILE;
        const DIRECTORY = linux::O_DIRECTORY;
        const NOFOLLOW = linux::O_NOFOLLOW;
        const NOATIME = linux::O_NOATIME;
        const CLOEXEC = linux::O_CLOEXEC;
        const PATH = linux::O_PATH;
        const TMPFILE = linux::O_TMPFILE;
    }
}

impl OpenFlags {
    /// Whether the access mode allows reading.
    pub fn can_read(self) -> bool {
        !self.contains(OpenFlags::WRONLY) && !self.contains(OpenFlags::PATH)
    }

    /// Whether the access mode allows writing.
    pub fn can_write(self) -> bool {
        self.intersects(OpenFlags::WRONLY.union(OpenFlags::RDWR)) && !self.contains(OpenFlags::PATH)
    }
}

/// What a kind of file does. Every method has the answer of a file that cannot do it.
///
/// Reads and writes may block; they honour `file.is_nonblocking()` with `EAGAIN`, and return the restart errno of the wait when a signal arrives
/// (`Errno::ERESTARTSYS`; see `task::wait`).
pub trait FileOps: Send + Sync + Any {
    /// Reads at `offset` (ignored by streams). Returns the bytes moved; 0 is end of file.
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        let _ = (file, dst, offset);
        Err(Errno::EINVAL)
    }

    /// Writes at `offset` (ignored by streams, and the end for `O_APPEND`). Returns the bytes moved and, for seekable files, the offset after them.
    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, offset: u64) -> Result<usize> {
        let _ = (file, src, offset);
        Err(Errno::EINVAL)
    }

    /// Whether the file has offsets: lseek(2) and pread(2) answer `ESPIPE` otherwise.
    fn is_seekable(&self) -> bool {
        false
    }

    /// Current readiness; registers with the file's wait queues when the table asks for it (poll(2), epoll(7)).
    fn poll(&self, file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        let _ = (file, table);
        // Regular files are always ready (poll(2)).
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    /// Device control.
    fn ioctl(&self, file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        let _ = (file, request, arg);
        Err(Errno::ENOTTY)
    }

    /// The pages of the file, for mmap(2) and for exec.
    fn page_source(&self, file: &OpenFile) -> Result<Arc<dyn PageSource>> {
        let _ = file;
        Err(Errno::ENODEV)
    }

    /// Status of the file itself; fstat(2) asks [`OpenFile::stat`], which prefers the inode of the path.
    fn stat(&self) -> Result<crate::vfs::Stat> {
        match self.inode() {
            Some(inode) => inode.stat(),
            None => Ok(crate::vfs::Stat::anonymous()),
        }
    }

    /// Directory entries from the description's offset on, until `emit` refuses one; leaves the offset at the cookie of the first that was not accepted.
    fn read_dir(&self, file: &OpenFile, emit: &mut dyn FnMut(&crate::vfs::DirEntry<'_>) -> bool) -> Result<()> {
        let _ = (file, emit);
        Err(Errno::ENOTDIR)
    }

    /// Moves the offset (lseek(2)); `SEEK_DATA` and `SEEK_HOLE` as well. The default serves files with a size.
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64> {
        if !self.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        crate::vfs::default_seek(file.stat()?.size, file, offset, whence)
    }

    /// Makes data durable (fsync(2)).
    fn sync(&self, data_only: bool) -> Result<()> {
        let _ = data_only;
        Err(Errno::EINVAL)
    }

    /// Changes the size (ftruncate(2)).
    fn truncate(&self, len_bytes: u64) -> Result<()> {
        let _ = len_bytes;
        Err(Errno::EINVAL)
    }

    /// Reserves or punches space (fallocate(2)).
    fn allocate(&self, mode: u32, offset: u64, len_bytes: u64) -> Result<()> {
        let _ = (mode, offset, len_bytes);
        Err(Errno::ENODEV)
    }

    /// The inode of a file that was not reached by a path but can be opened again through /proc/self/fd (a pipe). Files with a path need none here:
    /// [`OpenFile::inode`] knows it.
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        None
    }

    /// Called once, when a description of the file was made by open(2).
    fn opened(&self, file: &OpenFile) {
        let _ = file;
    }

    /// Reacts to a change of the status flags by fcntl(2).
    fn flags_changed(&self, file: &OpenFile) {
        let _ = file;
    }

    /// Returns the capacity of a pipe in bytes after changing it to `new` (fcntl(2), `F_SETPIPE_SZ`).
    fn pipe_capacity(&self, new: Option<usize>) -> Result<usize> {
        let _ = new;
        Err(Errno::EBADF)
    }

    /// Hands bytes of a pipe to `sink`, at most `max`, and removes those it took when `consume` (splice(2), tee(2)). Blocks as a read does.
    fn drain(&self, file: &OpenFile, max: usize, consume: bool, sink: &mut dyn FnMut(&[u8]) -> Result<usize>) -> Result<usize> {
        let _ = (file, max, consume, sink);
        Err(Errno::EINVAL)
    }

    /// Called once, when the last reference to the description goes away.
    fn release(&self, file: &OpenFile) {
        let _ = file;
    }

    /// A name for /proc/self/fd: `pipe:[7]`, `socket:[12]`, `anon_inode:[eventpoll]`. Files with a path need none.
    fn anonymous_name(&self) -> Option<alloc::string::String> {
        None
    }

    /// The socket, when it is one.
    fn as_socket(&self) -> Option<&dyn crate::socket::Socket> {
        None
    }

    /// For modules that must recognise their own files (epoll_ctl on an epoll file, sockets in sendmsg).
    fn as_any(&self) -> &dyn Any;
}

/// An open file description.
pub struct OpenFile {
    /// The file.
    pub ops: Arc<dyn FileOps>,
    /// Status flags; `CLOEXEC` is the descriptor's and not here.
    flags: AtomicU32,
    /// Byte offset of the next read or write; locked while one is under way, as Linux serialises them (read(2), "BUGS" of write(2)).
    pub offset: Mutex<u64>,
    /// How it was reached, for /proc/self/fd, fchdir(2) and openat(2).
    pub path: Option<PathRef>,
    /// `F_SETOWN`: process (positive) or group (negative) for SIGIO; 0 is nobody.
    pub owner: core::sync::atomic::AtomicI32,
    /// `F_SETSIG`: signal sent instead of SIGIO; 0 is SIGIO.
    pub signal: AtomicU32,
    /// Told when the description goes away (epoll(7), "Will closing a file descriptor cause it to be removed from all epoll interest lists").
    watchers: SpinLock<Vec<Weak<dyn Watcher>>>,
}

/// Something that keeps a description on a list without keeping it open.
pub trait Watcher: Send + Sync {
    /// The last reference to the description goes away; may block.
    fn file_released(&self, file: &OpenFile);
}

impl OpenFile {
    /// Returns a description with offset 0.
    pub fn new(ops: Arc<dyn FileOps>, flags: OpenFlags, path: Option<PathRef>) -> Arc<OpenFile> {
        let flags = flags - (OpenFlags::CLOEXEC | OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY | OpenFlags::TRUNC);
        Arc::new(OpenFile {
            ops,
            flags: AtomicU32::new(flags.bits()),
            offset: Mutex::new(0),
            path,
            owner: 0.into(),
            signal: 0.into(),
            watchers: SpinLock::new(Vec::new()),
        })
    }

    /// Status flags now.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Changes status flags (fcntl(2), `F_SETFL`).
    pub fn set_flags(&self, flags: OpenFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
        self.ops.flags_changed(self);
    }

    /// Whether reads and writes must not block.
    pub fn is_nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }

    /// The inode: that of the path, or that of a file which can be opened again without one.
    pub fn inode(&self) -> Option<Arc<dyn Inode>> {
        match &self.path {
            Some(path) => Some(path.inode().clone()),
            None => self.ops.inode(),
        }
    }

    /// Status as fstat(2) reports it.
    ///
    /// # Errors
    /// `EIO`.
    pub fn stat(&self) -> Result<crate::vfs::Stat> {
        match &self.path {
            Some(path) => path.inode().stat(),
            None => self.ops.stat(),
        }
    }

    /// Asks to be told when the description goes away. Watchers that are gone themselves make room here.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut watchers = self.watchers.lock();
        watchers.retain(|w| w.strong_count() > 0 && !w.ptr_eq(&watcher));
        watchers.push(watcher);
    }

    /// Reads at the description's offset and advances it.
    ///
    /// # Errors
    /// `EBADF` when it is not open for reading; else the file's.
    pub fn read(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        if !self.flags().can_read() {
            return Err(Errno::EBADF);
        }
        if !self.ops.is_seekable() {
            return self.ops.read_at(self, dst, 0);
        }
        let mut offset = self.offset.lock();
        let result = self.ops.read_at(self, dst, *offset);
        notify::moved(self, linux::IN_ACCESS, &result);
        let count = result?;
        *offset += count as u64;
        Ok(count)
    }

    /// Writes at the description's offset (the end with `O_APPEND`) and advances it.
    ///
    /// # Errors
    /// `EBADF` when it is not open for writing; else the file's.
    pub fn write(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        if !self.flags().can_write() {
            return Err(Errno::EBADF);
        }
        if !self.ops.is_seekable() {
            return self.ops.write_at(self, src, 0);
        }
        let mut offset = self.offset.lock();
        if self.flags().contains(OpenFlags::APPEND) {
            *offset = self.stat()?.size;
        }
        let result = self.ops.write_at(self, src, *offset);
        notify::moved(self, linux::IN_MODIFY, &result);
        let count = result?;
        *offset += count as u64;
        Ok(count)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        for watcher in core::mem::take(&mut *self.watchers.lock()) {
            if let Some(watcher) = watcher.upgrade() {
                watcher.file_released(self);
            }
        }
        notify::closed(self);
        locks::description_closed(self);
        let ops = self.ops.clone();
        ops.release(self);
    }
}

/// A process's table of file descriptors; shared between threads and by clone(`CLONE_FILES`).
pub struct FdTable {
    slots: SpinLock<Vec<Option<Slot>>>,
}

#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    close_on_exec: bool,
}

impl Default for FdTable {
    fn default() -> Self {
        FdTable::new()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        // The process's record locks go with its last descriptors.
        self.drain(false);
    }
}

impl FdTable {
    /// Returns an empty table.
    pub const fn new() -> FdTable {
        FdTable { slots: SpinLock::new(Vec::new()) }
    }

    /// Returns the description behind a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get(&self, fd: RawFd) -> Result<Arc<OpenFile>> {
        self.with_slot(fd, |slot| slot.file.clone())
    }

    /// Returns the close-on-exec flag of a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close_on_exec(&self, fd: RawFd) -> Result<bool> {
        self.with_slot(fd, |slot| slot.close_on_exec)
    }

    /// Sets the close-on-exec flag of a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: RawFd, close_on_exec: bool) -> Result<()> {
        self.with_slot(fd, |slot| slot.close_on_exec = close_on_exec)
    }

    fn with_slot<R>(&self, fd: RawFd, f: impl FnOnce(&mut Slot) -> R) -> Result<R> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.slots.lock().get_mut(index).and_then(Option::as_mut).map(f).ok_or(Errno::EBADF)
    }

    /// Gives a description the lowest free descriptor that is at least `min` and below `limit` (`RLIMIT_NOFILE`).
    ///
    /// # Errors
    /// `EMFILE` when there is none, `EINVAL` when `min` is not below the limit, `ENOMEM`.
    pub fn insert(&self, file: Arc<OpenFile>, close_on_exec: bool, min: RawFd, limit: u64) -> Result<RawFd> {
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(1 << 20);
        if min >= limit {
            return Err(if min == 0 { Errno::EMFILE } else { Errno::EINVAL });
        }
        let mut slots = self.slots.lock();
        let free = slots.iter().skip(min).position(Option::is_none).map_or_else(|| slots.len().max(min), |i| i + min);
        if free >= limit {
            return Err(Errno::EMFILE);
        }
        if free >= slots.len() {
            let more = free + 1 - slots.len();
            slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
            slots.resize(free + 1, None);
        }
        slots[free] = Some(Slot { file, close_on_exec });
        Ok(free as RawFd)
    }

    /// Makes `fd` refer to a description and returns what it referred to, which the caller drops outside any lock (dup2(2)).
    ///
    /// # Errors
    /// `EBADF` when `fd` is outside the limit, `ENOMEM`.
    pub fn replace(&self, fd: RawFd, file: Arc<OpenFile>, close_on_exec: bool, limit: u64) -> Result<Option<Arc<OpenFile>>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index as u64 >= limit {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.lock();
        if index >= slots.len() {
            let more = index + 1 - slots.len();
            slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
            slots.resize(index + 1, None);
        }
        let old = slots[index].replace(Slot { file, close_on_exec }).map(|old| old.file);
        drop(slots);
        old.iter().for_each(|old| locks::descriptor_closed(self, old));
        Ok(old)
    }

    /// Frees a descriptor and returns its description, which the caller drops outside any lock.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove(&self, fd: RawFd) -> Result<Arc<OpenFile>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let file = self.slots.lock().get_mut(index).and_then(Option::take).map(|slot| slot.file).ok_or(Errno::EBADF)?;
        locks::descriptor_closed(self, &file);
        Ok(file)
    }

    /// Returns a copy of the table that shares the descriptions (fork(2)).
    pub fn duplicate(&self) -> FdTable {
        FdTable { slots: SpinLock::new(self.slots.lock().clone()) }
    }

    /// Frees every descriptor (exit), or those marked close-on-exec (execve(2)), and returns the descriptions to be dropped outside any lock.
    pub fn drain(&self, only_close_on_exec: bool) -> Vec<Arc<OpenFile>> {
        let mut out = Vec::new();
        for slot in self.slots.lock().iter_mut() {
            if slot.as_ref().is_some_and(|s| !only_close_on_exec || s.close_on_exec) {
                out.extend(slot.take().map(|s| s.file));
            }
        }
        out.iter().for_each(|file| locks::descriptor_closed(self, file));
        out
    }

    /// Returns the descriptors in use, in order (/proc/self/fd, close_range(2)).
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.slots.lock().iter().enumerate().filter(|(_, s)| s.is_some()).map(|(i, _)| i as RawFd).collect()
    }
}
