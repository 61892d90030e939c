//! Inodes in use, and the `Inode` trait on them.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::AtomicU64;

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFlags};
use libos_core::mm::PageSource;
use libos_core::sync::{Mutex, SpinLock};
use libos_core::vfs::registry::{major, minor};
use libos_core::vfs::{Attachment, Attributes, DirEntry, Inode as VfsInode, Link, NewNode, RenameFlags, SetAttributes, Stat};
use libos_core::{Errno, Result};
use ukc_ext4_layout::dir::Entry;
use ukc_ext4_layout::encode_device;

use crate::data::{Pages, VolumeFile};
use crate::dir::{self, Index};
use crate::extents;
use crate::meta::Meta;
use crate::state::{Fs, State, now};
use crate::store::BLOCK;

/// Longest target of a symbolic link that fits into the inode with its NUL, and of any (`PATH_MAX` less its NUL).
const FAST_LINK_MAX: usize = 59;
const LINK_MAX: usize = 4095;

/// Most names of a file (`EXT4_LINK_MAX`).
const NAMES_MAX: u32 = 65_000;

/// An inode in use. Locks in this order: `change`, the volume, `meta`, the spin locks.
pub struct Inode {
    pub fs: Arc<Fs>,
    me: Weak<Inode>,
    pub number: u32,
    pub meta: Mutex<Meta>,
    /// Size in bytes as programs see it, for those who cannot wait for `meta`.
    pub size: AtomicU64,
    /// One change of size or data at a time.
    pub change: Mutex<()>,
    pub pages: Pages,
    pub index: Mutex<Index>,
    attachment: Attachment,
}

impl Inode {
    pub fn new(fs: Arc<Fs>, number: u32, meta: Meta) -> Arc<Inode> {
        Arc::new_cyclic(|me| Inode {
            fs,
            me: me.clone(),
            number,
            size: AtomicU64::new(meta.size),
            meta: Mutex::new(meta),
            change: Mutex::new(()),
            pages: Pages::default(),
            index: Mutex::new(Index::default()),
            attachment: SpinLock::new(None),
        })
    }

    /// One more reference.
    ///
    /// # Errors
    /// None: whoever calls holds one.
    pub fn to_arc(&self) -> Result<Arc<Inode>> {
        self.me.upgrade().ok_or(Errno::EIO)
    }

    fn same_fs(&self, other: &Arc<dyn VfsInode>) -> Result<Arc<Inode>> {
        let other = other.as_any().downcast_ref::<Inode>().ok_or(Errno::EXDEV)?;
        if Arc::ptr_eq(&self.fs, &other.fs) { other.to_arc() } else { Err(Errno::EXDEV) }
    }

    /// Times of a directory whose entries changed.
    fn entries_changed(&self, state: &mut State, meta: &mut Meta) -> Result<()> {
        meta.mtime = now();
        meta.ctime = meta.mtime;
        state.touch(&self.to_arc()?, meta)
    }

    /// One name less.
    pub fn drop_name(self: &Arc<Inode>, state: &mut State, is_dir: bool) -> Result<()> {
        let mut meta = self.meta.lock();
        meta.links = if is_dir { 0 } else { meta.links.saturating_sub(1) };
        meta.ctime = now();
        let is_last = meta.links == 0;
        state.touch(self, &mut meta)?;
        drop(meta);
        if is_last { state.add_orphan(self.number) } else { Ok(()) }
    }

    fn changed(&self, f: impl FnOnce(&mut Meta)) -> Result<()> {
        let mut state = self.fs.begin()?;
        let mut meta = self.meta.lock();
        f(&mut meta);
        meta.ctime = now();
        state.touch(&self.to_arc()?, &mut meta)
    }

    /// The block with a long link's target.
    fn write_target(self: &Arc<Inode>, state: &mut State, target: &[u8]) -> Result<()> {
        let mut meta = self.meta.lock();
        meta.size = target.len() as u64;
        state.fill(self.number, &mut meta, 0, 1, false)?;
        meta.has_new_blocks = false;
        let block = extents::at(&meta.extents, 0).physical.ok_or(Errno::EIO)?;
        state.store.fresh(block)?[..target.len()].copy_from_slice(target);
        state.touch(self, &mut meta)
    }

    fn make(self: &Arc<Inode>, state: &mut State, node: &NewNode<'_>, links: u32) -> Result<Arc<Inode>> {
        let kind = node.mode & linux::S_IFMT;
        let time = now();
        let mut meta = Meta {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            links,
            atime: time,
            mtime: time,
            ctime: time,
            btime: Some(time),
            is_grown: true,
            ..Meta::default()
        };
        let is_long = kind == linux::S_IFLNK && node.target.len() > FAST_LINK_MAX;
        if kind == linux::S_IFLNK {
            if node.target.len() > LINK_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            if !is_long {
                meta.block = padded(node.target);
                meta.size = node.target.len() as u64;
            }
        } else if matches!(kind, linux::S_IFCHR | linux::S_IFBLK) {
            let (old, new) = encode_device(major(node.rdev), minor(node.rdev)).ok_or(Errno::EINVAL)?;
            meta.block = padded(&[old.to_le_bytes(), new.to_le_bytes()].concat());
            meta.rdev = node.rdev;
        } else if matches!(kind, linux::S_IFIFO | linux::S_IFSOCK) {
            meta.block = padded(b"");
        }
        let inode = self.fs.new_inode(state, self.number, meta)?;
        let filled = match kind {
            linux::S_IFDIR => {
                let mut meta = inode.meta.lock();
                dir::make_dots(state, &inode, &mut meta, self.number)
            }
            _ if is_long => inode.write_target(state, node.target),
            _ => Ok(()),
        };
        match filled {
            Ok(()) => Ok(inode),
            Err(errno) => {
                inode.meta.lock().links = 0;
                state.add_orphan(inode.number)?;
                Err(errno)
            }
        }
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(60, 0);
    out
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.fs.count_dirty(0, self.pages.dirty_count());
        let mut inodes = self.fs.inodes.lock();
        let number = self.number.into();
        // A new one with the same number may be there already.
        let is_last = inodes.get(number).is_some_and(|weak| weak.strong_count() == 0);
        if is_last {
            inodes.remove(number);
        }
        drop(inodes);
        if is_last && self.meta.try_lock().is_none_or(|meta| meta.links == 0) {
            self.fs.unused.lock().push(self.number);
            self.fs.wake_flusher();
        }
    }
}

impl VfsInode for Inode {
    fn attributes(&self) -> Result<Attributes> {
        let meta = self.meta.lock();
        Ok(Attributes { mode: meta.mode, uid: meta.uid, gid: meta.gid })
    }

    fn stat(&self) -> Result<Stat> {
        let meta = self.meta.lock();
        Ok(Stat {
            dev: self.fs.dev,
            ino: self.number.into(),
            mode: meta.mode,
            nlink: meta.links,
            uid: meta.uid,
            gid: meta.gid,
            rdev: meta.rdev,
            size: meta.size,
            block_bytes: BLOCK as u32,
            blocks: meta.sectors(),
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: meta.btime,
        })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn VfsInode>> {
        let mut state = self.fs.state.lock();
        let meta = self.meta.lock();
        if !meta.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let found = dir::find(&mut state, self, &meta, name)?.ok_or(Errno::ENOENT)?;
        drop(meta);
        Ok(self.fs.inode(found.inode, &mut state)?)
    }

    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn VfsInode>> {
        let this = self.to_arc()?;
        let mut state = self.fs.begin()?;
        let is_dir = node.mode & linux::S_IFMT == linux::S_IFDIR;
        let inode = this.make(&mut state, node, if is_dir { 2 } else { 1 })?;
        let mut meta = self.meta.lock();
        let entry = Entry { inode: inode.number, file_type: dir::kind_of(node.mode), name };
        if let Err(errno) = dir::insert(&mut state, &this, &mut meta, &entry) {
            drop(meta);
            inode.drop_name(&mut state, true)?;
            return Err(errno);
        }
        meta.links += u32::from(is_dir);
        self.entries_changed(&mut state, &mut meta)?;
        Ok(inode)
    }

    fn create_unnamed(&self, node: &NewNode<'_>) -> Result<Arc<dyn VfsInode>> {
        let mut state = self.fs.begin()?;
        let inode = self.to_arc()?.make(&mut state, node, 0)?;
        state.add_orphan(inode.number)?;
        Ok(inode)
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn VfsInode>) -> Result<()> {
        let (this, inode) = (self.to_arc()?, self.same_fs(inode)?);
        let mut state = self.fs.begin()?;
        let (mode, links) = {
            let meta = inode.meta.lock();
            (meta.mode, meta.links)
        };
        if links >= NAMES_MAX {
            return Err(Errno::EMLINK);
        }
        let mut meta = self.meta.lock();
        dir::insert(&mut state, &this, &mut meta, &Entry { inode: inode.number, file_type: dir::kind_of(mode), name })?;
        self.entries_changed(&mut state, &mut meta)?;
        drop(meta);
        if links == 0 {
            // A file without a name gets one (`O_TMPFILE`).
            state.forget_orphan(inode.number)?;
        }
        let mut meta = inode.meta.lock();
        meta.links += 1;
        meta.ctime = now();
        state.touch(&inode, &mut meta)?;
        drop(meta);
        drop(state);
        inode.keep_dirty();
        Ok(())
    }

    fn unlink(&self, name: &[u8], is_dir: bool) -> Result<()> {
        let this = self.to_arc()?;
        let mut state = self.fs.begin()?;
        let mut meta = self.meta.lock();
        let found = dir::find(&mut state, self, &meta, name)?.ok_or(Errno::ENOENT)?;
        let victim = self.fs.inode(found.inode, &mut state)?;
        if is_dir && !dir::is_empty(&mut state, &victim.meta.lock())? {
            return Err(Errno::ENOTEMPTY);
        }
        dir::remove(&mut state, &this, &mut meta, name, &found)?;
        meta.links = meta.links.saturating_sub(is_dir.into());
        self.entries_changed(&mut state, &mut meta)?;
        drop(meta);
        victim.drop_name(&mut state, is_dir)
    }

    fn rename(&self, name: &[u8], new_dir: &Arc<dyn VfsInode>, new_name: &[u8], flags: RenameFlags) -> Result<()> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let (this, other) = (self.to_arc()?, self.same_fs(new_dir)?);
        let mut state = self.fs.begin()?;
        let exchanges = flags.contains(RenameFlags::EXCHANGE);
        crate::rename::rename(&self.fs, &mut state, (&this, name), (&other, new_name), exchanges)
    }

    fn read_link(&self) -> Result<Link> {
        let mut state = self.fs.state.lock();
        let meta = self.meta.lock();
        if meta.kind() != linux::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from(meta.size).unwrap_or(usize::MAX);
        if len == 0 || len > LINK_MAX {
            return Err(Errno::EUCLEAN);
        }
        let target = if meta.has_extents() {
            let block = extents::at(&meta.extents, 0).physical.ok_or(Errno::EUCLEAN)?;
            state.store.read(block)?[..len].to_vec()
        } else {
            meta.block.get(..len).ok_or(Errno::EUCLEAN)?.to_vec()
        };
        if target.contains(&0) { Err(Errno::EUCLEAN) } else { Ok(Link::Path(target)) }
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(VolumeFile(self)))
    }

    fn pages(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        Ok(self)
    }

    fn read_dir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let mut index = from / BLOCK as u64;
        let mut skip = (from % BLOCK as u64) as usize;
        loop {
            // A copy, because `emit` may meet a page of this very volume.
            let (block, end) = {
                let mut state = self.fs.state.lock();
                let meta = self.meta.lock();
                if !meta.is_dir() {
                    return Err(Errno::ENOTDIR);
                }
                match dir::read_block(&mut state, &meta, index)? {
                    Some(block) => (block, dir::entry_room(&state)),
                    None => return Ok(()),
                }
            };
            let mut goes_on = true;
            dir::entries(&block, end, &mut |at, len, entry| {
                if at < skip {
                    return true;
                }
                let kinds = [0, linux::DT_REG, linux::DT_DIR, linux::DT_CHR, linux::DT_BLK, linux::DT_FIFO, linux::DT_SOCK, linux::DT_LNK];
                let kind = kinds.get(usize::from(entry.file_type)).map_or(0, |kind| *kind as u8);
                let next = if at + len >= end { (index + 1) * BLOCK as u64 } else { index * BLOCK as u64 + (at + len) as u64 };
                goes_on = emit(&DirEntry { name: entry.name, ino: entry.inode.into(), kind, next });
                goes_on
            })?;
            if !goes_on {
                return Ok(());
            }
            (index, skip) = (index + 1, 0);
        }
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.changed(|meta| {
            if let Some(mode) = change.mode {
                meta.mode = meta.mode & linux::S_IFMT | mode & 0o7777;
            }
            meta.uid = change.uid.unwrap_or(meta.uid);
            meta.gid = change.gid.unwrap_or(meta.gid);
            meta.atime = change.atime.unwrap_or(meta.atime);
            meta.mtime = change.mtime.unwrap_or(meta.mtime);
        })
    }

    fn truncate(&self, len_bytes: u64) -> Result<()> {
        self.set_len(len_bytes)
    }

    fn sync(&self) -> Result<()> {
        self.make_durable(false)
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.get_attribute(name)
    }

    fn xattr_names(&self) -> Result<Vec<u8>> {
        self.attribute_names()
    }

    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, must_exist: Option<bool>) -> Result<()> {
        self.set_attribute(name, value, must_exist)
    }

    fn attachment(&self) -> Option<&Attachment> {
        Some(&self.attachment)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
