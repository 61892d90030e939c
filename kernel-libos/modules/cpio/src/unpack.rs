//! From entries to inodes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags};
use libos_core::io::IoSrc;
use libos_core::vfs::registry::make_dev;
use libos_core::vfs::volume::Volume;
use libos_core::vfs::{Inode, NewNode, SetAttributes};
use libos_core::{Errno, Result};

use crate::archive::{self, Entry};

/// Bytes copied at once.
const CHUNK: usize = 4096;

/// Longest target of a symbolic link.
const TARGET_MAX: u64 = 4095;

/// Files with several names, by their identity.
type Links = Vec<((u32, u32, u32), Arc<dyn Inode>)>;

/// Unpacks all archives from an offset on.
///
/// # Errors
/// `EUCLEAN` for a damaged archive, and what making files answers; what came before stays.
pub fn unpack(volume: &dyn Volume, from: u64, root: &Arc<dyn Inode>) -> Result<()> {
    let mut next = archive::next_archive(volume, from);
    while let Some(mut at) = next {
        let mut links = Vec::new();
        loop {
            let entry = archive::entry(volume, at)?;
            at = entry.next;
            if entry.name == b"TRAILER!!!" {
                break;
            }
            one(volume, &entry, root, &mut links)?;
        }
        next = archive::next_archive(volume, at);
    }
    Ok(())
}

fn one(volume: &dyn Volume, entry: &Entry, root: &Arc<dyn Inode>, links: &mut Links) -> Result<()> {
    let mut names: Vec<&[u8]> = entry.name.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    let Some(last) = names.pop() else {
        // The root itself.
        return set(root, entry);
    };
    let mut dir = root.clone();
    for name in names {
        match below(&dir, name) {
            Ok(found) => dir = found,
            // Somewhere else than it says: left out.
            Err(Errno::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    if last == b".." {
        return Ok(());
    }
    let kind = entry.mode & linux::S_IFMT;
    let old = dir.lookup(last).ok();
    if let Some(old) = &old {
        let is_dir = old.attributes()?.is_dir();
        if is_dir && kind == linux::S_IFDIR {
            return set(old, entry);
        }
        if is_dir {
            return Ok(());
        }
        dir.unlink(last, false)?;
    }
    drop(old);
    let known = links.iter().find(|(identity, _)| entry.links > 1 && kind == linux::S_IFREG && *identity == entry.identity);
    let inode = match known {
        Some((_, inode)) => {
            dir.link(last, inode)?;
            inode.clone()
        }
        None => {
            let target = if kind == linux::S_IFLNK { read(volume, entry.data)? } else { Vec::new() };
            let rdev = make_dev(entry.device.0, entry.device.1);
            dir.create(last, &NewNode { mode: entry.mode, uid: entry.uid, gid: entry.gid, rdev, target: &target })?
        }
    };
    if kind == linux::S_IFREG {
        if entry.links > 1 && known.is_none() {
            links.push((entry.identity, inode.clone()));
        }
        // Of several names the last one has the data.
        write(volume, entry.data, &inode)?;
    }
    set(&inode, entry)
}

/// The directory of a name, made when it is missing.
fn below(dir: &Arc<dyn Inode>, name: &[u8]) -> Result<Arc<dyn Inode>> {
    if name == b".." {
        return Err(Errno::ENOTDIR);
    }
    match dir.lookup(name) {
        Ok(found) if found.attributes()?.is_dir() => Ok(found),
        Ok(_) => Err(Errno::ENOTDIR),
        Err(Errno::ENOENT) => dir.create(name, &NewNode { mode: linux::S_IFDIR | 0o755, uid: 0, gid: 0, rdev: 0, target: b"" }),
        Err(errno) => Err(errno),
    }
}

fn set(inode: &Arc<dyn Inode>, entry: &Entry) -> Result<()> {
    let time = Some((entry.mtime.into(), 0));
    let mode = (entry.mode & linux::S_IFMT != linux::S_IFLNK).then_some(entry.mode & 0o7777);
    inode.set_attributes(&SetAttributes { mode, uid: Some(entry.uid), gid: Some(entry.gid), atime: time, mtime: time })
}

fn read(volume: &dyn Volume, (at, len): (u64, u64)) -> Result<Vec<u8>> {
    if len > TARGET_MAX {
        return Err(Errno::EUCLEAN);
    }
    let mut bytes = alloc::vec![0; len as usize];
    volume.read(at, &mut bytes)?;
    Ok(bytes)
}

fn write(volume: &dyn Volume, (at, len): (u64, u64), inode: &Arc<dyn Inode>) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let file = OpenFile::new(inode.clone().open(OpenFlags::WRONLY)?, OpenFlags::WRONLY, None);
    let mut chunk = alloc::vec![0; CHUNK];
    let mut done = 0;
    while done < len {
        let count = (len - done).min(CHUNK as u64) as usize;
        volume.read(at + done, &mut chunk[..count])?;
        if file.write(&mut IoSrc::kernel(&chunk[..count]))? < count {
            return Err(Errno::ENOSPC);
        }
        done += count as u64;
    }
    Ok(())
}
