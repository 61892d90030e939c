//! Open directories, and open regular files that are only read: the same for all file systems.

use alloc::sync::Arc;
use core::any::Any;

use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::inode::{DirEntry, Inode, Stat};
use super::paged;
use crate::file::{FileOps, OpenFile};
use crate::io::IoDst;
use crate::mm::PageSource;

/// An open directory; the description's offset is the cookie of the next entry.
pub struct DirFile {
    /// The directory.
    pub inode: Arc<dyn Inode>,
}

impl FileOps for DirFile {
    fn read_at(&self, _file: &OpenFile, _dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn stat(&self) -> Result<Stat> {
        self.inode.stat()
    }

    fn read_dir(&self, file: &OpenFile, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        if let Some(place) = &file.path {
            if place.dentry.is_deleted() {
                return Err(Errno::ENOENT);
            }
            super::mount::keep_promises(place, None);
        }
        let mut offset = file.offset.lock();
        let mut next = *offset;
        let result = self.inode.read_dir(*offset, &mut |entry| {
            let is_accepted = emit(entry);
            if is_accepted {
                next = entry.next;
            }
            is_accepted
        });
        *offset = next;
        result
    }

    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64> {
        let mut position = file.offset.lock();
        let base = match whence {
            linux::SEEK_SET => 0,
            linux::SEEK_CUR => *position as i64,
            _ => return Err(Errno::EINVAL),
        };
        let target = base.checked_add(offset).and_then(|t| u64::try_from(t).ok()).ok_or(Errno::EINVAL)?;
        *position = target;
        Ok(target)
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        self.inode.sync()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open regular file whose bytes are pages and which is never written.
pub struct ReadOnlyFile {
    /// The file.
    pub inode: Arc<dyn Inode>,
    /// Its pages.
    pub pages: Arc<dyn PageSource>,
}

impl FileOps for ReadOnlyFile {
    fn read_at(&self, _file: &OpenFile, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        paged::read_pages(&*self.pages, dst, offset)
    }

    fn write_at(&self, _file: &OpenFile, _src: &mut crate::io::IoSrc<'_>, _offset: u64) -> Result<usize> {
        Err(Errno::EROFS)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn stat(&self) -> Result<Stat> {
        self.inode.stat()
    }

    fn page_source(&self, _file: &OpenFile) -> Result<Arc<dyn PageSource>> {
        Ok(self.pages.clone())
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A file whose text is made when it is opened, as those of /proc are; pread(2) and lseek(2) see one consistent text.
pub struct TextFile {
    text: alloc::vec::Vec<u8>,
}

impl TextFile {
    /// Returns the file.
    pub fn new(text: alloc::vec::Vec<u8>) -> TextFile {
        TextFile { text }
    }
}

impl FileOps for TextFile {
    fn read_at(&self, _file: &OpenFile, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.text.len());
        dst.push(&self.text[from..])
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64> {
        // stat(2) says size 0 for such files, but SEEK_END is rare enough to follow the text.
        paged::default_seek(self.text.len() as u64, file, offset, whence)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
