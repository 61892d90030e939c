//! Pipes and their ends.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libos_core::abi::{general as linux, ioctl};
use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::sync::{Mutex, SpinLock};
use libos_core::task::wait::WaitQueue;
use libos_core::task::{signal, with_current};
use libos_core::user::UserPtr;
use libos_core::vfs::{Attachment, Attributes, Inode, Stat};
use libos_core::{Errno, Result};

use crate::ring::Ring;

/// Bytes that are written at once or not at all (pipe(7)).
const PIPE_BUF: usize = 4096;

/// Capacity at first, and what anybody may ask for (pipe(7), "Pipe capacity"; /proc/sys/fs/pipe-max-size).
const CAPACITY: usize = 64 * 1024;
const CAPACITY_MAX: usize = 1 << 20;

/// A pipe, as long as an end of it is open, or as long as the FIFO's inode exists.
pub struct Pipe {
    ring: Mutex<Ring>,
    /// Bytes in the ring and its room, for waiters.
    len: AtomicUsize,
    room: AtomicUsize,
    readers: AtomicUsize,
    writers: AtomicUsize,
    /// How often it was opened for reading and for writing: an open(2) of a FIFO waits for one more, even if that end is closed again meanwhile.
    reader_opens: AtomicUsize,
    writer_opens: AtomicUsize,
    /// Woken when there are bytes, or no writers.
    readable: Arc<WaitQueue>,
    /// Woken when there is room, or no readers.
    writable: Arc<WaitQueue>,
    number: u64,
}

impl Pipe {
    /// Returns an empty pipe that nobody has open.
    pub fn new() -> Arc<Pipe> {
        static NEXT: AtomicU64 = AtomicU64::new(2);
        Arc::new(Pipe {
            ring: Mutex::new(Ring::new(CAPACITY)),
            len: AtomicUsize::new(0),
            room: AtomicUsize::new(CAPACITY),
            readers: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            reader_opens: AtomicUsize::new(0),
            writer_opens: AtomicUsize::new(0),
            readable: Arc::new(WaitQueue::new()),
            writable: Arc::new(WaitQueue::new()),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Does something to the ring and publishes how full it is then.
    fn with_ring<R>(&self, f: impl FnOnce(&mut Ring) -> R) -> R {
        let mut ring = self.ring.lock();
        let result = f(&mut ring);
        self.len.store(ring.len(), Ordering::Release);
        self.room.store(ring.room(), Ordering::Release);
        result
    }

    fn has_bytes(&self) -> bool {
        self.len.load(Ordering::Acquire) > 0
    }

    fn has_writers(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }

    /// Waits until a read has an answer: bytes, or the end. True for bytes.
    fn wait_readable(&self, file: &OpenFile) -> Result<bool> {
        let answer = || if self.has_bytes() { Some(true) } else { (!self.has_writers()).then_some(false) };
        match answer() {
            Some(answer) => Ok(answer),
            None if file.is_nonblocking() => Err(Errno::EAGAIN),
            None => self.readable.wait(answer),
        }
    }

    fn read(&self, file: &OpenFile, dst: &mut IoDst<'_>) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        loop {
            if !self.wait_readable(file)? {
                return Ok(0);
            }
            let count = self.with_ring(|ring| ring.pop(dst))?;
            // 0 when another reader was faster.
            if count > 0 {
                self.after_read();
                return Ok(count);
            }
        }
    }

    fn after_read(&self) {
        self.writable.wake_all();
        if self.has_bytes() {
            self.readable.wake_all();
        }
    }

    fn write(&self, file: &OpenFile, src: &mut IoSrc<'_>) -> Result<usize> {
        let total = src.remaining();
        if total == 0 {
            return Ok(0);
        }
        let mut written = 0;
        loop {
            if !self.has_readers() {
                signal::send_to_current(linux::SIGPIPE);
                return if written > 0 { Ok(written) } else { Err(Errno::EPIPE) };
            }
            let left = total - written;
            // What is small goes in one piece; of what is large, whatever fits.
            let needed = if total <= PIPE_BUF { left } else { 1 };
            let step = self.with_ring(|ring| if ring.room() >= needed { ring.push(src, left) } else { Ok(0) });
            match step {
                Ok(0) if self.room.load(Ordering::Acquire) >= needed => return if written > 0 { Ok(written) } else { Err(Errno::EFAULT) },
                Ok(count) => {
                    written += count;
                    if count > 0 {
                        self.readable.wake_all();
                    }
                }
                Err(errno) => return if written > 0 { Ok(written) } else { Err(errno) },
            }
            if written == total {
                return Ok(written);
            }
            let may_go_on = || (self.room.load(Ordering::Acquire) >= needed || !self.has_readers()).then_some(());
            if file.is_nonblocking() && may_go_on().is_none() {
                return if written > 0 { Ok(written) } else { Err(Errno::EAGAIN) };
            }
            if let Err(errno) = self.writable.wait(may_go_on) {
                return if written > 0 { Ok(written) } else { Err(errno) };
            }
        }
    }
}

/// What a description of a pipe refers to.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// Of a FIFO: has a path, whose inode answers for it.
    is_named: bool,
}

impl PipeEnd {
    /// Bytes that a write would take at once.
    pub fn room(&self) -> usize {
        self.pipe.room.load(Ordering::Acquire)
    }

    /// Opens an end.
    pub fn open(pipe: Arc<Pipe>, reads: bool, writes: bool) -> PipeEnd {
        if reads {
            pipe.readers.fetch_add(1, Ordering::AcqRel);
            pipe.reader_opens.fetch_add(1, Ordering::AcqRel);
            pipe.writable.wake_all();
        }
        if writes {
            pipe.writers.fetch_add(1, Ordering::AcqRel);
            pipe.writer_opens.fetch_add(1, Ordering::AcqRel);
            pipe.readable.wake_all();
        }
        PipeEnd { pipe, reads, writes, is_named: false }
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let pipe = &self.pipe;
        if self.reads {
            pipe.readers.fetch_sub(1, Ordering::AcqRel);
        }
        if self.writes {
            pipe.writers.fetch_sub(1, Ordering::AcqRel);
        }
        if !pipe.has_readers() && !pipe.has_writers() {
            // A FIFO keeps no bytes when nobody has it open.
            pipe.with_ring(Ring::clear);
        }
        pipe.readable.wake_all();
        pipe.writable.wake_all();
    }
}

impl FileOps for PipeEnd {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        self.pipe.read(file, dst)
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        self.pipe.write(file, src)
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        let pipe = &self.pipe;
        let mut events = PollEvents::empty();
        if self.reads {
            table.add(&pipe.readable);
            if pipe.has_bytes() {
                events |= PollEvents::READABLE;
            }
            // A FIFO that no writer ever opened is just empty (poll(2), "POLLHUP").
            if !pipe.has_writers() && pipe.writer_opens.load(Ordering::Acquire) > 0 {
                events |= PollEvents::HUP;
            }
        }
        if self.writes {
            table.add(&pipe.writable);
            if pipe.room.load(Ordering::Acquire) >= PIPE_BUF {
                events |= PollEvents::WRITABLE;
            }
            if !pipe.has_readers() {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn ioctl(&self, _file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        match request {
            ioctl::FIONREAD => UserPtr::<i32>::new(arg).write(self.pipe.len.load(Ordering::Acquire) as i32).map(|()| 0),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn stat(&self) -> Result<Stat> {
        let now = libos_core::time::realtime_ns();
        let now = ((now / 1_000_000_000) as i64, (now % 1_000_000_000) as u32);
        Ok(Stat {
            ino: self.pipe.number,
            // pipefs of Linux is one of the first anonymous devices.
            dev: PIPE_DEV,
            mode: linux::S_IFIFO | 0o600,
            atime: now,
            mtime: now,
            ctime: now,
            ..Stat::anonymous()
        })
    }

    fn inode(&self) -> Option<Arc<dyn Inode>> {
        let attachment: Arc<dyn Any + Send + Sync> = self.pipe.clone();
        (!self.is_named).then(|| Arc::new(PipeInode(SpinLock::new(Some(attachment)), self.pipe.number)) as Arc<dyn Inode>)
    }

    fn pipe_capacity(&self, new: Option<usize>) -> Result<usize> {
        let Some(new) = new else { return Ok(self.pipe.with_ring(|ring| ring.capacity())) };
        if new > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let capacity = new.max(PIPE_BUF).next_power_of_two();
        if capacity > CAPACITY_MAX && with_current(|task| task.require(linux::CAP_SYS_RESOURCE)).is_err() {
            return Err(Errno::EPERM);
        }
        self.pipe.with_ring(|ring| ring.set_capacity(capacity))?;
        self.pipe.writable.wake_all();
        Ok(capacity)
    }

    fn drain(&self, file: &OpenFile, max: usize, consume: bool, sink: &mut dyn FnMut(&[u8]) -> Result<usize>) -> Result<usize> {
        if max == 0 || !self.pipe.wait_readable(file)? {
            return Ok(0);
        }
        let taken = self.pipe.with_ring(|ring| {
            let (first, second) = ring.pieces();
            let mut taken = sink(&first[..first.len().min(max)])?;
            if taken == first.len() && taken < max && !second.is_empty() {
                // What the first piece moved counts, whatever happens to the second.
                taken += sink(&second[..second.len().min(max - taken)]).unwrap_or(0);
            }
            if consume {
                ring.consume(taken);
            }
            Ok(taken)
        })?;
        if consume && taken > 0 {
            self.pipe.after_read();
        }
        Ok(taken)
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(format!("pipe:[{}]", self.pipe.number))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Device number of pipes.
const PIPE_DEV: u64 = 0x0e;

/// What /proc/self/fd/N opens again: the pipe in the form of a FIFO's inode.
struct PipeInode(Attachment, u64);

impl Inode for PipeInode {
    fn attributes(&self) -> Result<Attributes> {
        Ok(Attributes { mode: linux::S_IFIFO | 0o600, uid: 0, gid: 0 })
    }

    fn stat(&self) -> Result<Stat> {
        Ok(Stat { dev: PIPE_DEV, ino: self.1, mode: linux::S_IFIFO | 0o600, ..Stat::anonymous() })
    }

    fn attachment(&self) -> Option<&Attachment> {
        Some(&self.0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Opens a FIFO (fifo(7)): for reading it waits for a writer, for writing for a reader; without waiting a reader is served at once and a writer refused.
pub fn open_fifo(inode: &Arc<dyn Inode>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    let attachment = inode.attachment().ok_or(Errno::ENXIO)?;
    let pipe = {
        let mut slot = attachment.lock();
        match slot.as_ref().and_then(|any| any.clone().downcast::<Pipe>().ok()) {
            Some(pipe) => pipe,
            None => {
                let pipe = Pipe::new();
                *slot = Some(pipe.clone());
                pipe
            }
        }
    };
    let (reads, writes) = (flags.can_read(), flags.can_write());
    if writes && !reads && flags.contains(OpenFlags::NONBLOCK) && !pipe.has_readers() {
        return Err(Errno::ENXIO);
    }
    let seen_readers = pipe.reader_opens.load(Ordering::Acquire);
    let seen_writers = pipe.writer_opens.load(Ordering::Acquire);
    let mut end = PipeEnd::open(pipe.clone(), reads, writes);
    end.is_named = true;
    if !flags.contains(OpenFlags::NONBLOCK) && reads != writes {
        if reads {
            pipe.readable.wait(|| (pipe.has_writers() || pipe.writer_opens.load(Ordering::Acquire) != seen_writers).then_some(()))?;
        } else {
            pipe.writable.wait(|| (pipe.has_readers() || pipe.reader_opens.load(Ordering::Acquire) != seen_readers).then_some(()))?;
        }
    }
    Ok(Arc::new(end))
}
