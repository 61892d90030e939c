//! Archive → changes: what the entries of a layer (or of an archive that `ADD` unpacks) mean for a tree.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ukc_rootfs::{Action, Change, Content, Kind, path};

use super::read::{EntryKind, Reader, TarError};
use super::sparse::Segment;
use crate::{OciError, Store};

/// Names of whiteouts start with this (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Marks its directory as opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other bookkeeping of aufs, where whiteouts come from.
const AUFS: &[u8] = b".wh..wh.";

/// Whether `.wh.` names are whiteouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// A layer: they are.
    Apply,
    /// An ordinary archive: they are names like others.
    Literal,
}

/// Reads the tar file at `archive` (uncompressed) into changes whose contents point into it. Sparse members are expanded, with holes, into the store.
/// `what` names the archive in errors.
///
/// # Errors
/// [`OciError::Tar`] for a broken archive, [`OciError::Read`], [`OciError::Write`].
pub fn changes_of_file(archive: &Path, what: &str, whiteouts: Whiteouts, store: &Store) -> Result<Vec<Change>, OciError> {
    let tar_error = |error| OciError::Tar { archive: what.to_owned(), error };
    let read_error = |error| OciError::Read { path: archive.to_owned(), error };
    let file = File::open(archive).map_err(read_error)?;
    let reader = Reader::new(BufReader::new(file)).map_err(read_error)?;
    let host = Arc::new(archive.to_owned());
    let mut changes = Vec::new();
    for entry in reader {
        let entry = entry.map_err(tar_error)?;
        if whiteouts == Whiteouts::Apply {
            let name = path::base(&entry.name);
            if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                let clean = path::absolute(b"/", &entry.name);
                let (dir, _) = path::split(&clean);
                if name == OPAQUE {
                    changes.push(Change { path: dir.to_vec(), action: Action::Opaque });
                } else if !name.starts_with(AUFS) {
                    if hidden.is_empty() || hidden == b"." || hidden == b".." {
                        return Err(tar_error(TarError::BadField { offset: 0, field: "whiteout name" }));
                    }
                    changes.push(Change { path: path::join(dir, hidden), action: Action::Whiteout });
                }
                continue;
            }
        }
        let kind = match entry.kind {
            EntryKind::HardLink(to) => {
                changes.push(Change { path: entry.name, action: Action::HardLink(to) });
                continue;
            }
            EntryKind::File { len_bytes: 0, .. } => Kind::File(Content::from_bytes([])),
            EntryKind::File { offset, len_bytes } => Kind::File(Content::Host { path: host.clone(), offset, len_bytes }),
            EntryKind::Sparse { segments, len_bytes } => {
                let path = expand(archive, &segments, len_bytes, store)?;
                Kind::File(Content::Host { path: Arc::new(path), offset: 0, len_bytes })
            }
            EntryKind::Dir => Kind::Dir(Default::default()),
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::CharDevice(major, minor) => Kind::CharDevice(major, minor),
            EntryKind::BlockDevice(major, minor) => Kind::BlockDevice(major, minor),
            EntryKind::Fifo => Kind::Fifo,
        };
        changes.push(Change { path: entry.name, action: Action::Put(entry.meta, kind) });
    }
    Ok(changes)
}

/// Writes a sparse member to a file of the store that has holes where the member has.
fn expand(archive: &Path, segments: &[Segment], len_bytes: u64, store: &Store) -> Result<PathBuf, OciError> {
    let read_error = |error| OciError::Read { path: archive.to_owned(), error };
    // The name is the digest of what is in the file, without its holes: an archive outside the store may change under a name.
    let mut input = File::open(archive).map_err(read_error)?;
    let mut key = Vec::from(len_bytes.to_le_bytes());
    for s in segments {
        input.seek(SeekFrom::Start(s.archive_offset)).map_err(read_error)?;
        let mut hashing = crate::HashingReader::new((&input).take(s.len_bytes));
        io::copy(&mut hashing, &mut io::sink()).map_err(read_error)?;
        key.extend_from_slice(&s.file_offset.to_le_bytes());
        key.extend_from_slice(&hashing.finish().0.0);
    }
    store.sparse(&crate::Digest::of(&key).hex(), |output| {
        output.set_len(len_bytes)?;
        for s in segments {
            input.seek(SeekFrom::Start(s.archive_offset))?;
            output.seek(SeekFrom::Start(s.file_offset))?;
            if io::copy(&mut (&input).take(s.len_bytes), output)? != s.len_bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    })
}
