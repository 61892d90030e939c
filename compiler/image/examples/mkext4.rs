//! Writes a directory of the host as an ext4 image, for work on the writer and for comparisons with mke2fs:
//!
//! ```text
//! cargo run --release -p ukc-image --example mkext4 -- DIR OUT
//! ```
//!
//! Owners, modes, times and hard links are the host's; attributes are not looked at.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ukc_image::ext4::{Options, write};
use ukc_rootfs::{Content, Kind, Meta, Node, NodeId, Tree};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, dir, out] = arguments.as_slice() else { return Err("usage: mkext4 DIR OUT".into()) };
    let mut tree = Tree::new();
    let start = Instant::now();
    add(&mut tree, Tree::ROOT, Path::new(dir), &mut HashMap::new())?;
    println!("read the tree: {:?}", start.elapsed());
    let start = Instant::now();
    let mut file = fs::File::create(out)?;
    let written = write(&tree, &Options::default(), &mut file)?;
    println!("wrote {} files, {} of {} bytes data: {:?}", written.files, written.data_bytes, written.len_bytes, start.elapsed());
    file.sync_all()?;
    println!("synced: {:?}", start.elapsed());
    Ok(())
}

/// Nodes by device and inode number.
type Known = HashMap<(u64, u64), NodeId>;

fn add(tree: &mut Tree, to: NodeId, dir: &Path, known: &mut Known) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, metadata) = (entry.path(), fs::symlink_metadata(entry.path())?);
        if let Some(&id) = known.get(&(metadata.dev(), metadata.ino())) {
            tree.link(to, entry.file_name().as_bytes(), id);
            continue;
        }
        let kind = if metadata.is_dir() {
            Kind::Dir(Default::default())
        } else if metadata.is_symlink() {
            Kind::Symlink(fs::read_link(&path)?.as_os_str().as_bytes().to_vec())
        } else if metadata.is_file() {
            Kind::File(Content::Host { path: Arc::new(path.clone()), offset: 0, len_bytes: metadata.len() })
        } else if metadata.file_type().is_fifo() {
            Kind::Fifo
        } else {
            continue;
        };
        let is_dir = metadata.is_dir();
        let mut meta = Meta::new((metadata.mode() & 0o7777) as u16);
        (meta.uid, meta.gid, meta.mtime) = (metadata.uid(), metadata.gid(), (metadata.mtime(), metadata.mtime_nsec() as u32));
        let id = tree.add(Node { meta, kind, origin: None });
        known.insert((metadata.dev(), metadata.ino()), id);
        tree.link(to, entry.file_name().as_bytes(), id);
        if is_dir {
            add(tree, id, &path, known)?;
        }
    }
    Ok(())
}
