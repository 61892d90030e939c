//! Directories: finding, adding and removing entries.
//!
//! New entries go where there is room, blocks are read from the first to the last, and for directories of more than a few blocks a list of name hashes says
//! which block to look into. A directory with a hash tree on the disk becomes an ordinary one when it is first changed: the tree's blocks read as empty
//! entries, so only their checksum tails are missing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::{Errno, Result};
use ukc_ext4_layout::dir::{self, ENTRY_HEADER, Entry, TAIL_SIZE, entry_len};
use ukc_ext4_layout::{checksum, inode_flags};

use crate::extents;
use crate::inode::Inode;
use crate::meta::{Meta, seed};
use crate::state::State;
use crate::store::BLOCK;

/// Directories of at most so many blocks are searched without a list.
const FEW_BLOCKS: u64 = 4;

/// Which names may be in which block, by hash; where there may be room.
#[derive(Default)]
pub struct Index {
    hashes: Option<Vec<(u32, u32)>>,
    room_from: u64,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub inode: u32,
    index: u64,
    block: u64,
    at: usize,
    previous: Option<usize>,
}

/// An entry, or a hole when `inode` is 0.
struct Slot<'a> {
    at: usize,
    len: usize,
    inode: u32,
    kind: u8,
    name: &'a [u8],
}

fn hash(name: &[u8]) -> u32 {
    checksum::crc32c(0, name)
}

/// Bytes of a block that entries may take.
fn room(state: &State) -> usize {
    if state.groups.shape.has_checksums { BLOCK - TAIL_SIZE } else { BLOCK }
}

/// Calls `f` with each slot of a block until it refuses one.
fn walk<'a>(block: &'a [u8], end: usize, f: &mut dyn FnMut(Slot<'a>) -> bool) -> Result<()> {
    let mut at = 0;
    while at < end {
        let get = |i: usize| usize::from(block[at + i]);
        if at + ENTRY_HEADER > BLOCK {
            return Err(Errno::EUCLEAN);
        }
        let len = get(4) | get(5) << 8;
        let name_len = get(6);
        // The hole that fills a block of a hash tree reaches over the tail.
        if len % 4 != 0 || len < entry_len(name_len) || at + len > BLOCK {
            return Err(Errno::EUCLEAN);
        }
        let inode = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let name = &block[at + ENTRY_HEADER..at + ENTRY_HEADER + name_len];
        if !f(Slot { at, len: len.min(end - at), inode, kind: block[at + 7], name }) {
            return Ok(());
        }
        at += len;
    }
    Ok(())
}

/// The disk block of a directory's block.
fn physical(meta: &Meta, index: u64) -> Result<u64> {
    extents::at(&meta.extents, index).physical.ok_or(Errno::EUCLEAN)
}

fn block_count(meta: &Meta) -> u64 {
    meta.size / BLOCK as u64
}

/// Bytes of one block of a directory; `None` behind its end.
///
/// # Errors
/// `EUCLEAN`, `EIO`.
pub fn read_block(state: &mut State, meta: &Meta, index: u64) -> Result<Option<Vec<u8>>> {
    if index >= block_count(meta) {
        return Ok(None);
    }
    Ok(Some(state.store.read(physical(meta, index)?)?.to_vec()))
}

/// Calls `f` with offset in the block, length, inode number, type and name of each entry in use.
///
/// # Errors
/// `EUCLEAN`.
pub fn entries(block: &[u8], end: usize, f: &mut dyn FnMut(usize, usize, Entry<'_>) -> bool) -> Result<()> {
    walk(block, end, &mut |slot| {
        slot.inode == 0 || f(slot.at, slot.len, Entry { inode: slot.inode, file_type: slot.kind, name: slot.name })
    })
}

/// Bytes of a directory's blocks that hold entries.
pub fn entry_room(state: &State) -> usize {
    room(state)
}

fn find_in(state: &mut State, meta: &Meta, index: u64, name: &[u8]) -> Result<Option<Found>> {
    let end = room(state);
    let block = physical(meta, index)?;
    let (mut found, mut previous) = (None, None);
    walk(state.store.read(block)?, end, &mut |slot| {
        if slot.inode != 0 && slot.name == name {
            found = Some(Found { inode: slot.inode, index, block, at: slot.at, previous });
        }
        previous = Some(slot.at);
        found.is_none()
    })?;
    Ok(found)
}

/// Finds a name.
///
/// # Errors
/// `EUCLEAN`, `EIO`.
pub fn find(state: &mut State, dir: &Inode, meta: &Meta, name: &[u8]) -> Result<Option<Found>> {
    let blocks = block_count(meta);
    let mut list = dir.index.lock();
    if blocks <= FEW_BLOCKS {
        for index in 0..blocks {
            if let Some(found) = find_in(state, meta, index, name)? {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    }
    if list.hashes.is_none() {
        list.hashes = Some(hashes(state, meta)?);
    }
    let wanted = hash(name);
    let all = list.hashes.as_deref().unwrap_or_default();
    let from = all.partition_point(|(h, _)| *h < wanted);
    for &(_, index) in all[from..].iter().take_while(|(h, _)| *h == wanted) {
        if let Some(found) = find_in(state, meta, index.into(), name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn hashes(state: &mut State, meta: &Meta) -> Result<Vec<(u32, u32)>> {
    let end = room(state);
    let mut out = Vec::new();
    for index in 0..block_count(meta) {
        let block = physical(meta, index)?;
        walk(state.store.read(block)?, end, &mut |slot| {
            if slot.inode != 0 {
                out.push((hash(slot.name), index as u32));
            }
            true
        })?;
    }
    out.sort_unstable();
    Ok(out)
}

/// Writes the checksum of a directory's block.
fn seal(state: &mut State, dir: &Inode, meta: &Meta, block: u64) -> Result<()> {
    if state.groups.shape.has_checksums {
        let seed = seed(&state.groups.shape, dir.number, meta.generation);
        dir::put_tail(&mut state.store.write(block)?[..], seed);
    }
    Ok(())
}

/// Turns a directory with a hash tree into one without.
fn flatten(state: &mut State, dir: &Arc<Inode>, meta: &mut Meta) -> Result<()> {
    if meta.flags & inode_flags::INDEX == 0 {
        return Ok(());
    }
    let end = room(state);
    for index in 0..block_count(meta) {
        let block = physical(meta, index)?;
        let bytes = state.store.read(block)?;
        let first_len = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        let is_root = index == 0;
        let is_node = first_len == BLOCK && bytes[..4] == [0; 4];
        if is_root || is_node {
            let bytes = state.store.write(block)?;
            // The root's `..` covers the tree's root; a node is one hole.
            let at = if is_root { 12 } else { 0 };
            bytes[at + 4..at + 6].copy_from_slice(&((end - at) as u16).to_le_bytes());
            seal(state, dir, meta, block)?;
        }
    }
    meta.flags &= !inode_flags::INDEX;
    state.touch(dir, meta)
}

/// Adds a name that is not there.
///
/// # Errors
/// `ENOSPC`, `EUCLEAN`, `EIO`, `ENOMEM`.
pub fn insert(state: &mut State, dir: &Arc<Inode>, meta: &mut Meta, entry: &Entry<'_>) -> Result<()> {
    flatten(state, dir, meta)?;
    let end = room(state);
    let needed = entry_len(entry.name.len());
    let from = dir.index.lock().room_from;
    let mut place = None;
    let mut index = from;
    while index < block_count(meta) {
        let block = physical(meta, index)?;
        let mut slot_found = None;
        walk(state.store.read(block)?, end, &mut |slot| {
            let used = if slot.inode == 0 { 0 } else { entry_len(slot.name.len()) };
            if slot.len >= used + needed {
                slot_found = Some((slot.at, slot.len, used));
            }
            slot_found.is_none()
        })?;
        if let Some(found) = slot_found {
            place = Some((block, found));
            break;
        }
        index += 1;
    }
    let (block, (at, len, used)) = match place {
        Some(place) => place,
        None => {
            index = block_count(meta);
            state.fill(dir.number, meta, index, 1, false)?;
            meta.has_new_blocks = false;
            meta.size = (index + 1) * BLOCK as u64;
            let block = physical(meta, index)?;
            state.store.fresh(block)?;
            (block, (0, end, 0))
        }
    };
    let bytes = &mut state.store.write(block)?[..];
    if used > 0 {
        bytes[at + 4..at + 6].copy_from_slice(&(used as u16).to_le_bytes());
    }
    dir::put_entry(bytes, at + used, len - used, entry);
    seal(state, dir, meta, block)?;
    let mut list = dir.index.lock();
    list.room_from = index;
    if let Some(hashes) = &mut list.hashes {
        let new = (hash(entry.name), index as u32);
        let at = hashes.partition_point(|e| *e < new);
        if hashes.try_reserve(1).is_ok() {
            hashes.insert(at, new);
        } else {
            list.hashes = None;
        }
    }
    drop(list);
    state.touch(dir, meta)
}

/// Removes an entry.
///
/// # Errors
/// `EUCLEAN`, `EIO`.
pub fn remove(state: &mut State, dir: &Arc<Inode>, meta: &mut Meta, name: &[u8], found: &Found) -> Result<()> {
    flatten(state, dir, meta)?;
    let bytes = state.store.write(found.block)?;
    let len_at = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]);
    match found.previous {
        Some(previous) => {
            let joined = (found.at - previous) as u16 + len_at(bytes, found.at);
            bytes[previous + 4..previous + 6].copy_from_slice(&joined.to_le_bytes());
        }
        None => bytes[found.at..found.at + 4].fill(0),
    }
    seal(state, dir, meta, found.block)?;
    let mut list = dir.index.lock();
    list.room_from = list.room_from.min(found.index);
    if let Some(hashes) = &mut list.hashes
        && let Ok(at) = hashes.binary_search(&(hash(name), found.index as u32))
    {
        hashes.remove(at);
    }
    drop(list);
    state.touch(dir, meta)
}

/// Makes an entry name another inode.
///
/// # Errors
/// `EUCLEAN`, `EIO`.
pub fn set(state: &mut State, dir: &Arc<Inode>, meta: &mut Meta, found: &Found, inode: u32, kind: u8) -> Result<()> {
    flatten(state, dir, meta)?;
    let bytes = state.store.write(found.block)?;
    bytes[found.at..found.at + 4].copy_from_slice(&inode.to_le_bytes());
    bytes[found.at + 7] = kind;
    seal(state, dir, meta, found.block)?;
    state.touch(dir, meta)
}

/// Writes `.` and `..` of a new directory.
///
/// # Errors
/// `ENOSPC`, `EIO`.
pub fn make_dots(state: &mut State, dir: &Arc<Inode>, meta: &mut Meta, parent: u32) -> Result<()> {
    let end = room(state);
    state.fill(dir.number, meta, 0, 1, false)?;
    meta.has_new_blocks = false;
    meta.size = BLOCK as u64;
    let block = physical(meta, 0)?;
    let bytes = &mut state.store.fresh(block)?[..];
    let file_type = dir::file_type::DIRECTORY;
    dir::put_entry(bytes, 0, 12, &Entry { inode: dir.number, file_type, name: b"." });
    dir::put_entry(bytes, 12, end - 12, &Entry { inode: parent, file_type, name: b".." });
    seal(state, dir, meta, block)?;
    state.touch(dir, meta)
}

/// Whether there is nothing but `.` and `..`.
///
/// # Errors
/// `EUCLEAN`, `EIO`.
pub fn is_empty(state: &mut State, meta: &Meta) -> Result<bool> {
    let end = room(state);
    let mut is_empty = true;
    for index in 0..block_count(meta) {
        let block = physical(meta, index)?;
        entries(state.store.read(block)?, end, &mut |_, _, entry| {
            is_empty &= matches!(entry.name, b"." | b"..");
            is_empty
        })?;
    }
    Ok(is_empty)
}

/// The type of an entry for a mode.
pub fn kind_of(mode: u32) -> u8 {
    use libos_core::abi::general as linux;
    match mode & linux::S_IFMT {
        linux::S_IFREG => dir::file_type::REGULAR,
        linux::S_IFDIR => dir::file_type::DIRECTORY,
        linux::S_IFCHR => dir::file_type::CHAR_DEVICE,
        linux::S_IFBLK => dir::file_type::BLOCK_DEVICE,
        linux::S_IFIFO => dir::file_type::FIFO,
        linux::S_IFSOCK => dir::file_type::SOCKET,
        _ => dir::file_type::SYMLINK,
    }
}
