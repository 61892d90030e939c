//! The ext4 writer: what is written is read back exactly, by a reader of our own and by e2fsprogs.

mod common;

use std::sync::Arc;

use common::{Reader, add, checked, debugfs, dir, file, image};
use proptest::prelude::*;
use ukc_ext4_layout::{Timestamp, mode};
use ukc_image::ext4::{Ext4Error, Options, write};
use ukc_rootfs::{Content, Kind, Meta, Node, NodeId, Tree};

/// One of everything.
fn sample() -> Tree {
    let mut t = Tree::new();
    let root = Tree::ROOT;
    t.node_mut(root).meta.mtime = (1_700_000_000, 5);
    let bin = add(&mut t, root, "bin", 0o755, dir());
    let hello = add(&mut t, bin, "hello", 0o4755, file(vec![0x7f; 10_000]));
    t.node_mut(hello).meta.uid = 100_000;
    t.node_mut(hello).meta.gid = 70_000;
    t.node_mut(hello).meta.mtime = (-12, 123_456_789);
    t.node_mut(hello).meta.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    t.link(bin, b"hello2", hello);
    t.link(root, b"hard", hello);
    add(&mut t, bin, "short", 0o777, Kind::Symlink(b"hello".to_vec()));
    add(&mut t, bin, "fits", 0o777, Kind::Symlink(vec![b'a'; 59]));
    add(&mut t, bin, "long", 0o777, Kind::Symlink(vec![b'b'; 60]));
    add(&mut t, bin, "longest", 0o777, Kind::Symlink(vec![b'c'; 4095]));
    let dev = add(&mut t, root, "dev", 0o755, dir());
    add(&mut t, dev, "null", 0o666, Kind::CharDevice(1, 3));
    add(&mut t, dev, "big", 0o660, Kind::BlockDevice(259, 70_000));
    add(&mut t, dev, "pipe", 0o600, Kind::Fifo);
    let data = add(&mut t, root, "data", 0o1777, dir());
    let rich = add(&mut t, data, "rich", 0o600, file(b"x".to_vec()));
    for (name, len) in [("user.a", 8), ("user.large", 2000), ("trusted.t", 40), ("user.empty", 0), ("user.b", 1000)] {
        t.node_mut(rich).meta.xattrs.insert(name.as_bytes().to_vec(), vec![b'v'; len]);
    }
    add(&mut t, data, "empty", 0o000, file(Vec::new()));
    add(&mut t, data, "page", 0o644, file(vec![1; 4096]));
    add(&mut t, data, "page+1", 0o644, file(vec![2; 4097]));
    let name = t.add(Node { meta: Meta::new(0o644), kind: file(b"odd".to_vec()), origin: None });
    t.link(data, b"caf\xe9 \n\xff", name);
    t.link(data, &[b'n'; 255], name);
    t
}

#[test]
fn one_of_everything_is_read_back() {
    let bytes = image(&sample(), &Options { label: b"root".to_vec(), ..Options::default() });
    let r = Reader::new(&bytes);
    let hello = r.inode(r.find("/bin/hello"));
    assert_eq!((hello.mode(), hello.uid(), hello.gid(), hello.links_count()), (mode::REGULAR | 0o4755, 100_000, 70_000, 3));
    assert_eq!(hello.modified(), Timestamp { seconds: -12, nanoseconds: 123_456_789 });
    assert_eq!(r.find("/hard"), r.find("/bin/hello2"));
    assert_eq!(r.contents(&hello), vec![0x7f; 10_000]);
    assert_eq!(r.xattrs(&hello)[&b"security.capability"[..]].len(), 20);
    assert_eq!(hello.xattr_block(), 0, "a capability fits into the inode");
    for (name, target) in [("short", b"hello".to_vec()), ("fits", vec![b'a'; 59]), ("long", vec![b'b'; 60]), ("longest", vec![b'c'; 4095])]
    {
        let link = r.inode(r.find(&format!("/bin/{name}")));
        assert_eq!((link.mode(), r.contents(&link)), (mode::SYMLINK | 0o777, target));
    }
    assert_eq!(r.inode(r.find("/dev/null")).device(), (1, 3));
    assert_eq!(r.inode(r.find("/dev/big")).device(), (259, 70_000));
    assert_eq!(r.inode(r.find("/dev/pipe")).mode(), mode::FIFO | 0o600);
    assert_eq!(r.inode(r.find("/data")).links_count(), 2);
    assert_eq!(r.inode(ukc_ext4_layout::ROOT_INODE).links_count(), 5);
    let rich = r.xattrs(&r.inode(r.find("/data/rich")));
    assert_eq!(
        rich.iter().map(|(n, v)| (n.as_slice(), v.len())).collect::<Vec<_>>(),
        [(&b"trusted.t"[..], 40), (b"user.a", 8), (b"user.b", 1000), (b"user.empty", 0), (b"user.large", 2000)]
    );
    let names = r.entries(&r.inode(r.find("/data")));
    assert!(names.iter().any(|(n, _)| n == b"caf\xe9 \n\xff") && names.iter().any(|(n, _)| n.len() == 255));
    assert_eq!(image(&sample(), &Options::default()), image(&sample(), &Options::default()), "equal trees, equal bytes");
}

#[test]
fn e2fsprogs_agrees() {
    let image = checked(&image(&sample(), &Options { label: b"root".to_vec(), ..Options::default() }));
    let Some(stat) = debugfs(image.path(), "stat /bin/hello") else { return };
    for expected in [
        "Mode:  04755",
        "User: 100000",
        "Group: 70000",
        "Size: 10000",
        "Links: 3",
        "mtime: 0xfffffff4:1d6f3454 -- Wed Dec 31 23:59:48 1969",
        "security.capability",
    ] {
        assert!(stat.contains(expected), "no `{expected}` in\n{stat}");
    }
    let null = debugfs(image.path(), "stat /dev/null").unwrap();
    assert!(null.contains("character special") && null.contains("number: 01:03"), "{null}");
    let big = debugfs(image.path(), "stat /dev/big").unwrap();
    assert!(big.contains("block special") && big.contains("259:70000"), "{big}");
    assert!(debugfs(image.path(), "stat /bin/short").unwrap().contains("Fast link dest: \"hello\""));
    let large = debugfs(image.path(), "ea_get /data/rich user.large").unwrap();
    assert!(large.contains("user.large (2000)"), "{large}");
    let out = tempfile::tempdir().unwrap();
    let dumped = out.path().join("page+1");
    debugfs(image.path(), &format!("dump /data/page+1 {}", dumped.display())).unwrap();
    assert_eq!(std::fs::read(dumped).unwrap(), vec![2; 4097]);
}

#[test]
fn the_judge_would_notice() {
    let mut bytes = image(&sample(), &Options::default());
    // The size of inode 12, in the inode table behind superblock, descriptors and two bitmaps.
    bytes[4 * 4096 + 256 * 11 + 4] ^= 1;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    if let Some((status, text)) = common::tool("e2fsck", &["-fn", file.path().to_str().unwrap()]) {
        assert_ne!(status, 0, "{text}");
    }
}

#[test]
fn an_empty_tree_is_small_and_clean() {
    let bytes = image(&Tree::new(), &Options::default());
    checked(&bytes);
    assert_eq!(bytes.len(), 6 * 4096, "superblock, descriptors, two bitmaps, inodes, the root");
}

#[test]
fn file_data_is_one_aligned_run() {
    let mut t = Tree::new();
    for i in 0..50 {
        add(&mut t, Tree::ROOT, &format!("f{i}"), 0o644, file(vec![i as u8 + 1; 5000 * (i + 1)]));
    }
    let bytes = image(&t, &Options::default());
    checked(&bytes);
    let r = Reader::new(&bytes);
    for i in 0..50 {
        let inode = r.inode(r.find(&format!("/f{i}")));
        assert_eq!(ukc_ext4_layout::extent::node(inode.block()).unwrap().extents().count(), 1);
        assert_eq!(r.contents(&inode), vec![i as u8 + 1; 5000 * (i + 1)]);
    }
}

#[test]
fn large_directories_and_many_groups_of_inodes_work() {
    let mut t = Tree::new();
    let many = add(&mut t, Tree::ROOT, "many", 0o755, dir());
    for i in 0..40_000 {
        add(&mut t, many, &format!("file-{i:06}"), 0o644, Kind::Fifo);
    }
    for i in 0..300 {
        add(&mut t, Tree::ROOT, &format!("dir-{i}"), 0o755, dir());
    }
    let bytes = image(&t, &Options::default());
    checked(&bytes);
    let r = Reader::new(&bytes);
    let entries = r.entries(&r.inode(r.find("/many")));
    assert_eq!(entries.len(), 40_002);
    assert_eq!(r.inode(r.find("/many/file-039999")).mode(), mode::FIFO | 0o644);
}

#[test]
fn files_above_the_sizes_of_groups_and_roots_of_extent_trees_work() {
    // A sparse file on the host, so that the test costs no disk: 600 MiB need five extents, one more than an inode holds.
    let host = tempfile::NamedTempFile::new().unwrap();
    let len_bytes = 600 << 20;
    host.as_file().set_len(len_bytes).unwrap();
    let mut t = Tree::new();
    let content = Content::Host { path: Arc::new(host.path().to_owned()), offset: 0, len_bytes };
    add(&mut t, Tree::ROOT, "huge", 0o644, Kind::File(content));
    add(&mut t, Tree::ROOT, "tail", 0o644, file(b"after".to_vec()));
    let image = tempfile::NamedTempFile::new().unwrap();
    let mut sparse = Sparse { file: image.as_file(), at: 0 };
    let written = write(&t, &Options::default(), &mut sparse).unwrap();
    image.as_file().set_len(written.len_bytes).unwrap();
    common::e2fsck(image.path());
    if let Some(text) = debugfs(image.path(), "cat /tail") {
        assert!(text.starts_with("after"), "{text}");
        assert!(debugfs(image.path(), "stat /huge").unwrap().contains(&format!("Size: {len_bytes}")));
    }
}

/// Leaves zeros out.
struct Sparse<'f> {
    file: &'f std::fs::File,
    at: u64,
}

impl std::io::Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        if bytes.iter().any(|&b| b != 0) {
            self.file.write_all_at(bytes, self.at)?;
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn room_is_left_where_it_is_asked_for() {
    let options = Options { free_bytes: 300 << 20, free_inodes: 5000, ..Options::default() };
    let bytes = image(&sample(), &options);
    let image = checked(&bytes);
    if let Some(text) = common::tool("dumpe2fs", &["-h", image.path().to_str().unwrap()]) {
        let free = |name: &str| {
            let line = text.1.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{}", text.1));
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(free("Free blocks:"), (300 << 20) / 4096);
        assert!(free("Free inodes:") >= 5000);
    }
}

/// What makes a tree impossible, and what is said.
type Refused<'a> = (&'a dyn Fn(&mut Tree), &'a str);

#[test]
fn what_ext4_cannot_hold_is_refused_with_its_path() {
    let fails = |make: &dyn Fn(&mut Tree)| {
        let mut t = Tree::new();
        make(&mut t);
        let mut out = Vec::new();
        let message = write(&t, &Options::default(), &mut out).unwrap_err().to_string();
        assert!(out.is_empty(), "nothing is written");
        message
    };
    let node = |t: &mut Tree, name: &str, kind: Kind| {
        add(t, Tree::ROOT, name, 0, kind);
    };
    let d = |t: &mut Tree| add(t, Tree::ROOT, "d", 0o755, dir());
    let attribute = |t: &mut Tree, name: &str, len: usize| {
        let id = add(t, Tree::ROOT, "f", 0o644, file(b"".to_vec()));
        t.node_mut(id).meta.xattrs.insert(name.as_bytes().to_vec(), vec![0; len]);
    };
    let table: &[Refused<'_>] = &[
        (&|t| node(t, &"n".repeat(256), Kind::Fifo), &format!("`/{}` cannot be a file name", "n".repeat(256))),
        (
            &|t| {
                let d = d(t);
                add(t, d, "..", 0, Kind::Fifo);
            },
            "`/d/..` cannot be a file name",
        ),
        (&|t| node(t, "l", Kind::Symlink(vec![b'a'; 4096])), "symbolic link `/l` has a target of 4096 bytes; 1 to 4095 are possible"),
        (
            &|t| {
                let d = d(t);
                t.link(d, b"again", d);
            },
            "directory `/d` has two names",
        ),
        (
            &|t| {
                let d = d(t);
                t.link(d, b"root", Tree::ROOT);
            },
            "directory `/` has two names",
        ),
        (&|t| node(t, "x", Kind::CharDevice(5000, 1)), "device `/x` has the impossible number 5000:1"),
        (&|t| attribute(t, "user.x", 5000), "the extended attributes of `/f` need 5020 bytes more than ext4 has room for"),
        (&|t| attribute(t, "btrfs.x", 1), "extended attribute `btrfs.x` of `/f`: ext4 has no such namespace"),
    ];
    for (make, expected) in table {
        assert_eq!(fails(*make), *expected);
    }
}

#[test]
fn contents_that_changed_are_an_error() {
    let host = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(host.path(), b"12345").unwrap();
    let mut t = Tree::new();
    let content = Content::Host { path: Arc::new(host.path().to_owned()), offset: 0, len_bytes: 8 };
    add(&mut t, Tree::ROOT, "f", 0o644, Kind::File(content));
    let error = write(&t, &Options::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, Ext4Error::SizeChanged { path, expected: 8, found: 5 } if path == "/f"), "{error}");
    drop(host);
    let error = write(&t, &Options::default(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the contents of `/f`: "), "{error}");
}

/// A disk with room for `0` more bytes.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let n = bytes.len().min(self.0);
        self.0 -= n;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_fills_up() {
    let len = image(&sample(), &Options::default()).len();
    for room in [0, 1, 4096, 5 * 4096, len - 1] {
        let error = write(&sample(), &Options::default(), &mut Full(room)).unwrap_err();
        assert!(matches!(error, Ext4Error::Write { .. }), "{error}");
    }
    write(&sample(), &Options::default(), &mut Full(len)).unwrap();
}

/// What the property test builds: a name for the parent's index, and a kind.
type Step = (prop::sample::Index, u8, Vec<u8>, usize);

fn build(steps: &[Step]) -> (Tree, Vec<NodeId>) {
    let mut t = Tree::new();
    let mut dirs = vec![Tree::ROOT];
    let mut files = Vec::new();
    for (i, (parent, kind, name, len)) in steps.iter().enumerate() {
        let parent = dirs[parent.index(dirs.len())];
        let name = [name.as_slice(), format!("-{i}").as_bytes()].concat();
        let kind = match kind % 6 {
            0 => dir(),
            1 => Kind::Symlink(vec![b't'; len % 4000 + 1]),
            2 => Kind::CharDevice((*len % 4096) as u32, *len as u32),
            3 if !files.is_empty() => {
                t.link(parent, &name, files[len % files.len()]);
                continue;
            }
            _ => file(vec![i as u8 + 1; *len]),
        };
        let mut meta = Meta::new((len % 0o10000) as u16);
        meta.uid = *len as u32 * 7;
        if len % 3 == 0 {
            meta.xattrs.insert(b"user.k".to_vec(), vec![7; len % 3000]);
        }
        let id = t.add(Node { meta, kind, origin: None });
        match t.node(id).kind {
            Kind::Dir(_) => dirs.push(id),
            Kind::File(_) => files.push(id),
            _ => {}
        }
        t.link(parent, &name, id);
    }
    (t, files)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_clean_and_read_back(
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), prop::collection::vec(prop::sample::select(b"ab.\xc3 ~".to_vec()), 0..200), 0usize..20_000), 0..120),
    ) {
        let (t, _) = build(&steps);
        let bytes = image(&t, &Options::default());
        checked(&bytes);
        let r = Reader::new(&bytes);
        let mut failed = None;
        t.walk(&mut |path, id| {
            let number = path.split(|b| *b == b'/').filter(|c| !c.is_empty()).fold(2, |n, name| {
                r.entries(&r.inode(n)).into_iter().find(|(found, _)| found == name).map_or(1, |e| e.1)
            });
            let inode = r.inode(number);
            let node = t.node(id);
            let is_equal = inode.mode() & 0o7777 == node.meta.mode
                && inode.uid() == node.meta.uid
                && r.xattrs(&inode) == node.meta.xattrs
                && match &node.kind {
                    Kind::File(content) => r.contents(&inode) == content.read_all().unwrap(),
                    Kind::Symlink(target) => r.contents(&inode) == *target,
                    Kind::CharDevice(major, minor) => inode.device() == (*major, *minor),
                    Kind::Dir(entries) => r.entries(&inode).len() == entries.len() + 2,
                    _ => false,
                };
            if !is_equal {
                failed = Some(path.to_vec());
            }
        });
        prop_assert_eq!(failed, None);
    }
}
