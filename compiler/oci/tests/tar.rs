//! The tar reader and writer against GNU tar and against arbitrary bytes.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use ukc_oci::tar::{Entry, EntryKind, Reader, TarError, Whiteouts, changes_of_file, write_tree};
use ukc_oci::{OciError, Store};
use ukc_rootfs::{Action, Content, Kind, Meta, Node, Tree};

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, TarError> {
    Reader::new(Cursor::new(bytes)).unwrap().collect()
}

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    root: PathBuf,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let root = dir.path().to_owned();
    Fixture { _dir: dir, store, root }
}

impl Fixture {
    fn tree(&self, archive: &[u8], whiteouts: Whiteouts) -> Result<Tree, OciError> {
        let path = self.root.join(format!("{}.tar", ukc_oci::Digest::of(archive).hex()));
        std::fs::write(&path, archive).unwrap();
        let changes = changes_of_file(&path, "the archive", whiteouts, &self.store)?;
        let mut tree = Tree::new();
        tree.apply(b"/", changes, None).map_err(|error| OciError::Apply { archive: "the archive".into(), error })?;
        Ok(tree)
    }
}

fn node<'a>(tree: &'a Tree, path: &[u8]) -> &'a Node {
    tree.node(tree.resolve_nofollow(path).unwrap_or_else(|e| panic!("{}: {e:?}", path.escape_ascii())).id)
}

fn bytes(tree: &Tree, path: &[u8]) -> Vec<u8> {
    let Kind::File(content) = &node(tree, path).kind else { panic!("{} is no file", path.escape_ascii()) };
    content.read_all().unwrap()
}

/// A directory with one of everything that needs no privilege.
fn sample(dir: &Path) {
    let long = "d".repeat(120);
    let script = format!(
        "set -e; umask 022; mkdir -p a/{long}/{long}; printf hello > a/{long}/{long}/file; printf x > a/setuid; chmod 4755 a/setuid
         ln a/setuid a/zz-hard; ln -s ../{long}/{long}/{long} a/link; mkfifo a/fifo; mkdir a/sticky; chmod 1777 a/sticky
         printf odd > a/$(printf 'na\\377me'); : > a/empty
         truncate -s 3M a/sparse; printf middle | dd of=a/sparse bs=1 seek=1000000 conv=notrunc status=none
         printf tail | dd of=a/sparse bs=1 seek=3145728 conv=notrunc status=none
         touch -d '1950-01-02 03:04:05.123456789 UTC' a/empty; touch -d '2033-01-02 03:04:05.5 UTC' a/setuid"
    );
    run(Command::new("sh").arg("-c").arg(script).current_dir(dir));
}

#[test]
fn gnu_tar_in_all_its_formats() {
    let f = fixture();
    let dir = f.root.join("sample");
    std::fs::create_dir(&dir).unwrap();
    sample(&dir);
    let long = "d".repeat(120);
    let deep = format!("/a/{long}/{long}/file");
    for options in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=gnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ] {
        let archive = run(Command::new("tar").args(options).args(["--owner=70000", "--group=5000000", "-cf", "-", "a"]).current_dir(&dir));
        let tree = f.tree(&archive, Whiteouts::Apply).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert_eq!(bytes(&tree, deep.as_bytes()), b"hello", "{options:?}");
        assert_eq!(bytes(&tree, b"/a/na\xffme"), b"odd");
        let setuid = node(&tree, b"/a/setuid");
        assert_eq!((setuid.meta.mode, setuid.meta.uid, setuid.meta.gid), (0o4755, 70000, 5_000_000), "{options:?}");
        assert_eq!(tree.resolve(b"/a/setuid").unwrap().id, tree.resolve(b"/a/zz-hard").unwrap().id);
        assert!(matches!(&node(&tree, b"/a/link").kind, Kind::Symlink(t) if *t == format!("../{long}/{long}/{long}").as_bytes()));
        assert!(matches!(node(&tree, b"/a/fifo").kind, Kind::Fifo));
        assert_eq!(node(&tree, b"/a/sticky").meta.mode, 0o1777);
        let pax = options[0] == "--format=pax";
        assert_eq!(node(&tree, b"/a/empty").meta.mtime, (-631_054_555, if pax { 123_456_789 } else { 0 }), "{options:?}");
        assert_eq!(node(&tree, b"/a/setuid").meta.mtime, (1_988_247_845, if pax { 500_000_000 } else { 0 }));
        let sparse = bytes(&tree, b"/a/sparse");
        assert_eq!(sparse, std::fs::read(dir.join("a/sparse")).unwrap(), "{options:?}");
        if options.contains(&"--sparse") {
            let Kind::File(Content::Host { path, .. }) = &node(&tree, b"/a/sparse").kind else { panic!() };
            let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path.as_path()).unwrap());
            assert!(blocks * 512 < 1 << 20, "holes stay holes: {blocks} blocks");
        }
    }
}

#[test]
fn what_we_write_gnu_tar_and_we_read_alike() {
    let f = fixture();
    let mut tree = Tree::new();
    let long = vec![b'n'; 150];
    let put = |tree: &mut Tree, path: &[u8], meta: Meta, kind: Kind| {
        let change = ukc_rootfs::Change { path: path.to_vec(), action: Action::Put(meta, kind) };
        tree.apply(b"/", vec![change], None).unwrap();
    };
    let mut meta = Meta { uid: 3_000_000, gid: 7, mtime: (-5, 250_000_000), ..Meta::new(0o6750) };
    meta.xattrs.insert(b"security.capability".to_vec(), b"\x01\0\0\x02\n=\0".to_vec());
    put(&mut tree, b"bin/prog", meta, Kind::File(Content::from_bytes(*b"prog")));
    put(&mut tree, &long, Meta { mtime: (1 << 34, 0), ..Meta::new(0o644) }, Kind::File(Content::from_bytes(vec![9; 1025])));
    put(&mut tree, "ünïcode".as_bytes(), Meta::new(0o600), Kind::File(Content::from_bytes([])));
    put(&mut tree, b"raw\xff", Meta::new(0o600), Kind::Symlink(vec![b't'; 200]));
    put(&mut tree, b"dev/console", Meta::new(0o620), Kind::CharDevice(5, 1));
    put(&mut tree, b"dev/disk", Meta::new(0o660), Kind::BlockDevice(254, 70000));
    put(&mut tree, b"dev/pipe", Meta::new(0o660), Kind::Fifo);
    let id = tree.resolve(b"/bin/prog").unwrap().id;
    tree.link(Tree::ROOT, b"also", id);
    let mut archive = Vec::new();
    write_tree(&tree, &mut archive).unwrap();
    assert_eq!(f.tree(&archive, Whiteouts::Apply).unwrap().to_text(), tree.to_text());
    let back = f.tree(&archive, Whiteouts::Apply).unwrap();
    assert_eq!(node(&back, b"/bin/prog").meta, node(&tree, b"/bin/prog").meta);
    assert_eq!(node(&back, &[b"/", long.as_slice()].concat()).meta.mtime, (1 << 34, 0));
    std::fs::write(f.root.join("ours.tar"), &archive).unwrap();
    let listing =
        run(Command::new("tar").args(["--numeric-owner", "--utc", "-tvf", "ours.tar"]).current_dir(&f.root).env("LC_ALL", "C.UTF-8"));
    let listing = String::from_utf8_lossy(&listing).into_owned();
    assert!(listing.lines().any(|l| l.starts_with("-rwsr-s--- 3000000/7") && l.ends_with("also")), "{listing}");
    assert!(listing.contains("bin/prog link to also") && listing.contains("ünïcode"), "{listing}");
    assert!(listing.contains("brw-rw---- 0/0") && listing.contains("254,70000"), "{listing}");
    assert_eq!(listing.lines().count(), 11, "{listing}");
}

#[test]
fn whiteout_names() {
    let f = fixture();
    let dir = f.root.join("w");
    run(Command::new("sh")
        .arg("-c")
        .arg("mkdir -p w/d w/e; : > w/d/.wh.gone; : > w/e/.wh..wh..opq; : > w/.wh..wh.plnk; : > w/d/kept")
        .current_dir(&f.root));
    let archive = run(Command::new("tar").args(["-cf", "-", "d", "e", ".wh..wh.plnk"]).current_dir(&dir));
    std::fs::write(f.root.join("w.tar"), &archive).unwrap();
    let changes = changes_of_file(&f.root.join("w.tar"), "w", Whiteouts::Apply, &f.store).unwrap();
    let mut seen: Vec<String> = changes
        .iter()
        .map(|c| {
            let action = match c.action {
                Action::Whiteout => "whiteout",
                Action::Opaque => "opaque",
                Action::Put(..) | Action::HardLink(_) => "put",
            };
            format!("{action} {}", c.path.escape_ascii())
        })
        .collect();
    seen.sort();
    assert_eq!(seen, ["opaque /e", "put d/", "put d/kept", "put e/", "whiteout /d/gone"]);
    let literal = f.tree(&archive, Whiteouts::Literal).unwrap();
    assert!(literal.resolve(b"/d/.wh.gone").is_ok() && literal.resolve(b"/.wh..wh.plnk").is_ok());
    for bad in [".wh.", ".wh..", ".wh..."] {
        let mut tree = Tree::new();
        tree.write_file(bad.as_bytes(), Content::from_bytes([]), Meta::new(0o644)).unwrap();
        let mut archive = Vec::new();
        write_tree(&tree, &mut archive).unwrap();
        assert!(matches!(f.tree(&archive, Whiteouts::Apply), Err(OciError::Tar { .. })), "{bad}");
    }
}

/// Builds a header with a right checksum.
fn header(name: &[u8], type_byte: u8, size: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = type_byte;
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    block
}

#[test]
fn broken_archives_are_errors_that_say_where() {
    let show = |bytes: &[u8]| entries(bytes).map_err(|e| e.to_string());
    assert_eq!(show(b""), Ok(vec![]));
    assert_eq!(show(&[0; 1024]), Ok(vec![]));
    assert_eq!(show(&[0; 512]), Ok(vec![]));
    assert_eq!(show(&[b'x'; 512]).unwrap_err(), "no tar header at byte 0: the checksum is wrong");
    assert_eq!(show(&[b'x'; 100]).unwrap_err(), "the archive ends inside the entry at byte 0");
    assert_eq!(show(&header(b"f", b'0', b"00000001000")).unwrap_err(), "the archive ends inside the entry at byte 0");
    assert_eq!(show(&header(b"f", b'0', b"0000000x000")).unwrap_err(), "the entry at byte 0 has an impossible size");
    assert_eq!(
        show(&header(b"f", b'0', b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")).unwrap_err(),
        "the entry at byte 0 has an impossible size"
    );
    assert_eq!(
        show(&header(b"f", b'0', b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")).unwrap_err(),
        "the entry at byte 0 has an impossible size"
    );
    assert_eq!(
        show(&header(b"f", b'V', b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")).unwrap_err(),
        "the entry at byte 0 has an impossible size"
    );
    assert_eq!(show(&header(b"f", b'Z', b"0")).unwrap_err(), "the entry `f` at byte 0 has the unknown type `Z`");
    let pax = |data: &[u8]| {
        let mut bytes = header(b"p", b'x', format!("{:o}", data.len()).as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(1024, 0);
        bytes.extend(header(b"f", b'0', b"0"));
        bytes
    };
    for bad in [&b"nonsense"[..], b"5 a\n", b"99 path=x\n", b"0 a=b\n", b"3 \n", b"9 uid=-1\n", b"18446744073709551616 a=b\n", b"2\n"] {
        assert!(show(&pax(bad)).is_err(), "{}", bad.escape_ascii());
    }
    assert_eq!(entries(&pax(b"12 path=a/b\n")).unwrap()[0].name, b"a/b");
    assert_eq!(entries(&pax(b"12 size=   \n")).map_err(|e| e.to_string()).unwrap_err(), "the entry at byte 1024 has an impossible size");
    // A link with a size has no data (Go's archive/tar): the next header follows at once.
    let both = [header(b"l", b'2', b"777"), header(b"g", b'0', b"0")].concat();
    assert_eq!(entries(&both).unwrap().len(), 2);
}

#[test]
fn hostile_names_stay_inside() {
    let f = fixture();
    let archive = [
        header(b"../../../../outside", b'0', b"0"),
        header(b"/absolute", b'0', b"0"),
        {
            let mut link = header(b"out", b'2', b"0");
            link[157..170].copy_from_slice(b"/../../../etc");
            link[148..156].fill(b' ');
            let sum: u32 = link.iter().map(|&b| u32::from(b)).sum();
            link[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            link
        },
        header(b"out/passwd", b'0', b"0"),
    ]
    .concat();
    let tree = f.tree(&archive, Whiteouts::Apply).unwrap();
    let mut names = vec![];
    tree.walk(&mut |p, _| names.push(String::from_utf8_lossy(p).into_owned()));
    assert_eq!(names, ["/", "/absolute", "/etc", "/etc/passwd", "/out", "/outside"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Archives with a few bytes changed: errors or entries, no panic, and file data always inside the archive.
    #[test]
    fn damaged_archives_do_not_panic(damage in proptest::collection::vec((0usize..4096, any::<u8>()), 0..8), fix in any::<bool>(), cut in 0usize..4097) {
        let mut tree = Tree::new();
        let mut meta = Meta { mtime: (-1, 5), ..Meta::new(0o755) };
        meta.xattrs.insert(b"user.x".to_vec(), b"y".to_vec());
        tree.write_file(b"/a/b", Content::from_bytes(*b"data"), meta).unwrap();
        tree.write_file(&[b'n'; 130], Content::from_bytes([1; 600]), Meta::new(0o644)).unwrap();
        let mut archive = Vec::new();
        write_tree(&tree, &mut archive).unwrap();
        for (at, byte) in damage {
            let len = archive.len();
            archive[at % len] = byte;
        }
        if fix {
            // Right checksums let the damage through to the fields behind them.
            for block in archive.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            }
        }
        archive.truncate(cut.max(512));
        for entry in Reader::new(Cursor::new(&archive)).unwrap().flatten() {
            if let EntryKind::File { offset, len_bytes } = entry.kind {
                prop_assert!(offset + len_bytes <= archive.len() as u64);
            }
        }
        let f = fixture();
        if let Ok(tree) = f.tree(&archive, Whiteouts::Apply) {
            tree.walk(&mut |path, id| {
                assert_eq!(tree.resolve_nofollow(path).unwrap().id, id);
                if let Kind::File(content) = &tree.node(id).kind {
                    content.read_all().unwrap();
                }
            });
        }
    }

    #[test]
    fn random_blocks_do_not_panic(mut block in proptest::collection::vec(any::<u8>(), 512..2048)) {
        for b in block.chunks_exact_mut(512) {
            b[148..156].fill(b' ');
            let sum: u32 = b.iter().map(|&b| u32::from(b)).sum();
            b[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        }
        let _ = entries(&block);
    }
}
