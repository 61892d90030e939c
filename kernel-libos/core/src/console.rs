//! The console as a plain file: it writes what it is given, has nothing to read, and is no terminal. It is what a program gets as its standard streams
//! unless somebody sits at the other end (`ukc.tty`), and in kernels without devfs.

use alloc::sync::Arc;
use core::any::Any;

use libos_abi::Result;

use crate::file::{FileOps, OpenFile, OpenFlags};
use crate::io::{IoDst, IoSrc};

struct Console;

/// Opens it without a device node.
pub fn open() -> Arc<OpenFile> {
    OpenFile::new(plain(), OpenFlags::RDWR, None)
}

/// The device itself.
pub fn plain() -> Arc<dyn FileOps> {
    Arc::new(Console)
}

impl FileOps for Console {
    fn read_at(&self, _file: &OpenFile, _dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        let mut chunk = [0; 256];
        loop {
            let count = src.pull(&mut chunk)?;
            crate::arch::console::write_bytes(&chunk[..count]);
            if count < chunk.len() {
                return Ok(src.done());
            }
        }
    }

    fn stat(&self) -> Result<crate::vfs::Stat> {
        // A character device, so that C libraries buffer by lines: `/dev/console` is 5, 1.
        Ok(crate::vfs::Stat { mode: 0o020_600, rdev: 5 << 8 | 1, ..crate::vfs::Stat::anonymous() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
