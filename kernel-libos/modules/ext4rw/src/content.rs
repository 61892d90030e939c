//! What an empty volume gets when it is mounted on a directory of the image: a copy of what is there, as Docker does for named volumes (Docker
//! documentation, "Populate a volume using a container").

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, OpenFlags};
use libos_core::io::IoSrc;
use libos_core::mm::PAGE_SIZE;
use libos_core::vfs::{Inode, Link, NewNode, SetAttributes};
use libos_core::{Errno, Result};

/// Deepest nesting that is copied.
const DEPTH_MAX: usize = 64;

/// Copies the contents of `from` into `to` when `to` is empty.
///
/// # Errors
/// What either side answers; `ELOOP` for directories nested too deep.
pub fn fill(from: &Arc<dyn Inode>, to: &Arc<dyn Inode>) -> Result<()> {
    let is_empty = names(to)?.iter().all(|name| name == b"lost+found");
    if !is_empty || !from.attributes()?.is_dir() {
        return Ok(());
    }
    copy_attributes(from, to)?;
    let mut links = Vec::new();
    copy_entries(from, to, &mut links, 0)?;
    to.sync()
}

fn names(dir: &Arc<dyn Inode>) -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    dir.read_dir(0, &mut |entry| {
        if !matches!(entry.name, b"." | b"..") {
            out.push(entry.name.to_vec());
        }
        true
    })?;
    Ok(out)
}

/// Files with several names that were copied: their number here, and the copy.
type Links = Vec<(u64, Arc<dyn Inode>)>;

fn copy_entries(from: &Arc<dyn Inode>, to: &Arc<dyn Inode>, links: &mut Links, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::ELOOP);
    }
    for name in names(from)? {
        let source = from.lookup(&name)?;
        let stat = source.stat()?;
        if let Some((_, copy)) = links.iter().find(|(ino, _)| *ino == stat.ino) {
            to.link(&name, copy)?;
            continue;
        }
        let target = match source.attributes()?.is_symlink() {
            true => match source.read_link()? {
                Link::Path(path) => path,
                Link::Jump(_) => continue,
            },
            false => Vec::new(),
        };
        let node = NewNode { mode: stat.mode, uid: stat.uid, gid: stat.gid, rdev: stat.rdev, target: &target };
        let copy = to.create(&name, &node)?;
        match stat.mode & linux::S_IFMT {
            linux::S_IFDIR => copy_entries(&source, &copy, links, depth + 1)?,
            linux::S_IFREG => copy_data(&source, &copy, stat.size)?,
            _ => {}
        }
        if stat.nlink > 1 && stat.mode & linux::S_IFMT != linux::S_IFDIR {
            links.push((stat.ino, copy.clone()));
        }
        copy_attributes(&source, &copy)?;
    }
    Ok(())
}

fn copy_data(from: &Arc<dyn Inode>, to: &Arc<dyn Inode>, len: u64) -> Result<()> {
    let pages = from.clone().pages()?;
    let file = OpenFile::new(to.clone().open(OpenFlags::WRONLY)?, OpenFlags::WRONLY, None);
    let mut buffer = alloc::vec![0; PAGE_SIZE];
    for index in 0..len.div_ceil(PAGE_SIZE as u64) {
        let count = (len - index * PAGE_SIZE as u64).min(PAGE_SIZE as u64) as usize;
        pages.page(index, false)?.read(0, &mut buffer[..count]);
        file.write(&mut IoSrc::kernel(&buffer[..count]))?;
    }
    Ok(())
}

fn copy_attributes(from: &Arc<dyn Inode>, to: &Arc<dyn Inode>) -> Result<()> {
    for name in from.xattr_names()?.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        to.set_xattr(name, Some(&from.xattr(name)?), None)?;
    }
    let stat = from.stat()?;
    let mode = (stat.mode & linux::S_IFMT != linux::S_IFLNK).then_some(stat.mode & 0o7777);
    let (atime, mtime) = (Some(stat.atime), Some(stat.mtime));
    to.set_attributes(&SetAttributes { mode, uid: Some(stat.uid), gid: Some(stat.gid), atime, mtime })
}
