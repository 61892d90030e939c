//! An inode's fields in memory, and as bytes of the inode table.

use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::vfs::registry::make_dev;
use libos_core::{Errno, Result};
use ukc_ext4_layout::extent::{self, BLOCK_ENTRIES, Extent, Index, ROOT_ENTRIES};
use ukc_ext4_layout::{Inode, Timestamp, checksum, inode_flags};

use crate::groups::{Groups, Shape};
use crate::store::{BLOCK, Bytes, Store};

/// Seconds and nanoseconds.
pub type Time = (i64, u32);

/// What an inode says of itself.
#[derive(Clone, Default)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub size: u64,
    pub rdev: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Option<Time>,
    pub generation: u32,
    pub flags: u32,
    pub xattr_block: u64,
    /// A short link's target or a device's number; extents have their own place here.
    pub block: Vec<u8>,
    pub extents: Vec<Extent>,
    /// Blocks of the extent tree below its root.
    pub tree: Vec<u64>,
    /// Changed since it was written to the inode table.
    pub is_dirty: bool,
    /// Size or blocks changed since then: fdatasync(2) must write it, too.
    pub is_grown: bool,
    /// Blocks were allocated since the last commit: their data must be on the disk before it.
    pub has_new_blocks: bool,
}

/// Where inode checksums start.
pub fn seed(shape: &Shape, number: u32, generation: u32) -> u32 {
    checksum::inode_seed(shape.seed, number, generation)
}

impl Meta {
    pub fn kind(&self) -> u32 {
        self.mode & linux::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == linux::S_IFDIR
    }

    /// Whether blocks are mapped by extents: what has none keeps something else in the 60 bytes.
    pub fn has_extents(&self) -> bool {
        self.flags & inode_flags::EXTENTS != 0
    }

    /// `st_blocks`.
    pub fn sectors(&self) -> u64 {
        let data: u64 = self.extents.iter().map(|e| u64::from(e.len)).sum();
        (data + self.tree.len() as u64 + u64::from(self.xattr_block != 0)) * (BLOCK as u64 / 512)
    }

    /// Reads an inode.
    ///
    /// # Errors
    /// `EUCLEAN` when it is not in use or makes no sense, `EIO`.
    pub fn read(store: &mut Store, groups: &Groups, number: u32) -> Result<Meta> {
        let (block, at) = groups.inode_place(number)?;
        let bytes = &store.read(block)?[at..at + groups.shape.inode_bytes];
        let raw = Inode::new(bytes).ok_or(Errno::EUCLEAN)?;
        let has = |end: usize| 128 + usize::from(raw.extra_isize()) >= end;
        let time = |seconds, extra, end| {
            let t = Timestamp::decode(seconds, if has(end) { extra } else { 0 });
            (t.seconds, t.nanoseconds.min(999_999_999))
        };
        let mode = u32::from(raw.mode());
        let kind = mode & linux::S_IFMT;
        let is_known = matches!(
            kind,
            linux::S_IFREG | linux::S_IFDIR | linux::S_IFLNK | linux::S_IFCHR | linux::S_IFBLK | linux::S_IFIFO | linux::S_IFSOCK
        );
        if !is_known || raw.size() > i64::MAX as u64 || raw.flags() & inode_flags::INLINE_DATA != 0 {
            return Err(Errno::EUCLEAN);
        }
        let (major, minor) = raw.device();
        let is_device = matches!(kind, linux::S_IFCHR | linux::S_IFBLK);
        let mut meta = Meta {
            mode,
            uid: raw.uid(),
            gid: raw.gid(),
            links: raw.links_count().into(),
            size: raw.size(),
            rdev: if is_device { make_dev(major, minor) } else { 0 },
            atime: time(raw.atime(), raw.atime_extra(), 0x90),
            mtime: time(raw.mtime(), raw.mtime_extra(), 0x8c),
            ctime: time(raw.ctime(), raw.ctime_extra(), 0x88),
            btime: has(0x98).then(|| time(raw.crtime(), raw.crtime_extra(), 0x98)),
            generation: raw.generation(),
            flags: raw.flags(),
            xattr_block: raw.xattr_block(),
            block: raw.block().to_vec(),
            ..Meta::default()
        };
        if meta.has_extents() {
            let root = meta.block.clone();
            meta.read_tree(store, groups, &root, extent::MAX_DEPTH + 1)?;
        } else if matches!(kind, linux::S_IFREG | linux::S_IFDIR) && meta.size > 0 {
            // Block pointers, as ext2 and ext3 have them.
            return Err(Errno::EUCLEAN);
        }
        Ok(meta)
    }

    fn read_tree(&mut self, store: &mut Store, groups: &Groups, bytes: &[u8], levels: u16) -> Result<()> {
        let node = extent::node(bytes).map_err(|_| Errno::EUCLEAN)?;
        if node.depth >= levels {
            return Err(Errno::EUCLEAN);
        }
        let blocks = groups.shape.blocks;
        if node.depth == 0 {
            for e in node.extents() {
                let begins = self.extents.last().map_or(0, |last| u64::from(last.logical) + u64::from(last.len));
                let is_sound =
                    e.len > 0 && u64::from(e.logical) >= begins && e.physical > 0 && e.physical.saturating_add(e.len.into()) <= blocks;
                if !is_sound {
                    return Err(Errno::EUCLEAN);
                }
                self.extents.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                self.extents.push(e);
            }
            return Ok(());
        }
        let depth = node.depth;
        let below: Vec<Index> = node.indexes().collect();
        for index in below {
            if index.block == 0 || index.block >= blocks || self.tree.len() as u64 >= blocks {
                return Err(Errno::EUCLEAN);
            }
            self.tree.push(index.block);
            let bytes = store.read(index.block)?.to_vec();
            self.read_tree(store, groups, &bytes, depth)?;
        }
        Ok(())
    }

    /// Writes the inode, and its extent tree, into the running transaction.
    ///
    /// # Errors
    /// `EIO`, `ENOMEM`.
    pub fn encode(&self, store: &mut Store, groups: &Groups, number: u32, is_new: bool) -> Result<()> {
        let seed = seed(&groups.shape, number, self.generation);
        let root = if self.has_extents() { self.encode_tree(store, groups.shape.has_checksums, seed)? } else { self.block.clone() };
        let (block, at) = groups.inode_place(number)?;
        let len = groups.shape.inode_bytes;
        let bytes = &mut store.write(block)?[at..at + len];
        if is_new {
            bytes.fill(0);
        }
        let mut raw = Inode::new(bytes).ok_or(Errno::EUCLEAN)?;
        if is_new {
            raw.set_extra_isize(groups.shape.extra_isize);
        }
        raw.set_mode(self.mode as u16);
        raw.set_uid(self.uid);
        raw.set_gid(self.gid);
        // More subdirectories than a count can say are said to be "many" (`dir_nlink`).
        raw.set_links_count(if self.links > 65_000 { 1 } else { self.links as u16 });
        // Blocks behind the end would be nobody's, so a file is at least as long as the start of its last block.
        let last = self.extents.last().filter(|e| !e.is_unwritten).map_or(0, |e| u64::from(e.logical) + u64::from(e.len) - 1);
        let is_file = self.kind() == linux::S_IFREG;
        raw.set_size(if is_file { self.size.max(last * BLOCK as u64) } else { self.size });
        raw.set_sectors(self.sectors());
        raw.set_flags(self.flags);
        raw.set_generation(self.generation);
        raw.set_xattr_block(self.xattr_block);
        raw.set_block(&root);
        let time = |t: Time| Timestamp { seconds: t.0, nanoseconds: t.1 }.encode();
        let ((atime, atime_extra), (mtime, mtime_extra), (ctime, ctime_extra)) = (time(self.atime), time(self.mtime), time(self.ctime));
        raw.set_atime(atime);
        raw.set_mtime(mtime);
        raw.set_ctime(ctime);
        if raw.extra_isize() >= 0x18 {
            raw.set_atime_extra(atime_extra);
            raw.set_mtime_extra(mtime_extra);
            raw.set_ctime_extra(ctime_extra);
            if let Some((crtime, extra)) = self.btime.map(time) {
                raw.set_crtime(crtime);
                raw.set_crtime_extra(extra);
            }
        }
        set_checksum(&groups.shape, seed, &mut raw);
        Ok(())
    }

    /// Returns the 60 bytes of the root and writes the nodes below it to [`Meta::tree`], which has as many blocks as are needed.
    fn encode_tree(&self, store: &mut Store, has_checksums: bool, seed: u32) -> Result<Vec<u8>> {
        let mut root = alloc::vec![0; 60];
        if self.extents.len() <= ROOT_ENTRIES {
            extent::put_header(&mut root, self.extents.len(), ROOT_ENTRIES, 0);
            self.extents.iter().enumerate().for_each(|(i, e)| extent::put_extent(&mut root, i, e));
            return Ok(root);
        }
        let mut free = self.tree.iter();
        let mut node = alloc::boxed::Box::new([0; BLOCK]);
        let mut level: Vec<Index> = Vec::new();
        let mut finish = |node: &mut Bytes, store: &mut Store, logical: u32| {
            if has_checksums {
                extent::put_tail(node, seed);
            }
            let block = *free.next().ok_or(Errno::EUCLEAN)?;
            store.put(block, node)?;
            Ok::<Index, Errno>(Index { logical, block })
        };
        for piece in self.extents.chunks(BLOCK_ENTRIES) {
            node.fill(0);
            extent::put_header(&mut node[..], piece.len(), BLOCK_ENTRIES, 0);
            piece.iter().enumerate().for_each(|(i, e)| extent::put_extent(&mut node[..], i, e));
            level.push(finish(&mut node, store, piece[0].logical)?);
        }
        let mut depth = 1;
        while level.len() > ROOT_ENTRIES {
            let mut above = Vec::new();
            for piece in level.chunks(BLOCK_ENTRIES) {
                node.fill(0);
                extent::put_header(&mut node[..], piece.len(), BLOCK_ENTRIES, depth);
                piece.iter().enumerate().for_each(|(i, e)| extent::put_index(&mut node[..], i, e));
                above.push(finish(&mut node, store, piece[0].logical)?);
            }
            level = above;
            depth += 1;
        }
        extent::put_header(&mut root, level.len(), ROOT_ENTRIES, depth);
        level.iter().enumerate().for_each(|(i, e)| extent::put_index(&mut root, i, e));
        Ok(root)
    }
}

/// Computes the checksum of an inode.
pub fn set_checksum(shape: &Shape, seed: u32, raw: &mut Inode<&mut [u8]>) {
    if shape.has_checksums {
        let crc = checksum::inode(seed, raw);
        raw.set_checksum_lo(crc as u16);
        raw.set_checksum_hi((crc >> 16) as u16);
    }
}
