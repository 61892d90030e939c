//! Changes → a directory: a layer for overlayfs, or a whole tree.
//!
//! Every file is made anew below a directory that only this process writes to, through descriptors of its parents that were opened without following
//! links: no name among the changes can lead out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, symlinkat, utimensat,
};
use ukc_rootfs::{Action, Change, Content, Kind, Meta, path};

use super::Trouble;

/// How much is copied at once where the kernel cannot do it.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes the changes into the directory `root`, which is empty. Whiteouts become devices 0:0 (overlayfs.rst, "whiteouts and opaque directories").
pub(super) fn materialise(root: &Path, changes: &[Change]) -> Result<(), Trouble> {
    let fail = |e: io::Error| Trouble::io(format!("cannot open `{}`", root.display()), &e);
    let root_fd = openat(rustix::fs::CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| fail(e.into()))?;
    let mut writer = Writer { root, root_fd, parent: None, source: None, buffer: vec![], dirs: vec![] };
    let mut links = vec![];
    for change in changes {
        let step = match &change.action {
            Action::Put(meta, kind) => writer.put(&change.path, meta, kind),
            Action::Whiteout => writer.whiteout(&change.path),
            Action::HardLink(to) => {
                links.push((&change.path, to));
                Ok(())
            }
            Action::Opaque => Err(io::Error::other("an opaque directory has no place here")),
        };
        step.map_err(|e| Trouble::at(root, &change.path, &e, owner(change)))?;
    }
    for (name, to) in links {
        writer.link(name, to).map_err(|e| Trouble::at(root, name, &e, None))?;
    }
    // Writing into a directory changes its times, and a mode may forbid it: their metadata comes last, children first.
    for (name, meta) in std::mem::take(&mut writer.dirs).into_iter().rev() {
        writer.dir_meta(name, meta).map_err(|e| Trouble::at(root, name, &e, Some((meta.uid, meta.gid))))?;
    }
    Ok(())
}

fn owner(change: &Change) -> Option<(u32, u32)> {
    match &change.action {
        Action::Put(meta, _) => Some((meta.uid, meta.gid)),
        _ => None,
    }
}

struct Writer<'a> {
    root: &'a Path,
    root_fd: OwnedFd,
    /// The directory that the last change was in.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// The file that the last contents came from.
    source: Option<(Arc<PathBuf>, File)>,
    buffer: Vec<u8>,
    dirs: Vec<(&'a [u8], &'a Meta)>,
}

impl<'a> Writer<'a> {
    /// Returns the directory of a path and the last component.
    fn enter<'n>(&mut self, name: &'n [u8]) -> io::Result<(OwnedFd, &'n OsStr)> {
        let (dir, base) = path::split(name);
        if base.is_empty() || path::components(name).any(|c| c == b"." || c == b"..") {
            return Err(io::Error::other("not a name"));
        }
        if self.parent.as_ref().is_none_or(|(at, _)| at != dir) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let fd = match openat2(&self.root_fd, OsStr::from_bytes(dir), flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::NOENT) => {
                    self.missing_dirs(dir)?;
                    openat2(&self.root_fd, OsStr::from_bytes(dir), flags, Mode::empty(), resolve)?
                }
                result => result?,
            };
            self.parent = Some((dir.to_vec(), fd));
        }
        let fd = self.parent.as_ref().expect("just set").1.try_clone()?;
        Ok((fd, OsStr::from_bytes(base)))
    }

    /// Makes directories that no change names.
    fn missing_dirs(&mut self, dir: &[u8]) -> io::Result<()> {
        let mut fd = self.root_fd.try_clone()?;
        for part in path::components(dir) {
            let part = OsStr::from_bytes(part);
            match mkdirat(&fd, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            fd = openat(&fd, part, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        }
        Ok(())
    }

    fn put(&mut self, name: &'a [u8], meta: &'a Meta, kind: &Kind) -> io::Result<()> {
        if name.is_empty() {
            self.dirs.push((name, meta));
            return Ok(());
        }
        let (dir, base) = self.enter(name)?;
        let node = |kind: FileType, device| mknodat(&dir, base, kind, Mode::from_raw_mode(0o600), device);
        match kind {
            Kind::Dir(_) => {
                match mkdirat(&dir, base, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                self.dirs.push((name, meta));
                return Ok(());
            }
            Kind::File(content) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(openat(&dir, base, flags, Mode::from_raw_mode(0o600))?);
                self.fill(&file, content)?;
                return finish(file.as_fd(), meta);
            }
            Kind::Symlink(target) => symlinkat(OsStr::from_bytes(target), &dir, base)?,
            Kind::CharDevice(major, minor) => node(FileType::CharacterDevice, makedev(*major, *minor))?,
            Kind::BlockDevice(major, minor) => node(FileType::BlockDevice, makedev(*major, *minor))?,
            Kind::Fifo => node(FileType::Fifo, 0)?,
        }
        chownat(&dir, base, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)), AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(kind, Kind::Symlink(_)) {
            rustix::fs::chmodat(&dir, base, Mode::from_raw_mode(u32::from(meta.mode)), AtFlags::empty())?;
        }
        if !meta.xattrs.is_empty() {
            let full = self.root.join(OsStr::from_bytes(name));
            for (attribute, value) in &meta.xattrs {
                lsetxattr(&full, attribute.as_slice(), value, XattrFlags::empty())?;
            }
        }
        utimensat(&dir, base, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn whiteout(&mut self, name: &[u8]) -> io::Result<()> {
        let (dir, base) = self.enter(name)?;
        mknodat(&dir, base, FileType::CharacterDevice, Mode::empty(), 0)?;
        Ok(())
    }

    fn link(&mut self, name: &[u8], to: &[u8]) -> io::Result<()> {
        let (to_dir, to_base) = self.enter(to)?;
        let (dir, base) = self.enter(name)?;
        linkat(&to_dir, to_base, &dir, base, AtFlags::empty())?;
        Ok(())
    }

    fn dir_meta(&mut self, name: &[u8], meta: &Meta) -> io::Result<()> {
        let shown: &[u8] = if name.is_empty() { b"." } else { name };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(&self.root_fd, OsStr::from_bytes(shown), flags, Mode::empty(), resolve)?;
        finish(fd.as_fd(), meta)
    }

    fn fill(&mut self, to: &File, content: &Content) -> io::Result<()> {
        let (path, offset, len) = match content {
            Content::Bytes(bytes) => return to.write_all_at(bytes, 0),
            Content::Host { path, offset, len_bytes } => (path, *offset, *len_bytes),
        };
        if len == 0 {
            return Ok(());
        }
        if self.source.as_ref().is_none_or(|(at, _)| at != path) {
            self.source = Some((path.clone(), File::open(path.as_path())?));
        }
        let from = &self.source.as_ref().expect("just set").1;
        let (mut at, end, mut to_at) = (offset, offset + len, 0u64);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), wanted) {
                Ok(0) => return Err(short()),
                Ok(_) => {}
                // Other file systems, and files that are none (copy_file_range(2), ERRORS).
                Err(_) => return copy(from, at, end, to, to_at, &mut self.buffer),
            }
        }
        Ok(())
    }
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file it comes from became shorter")
}

fn copy(from: &File, mut at: u64, end: u64, to: &File, mut to_at: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(BUFFER_BYTES, 0);
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let len = from.read_at(&mut buffer[..wanted], at)?;
        if len == 0 {
            return Err(short());
        }
        to.write_all_at(&buffer[..len], to_at)?;
        at += len as u64;
        to_at += len as u64;
    }
    Ok(())
}

/// Sets owner, mode, attributes and times, in the order in which each leaves the others alone: chown(2) clears set-user-ID and capabilities.
fn finish(fd: rustix::fd::BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    fchmod(fd, Mode::from_raw_mode(u32::from(meta.mode)))?;
    for (attribute, value) in &meta.xattrs {
        fsetxattr(fd, attribute.as_slice(), value, XattrFlags::empty())?;
    }
    futimens(fd, &times(meta))?;
    Ok(())
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.0, tv_nsec: i64::from(meta.mtime.1) };
    Timestamps { last_access: time, last_modification: time }
}
