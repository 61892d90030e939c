//! The traits of the virtual file system on top of nodes and pages.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFlags};
use libos_core::mm::{Frame, PageSource, SourceName};
use libos_core::sync::SpinLock;
use libos_core::vfs::files::ReadOnlyFile;
use libos_core::vfs::reclaim::{self, Reclaim};
use libos_core::vfs::sparse::Sparse;
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{Attachment, Attributes, DirEntry, FileSystem, Inode, Link, Stat, StatFs};
use libos_core::{Errno, Result};
use ukc_ext4_layout::{ROOT_INODE, xattr};

use crate::geometry::Geometry;
use crate::node::Node;
use crate::pages::Cache;

/// A mounted image.
pub struct Ext4 {
    geometry: Geometry,
    /// Inodes in use, so that all names of a file lead to one inode and one set of pages.
    inodes: SpinLock<Sparse<Weak<Ext4Inode>>>,
}

/// Mounts a volume.
///
/// # Errors
/// As [`Geometry::read`]; `EUCLEAN` when there is no root directory.
pub fn mount(volume: Option<Arc<dyn Volume>>, _options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let geometry = Geometry::read(volume.ok_or(Errno::ENOTBLK)?)?;
    let is_in_ram = geometry.volume.is_in_ram();
    let fs = Arc::new(Ext4 { geometry, inodes: SpinLock::new(Sparse::new()) });
    let root = fs.inode(ROOT_INODE)?;
    if !root.node.is_dir() {
        return Err(Errno::EUCLEAN);
    }
    let mounted = Arc::new(Mounted { fs: fs.clone(), root });
    if !is_in_ram {
        let cache: Arc<dyn Reclaim> = mounted.clone();
        reclaim::register(&cache);
    }
    Ok(mounted)
}

impl Ext4 {
    fn inode(self: &Arc<Ext4>, number: u32) -> Result<Arc<Ext4Inode>> {
        if let Some(inode) = self.inodes.lock().get(number.into()).and_then(Weak::upgrade) {
            return Ok(inode);
        }
        let node = Node::read(&self.geometry, number)?;
        let new = Arc::new(Ext4Inode { fs: self.clone(), node, cache: Cache::default(), attachment: SpinLock::new(None) });
        let mut inodes = self.inodes.lock();
        if let Some(inode) = inodes.get(number.into()).and_then(Weak::upgrade) {
            drop(inodes);
            return Ok(inode);
        }
        inodes.insert(number.into(), Arc::downgrade(&new))?;
        drop(inodes);
        Ok(new)
    }
}

struct Mounted {
    fs: Arc<Ext4>,
    root: Arc<Ext4Inode>,
}

impl FileSystem for Mounted {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn type_name(&self) -> &'static str {
        "ext4"
    }

    fn stat_fs(&self) -> StatFs {
        let geometry = &self.fs.geometry;
        StatFs {
            magic: 0xef53,
            block_bytes: geometry.block_bytes,
            blocks: geometry.blocks,
            blocks_free: geometry.blocks_free,
            files: u64::from(geometry.inodes),
            files_free: u64::from(geometry.inodes_free),
            name_max: 255,
        }
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

impl Reclaim for Mounted {
    fn reclaim(&self, pages: usize) -> usize {
        reclaim::ask_inodes(&self.fs.inodes, pages, |inode, pages| inode.cache.reclaim(pages))
    }

    fn reclaim_mapped(&self, pages: usize) -> usize {
        reclaim::ask_inodes(&self.fs.inodes, pages, |inode, pages| {
            if inode.cache.is_empty() {
                return 0;
            }
            reclaim::unmap_cached(inode, inode);
            inode.cache.reclaim(pages)
        })
    }
}

/// An inode in use.
struct Ext4Inode {
    fs: Arc<Ext4>,
    node: Node,
    cache: Cache,
    attachment: Attachment,
}

impl Drop for Ext4Inode {
    fn drop(&mut self) {
        let mut inodes = self.fs.inodes.lock();
        // A new one with the same number may be there already.
        let number = self.node.number.into();
        if inodes.get(number).is_some_and(|weak| weak.strong_count() == 0) {
            inodes.remove(number);
        }
    }
}

impl Ext4Inode {
    fn dev(&self) -> u64 {
        self.fs.geometry.volume.dev()
    }
}

impl Inode for Ext4Inode {
    fn attributes(&self) -> Result<Attributes> {
        Ok(Attributes { mode: self.node.mode, uid: self.node.uid, gid: self.node.gid })
    }

    fn stat(&self) -> Result<Stat> {
        let node = &self.node;
        Ok(Stat {
            dev: self.dev(),
            ino: u64::from(node.number),
            mode: node.mode,
            nlink: node.links,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: node.size,
            block_bytes: self.fs.geometry.block_bytes as u32,
            blocks: node.sectors,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
            btime: node.btime,
        })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if !self.node.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let number = self.node.find(&self.fs.geometry, name)?;
        Ok(self.fs.inode(number)?)
    }

    fn read_dir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        if !self.node.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        self.node.entries(&self.fs.geometry, from, &mut |entry, next| {
            // The types of ext4's entries are 1 to 7 in an order of their own; DT_* are the type bits of st_mode.
            let kinds = [0, linux::DT_REG, linux::DT_DIR, linux::DT_CHR, linux::DT_BLK, linux::DT_FIFO, linux::DT_SOCK, linux::DT_LNK];
            let kind = kinds.get(usize::from(entry.file_type)).map_or(0, |kind| *kind as u8);
            emit(&DirEntry { name: entry.name, ino: u64::from(entry.inode), kind, next })
        })
    }

    fn read_link(&self) -> Result<Link> {
        self.node.link_target(&self.fs.geometry).map(Link::Path)
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(ReadOnlyFile { pages: self.clone(), inode: self }))
    }

    fn pages(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        Ok(self)
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let (prefix, rest) = xattr::split_name(name).ok_or(Errno::EOPNOTSUPP)?;
        let mut found = None;
        self.node.attributes(&self.fs.geometry, &mut |p, n, value| {
            if (p, n) == (prefix, rest) {
                found = Some(value.to_vec());
            }
        })?;
        let value = found.ok_or(Errno::ENODATA)?;
        if !xattr::is_acl(prefix) {
            return Ok(value);
        }
        let mut acl = Vec::new();
        xattr::acl_to_linux(&value, |bytes| acl.extend_from_slice(bytes)).ok_or(Errno::EUCLEAN)?;
        Ok(acl)
    }

    fn xattr_names(&self) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        self.node.attributes(&self.fs.geometry, &mut |prefix, name, _| {
            let is_inline_data = (prefix, name) == (7, b"data");
            if let (Some(prefix), false) = (xattr::prefix(prefix), is_inline_data) {
                names.extend_from_slice(prefix);
                names.extend_from_slice(name);
                names.push(0);
            }
        })?;
        Ok(names)
    }

    fn attachment(&self) -> Option<&Attachment> {
        Some(&self.attachment)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl PageSource for Ext4Inode {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        if write {
            return Err(Errno::EROFS);
        }
        self.cache.page(&self.fs.geometry, &self.node, index)
    }

    fn cached(&self, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        self.cache.cached(&self.fs.geometry, &self.node, first, count, give);
    }

    fn len_bytes(&self) -> u64 {
        self.node.size
    }

    fn describe(&self) -> SourceName {
        SourceName { dev: self.dev(), ino: u64::from(self.node.number), path: Vec::new() }
    }
}
