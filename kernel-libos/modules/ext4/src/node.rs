//! One inode: its fields, its attributes, its directory entries, and the map from file blocks to disk blocks.

use alloc::vec;
use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::sync::SpinLock;
use libos_core::vfs::registry::make_dev;
use libos_core::{Errno, Result};
use ukc_ext4_layout::{Inode, Timestamp, dir, extent, inode_flags, xattr};

use crate::geometry::Geometry;

/// Fields of an inode, read once.
pub struct Node {
    pub number: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub links: u32,
    pub sectors: u64,
    pub rdev: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub btime: Option<(i64, u32)>,
    flags: u32,
    xattr_block: u64,
    /// Extent root, block pointers, short link, or the start of inline data.
    block: [u8; 60],
    /// The run of blocks found last: reading on in a file rarely walks the tree again.
    last: SpinLock<Option<Run>>,
}

/// Blocks of a file that lie in a row on the disk, or in a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First block of the file.
    pub logical: u64,
    /// How many.
    pub len: u64,
    /// First block on the disk; `None` reads as zeros.
    pub physical: Option<u64>,
}

impl Run {
    fn at(self, logical: u64) -> Option<Run> {
        let skip = logical.checked_sub(self.logical).filter(|skip| *skip < self.len)?;
        Some(Run { logical, len: self.len - skip, physical: self.physical.map(|p| p + skip) })
    }
}

/// Gets the number of an attribute's prefix, the rest of its name, and its value as stored.
type AttributeFn<'a> = dyn FnMut(u8, &[u8], &[u8]) + 'a;

fn unclean(_: dir::Malformed) -> Errno {
    Errno::EUCLEAN
}

/// Longest target of a symbolic link, with NUL (`PATH_MAX`).
const LINK_MAX: u64 = 4096;

impl Node {
    /// Reads an inode.
    ///
    /// # Errors
    /// `EUCLEAN` when it is not in use or makes no sense, `EIO`.
    pub fn read(fs: &Geometry, number: u32) -> Result<Node> {
        let mut bytes = [0; 256];
        let stored = fs.read_inode(number, &mut bytes)?;
        let raw = Inode::new(&bytes[..]).ok_or(Errno::EUCLEAN)?;
        let has = |end: usize| stored > 128 && 128 + usize::from(raw.extra_isize()) >= end;
        let time = |seconds, extra, end| {
            let t = Timestamp::decode(seconds, if has(end) { extra } else { 0 });
            (t.seconds, t.nanoseconds.min(999_999_999))
        };
        let mode = u32::from(raw.mode());
        let is_known = matches!(
            mode & linux::S_IFMT,
            linux::S_IFREG | linux::S_IFDIR | linux::S_IFLNK | linux::S_IFCHR | linux::S_IFBLK | linux::S_IFIFO | linux::S_IFSOCK
        );
        // The mode of a free inode is 0. A size is a signed number to programs.
        if !is_known || raw.size() > i64::MAX as u64 {
            return Err(Errno::EUCLEAN);
        }
        let is_device = matches!(mode & linux::S_IFMT, linux::S_IFCHR | linux::S_IFBLK);
        let (major, minor) = raw.device();
        let mut block = [0; 60];
        block.copy_from_slice(raw.block().get(..60).ok_or(Errno::EUCLEAN)?);
        Ok(Node {
            number,
            mode,
            uid: raw.uid(),
            gid: raw.gid(),
            size: raw.size(),
            links: u32::from(raw.links_count()),
            sectors: raw.sectors(),
            rdev: if is_device { make_dev(major, minor) } else { 0 },
            atime: time(raw.atime(), raw.atime_extra(), 0x90),
            mtime: time(raw.mtime(), raw.mtime_extra(), 0x8c),
            ctime: time(raw.ctime(), raw.ctime_extra(), 0x88),
            btime: has(0x98).then(|| time(raw.crtime(), raw.crtime_extra(), 0x98)),
            flags: raw.flags(),
            xattr_block: raw.xattr_block(),
            block,
            last: SpinLock::new(None),
        })
    }

    pub fn is_dir(&self) -> bool {
        self.mode & linux::S_IFMT == linux::S_IFDIR
    }

    fn is_inline(&self) -> bool {
        self.flags & inode_flags::INLINE_DATA != 0
    }

    /// The blocks from `logical` on: where they are and how many lie in a row.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`.
    pub fn map(&self, fs: &Geometry, logical: u64) -> Result<Run> {
        if let Some(run) = self.last.lock().and_then(|run| run.at(logical)) {
            return Ok(run);
        }
        let run = if self.flags & inode_flags::EXTENTS != 0 { self.map_extents(fs, logical)? } else { self.map_pointers(fs, logical)? };
        let run = run.at(logical).ok_or(Errno::EUCLEAN)?;
        if let Some(first) = run.physical {
            // The whole run must be inside the image, so that nobody who uses it has to check again.
            let end = first.checked_add(run.len).ok_or(Errno::EUCLEAN)?;
            if end > fs.blocks {
                return Err(Errno::EUCLEAN);
            }
        }
        *self.last.lock() = Some(run);
        Ok(run)
    }

    fn map_extents(&self, fs: &Geometry, logical: u64) -> Result<Run> {
        let mut owned;
        let mut node = extent::node(&self.block).map_err(unclean)?;
        // Where the next sibling of the path begins: a hole ends there at the latest.
        let mut limit = u64::MAX;
        while node.depth > 0 {
            let depth = node.depth;
            let mut below = None;
            for index in node.indexes() {
                if u64::from(index.logical) > logical {
                    limit = limit.min(u64::from(index.logical));
                    break;
                }
                below = Some(index.block);
            }
            let Some(block) = below else { return Ok(Run { logical, len: limit - logical, physical: None }) };
            owned = self.read_block(fs, block)?;
            node = extent::node(&owned).map_err(unclean)?;
            // Depths must fall, so that a node which points to itself does not catch us.
            if node.depth != depth - 1 {
                return Err(Errno::EUCLEAN);
            }
        }
        for extent in node.extents() {
            let first = u64::from(extent.logical);
            if first > logical {
                limit = limit.min(first);
                break;
            }
            if logical - first < u64::from(extent.len) {
                let physical = (!extent.is_unwritten).then_some(extent.physical);
                return Ok(Run { logical: first, len: u64::from(extent.len), physical });
            }
        }
        Ok(Run { logical, len: limit - logical, physical: None })
    }

    /// The map of ext2 and ext3: 12 pointers to blocks, then blocks of pointers, one, two and three levels deep.
    fn map_pointers(&self, fs: &Geometry, logical: u64) -> Result<Run> {
        let per_block = fs.block_bytes / 4;
        let word = |i: usize| u32::from_le_bytes([self.block[i * 4], self.block[i * 4 + 1], self.block[i * 4 + 2], self.block[i * 4 + 3]]);
        let one = |physical: u32| Run { logical, len: 1, physical: (physical != 0).then_some(u64::from(physical)) };
        if logical < 12 {
            return Ok(one(word(logical as usize)));
        }
        let mut index = logical - 12;
        let mut span = per_block;
        for level in 0..3 {
            if index < span {
                let mut pointer = word(12 + level);
                while span > 1 {
                    if pointer == 0 {
                        // Nothing below this pointer: a hole up to the end of its span.
                        return Ok(Run { logical, len: span - index % span, physical: None });
                    }
                    let below = span / per_block;
                    let at = fs.block_offset(u64::from(pointer))? + index / below % per_block * 4;
                    let mut bytes = [0; 4];
                    fs.volume.read(at, &mut bytes)?;
                    pointer = u32::from_le_bytes(bytes);
                    span = below;
                }
                return Ok(one(pointer));
            }
            index -= span;
            span = span.checked_mul(per_block).ok_or(Errno::EUCLEAN)?;
        }
        // Larger than any such file can be.
        Err(Errno::EUCLEAN)
    }

    fn read_block(&self, fs: &Geometry, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; fs.block_bytes as usize];
        fs.volume.read(fs.block_offset(block)?, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads file bytes; what lies in holes and behind the end is zero. For directories, links and what cannot be handed out in place.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`.
    pub fn read_bytes(&self, fs: &Geometry, offset: u64, dst: &mut [u8]) -> Result<()> {
        dst.fill(0);
        let len = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(dst.len());
        let dst = &mut dst[..len];
        if self.is_inline() {
            let data = self.inline_data(fs)?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
            let count = (data.len() - from).min(dst.len());
            dst[..count].copy_from_slice(&data[from..from + count]);
            return Ok(());
        }
        let mut done = 0;
        while done < dst.len() {
            let at = offset + done as u64;
            let run = self.map(fs, at / fs.block_bytes)?;
            let in_block = at % fs.block_bytes;
            let avail = run.len.saturating_mul(fs.block_bytes) - in_block;
            let count = usize::try_from(avail).unwrap_or(usize::MAX).min(dst.len() - done);
            if let Some(physical) = run.physical {
                fs.volume.read(fs.block_offset(physical)? + in_block, &mut dst[done..done + count])?;
            }
            done += count;
        }
        Ok(())
    }

    /// Data that is in the inode itself: its 60 bytes, and the rest in the attribute `system.data`.
    fn inline_data(&self, fs: &Geometry) -> Result<Vec<u8>> {
        let mut data = self.block.to_vec();
        self.attributes(fs, &mut |prefix, name, value| {
            if (prefix, name) == (7, b"data") {
                data.extend_from_slice(value);
            }
        })?;
        Ok(data)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` when it is none; `EUCLEAN`, `EIO`.
    pub fn link_target(&self, fs: &Geometry) -> Result<Vec<u8>> {
        if self.mode & linux::S_IFMT != linux::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        if self.size == 0 || self.size >= LINK_MAX {
            return Err(Errno::EUCLEAN);
        }
        let mut target = vec![0; self.size as usize];
        // A short target has no blocks of its own (`ext4_inode_is_fast_symlink`); an attribute block counts as one.
        let attribute_sectors = if self.xattr_block != 0 { fs.block_bytes / 512 } else { 0 };
        let is_short = self.size < 60 && !self.is_inline() && self.sectors.saturating_sub(attribute_sectors) == 0;
        if is_short {
            target.copy_from_slice(&self.block[..self.size as usize]);
        } else {
            self.read_bytes(fs, 0, &mut target)?;
        }
        if target.contains(&0) { Err(Errno::EUCLEAN) } else { Ok(target) }
    }

    /// Calls `f` with each directory entry from byte `from` on until it refuses one: the entry and the offset of the next.
    ///
    /// # Errors
    /// `EUCLEAN` when an entry does not fit its block or a block is missing; `EIO`.
    pub fn entries(&self, fs: &Geometry, from: u64, f: &mut dyn FnMut(dir::Entry<'_>, u64) -> bool) -> Result<()> {
        if self.is_inline() {
            return self.inline_entries(fs, from, f);
        }
        // A directory has no holes, so a size beyond the image's is nonsense and must not keep us busy.
        if self.size > fs.blocks.saturating_mul(fs.block_bytes) {
            return Err(Errno::EUCLEAN);
        }
        let mut bytes = vec![0; fs.block_bytes as usize];
        let mut at = from - from % fs.block_bytes;
        while at < self.size {
            let run = self.map(fs, at / fs.block_bytes)?;
            let physical = run.physical.ok_or(Errno::EUCLEAN)?;
            fs.volume.read(fs.block_offset(physical)?, &mut bytes)?;
            let base = bytes.as_ptr() as usize;
            for entry in dir::entries(&bytes) {
                let entry = entry.map_err(unclean)?;
                // The offset of the entry's end is not told; a name's place in the block is, and it grows.
                let start = at + (entry.name.as_ptr() as usize).wrapping_sub(base + dir::ENTRY_HEADER) as u64;
                if start >= from && !f(entry, start + 1) {
                    return Ok(());
                }
            }
            at += fs.block_bytes;
        }
        Ok(())
    }

    /// Inline directories: the parent's number in place of `.` and `..`, then entries, in the inode and in `system.data`.
    fn inline_entries(&self, fs: &Geometry, from: u64, f: &mut dyn FnMut(dir::Entry<'_>, u64) -> bool) -> Result<()> {
        let data = self.inline_data(fs)?;
        let parent = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
        let len = usize::try_from(self.size).unwrap_or(usize::MAX).min(data.len());
        let directory = dir::file_type::DIRECTORY;
        let dots = [
            dir::Entry { inode: self.number, file_type: directory, name: b"." },
            dir::Entry { inode: parent, file_type: directory, name: b".." },
        ];
        let areas = [data.get(4..len.min(60)), data.get(60..len)];
        let rest = areas.into_iter().flatten().flat_map(dir::entries);
        for (i, entry) in dots.into_iter().map(Ok).chain(rest).enumerate() {
            let entry = entry.map_err(unclean)?;
            if i as u64 >= from && !f(entry, i as u64 + 1) {
                break;
            }
        }
        Ok(())
    }

    /// Finds a name in a directory.
    ///
    /// # Errors
    /// `ENOENT`, `EUCLEAN`, `EIO`.
    pub fn find(&self, fs: &Geometry, name: &[u8]) -> Result<u32> {
        let mut found = None;
        self.entries(fs, 0, &mut |entry, _| {
            if entry.name == name {
                found = Some(entry.inode);
            }
            found.is_none()
        })?;
        found.ok_or(Errno::ENOENT)
    }

    /// Calls `f` with each extended attribute: number of the prefix, rest of the name, value as stored.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`.
    pub fn attributes(&self, fs: &Geometry, f: &mut AttributeFn<'_>) -> Result<()> {
        let mut bytes = [0; 1024];
        let stored = fs.read_inode(self.number, &mut bytes)?;
        let raw = Inode::new(&bytes[..stored]).ok_or(Errno::EUCLEAN)?;
        for entry in xattr::inode_entries(raw.xattr_bytes()) {
            let entry = entry.map_err(unclean)?;
            f(entry.prefix, entry.name, entry.value);
        }
        if self.xattr_block != 0 {
            let block = self.read_block(fs, self.xattr_block)?;
            for entry in xattr::block_entries(&block) {
                let entry = entry.map_err(unclean)?;
                f(entry.prefix, entry.name, entry.value);
            }
        }
        Ok(())
    }
}
