//! Volumes that mke2fs made, changed at random, stopped cleanly or cut off anywhere; e2fsck is the judge.
//!
//! Data pages need a machine's memory, so here files have blocks (fallocate(2)) but no bytes; guest tests cover those.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::string::String;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex as HostMutex, OnceLock};

use libos_core::abi::general as linux;
use libos_core::device::BlockDevice;
use libos_core::file::OpenFlags;
use libos_core::mm::Frame;
use libos_core::vfs::{NewNode, RenameFlags};
use proptest::prelude::*;

use super::*;

/// What happened to a disk.
#[derive(Clone)]
enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

struct Disk {
    bytes: HostMutex<Vec<u8>>,
    events: HostMutex<Vec<Event>>,
}

impl Disk {
    fn new(bytes: Vec<u8>) -> Arc<Disk> {
        Arc::new(Disk { bytes: HostMutex::new(bytes), events: HostMutex::default() })
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl BlockDevice for Disk {
    fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()> {
        let bytes = self.bytes.lock().unwrap();
        dst.copy_from_slice(bytes.get(offset as usize..offset as usize + dst.len()).ok_or(Errno::ENXIO)?);
        Ok(())
    }

    fn read_frames(&self, _offset: u64, _frames: &[Frame]) -> Result<()> {
        Err(Errno::EIO)
    }

    fn write(&self, offset: u64, src: &[u8]) -> Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        bytes.get_mut(offset as usize..offset as usize + src.len()).ok_or(Errno::ENXIO)?.copy_from_slice(src);
        self.events.lock().unwrap().push(Event::Write(offset, src.to_vec()));
        Ok(())
    }

    fn write_frames(&self, _offset: u64, _frames: &[Frame]) -> Result<()> {
        Err(Errno::EIO)
    }

    fn flush(&self) -> Result<()> {
        self.events.lock().unwrap().push(Event::Flush);
        Ok(())
    }

    fn len_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn sector_bytes(&self) -> u32 {
        512
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

fn tool(name: &str) -> PathBuf {
    let sbin = PathBuf::from("/usr/sbin").join(name);
    if sbin.exists() { sbin } else { name.into() }
}

fn temporary(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    std::env::temp_dir().join(format!("ukc-ext4rw-{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A fresh volume of 24 MiB; `features` is mke2fs' `-O`.
fn make(features: &str) -> Vec<u8> {
    let path = temporary("image");
    let mut command = Command::new(tool("mke2fs"));
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256"]);
    if !features.is_empty() {
        command.args(["-O", features]);
    }
    let output = command.arg(&path).arg("24m").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(&path).unwrap();
    let _ = std::fs::remove_file(&path);
    bytes
}

fn default_image() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make("")).clone()
}

/// Runs e2fsck and returns its exit status and text.
fn e2fsck(bytes: &[u8], options: &[&str]) -> (i32, String, Vec<u8>) {
    let path = temporary("check");
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new(tool("e2fsck")).args(options).arg(&path).output().unwrap();
    let after = std::fs::read(&path).unwrap();
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text, after)
}

fn assert_clean(bytes: &[u8]) {
    let (status, text, _) = e2fsck(bytes, &["-fn"]);
    assert_eq!(status, 0, "{text}");
}

fn node(kind: u32) -> NewNode<'static> {
    NewNode { mode: kind | 0o755, uid: 1, gid: 2, rdev: 0, target: b"target" }
}

fn names(dir: &Arc<dyn VfsInode>) -> Vec<String> {
    let mut out = Vec::new();
    dir.read_dir(0, &mut |entry| {
        out.push(String::from_utf8(entry.name.to_vec()).unwrap());
        true
    })
    .unwrap();
    out.retain(|name| !matches!(&name[..], "." | ".." | "lost+found"));
    out.sort();
    out
}

/// What programs see of a volume: every path, its type, its size and its number of names.
fn tree(dir: &Arc<dyn VfsInode>, at: &str, out: &mut BTreeMap<String, (u32, u64, u32)>) {
    for name in names(dir) {
        let inode = dir.lookup(name.as_bytes()).unwrap();
        let stat = inode.stat().unwrap();
        let path = format!("{at}/{name}");
        out.insert(path.clone(), (stat.mode, if stat.mode & linux::S_IFMT == linux::S_IFDIR { 0 } else { stat.size }, stat.nlink));
        if inode.attributes().unwrap().is_dir() {
            tree(&inode, &path, out);
        }
    }
}

fn tree_of(fs: &Arc<Fs>) -> BTreeMap<String, (u32, u64, u32)> {
    let mut out = BTreeMap::new();
    tree(&root(fs), "", &mut out);
    out
}

fn root(fs: &Arc<Fs>) -> Arc<dyn VfsInode> {
    fs.inode(ROOT_INODE, &mut fs.state.lock()).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8, u8, u32),
    Remove(u8, u8),
    Rename(u8, u8, u8, u8, bool),
    Link(u8, u8, u8, u8),
    Grow(u8, u8, u64, u64),
    Truncate(u8, u8, u64),
    Punch(u8, u8, u64, u64),
    Attribute(u8, u8, usize),
    Sync,
    Commit,
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let (d, n) = (|| 0u8..4, || 0u8..12);
    let kind = prop_oneof![Just(linux::S_IFREG), Just(linux::S_IFDIR), Just(linux::S_IFLNK), Just(linux::S_IFIFO)];
    let step = prop_oneof![
        6 => (d(), n(), kind).prop_map(|(d, n, k)| Step::Create(d, n, k)),
        3 => (d(), n()).prop_map(|(d, n)| Step::Remove(d, n)),
        3 => (d(), n(), d(), n(), any::<bool>()).prop_map(|(a, b, c, d, e)| Step::Rename(a, b, c, d, e)),
        1 => (d(), n(), d(), n()).prop_map(|(a, b, c, d)| Step::Link(a, b, c, d)),
        4 => (d(), n(), 0u64..400, 1u64..60).prop_map(|(a, b, c, d)| Step::Grow(a, b, c, d)),
        2 => (d(), n(), 0u64..2_000_000).prop_map(|(a, b, c)| Step::Truncate(a, b, c)),
        2 => (d(), n(), 0u64..400, 1u64..30).prop_map(|(a, b, c, d)| Step::Punch(a, b, c, d)),
        1 => (d(), n(), 0usize..600).prop_map(|(a, b, c)| Step::Attribute(a, b, c)),
        1 => Just(Step::Sync),
        3 => Just(Step::Commit),
    ];
    prop::collection::vec(step, 1..count)
}

/// Directory 0 is the root, the others are `d1`, `d2`, `d3` in it.
fn dir(fs: &Arc<Fs>, number: u8) -> Arc<dyn VfsInode> {
    let root = root(fs);
    if number == 0 { root } else { root.lookup(format!("d{number}").as_bytes()).unwrap() }
}

/// Names of several lengths, so that entries split and join.
fn name(number: u8) -> Vec<u8> {
    format!("n{number}{}", "x".repeat(usize::from(number) * 17)).into_bytes()
}

fn file(fs: &Arc<Fs>, d: u8, n: u8) -> Option<Arc<dyn VfsInode>> {
    dir(fs, d).lookup(&name(n)).ok().filter(|inode| inode.attributes().unwrap().is_regular())
}

/// What the callers in `vfs::ops` would refuse is left out here, too.
fn apply(fs: &Arc<Fs>, step: &Step) {
    match *step {
        Step::Create(d, n, kind) => {
            if dir(fs, d).lookup(&name(n)).is_err() {
                dir(fs, d).create(&name(n), &node(kind)).unwrap();
            }
        }
        Step::Remove(d, n) => {
            if let Ok(inode) = dir(fs, d).lookup(&name(n)) {
                let is_dir = inode.attributes().unwrap().is_dir();
                drop(inode);
                dir(fs, d).unlink(&name(n), is_dir).unwrap();
            }
        }
        Step::Rename(d, n, to_d, to_n, exchanges) => {
            let (Ok(moved), replaced) = (dir(fs, d).lookup(&name(n)), dir(fs, to_d).lookup(&name(to_n))) else { return };
            let is_dir = |inode: &Arc<dyn VfsInode>| inode.attributes().unwrap().is_dir();
            let is_same = |other: &Arc<dyn VfsInode>| other.stat().unwrap().ino == moved.stat().unwrap().ino;
            let is_allowed = match &replaced {
                Ok(replaced) => !is_same(replaced) && (exchanges || is_dir(replaced) == is_dir(&moved)),
                Err(_) => !exchanges,
            };
            if is_allowed {
                let flags = if exchanges { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
                dir(fs, d).rename(&name(n), &dir(fs, to_d), &name(to_n), flags).unwrap();
            }
        }
        Step::Link(d, n, to_d, to_n) => {
            if let (Some(inode), Err(_)) = (file(fs, d, n), dir(fs, to_d).lookup(&name(to_n))) {
                dir(fs, to_d).link(&name(to_n), &inode).unwrap();
            }
        }
        Step::Grow(d, n, first, count) => {
            if let Some(inode) = file(fs, d, n) {
                let file = inode.open(OpenFlags::RDWR).unwrap();
                file.allocate(0, first * 4096, count * 4096).unwrap();
                // Some of them become ordinary blocks, so that the list of extents grows.
                let file = file.as_any().downcast_ref::<crate::data::VolumeFile>().unwrap();
                let mut state = fs.state.lock();
                let mut meta = file.0.meta.lock();
                for block in (first..first + count).step_by(3) {
                    state.fill(file.0.number, &mut meta, block, 1, false).unwrap();
                }
                state.touch(&file.0, &mut meta).unwrap();
            }
        }
        Step::Truncate(d, n, len) => {
            if let Some(inode) = file(fs, d, n) {
                inode.truncate(len / 4096 * 4096).unwrap();
            }
        }
        Step::Punch(d, n, first, count) => {
            if let Some(inode) = file(fs, d, n) {
                let mode = linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE;
                inode.open(OpenFlags::RDWR).unwrap().allocate(mode, first * 4096, count * 4096).unwrap();
            }
        }
        Step::Attribute(d, n, len) => {
            if let Some(inode) = file(fs, d, n) {
                inode.set_xattr(b"user.small", Some(b"x"), None).unwrap();
                inode.set_xattr(b"user.other", Some(&vec![7; len]), None).unwrap();
                assert_eq!(inode.xattr(b"user.other").unwrap(), vec![7; len]);
            }
        }
        Step::Sync => fs.sync().unwrap(),
        Step::Commit => {
            fs.commit(&mut fs.state.lock()).unwrap();
        }
    }
}

fn start(disk: &Arc<Disk>) -> Arc<Fs> {
    let fs = Fs::mount(disk.clone(), 1).unwrap();
    for d in 1..4 {
        root(&fs).create(format!("d{d}").as_bytes(), &node(linux::S_IFDIR)).unwrap();
    }
    fs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_volume_is_clean_after_a_stop(steps in steps(120)) {
        let disk = Disk::new(default_image());
        let fs = start(&disk);
        steps.iter().for_each(|step| apply(&fs, step));
        fs.sync().unwrap();
        let seen = tree_of(&fs);
        assert_clean(&disk.bytes());
        drop(fs);
        let again = Fs::mount(disk, 1).unwrap();
        prop_assert_eq!(tree_of(&again), seen);
    }

    #[test]
    fn a_volume_recovers_wherever_it_is_cut_off(steps in steps(80), cut in 0usize..10_000, kept in any::<u64>()) {
        let disk = Disk::new(default_image());
        let fs = start(&disk);
        fs.sync().unwrap();
        let before = disk.bytes();
        disk.events.lock().unwrap().clear();
        steps.iter().for_each(|step| apply(&fs, step));
        fs.commit(&mut fs.state.lock()).unwrap();
        let events = disk.events.lock().unwrap().clone();
        let cut = cut % (events.len() + 1);
        // Everything up to the last flush is on the disk; of what came after, any part may be.
        let safe = events[..cut].iter().rposition(|e| matches!(e, Event::Flush)).unwrap_or(0);
        let mut bytes = before;
        for (i, event) in events[..cut].iter().enumerate() {
            if let Event::Write(offset, data) = event
                && (i < safe || kept >> (i % 64) & 1 != 0)
            {
                bytes[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
            }
        }
        // e2fsck replays the journal, and has nothing else to repair.
        let (status, text, after) = e2fsck(&bytes, &["-fp"]);
        prop_assert!(status <= 1, "{}", text);
        assert_clean(&after);
        // So does the next mount.
        let disk = Disk::new(bytes);
        let fs = Fs::mount(disk.clone(), 1).unwrap();
        fs.sync().unwrap();
        assert_clean(&disk.bytes());
        drop(fs);
        let other = Fs::mount(Disk::new(after), 1).unwrap();
        let fs = Fs::mount(disk, 1).unwrap();
        prop_assert_eq!(tree_of(&fs), tree_of(&other));
    }

    #[test]
    fn no_image_panics(at in prop::collection::vec((0usize..200_000, any::<u8>()), 1..40)) {
        let mut bytes = default_image();
        for (offset, value) in at {
            bytes[offset] = value;
        }
        let disk = Disk::new(bytes);
        if let Ok(fs) = Fs::mount(disk, 1) {
            let _ = root(&fs).create(b"a", &node(linux::S_IFREG));
            let _ = root(&fs).create(b"b", &node(linux::S_IFDIR));
            let _ = root(&fs).unlink(b"a", false);
            let _ = fs.sync();
        }
    }
}

#[test]
fn volumes_with_and_without_features() {
    for features in ["", "^has_journal", "^metadata_csum", "^64bit", "^flex_bg", "^has_journal,^metadata_csum,^64bit,^resize_inode"] {
        let disk = Disk::new(make(features));
        let fs = start(&disk);
        for n in 0..12 {
            apply(&fs, &Step::Create(1, n, if n % 3 == 0 { linux::S_IFDIR } else { linux::S_IFREG }));
            apply(&fs, &Step::Grow(1, n, 3, 20));
        }
        apply(&fs, &Step::Remove(1, 1));
        fs.sync().unwrap();
        assert_clean(&disk.bytes());
    }
}

#[test]
fn many_names_in_one_directory() {
    let disk = Disk::new(default_image());
    let fs = start(&disk);
    let dir = dir(&fs, 1);
    for i in 0..2000 {
        dir.create(format!("a-rather-long-name-for-a-file-{i}").as_bytes(), &node(linux::S_IFREG)).unwrap();
    }
    for i in (0..2000).step_by(2) {
        dir.unlink(format!("a-rather-long-name-for-a-file-{i}").as_bytes(), false).unwrap();
    }
    for i in 0..500 {
        dir.create(format!("new-{i}").as_bytes(), &node(linux::S_IFREG)).unwrap();
    }
    assert_eq!(names(&dir).len(), 1500);
    assert!(dir.lookup(b"new-77").is_ok() && dir.lookup(b"a-rather-long-name-for-a-file-8").is_err());
    fs.sync().unwrap();
    assert_clean(&disk.bytes());
}

#[test]
fn files_without_names_live_until_they_are_closed() {
    let disk = Disk::new(default_image());
    let fs = start(&disk);
    let free = fs.state.lock().groups.free_inodes;
    let (a, b) = (root(&fs).create(b"a", &node(linux::S_IFREG)).unwrap(), root(&fs).create_unnamed(&node(linux::S_IFREG)).unwrap());
    a.clone().open(OpenFlags::RDWR).unwrap().allocate(0, 0, 1 << 20).unwrap();
    root(&fs).unlink(b"a", false).unwrap();
    fs.commit(&mut fs.state.lock()).unwrap();
    assert_eq!(a.stat().unwrap().blocks, 2048);
    // Cut off here, the next mount frees both.
    let (status, text, after) = e2fsck(&disk.bytes(), &["-fp"]);
    assert!(status <= 1, "{text}");
    assert_clean(&after);
    let other = Fs::mount(Disk::new(disk.bytes()), 1).unwrap();
    assert_eq!(other.state.lock().groups.free_inodes, free);
    // One of them gets a name, the other goes away.
    root(&fs).link(b"named", &b).unwrap();
    drop((a, b));
    fs.sync().unwrap();
    assert_eq!(fs.state.lock().groups.free_inodes, free - 1);
    assert_clean(&disk.bytes());
}

#[test]
fn a_full_volume_says_so_and_stays_clean() {
    let disk = Disk::new(default_image());
    let fs = start(&disk);
    let inode = root(&fs).create(b"big", &node(linux::S_IFREG)).unwrap();
    let file = inode.open(OpenFlags::RDWR).unwrap();
    assert_eq!(file.allocate(0, 0, 1 << 30), Err(Errno::ENOSPC));
    file.truncate(0).unwrap();
    fs.sync().unwrap();
    file.allocate(0, 0, 8 << 20).unwrap();
    fs.sync().unwrap();
    assert_clean(&disk.bytes());
}
