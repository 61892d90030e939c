//! Inodes: metadata, attributes, and the `Inode` trait over directories, data and links.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::AtomicU32;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFlags};
use libos_core::mm::PageSource;
use libos_core::sync::SpinLock;
use libos_core::vfs::{Attachment, Attributes, DirEntry, Inode, Link, NewNode, RenameFlags, SetAttributes, Stat};
use libos_core::{Errno, Result};

use crate::data::{Data, RamFile};
use crate::dir::Entries;
use crate::fs::Shared;

/// Longest attribute value, and all names of one inode together (xattr(7): `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_MAX: usize = 65536;

/// An inode in memory, perhaps above one of the image.
pub struct RamInode {
    pub shared: Arc<Shared>,
    me: Weak<RamInode>,
    pub number: u64,
    pub below: Option<Arc<dyn Inode>>,
    pub body: Body,
    pub seals: AtomicU32,
    meta: SpinLock<Meta>,
    /// Attributes set here, and removed ones (`None`) that exist below.
    xattrs: SpinLock<Changes>,
    attachment: Attachment,
}

/// Attribute values by name.
type Changes = Vec<(Box<[u8]>, Option<Vec<u8>>)>;

/// What kind of object it is, with its contents.
pub enum Body {
    File(Data),
    Dir(Entries),
    Link(Box<[u8]>),
    /// Device, FIFO, socket.
    Special,
}

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    rdev: u64,
    atime: (i64, u32),
    mtime: (i64, u32),
    ctime: (i64, u32),
    btime: Option<(i64, u32)>,
    blocks_below: u64,
}

/// Stands for the time of boot in [`Meta`], until somebody asks: directories are made at every boot, and most programs never ask for a time.
pub(crate) const BOOT: (i64, u32) = (i64::MIN, 0);

fn set_change(changes: &mut Changes, name: &[u8], value: Option<Vec<u8>>) {
    changes.retain(|(n, _)| **n != *name);
    changes.push((name.into(), value));
}

fn now() -> (i64, u32) {
    if libos_core::start::is_booting() {
        return BOOT;
    }
    seconds(libos_core::time::realtime_ns())
}

/// A time of [`Meta`] as programs see it.
pub(crate) fn shown(time: (i64, u32)) -> (i64, u32) {
    if time == BOOT { seconds(libos_core::time::wall_offset_ns()) } else { time }
}

fn seconds(ns: u64) -> (i64, u32) {
    ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as u32)
}

impl RamInode {
    /// Returns a new object.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(shared: Arc<Shared>, node: &NewNode<'_>) -> Result<Arc<RamInode>> {
        let body = match node.mode & linux::S_IFMT {
            linux::S_IFREG => Body::File(Data::new(None)),
            linux::S_IFDIR => Body::Dir(Entries::default()),
            linux::S_IFLNK => Body::Link(node.target.into()),
            _ => Body::Special,
        };
        let now = now();
        let links = if matches!(body, Body::Dir(_)) { 2 } else { 1 };
        let (mode, uid, gid, rdev) = (node.mode, node.uid, node.gid, node.rdev);
        let meta = Meta { mode, uid, gid, links, rdev, atime: now, mtime: now, ctime: now, btime: Some(now), blocks_below: 0 };
        let number = shared.new_number();
        Ok(RamInode::build(shared, number, None, body, meta))
    }

    /// Returns the likeness of an inode below.
    ///
    /// # Errors
    /// What the file system below answers.
    pub fn above(shared: Arc<Shared>, below: Arc<dyn Inode>, stat: Stat) -> Result<Arc<RamInode>> {
        let body = match stat.mode & linux::S_IFMT {
            linux::S_IFREG => Body::File(Data::new(Some(below.clone().pages()?))),
            linux::S_IFDIR => Body::Dir(Entries::default()),
            linux::S_IFLNK => match below.read_link()? {
                Link::Path(target) => Body::Link(target.into_boxed_slice()),
                Link::Jump(_) => return Err(Errno::EIO),
            },
            _ => Body::Special,
        };
        let meta = Meta {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            links: stat.nlink,
            rdev: stat.rdev,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            btime: stat.btime,
            blocks_below: stat.blocks,
        };
        Ok(RamInode::build(shared, stat.ino, Some(below), body, meta))
    }

    fn build(shared: Arc<Shared>, number: u64, below: Option<Arc<dyn Inode>>, body: Body, meta: Meta) -> Arc<RamInode> {
        Arc::new_cyclic(|me| RamInode {
            shared,
            me: me.clone(),
            number,
            below,
            body,
            // Only memfd_create(2) makes files that may be sealed; it changes this.
            seals: AtomicU32::new(linux::F_SEAL_SEAL),
            meta: SpinLock::new(meta),
            xattrs: SpinLock::new(Vec::new()),
            attachment: SpinLock::new(None),
        })
    }

    pub fn has_below(&self) -> bool {
        self.below.is_some()
    }

    pub fn to_arc(&self) -> Option<Arc<RamInode>> {
        self.me.upgrade()
    }

    /// Whether the last name is gone.
    pub fn is_removed(&self) -> bool {
        self.meta.lock().links == 0
    }

    /// The contents changed.
    pub fn touch(&self) {
        let now = now();
        let mut meta = self.meta.lock();
        meta.mtime = now;
        meta.ctime = now;
    }

    /// The metadata changed.
    pub fn touch_change(&self) {
        self.meta.lock().ctime = now();
        self.shared.keep(self);
    }

    pub fn count_links(&self, change: i32) {
        let mut meta = self.meta.lock();
        meta.links = meta.links.saturating_add_signed(change);
    }

    /// One name less; an empty directory loses its own dot as well.
    pub fn drop_link(&self, is_dir: bool) {
        let now = now();
        let mut meta = self.meta.lock();
        meta.links = if is_dir { 0 } else { meta.links.saturating_sub(1) };
        meta.ctime = now;
        let is_last = meta.links == 0;
        drop(meta);
        if is_last {
            self.shared.let_go(self.number);
        } else {
            self.shared.keep(self);
        }
    }

    fn same_fs<'a>(&self, other: &'a Arc<dyn Inode>) -> Result<&'a RamInode> {
        let other = other.as_any().downcast_ref::<RamInode>().ok_or(Errno::EXDEV)?;
        if Arc::ptr_eq(&self.shared, &other.shared) { Ok(other) } else { Err(Errno::EXDEV) }
    }
}

impl Drop for RamInode {
    fn drop(&mut self) {
        if self.has_below() {
            self.shared.forget(self.number);
        }
        if let Body::File(data) = &self.body {
            self.shared.uncharge(data.page_count());
        }
    }
}

impl Inode for RamInode {
    fn attributes(&self) -> Result<Attributes> {
        let meta = self.meta.lock();
        Ok(Attributes { mode: meta.mode, uid: meta.uid, gid: meta.gid })
    }

    fn stat(&self) -> Result<Stat> {
        let (size, own_blocks) = match &self.body {
            Body::File(data) => (data.size(), data.page_count() as u64 * 8),
            Body::Dir(_) => (4096, 0),
            Body::Link(target) => (target.len() as u64, 0),
            Body::Special => (0, 0),
        };
        let meta = self.meta.lock();
        Ok(Stat {
            dev: self.shared.dev,
            ino: self.number,
            mode: meta.mode,
            nlink: meta.links,
            uid: meta.uid,
            gid: meta.gid,
            rdev: meta.rdev,
            size,
            block_bytes: 4096,
            blocks: meta.blocks_below.max(own_blocks),
            atime: shown(meta.atime),
            mtime: shown(meta.mtime),
            ctime: shown(meta.ctime),
            btime: meta.btime.map(shown),
        })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.child(name)?)
    }

    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let inode = RamInode::new(self.shared.clone(), node)?;
        self.add(name, inode.clone())?;
        if matches!(inode.body, Body::Dir(_)) {
            self.count_links(1);
        }
        Ok(inode)
    }

    fn create_unnamed(&self, node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let inode = RamInode::new(self.shared.clone(), node)?;
        inode.meta.lock().links = 0;
        Ok(inode)
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let inode = self.same_fs(inode)?;
        self.add(name, inode.to_arc().ok_or(Errno::ENOENT)?)?;
        inode.count_links(1);
        inode.touch_change();
        Ok(())
    }

    fn unlink(&self, name: &[u8], is_dir: bool) -> Result<()> {
        self.remove_name(name, is_dir)
    }

    fn rename(&self, name: &[u8], new_dir: &Arc<dyn Inode>, new_name: &[u8], flags: RenameFlags) -> Result<()> {
        self.move_name(name, self.same_fs(new_dir)?, new_name, flags)
    }

    fn read_link(&self) -> Result<Link> {
        match &self.body {
            Body::Link(target) => Ok(Link::Path(target.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        self.data()?;
        Ok(Arc::new(RamFile(self)))
    }

    fn pages(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        self.data().map_err(|_| Errno::ENODEV)?;
        Ok(self)
    }

    fn read_dir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        self.list(from, emit)
    }

    fn seals(&self) -> Option<&AtomicU32> {
        self.data().is_ok().then_some(&self.seals)
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        let now = now();
        let mut meta = self.meta.lock();
        if let Some(mode) = change.mode {
            meta.mode = meta.mode & linux::S_IFMT | mode & 0o7777;
        }
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        meta.atime = change.atime.unwrap_or(meta.atime);
        meta.mtime = change.mtime.unwrap_or(meta.mtime);
        meta.ctime = now;
        drop(meta);
        self.shared.keep(self);
        Ok(())
    }

    fn truncate(&self, len_bytes: u64) -> Result<()> {
        self.data()?.truncate(self, len_bytes)
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        if let Some((_, value)) = self.xattrs.lock().iter().find(|(n, _)| **n == *name) {
            return value.clone().ok_or(Errno::ENODATA);
        }
        match &self.below {
            Some(below) => below.xattr(name),
            None => Err(Errno::ENODATA),
        }
    }

    fn xattr_names(&self) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        let set = self.xattrs.lock();
        for (name, _) in set.iter().filter(|(_, value)| value.is_some()) {
            names.extend_from_slice(name);
            names.push(0);
        }
        drop(set);
        if let Some(below) = &self.below {
            for name in below.xattr_names()?.split(|&b| b == 0).filter(|name| !name.is_empty()) {
                if !self.xattrs.lock().iter().any(|(n, _)| **n == *name) {
                    names.extend_from_slice(name);
                    names.push(0);
                }
            }
        }
        Ok(names)
    }

    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, must_exist: Option<bool>) -> Result<()> {
        let exists = match self.xattr(name) {
            Ok(_) => true,
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => false,
            Err(errno) => return Err(errno),
        };
        match must_exist {
            Some(true) if !exists => return Err(Errno::ENODATA),
            Some(false) if exists => return Err(Errno::EEXIST),
            _ => {}
        }
        let Some(value) = value else {
            if !exists {
                return Err(Errno::ENODATA);
            }
            set_change(&mut self.xattrs.lock(), name, None);
            self.touch_change();
            return Ok(());
        };
        let mut xattrs = self.xattrs.lock();
        let used: usize = xattrs.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        if used + name.len() + value.len() > XATTR_MAX {
            return Err(Errno::ENOSPC);
        }
        set_change(&mut xattrs, name, Some(value.to_vec()));
        drop(xattrs);
        self.touch_change();
        Ok(())
    }

    fn attachment(&self) -> Option<&Attachment> {
        Some(&self.attachment)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
