//! The file system: inode numbers, the size limit, and which inodes must stay in memory.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use libos_core::abi::general as linux;
use libos_core::mm::PAGE_SIZE;
use libos_core::sync::SpinLock;
use libos_core::vfs::reclaim::{self, Reclaim};
use libos_core::vfs::registry::anonymous_dev;
use libos_core::vfs::sparse::Sparse;
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{FileSystem, Inode, NewNode, StatFs};
use libos_core::{Errno, Result};

use crate::inode::RamInode;

/// `TMPFS_MAGIC` and `OVERLAYFS_SUPER_MAGIC` (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// First number of new inodes above an image: image numbers have 32 bits, and images of ours are far from the upper half.
const FIRST_NEW: u64 = 0x8000_0000;

/// What all inodes of one file system share.
pub struct Shared {
    pub dev: u64,
    next_number: AtomicU64,
    pages: AtomicU64,
    pages_max: u64,
    /// Inodes with something below that are in use, by number: all names of a file lead to one inode.
    known: SpinLock<Sparse<Weak<RamInode>>>,
    /// Those of them that were changed and must not be forgotten while a name below leads to them.
    changed: SpinLock<Sparse<Arc<RamInode>>>,
}

impl Shared {
    fn new(first_number: u64, pages_max: u64) -> Arc<Shared> {
        Arc::new(Shared {
            dev: anonymous_dev(),
            next_number: AtomicU64::new(first_number),
            pages: AtomicU64::new(0),
            pages_max,
            known: SpinLock::new(Sparse::new()),
            changed: SpinLock::new(Sparse::new()),
        })
    }

    pub fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts one more page.
    ///
    /// # Errors
    /// `ENOSPC` at the limit.
    pub fn charge(&self) -> Result<()> {
        if self.pages.fetch_add(1, Ordering::Relaxed) >= self.pages_max {
            self.uncharge(1);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    pub fn uncharge(&self, pages: usize) {
        self.pages.fetch_sub(pages as u64, Ordering::Relaxed);
    }

    /// The inode above one of the image.
    ///
    /// # Errors
    /// What the image's file system answers.
    pub fn above(self: &Arc<Shared>, below: Arc<dyn Inode>) -> Result<Arc<RamInode>> {
        let stat = below.stat()?;
        if let Some(known) = self.known.lock().get(stat.ino).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let number = stat.ino;
        let new = RamInode::above(self.clone(), below, stat)?;
        let mut known = self.known.lock();
        if let Some(other) = known.get(number).and_then(Weak::upgrade) {
            drop(known);
            return Ok(other);
        }
        known.insert(number, Arc::downgrade(&new))?;
        drop(known);
        Ok(new)
    }

    /// Keeps a changed inode.
    pub fn keep(&self, inode: &RamInode) {
        if inode.has_below()
            && let Some(inode) = inode.to_arc()
        {
            let mut changed = self.changed.lock();
            if changed.get(inode.number).is_none() {
                // Without memory for this the change may be forgotten when memory is short, which is what happens to programs then, too.
                let _ = changed.insert(inode.number, inode);
            }
        }
    }

    /// Lets go of an inode that no name leads to any more; open files may still hold it.
    pub fn let_go(&self, number: u64) {
        let inode = self.changed.lock().remove(number);
        drop(inode);
    }

    /// Called when an inode goes away.
    pub fn forget(&self, number: u64) {
        let mut known = self.known.lock();
        if known.get(number).is_some_and(|weak| weak.strong_count() == 0) {
            known.remove(number);
        }
    }
}

struct RamFs {
    shared: Arc<Shared>,
    root: Arc<RamInode>,
    below: Option<Arc<dyn FileSystem>>,
}

impl FileSystem for RamFs {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn type_name(&self) -> &'static str {
        if self.below.is_some() { "overlay" } else { "tmpfs" }
    }

    fn stat_fs(&self) -> StatFs {
        let (free, total) = libos_core::mm::frame::count();
        let used = self.shared.pages.load(Ordering::Relaxed);
        let blocks = self.shared.pages_max.min(total as u64);
        StatFs {
            magic: if self.below.is_some() { OVERLAY_MAGIC } else { TMPFS_MAGIC },
            block_bytes: PAGE_SIZE as u64,
            blocks,
            blocks_free: blocks.saturating_sub(used).min(free as u64),
            files: blocks,
            files_free: blocks.saturating_sub(used),
            name_max: 255,
        }
    }
}

/// Mounts a tmpfs. Options: `size=` (bytes with k, m, g, or % of memory), `nr_blocks=` (pages), `mode=` (octal), `uid=`, `gid=`; others are ignored.
///
/// # Errors
/// `EINVAL` for a value that is no number.
pub fn mount(_volume: Option<Arc<dyn Volume>>, options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let mut pages_max = u64::MAX;
    let mut root = NewNode { mode: linux::S_IFDIR | 0o1777, uid: 0, gid: 0, rdev: 0, target: b"" };
    for option in options.split(|&b| b == b',') {
        let Some(at) = option.iter().position(|&b| b == b'=') else { continue };
        let (name, value) = (&option[..at], &option[at + 1..]);
        match name {
            b"size" => pages_max = size(value)?.div_ceil(PAGE_SIZE as u64),
            b"nr_blocks" => pages_max = size(value)?,
            b"mode" => root.mode = linux::S_IFDIR | (number(value, 8)? as u32 & 0o7777),
            b"uid" => root.uid = number(value, 10)? as u32,
            b"gid" => root.gid = number(value, 10)? as u32,
            _ => {}
        }
    }
    let shared = Shared::new(1, if pages_max == 0 { u64::MAX } else { pages_max });
    let root = RamInode::new(shared.clone(), &root)?;
    Ok(Arc::new(RamFs { shared, root, below: None }))
}

/// Puts a writable layer above a read-only file system.
///
/// # Errors
/// What the file system below answers.
pub fn overlay(below: Arc<dyn FileSystem>) -> Result<Arc<dyn FileSystem>> {
    let shared = Shared::new(FIRST_NEW, u64::MAX);
    let root = shared.above(below.root())?;
    let layer = Arc::new(RamFs { shared, root, below: Some(below) });
    let cache: Arc<dyn Reclaim> = layer.clone();
    reclaim::register(&cache);
    Ok(layer)
}

impl Reclaim for RamFs {
    fn reclaim(&self, _pages: usize) -> usize {
        // What is in memory only cannot be given back.
        0
    }

    fn reclaim_mapped(&self, pages: usize) -> usize {
        // Pages below are mapped in the name of the inodes up here. Unmapped, they can go from the cache below.
        let mut freed = 0;
        let mut from = 0;
        while freed < pages {
            let next = self.shared.known.lock().next(from).map(|(number, weak)| (number, weak.upgrade()));
            let Some((number, inode)) = next else { break };
            from = number + 1;
            if let Some(inode) = inode
                && let Ok(data) = inode.data()
                && let Some(below) = &data.below
            {
                reclaim::unmap_cached(&*inode, &**below);
                freed += reclaim::reclaim(pages - freed);
            }
        }
        freed
    }
}

fn number(text: &[u8], radix: u32) -> Result<u64> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    u64::from_str_radix(text, radix).map_err(|_| Errno::EINVAL)
}

/// A size with an optional suffix (tmpfs(5), "size").
fn size(text: &[u8]) -> Result<u64> {
    let (digits, shift) = match text.split_last() {
        Some((b'k' | b'K', digits)) => (digits, 10),
        Some((b'm' | b'M', digits)) => (digits, 20),
        Some((b'g' | b'G', digits)) => (digits, 30),
        Some((b'%', digits)) => {
            let (_, total) = libos_core::mm::frame::count();
            return Ok((total as u64 * PAGE_SIZE as u64 / 100).saturating_mul(number(digits, 10)?));
        }
        _ => (text, 0),
    };
    number(digits, 10)?.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}
