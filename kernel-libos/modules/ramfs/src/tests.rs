//! The layer over a small tree of another instance, which stands for the image.

use std::sync::Arc;

use libos_core::abi::general as linux;
use libos_core::vfs::{FileSystem, Inode, NewNode, RenameFlags, SetAttributes};
use libos_core::{Errno, Result};

use super::*;

fn node(kind: u32) -> NewNode<'static> {
    NewNode { mode: kind | 0o755, uid: 0, gid: 0, rdev: 0, target: b"target" }
}

const FILE: u32 = linux::S_IFREG;
const DIR: u32 = linux::S_IFDIR;

/// `a`, `b`, `dir/x`, `dir/y`, `empty/`, and a layer above.
fn layered() -> (Arc<dyn Inode>, Arc<dyn Inode>) {
    let below: Arc<dyn FileSystem> = fs::mount(None, b"").unwrap();
    let root = below.root();
    for name in [&b"a"[..], b"b"] {
        root.create(name, &node(FILE)).unwrap();
    }
    let dir = root.create(b"dir", &node(DIR)).unwrap();
    dir.create(b"x", &node(FILE)).unwrap();
    dir.create(b"y", &node(FILE)).unwrap();
    root.create(b"empty", &node(DIR)).unwrap();
    root.create(b"link", &node(linux::S_IFLNK)).unwrap();
    (root, fs::overlay(below).unwrap().root())
}

fn names(dir: &Arc<dyn Inode>) -> Vec<String> {
    let mut out = Vec::new();
    let mut from = 0;
    // One entry per call, so that every cookie is used.
    loop {
        let before = out.len();
        dir.read_dir(from, &mut |entry| {
            if out.len() > before {
                return false;
            }
            out.push(String::from_utf8(entry.name.to_vec()).unwrap());
            from = entry.next;
            true
        })
        .unwrap();
        if out.len() == before {
            out.sort();
            return out;
        }
    }
}

fn has(dir: &Arc<dyn Inode>, name: &[u8]) -> bool {
    match dir.lookup(name) {
        Ok(_) => true,
        Err(Errno::ENOENT) => false,
        Err(errno) => panic!("{errno:?}"),
    }
}

#[test]
fn the_layer_shows_what_is_below_and_changes_nothing_there() {
    let (below, root) = layered();
    assert_eq!(names(&root), [".", "..", "a", "b", "dir", "empty", "link"]);
    root.unlink(b"a", false).unwrap();
    root.create(b"c", &node(FILE)).unwrap();
    root.lookup(b"dir").unwrap().create(b"z", &node(DIR)).unwrap();
    assert_eq!(names(&root), [".", "..", "b", "c", "dir", "empty", "link"]);
    assert_eq!(names(&root.lookup(b"dir").unwrap()), [".", "..", "x", "y", "z"]);
    assert_eq!(root.lookup(b"dir").unwrap().stat().unwrap().nlink, 3);
    assert_eq!(names(&below), [".", "..", "a", "b", "dir", "empty", "link"]);
    // A name that was removed can come back, as something else.
    root.create(b"a", &node(DIR)).unwrap();
    assert_eq!(names(&root.lookup(b"a").unwrap()), [".", ".."]);
}

#[test]
fn directories_of_the_image_move_with_their_contents() {
    let (_, root) = layered();
    root.rename(b"dir", &root.lookup(b"empty").unwrap(), b"moved", RenameFlags::empty()).unwrap();
    assert!(!has(&root, b"dir"));
    let moved = root.lookup(b"empty").unwrap().lookup(b"moved").unwrap();
    assert_eq!(names(&moved), [".", "..", "x", "y"]);
    moved.rename(b"x", &root, b"a", RenameFlags::empty()).unwrap();
    assert_eq!(names(&moved), [".", "..", "y"]);
    assert!(has(&root, b"a"));
    assert_eq!(root.unlink(b"empty", true), Err(Errno::ENOTEMPTY));
    moved.unlink(b"y", false).unwrap();
    root.lookup(b"empty").unwrap().unlink(b"moved", true).unwrap();
    root.unlink(b"empty", true).unwrap();
    assert_eq!(names(&root), [".", "..", "a", "b", "link"]);
}

#[test]
fn changes_survive_that_nobody_holds_the_inode() {
    let (_, root) = layered();
    let change = SetAttributes { mode: Some(0o600), uid: Some(7), mtime: Some((1, 2)), ..SetAttributes::default() };
    root.lookup(b"a").unwrap().set_attributes(&change).unwrap();
    root.lookup(b"b").unwrap().set_xattr(b"user.k", Some(b"v"), None).unwrap();
    let a = root.lookup(b"a").unwrap().stat().unwrap();
    assert_eq!((a.mode, a.uid, a.mtime), (FILE | 0o600, 7, (1, 2)));
    assert_eq!(root.lookup(b"b").unwrap().xattr(b"user.k").unwrap(), b"v");
    assert_eq!(root.lookup(b"b").unwrap().xattr_names().unwrap(), b"user.k\0");
    assert_eq!(root.lookup(b"b").unwrap().set_xattr(b"user.k", Some(b""), Some(false)), Err(Errno::EEXIST));
}

#[test]
fn hard_links_are_one_inode() -> Result<()> {
    let (_, root) = layered();
    let a = root.lookup(b"a")?;
    root.link(b"again", &a)?;
    assert_eq!((root.lookup(b"again")?.stat()?.ino, a.stat()?.nlink), (a.stat()?.ino, 2));
    root.unlink(b"a", false)?;
    assert_eq!(root.lookup(b"again")?.stat()?.nlink, 1);
    root.rename(b"again", &root, b"b", RenameFlags::empty())?;
    assert_eq!(root.lookup(b"b")?.stat()?.ino, a.stat()?.ino);
    Ok(())
}

#[test]
fn exchanging_swaps_names_and_counts() {
    let (_, root) = layered();
    let dir = root.lookup(b"dir").unwrap();
    dir.rename(b"x", &root, b"empty", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(names(&dir), [".", "..", "x", "y"]);
    assert!(dir.lookup(b"x").unwrap().attributes().unwrap().is_dir());
    assert!(root.lookup(b"empty").unwrap().attributes().unwrap().is_regular());
    assert_eq!((dir.stat().unwrap().nlink, root.stat().unwrap().nlink), (3, 3));
}

#[test]
fn sizes_change_without_pages() {
    let (_, root) = layered();
    let file = root.create(b"sparse", &node(FILE)).unwrap();
    file.truncate(1 << 40).unwrap();
    assert_eq!((file.stat().unwrap().size, file.stat().unwrap().blocks), (1 << 40, 0));
    file.truncate(5).unwrap();
    assert_eq!(file.stat().unwrap().size, 5);
    assert_eq!(file.truncate(u64::MAX), Err(Errno::EFBIG));
    assert_eq!(root.truncate(0), Err(Errno::EISDIR));
    file.seals().unwrap().store(linux::F_SEAL_SHRINK, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(file.truncate(4), Err(Errno::EPERM));
}

#[test]
fn options_are_read() {
    let fs = fs::mount(None, b"mode=0700,uid=5,size=64k,whatever").unwrap();
    let root = fs.root().attributes().unwrap();
    assert_eq!((root.mode & 0o7777, root.uid), (0o700, 5));
    assert_eq!(fs::mount(None, b"size=many").err(), Some(Errno::EINVAL));
}

#[test]
fn the_time_of_boot_is_told_when_somebody_asks() {
    let (seconds, _) = inode::shown(inode::BOOT);
    // The host's clock; before 2020 it would be wrong.
    assert!(seconds > 1_577_836_800, "{seconds}");
    assert_eq!(inode::shown((5, 6)), (5, 6));
}

/// Path resolution over a tree with links and a mount: `path | where it ends, or the error`.
#[test]
fn paths_lead_where_path_resolution_says() {
    use libos_core::task::Credentials;
    use libos_core::vfs::mount::{self, MountFlags};
    use libos_core::vfs::path_from;
    use libos_core::vfs::walk::{Resolve, Walker};

    fn link(dir: &Arc<dyn Inode>, name: &[u8], target: &'static [u8]) {
        dir.create(name, &NewNode { target, ..node(linux::S_IFLNK) }).unwrap();
    }
    let fs = fs::mount(None, b"mode=755").unwrap();
    let top = fs.root();
    let dir = top.create(b"dir", &node(DIR)).unwrap();
    let sub = dir.create(b"sub", &node(DIR)).unwrap();
    sub.create(b"file", &node(FILE)).unwrap();
    top.create(b"mnt", &node(DIR)).unwrap();
    let closed = top.create(b"closed", &node(DIR)).unwrap();
    closed.set_attributes(&SetAttributes { mode: Some(0o700), uid: Some(1), ..SetAttributes::default() }).unwrap();
    link(&dir, b"up", b"..");
    link(&top, b"abs", b"/dir/sub");
    link(&top, b"rel", b"dir/sub/");
    link(&top, b"loop", b"loop");
    link(&top, b"to-file", b"dir/sub/file");
    link(&top, b"broken", b"nowhere/x");
    let root = mount::mount_root(fs, b"test", MountFlags::empty()).unwrap();
    let creds = Credentials { effective: 0, fsuid: 1000, fsgid: 1000, ..Credentials::initial(1000, 1000, Vec::new()) };
    let walk = |path: &[u8], follow: bool, resolve: Resolve| {
        let beneath = resolve.contains(Resolve::BENEATH).then(|| root.clone());
        let mut walker = Walker { creds: &creds, root: root.clone(), resolve, beneath, links: 0 };
        walker.walk(root.clone(), path, follow).map(|place| String::from_utf8(path_from(&root, &place)).unwrap())
    };
    let mounted = fs::mount(None, b"mode=755").unwrap();
    mounted.root().create(b"inside", &node(FILE)).unwrap();
    let place = {
        let mut walker = Walker { creds: &creds, root: root.clone(), resolve: Resolve::empty(), beneath: None, links: 0 };
        walker.walk(root.clone(), b"mnt", true).unwrap()
    };
    mount::mount(&place, mounted, b"inner", MountFlags::empty()).unwrap();
    let long = [b'n'; 256];
    let cases: [(&[u8], Result<&str>); 25] = [
        (b"/", Ok("/")),
        (b"//dir/./sub//", Ok("/dir/sub")),
        (b"dir/sub/file", Ok("/dir/sub/file")),
        (b"dir/sub/file/", Err(Errno::ENOTDIR)),
        (b"dir/sub/file/.", Err(Errno::ENOTDIR)),
        (b"dir/sub/..", Ok("/dir")),
        (b"../../..", Ok("/")),
        (b"dir/up/dir/up/abs", Ok("/dir/sub")),
        (b"rel/file", Ok("/dir/sub/file")),
        (b"abs/../sub", Ok("/dir/sub")),
        (b"to-file", Ok("/dir/sub/file")),
        (b"to-file/", Err(Errno::ENOTDIR)),
        (b"loop", Err(Errno::ELOOP)),
        (b"loop/x", Err(Errno::ELOOP)),
        (b"broken", Err(Errno::ENOENT)),
        (b"nothing", Err(Errno::ENOENT)),
        (b"nothing/..", Err(Errno::ENOENT)),
        (b"", Err(Errno::ENOENT)),
        (b"closed", Ok("/closed")),
        (b"closed/x", Err(Errno::EACCES)),
        (b"mnt", Ok("/mnt")),
        (b"mnt/inside", Ok("/mnt/inside")),
        (b"mnt/../dir", Ok("/dir")),
        (b"mnt/inside/../..", Err(Errno::ENOTDIR)),
        (&long, Err(Errno::ENAMETOOLONG)),
    ];
    for (path, expected) in cases {
        // Twice: from the file system, and from the cache.
        for _ in 0..2 {
            let found = walk(path, true, Resolve::empty());
            assert_eq!(found.as_deref().map_err(|e| *e), expected, "{:?}", String::from_utf8_lossy(path));
        }
    }
    assert_eq!(walk(b"loop", false, Resolve::empty()).as_deref(), Ok("/loop"));
    assert_eq!(walk(b"abs", false, Resolve::empty()).as_deref(), Ok("/abs"));
    assert_eq!(walk(b"abs/", false, Resolve::empty()).as_deref(), Ok("/dir/sub"));
    assert_eq!(walk(b"abs", true, Resolve::NO_SYMLINKS), Err(Errno::ELOOP));
    assert_eq!(walk(b"abs", true, Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(walk(b"..", true, Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(walk(b"dir/..", true, Resolve::BENEATH).as_deref(), Ok("/"));
    assert_eq!(walk(b"mnt/inside", true, Resolve::NO_XDEV), Err(Errno::EXDEV));
}
