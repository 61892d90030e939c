//! Volumes: disks of their own whose contents survive the machine, made empty.
//!
//! A volume is an ext4 file system with a journal in a sparse file: what was never written takes no room on the host.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use ukc_rootfs::Tree;

use crate::ext4::{self, Ext4Error, Options};

/// Smallest volume: 8 MiB, of which the journal takes half.
pub const MIN_BYTES: u64 = 8 << 20;

/// Bytes per inode, as mke2fs gives them.
const BYTES_PER_INODE: u64 = 16 << 10;

/// Blocks of the journal: 4 MiB, and 16 MiB for volumes from 512 MiB on.
fn journal_blocks(len_bytes: u64) -> u32 {
    if len_bytes < 512 << 20 { 1024 } else { 4096 }
}

/// Makes an empty volume of about `len_bytes` in a new file. It is complete once it has its name: the bytes are written to a file beside it first.
///
/// # Errors
/// [`Ext4Error::Write`] when the file cannot be written or exists.
pub fn create(path: &Path, len_bytes: u64, uuid: [u8; 16]) -> Result<(), Ext4Error> {
    let failed = |source| Ext4Error::Write { source };
    let len_bytes = len_bytes.max(MIN_BYTES);
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let file = File::create(&partial).map_err(failed)?;
    let journal_blocks = journal_blocks(len_bytes);
    let free_inodes = u32::try_from(len_bytes / BYTES_PER_INODE).unwrap_or(u32::MAX);
    // What is not free: inodes, bitmaps, the journal, and a little.
    let taken = u64::from(free_inodes) * 256 + u64::from(journal_blocks) * 4096 + len_bytes.div_ceil(128 << 20) * 8192 + (64 << 10);
    let options = Options {
        label: b"ukc-volume".to_vec(),
        free_bytes: len_bytes.saturating_sub(taken),
        free_inodes,
        journal_blocks,
        uuid: Some(uuid),
    };
    let made = ext4::write(&Tree::new(), &options, &mut Sparse { file: &file, at: 0 })
        .and_then(|written| file.set_len(written.len_bytes).map_err(failed))
        .and_then(|()| file.sync_all().map_err(failed))
        // `rename` would replace a volume that somebody else made meanwhile.
        .and_then(|()| std::fs::hard_link(&partial, path).map_err(failed));
    let _ = std::fs::remove_file(&partial);
    made
}

/// Returns whether a file looks like an ext4 file system: its superblock's magic number.
pub fn is_ext4(path: &Path) -> bool {
    let mut magic = [0; 2];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(1024 + 0x38))?;
        file.read_exact(&mut magic)
    });
    read.is_ok() && u16::from_le_bytes(magic) == 0xef53
}

/// A file in which blocks of zeros become holes.
struct Sparse<'f> {
    file: &'f File,
    at: u64,
}

impl Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        for piece in bytes.chunks(64 << 10) {
            if piece.iter().any(|b| *b != 0) {
                self.file.write_all_at(piece, self.at)?;
            }
            self.at += piece.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_empty_volume_is_clean_and_takes_little_room() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = std::env::temp_dir().join(format!("ukc-volume-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for mib in [1u64, 8, 100, 1024] {
            let path = dir.join(format!("{mib}"));
            create(&path, mib << 20, [7; 16]).unwrap();
            assert!(is_ext4(&path));
            let metadata = std::fs::metadata(&path).unwrap();
            assert!(metadata.len() >= (mib.max(8) << 20) * 9 / 10 && metadata.len() <= (mib.max(8) << 20) * 11 / 10, "{}", metadata.len());
            assert!(metadata.blocks() * 512 < 2 << 20);
            let sbin = Path::new("/usr/sbin/e2fsck");
            let e2fsck = Command::new(if sbin.exists() { sbin } else { Path::new("e2fsck") }).arg("-fn").arg(&path).output().unwrap();
            assert!(e2fsck.status.success(), "{}", String::from_utf8_lossy(&e2fsck.stdout));
            assert!(create(&path, 8 << 20, [7; 16]).is_err(), "a volume is never replaced");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
