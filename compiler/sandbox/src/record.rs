//! Changes of a file tree as a file.
//!
//! ```text
//! "ukc changes 1\n"
//! per change   text path, then one of:
//!              'w'                                         whiteout
//!              'h' text target                             hard link
//!              'd'|'f'|'l'|'c'|'b'|'q' meta body           directory, file, symbolic link, devices, fifo
//! meta         u32 mode, u32 uid, u32 gid, i64 seconds, u32 nanoseconds, u32 count, count × (text name, text value)
//! body         f: 'm' text bytes | 'r' text path, u64 offset, u64 length   (a path relative to the record's directory, or absolute)
//!              l: text target      c, b: u32 major, u32 minor
//! text         u32 length, bytes
//! "end\n"
//! ```
//!
//! Numbers are little-endian. A record names the files that it is about and does not hold them, so it is small.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ukc_rootfs::{Action, Change, Content, Kind, Meta};

const MAGIC: &[u8] = b"ukc changes 1\n";
const END: &[u8] = b"end\n";

/// Writes a record; contents below `base`, an absolute path, are named relative to it.
pub(crate) fn write(path: &Path, base: &Path, changes: &[Change]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(MAGIC)?;
    for change in changes {
        text(&mut out, &change.path)?;
        match &change.action {
            Action::Whiteout => out.write_all(b"w")?,
            Action::HardLink(to) => {
                out.write_all(b"h")?;
                text(&mut out, to)?;
            }
            Action::Put(meta, kind) => put(&mut out, base, meta, kind)?,
            // Written as what it means to the layers below: everything goes, and the directory comes again.
            Action::Opaque => return Err(io::Error::other("an opaque directory has no place in a record")),
        }
    }
    out.write_all(END)?;
    // Not fsync(2): a record that a power failure cut short is recognised, and the step is done again; waiting for the disk costs more than most steps.
    out.into_inner()?;
    Ok(())
}

fn text(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a text of more than 4 GiB"))?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)
}

fn put(out: &mut impl Write, base: &Path, meta: &Meta, kind: &Kind) -> io::Result<()> {
    let letter = match kind {
        Kind::Dir(_) => b'd',
        Kind::File(_) => b'f',
        Kind::Symlink(_) => b'l',
        Kind::CharDevice(..) => b'c',
        Kind::BlockDevice(..) => b'b',
        Kind::Fifo => b'q',
    };
    out.write_all(&[letter])?;
    for n in [u32::from(meta.mode), meta.uid, meta.gid] {
        out.write_all(&n.to_le_bytes())?;
    }
    out.write_all(&meta.mtime.0.to_le_bytes())?;
    out.write_all(&meta.mtime.1.to_le_bytes())?;
    out.write_all(&(meta.xattrs.len() as u32).to_le_bytes())?;
    for (name, value) in &meta.xattrs {
        text(out, name)?;
        text(out, value)?;
    }
    match kind {
        Kind::Dir(_) | Kind::Fifo => Ok(()),
        Kind::File(Content::Bytes(bytes)) => {
            out.write_all(b"m")?;
            text(out, bytes)
        }
        Kind::File(Content::Host { path, offset, len_bytes }) => {
            out.write_all(b"r")?;
            // Whoever reads it may be in another directory, and a context's path is as the user wrote it.
            let path = std::path::absolute(path.as_path())?;
            text(out, path.strip_prefix(base).unwrap_or(&path).as_os_str().as_bytes())?;
            out.write_all(&offset.to_le_bytes())?;
            out.write_all(&len_bytes.to_le_bytes())
        }
        Kind::Symlink(target) => text(out, target),
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            out.write_all(&major.to_le_bytes())?;
            out.write_all(&minor.to_le_bytes())
        }
    }
}

/// Reads a record; relative contents are taken below `base`.
pub(crate) fn read(path: &Path, base: &Path) -> io::Result<Vec<Change>> {
    let bytes = fs::read(path)?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is damaged", path.display()));
    let mut reader = Reader { rest: bytes.strip_prefix(MAGIC).ok_or_else(broken)?, base, last: None };
    let mut out = vec![];
    while reader.rest != END {
        out.push(reader.change().ok_or_else(broken)?);
    }
    Ok(out)
}

struct Reader<'a> {
    rest: &'a [u8],
    base: &'a Path,
    /// Many files of a layer are ranges of one tar.
    last: Option<(Vec<u8>, Arc<PathBuf>)>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes(b.try_into().expect("4 bytes")))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn change(&mut self) -> Option<Change> {
        let path = self.text()?.to_vec();
        let letter = self.take(1)?[0];
        let action = match letter {
            b'w' => Action::Whiteout,
            b'h' => Action::HardLink(self.text()?.to_vec()),
            _ => {
                let meta = self.meta()?;
                let kind = match letter {
                    b'd' => Kind::Dir(BTreeMap::new()),
                    b'f' => Kind::File(self.content()?),
                    b'l' => Kind::Symlink(self.text()?.to_vec()),
                    b'c' => Kind::CharDevice(self.u32()?, self.u32()?),
                    b'b' => Kind::BlockDevice(self.u32()?, self.u32()?),
                    b'q' => Kind::Fifo,
                    _ => return None,
                };
                Action::Put(meta, kind)
            }
        };
        Some(Change { path, action })
    }

    fn meta(&mut self) -> Option<Meta> {
        let (mode, uid, gid) = (self.u32()?, self.u32()?, self.u32()?);
        let mtime = (self.u64()? as i64, self.u32()?);
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.u32()? {
            xattrs.insert(self.text()?.to_vec(), self.text()?.to_vec());
        }
        Some(Meta { mode: u16::try_from(mode).ok()?, uid, gid, mtime, xattrs })
    }

    fn content(&mut self) -> Option<Content> {
        if self.take(1)? == b"m" {
            return Some(Content::from_bytes(self.text()?));
        }
        let name = self.text()?;
        let path = match &self.last {
            Some((last, path)) if last == name => path.clone(),
            _ => {
                let path = Arc::new(self.base.join(OsStr::from_bytes(name)));
                self.last = Some((name.to_vec(), path.clone()));
                path
            }
        };
        Some(Content::Host { path, offset: self.u64()?, len_bytes: self.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_mean_the_same_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let content = Content::Host { path: Arc::new("context/file".into()), offset: 0, len_bytes: 1 };
        let change = Change { path: b"f".to_vec(), action: Action::Put(Meta::new(0o644), Kind::File(content)) };
        write(&path, dir.path(), &[change]).unwrap();
        let again = format!("{:?}", read(&path, dir.path()).unwrap());
        assert!(again.contains(&std::env::current_dir().unwrap().join("context/file").display().to_string()), "{again}");
    }

    #[test]
    fn records_hold_everything() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("layer");
        let mut meta = Meta { mode: 0o4755, uid: 4_000_000_000, gid: 7, mtime: (-5, 999_999_999), xattrs: BTreeMap::new() };
        meta.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 255]);
        let inside = Content::Host { path: Arc::new(base.join("fs/a\u{e9}")), offset: 0, len_bytes: 9 };
        let outside = Content::Host { path: Arc::new("/elsewhere/blob".into()), offset: 512, len_bytes: 1 << 40 };
        let kinds = [
            Kind::Dir(BTreeMap::new()),
            Kind::File(inside),
            Kind::File(outside),
            Kind::File(Content::from_bytes(*b"in memory")),
            Kind::Symlink(b"../\xff".to_vec()),
            Kind::CharDevice(1, 3),
            Kind::BlockDevice(8, 1 << 19),
            Kind::Fifo,
        ];
        let mut changes: Vec<Change> = kinds
            .into_iter()
            .enumerate()
            .map(|(n, kind)| Change { path: format!("p{n}").into(), action: Action::Put(meta.clone(), kind) })
            .collect();
        changes.push(Change { path: b"\xfe/x".to_vec(), action: Action::Whiteout });
        changes.push(Change { path: b"h".to_vec(), action: Action::HardLink(b"p1".to_vec()) });
        let path = dir.path().join("record");
        write(&path, &base, &changes).unwrap();
        let again = read(&path, &base).unwrap();
        assert_eq!(format!("{again:?}"), format!("{changes:?}"));
        let moved = read(&path, Path::new("/moved")).unwrap();
        assert!(format!("{moved:?}").contains("/moved/fs/a") && format!("{moved:?}").contains("/elsewhere/blob"));
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(read(&path, &base).unwrap_err().kind(), io::ErrorKind::InvalidData, "{len}");
        }
    }
}
