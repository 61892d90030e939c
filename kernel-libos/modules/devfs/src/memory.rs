//! The memory devices: null(4), zero, full(4), random(4), kmsg.

use alloc::sync::Arc;
use core::any::Any;

use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::mm::PageSource;
use libos_core::mm::shared::SharedMemory;
use libos_core::user::UserPtr;
use libos_core::vfs::paged::MAX_LEN_BYTES;
use libos_core::vfs::registry::minor;
use libos_core::{Errno, Result, random};

/// Device numbers (Documentation/admin-guide/devices.txt, "1 char").
pub const MAJOR: u32 = 1;
pub const NULL: u32 = 3;
pub const ZERO: u32 = 5;
pub const FULL: u32 = 7;
pub const RANDOM: u32 = 8;
pub const URANDOM: u32 = 9;
pub const KMSG: u32 = 11;

pub fn open(rdev: u64, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    match minor(rdev) {
        number @ (NULL | ZERO | FULL | RANDOM | URANDOM | KMSG) => Ok(Arc::new(Memory(number))),
        _ => Err(Errno::ENXIO),
    }
}

/// Bytes made at once.
const CHUNK: usize = 256;

struct Memory(u32);

impl FileOps for Memory {
    fn read_at(&self, _file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        match self.0 {
            NULL | KMSG => Ok(0),
            ZERO | FULL => dst.push_zeros(dst.remaining()),
            _ => {
                let mut bytes = [0; CHUNK];
                let mut moved = 0;
                while dst.remaining() > 0 {
                    let count = bytes.len().min(dst.remaining());
                    random::fill(&mut bytes[..count]);
                    match dst.push(&bytes[..count]) {
                        Ok(0) => break,
                        Ok(count) => moved += count,
                        Err(errno) if moved == 0 => return Err(errno),
                        Err(_) => break,
                    }
                }
                Ok(moved)
            }
        }
    }

    fn write_at(&self, _file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        match self.0 {
            FULL => Err(Errno::ENOSPC),
            KMSG | RANDOM | URANDOM => {
                let mut bytes = [0; CHUNK];
                loop {
                    let count = src.pull(&mut bytes)?;
                    if self.0 == KMSG {
                        libos_core::arch::console::write_bytes(&bytes[..count]);
                    } else {
                        random::mix(&bytes[..count]);
                    }
                    if count < bytes.len() {
                        return Ok(src.done());
                    }
                }
            }
            // The bytes are not even looked at.
            _ => Ok(src.remaining()),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64> {
        Ok(0)
    }

    fn page_source(&self, _file: &OpenFile) -> Result<Arc<dyn PageSource>> {
        match self.0 {
            // A mapping of /dev/zero is anonymous memory; shared, it is a new object each time (mmap(2), before MAP_ANONYMOUS).
            ZERO => Ok(SharedMemory::new(MAX_LEN_BYTES)),
            _ => Err(Errno::ENODEV),
        }
    }

    fn ioctl(&self, _file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        /// `RNDGETENTCNT` (random(4)): bits of entropy, always plenty.
        const RNDGETENTCNT: u32 = 0x8004_5200;
        match (self.0, request) {
            (RANDOM | URANDOM, RNDGETENTCNT) => UserPtr::<i32>::new(arg).write(256).map(|()| 0),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
