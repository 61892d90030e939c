//! Images that mke2fs made, whole and damaged.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use libos_core::mm::Frame;
use libos_core::vfs::Link;
use proptest::prelude::*;

use super::*;

struct Bytes(Vec<u8>);

impl Volume for Bytes {
    fn len_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, dst: &mut [u8]) -> libos_core::Result<()> {
        let from = usize::try_from(offset).map_err(|_| libos_core::Errno::EIO)?;
        let end = from.checked_add(dst.len()).ok_or(libos_core::Errno::EIO)?;
        dst.copy_from_slice(self.0.get(from..end).ok_or(libos_core::Errno::EIO)?);
        Ok(())
    }

    fn frame(&self, _offset: u64) -> Option<Frame> {
        None
    }

    fn read_frames(&self, _offset: u64, _frames: &[Frame]) -> libos_core::Result<()> {
        Err(libos_core::Errno::EIO)
    }

    fn is_in_ram(&self) -> bool {
        false
    }

    fn name(&self) -> Vec<u8> {
        Vec::new()
    }

    fn dev(&self) -> u64 {
        1
    }
}

/// Content of `big`: more than any direct blocks hold, so that trees and pointer blocks are walked.
fn big() -> Vec<u8> {
    (0..300_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect()
}

fn make_image(options: &[&str]) -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let dir = std::env::temp_dir().join(format!("ukc-ext4-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let root = dir.join("root");
    std::fs::create_dir_all(root.join("many")).unwrap();
    std::fs::write(root.join("hello"), "hello\n").unwrap();
    std::fs::write(root.join("big"), big()).unwrap();
    for i in 0..700 {
        std::fs::write(root.join(format!("many/file-with-a-rather-long-name-{i}")), "").unwrap();
    }
    let _ = std::fs::hard_link(root.join("hello"), root.join("again"));
    for (name, target) in [("short", "hello".to_owned()), ("long", format!("{}hello", "./".repeat(60)))] {
        let _ = std::fs::remove_file(root.join(name));
        std::os::unix::fs::symlink(target, root.join(name)).unwrap();
    }
    // A hole in the middle.
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", 1 << 20).unwrap();
    let image = dir.join("image");
    let status = Command::new(mke2fs()).args(["-q", "-F", "-d"]).arg(&root).args(options).arg(&image).arg("16m").output().unwrap();
    assert!(status.status.success());
    let bytes = std::fs::read(&image).unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    bytes
}

fn mke2fs() -> &'static str {
    if Path::new("/usr/sbin/mke2fs").exists() { "/usr/sbin/mke2fs" } else { "mke2fs" }
}

fn root_of(bytes: Vec<u8>) -> libos_core::Result<Arc<dyn libos_core::vfs::Inode>> {
    let volume: Arc<dyn Volume> = Arc::new(Bytes(bytes));
    assert!(probe(&volume));
    Ok(inode::mount(Some(volume), b"")?.root())
}

fn content(bytes: Vec<u8>, name: &[u8]) -> Vec<u8> {
    let geometry = geometry::Geometry::read(Arc::new(Bytes(bytes))).unwrap();
    let root = node::Node::read(&geometry, 2).unwrap();
    let file = node::Node::read(&geometry, root.find(&geometry, name).unwrap()).unwrap();
    let mut out = vec![1; file.size as usize];
    file.read_bytes(&geometry, 0, &mut out).unwrap();
    out
}

/// Whatever the options, the same tree is read.
#[test]
fn images_of_all_kinds_are_read() {
    let kinds: [&[&str]; 5] = [
        &["-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum"],
        &["-t", "ext4", "-b", "1024", "-O", "^64bit,^metadata_csum", "-I", "128"],
        &["-t", "ext2", "-b", "4096"],
        &["-t", "ext2", "-b", "1024", "-I", "128"],
        &["-t", "ext4", "-b", "4096", "-O", "inline_data", "-I", "512"],
    ];
    for options in kinds {
        let image = make_image(options);
        assert_eq!(content(image.clone(), b"hello"), b"hello\n", "{options:?}");
        assert!(content(image.clone(), b"big") == big(), "{options:?}");
        let sparse = content(image.clone(), b"sparse");
        assert!(sparse.len() == (1 << 20) + 3 && sparse.ends_with(b"end") && sparse[..1 << 20].iter().all(|&b| b == 0));
        let root = root_of(image).unwrap();
        let Link::Path(short) = root.lookup(b"short").unwrap().read_link().unwrap() else { panic!() };
        let Link::Path(long) = root.lookup(b"long").unwrap().read_link().unwrap() else { panic!() };
        assert_eq!((&short[..], long.len()), (&b"hello"[..], 125));
        assert_eq!(root.lookup(b"nothing").err(), Some(libos_core::Errno::ENOENT));
        let hello = root.lookup(b"hello").unwrap().stat().unwrap();
        assert_eq!((hello.nlink, hello.size, hello.ino), (2, 6, root.lookup(b"again").unwrap().stat().unwrap().ino));
        assert_eq!(names(&root.lookup(b"many").unwrap(), 3).len(), 702, "{options:?}");
    }
}

/// All names of a directory, `step` entries per call, so that cookies are used.
fn names(dir: &Arc<dyn libos_core::vfs::Inode>, step: usize) -> Vec<Vec<u8>> {
    let (mut out, mut from) = (Vec::new(), 0);
    loop {
        let before = out.len();
        dir.read_dir(from, &mut |entry| {
            if out.len() == before + step {
                return false;
            }
            out.push(entry.name.to_vec());
            from = entry.next;
            true
        })
        .unwrap();
        if out.len() == before {
            return out;
        }
    }
}

/// Looks at everything an image offers, following whatever it says, with a limit on the work.
fn visit(bytes: Vec<u8>) -> usize {
    let Ok(geometry) = geometry::Geometry::read(Arc::new(Bytes(bytes))) else { return 0 };
    let mut queue = vec![2];
    let mut seen = 0;
    let mut buffer = [0; 4096];
    while let Some(number) = queue.pop() {
        seen += 1;
        if seen > 2000 {
            break;
        }
        let Ok(node) = node::Node::read(&geometry, number) else { continue };
        let _ = node.link_target(&geometry);
        let _ = node.attributes(&geometry, &mut |_, _, _| ());
        for offset in [0, 4096, 60_000, node.size.saturating_sub(1)] {
            let _ = node.read_bytes(&geometry, offset, &mut buffer);
        }
        if node.is_dir() {
            let _ = node.entries(&geometry, 0, &mut |entry, _| {
                if entry.name != b"." && entry.name != b".." && queue.len() < 2000 {
                    queue.push(entry.inode);
                }
                true
            });
        }
    }
    seen
}

#[test]
fn a_whole_image_can_be_visited() {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let image = IMAGE.get_or_init(|| make_image(&["-t", "ext4", "-b", "4096"]));
    assert!(visit(image.clone()) > 700);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage anywhere in the metadata is an error or a different tree, never a panic.
    #[test]
    fn damaged_images_do_no_harm(changes in prop::collection::vec((0usize..1 << 21, any::<u32>()), 1..60), extents in any::<bool>()) {
        static IMAGES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
        let images = IMAGES.get_or_init(|| [make_image(&["-t", "ext4", "-b", "1024", "-N", "1024"]), make_image(&["-t", "ext2", "-b", "1024"])]);
        let mut image = images[usize::from(extents)].clone();
        for (at, value) in changes {
            let at = at.min(image.len() - 4);
            image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        visit(image);
    }
}
