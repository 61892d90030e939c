//! Image directories appear whole, replace whole ones, and never anything else.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{add, file};
use sha2::{Digest as _, Sha256};
use ukc_image::ext4::Options;
use ukc_image::{KERNEL_NAME, MAP_NAME, Parts, ROOTFS_NAME, write};
use ukc_image_json::{ArtefactKind, FILE_NAME, FORMAT, Files, Guest, GuestKind, Image, Kernel, Program, VERSION};
use ukc_rootfs::{Content, Kind, Tree};

fn facts() -> Image {
    Image {
        format: FORMAT.to_owned(),
        version: VERSION,
        program: Program { path: "/hello".to_owned(), cwd: "/".to_owned(), ..Program::default() },
        guest: Guest { kind: GuestKind::Unikernel, reasons: Vec::new() },
        kernel: Kernel::default(),
        modules: Vec::new(),
        syscalls: Vec::new(),
        files: Files::default(),
        ports: Vec::new(),
        packages: Vec::new(),
        volumes: Vec::new(),
        memory_floor_bytes: 1 << 20,
        inputs: Vec::new(),
        artefacts: Vec::new(),
    }
}

fn tree(text: &str) -> Tree {
    let mut tree = Tree::new();
    add(&mut tree, Tree::ROOT, "hello", 0o755, file(text));
    tree
}

fn make(dir: &Path, tree: &Tree, kernel: &str) -> Result<Image, String> {
    let parts = Parts { kernel: kernel.as_bytes(), map: Some("map"), analysis: None, tree, options: &Options::default() };
    write(dir, &parts, facts()).map_err(|e| e.to_string())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_document_describes_the_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("new/image");
    let image = make(&dir, &tree("hello"), "kernel").unwrap();
    assert_eq!(names(&dir), [FILE_NAME, KERNEL_NAME, MAP_NAME, ROOTFS_NAME]);
    assert_eq!(Image::parse(&fs::read(dir.join(FILE_NAME)).unwrap()).unwrap(), image);
    for artefact in &image.artefacts {
        let bytes = fs::read(dir.join(artefact.name.as_str())).unwrap();
        assert_eq!(artefact.len_bytes, bytes.len() as u64);
        let hex: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(artefact.digest.as_str(), format!("sha256:{hex}"));
    }
    assert_eq!((image.files.count, image.files.len_bytes, image.kernel.len_bytes), (2, 5, 6));
    common::e2fsck(&dir.join(image.artefact(ArtefactKind::Rootfs).unwrap().name.as_str()));
}

#[test]
fn a_new_image_replaces_an_old_one_whole() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("image");
    let first = make(&dir, &tree("one"), "kernel one").unwrap();
    let second = make(&dir, &tree("two"), "kernel two").unwrap();
    assert_ne!(first.artefacts, second.artefacts);
    assert_eq!(fs::read(dir.join(KERNEL_NAME)).unwrap(), b"kernel two");
    assert_eq!(names(parent.path()), ["image"], "nothing is left beside it");
    assert_eq!(make(&dir, &tree("two"), "kernel two").unwrap(), second, "equal inputs, equal documents");
}

#[test]
fn a_failure_leaves_the_old_image_as_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("image");
    make(&dir, &tree("good"), "good kernel").unwrap();
    let before = fs::read(dir.join(FILE_NAME)).unwrap();
    let mut broken = tree("bad");
    let gone = Content::Host { path: Arc::new(parent.path().join("gone")), offset: 0, len_bytes: 5 };
    add(&mut broken, Tree::ROOT, "gone", 0o644, Kind::File(gone));
    let error = make(&dir, &broken, "bad kernel").unwrap_err();
    assert!(error.starts_with("cannot read the contents of `/gone`: "), "{error}");
    assert_eq!(fs::read(dir.join(KERNEL_NAME)).unwrap(), b"good kernel");
    assert_eq!(fs::read(dir.join(FILE_NAME)).unwrap(), before);
    assert_eq!(names(parent.path()), ["image"], "nothing is left beside it");
}

#[test]
fn other_peoples_files_are_never_replaced() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("thesis.tex"), "years of work").unwrap();
    let error = make(parent.path(), &tree("x"), "k").unwrap_err();
    assert!(error.contains("holds `thesis.tex`, which is not part of an image"), "{error}");
    assert_eq!(names(parent.path()), ["thesis.tex"]);
    let error = make(&parent.path().join("thesis.tex"), &tree("x"), "k").unwrap_err();
    assert!(error.starts_with("cannot write `"), "{error}");
    assert_eq!(fs::read(parent.path().join("thesis.tex")).unwrap(), b"years of work");
}

#[test]
fn a_link_to_a_directory_stays_a_link() {
    let parent = tempfile::tempdir().unwrap();
    let (real, link) = (parent.path().join("real"), parent.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    make(&link, &tree("x"), "k").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(real.join(KERNEL_NAME)).unwrap(), b"k");
}

#[test]
fn two_builds_at_once_leave_one_whole_image() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("image");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for round in 0..10 {
                    // One that is overtaken may report it, but may not leave a mixture.
                    let _ = make(dir, &tree(&format!("{worker} {round}")), &format!("kernel {worker} {round}"));
                }
            });
        }
    });
    let image = Image::parse(&fs::read(dir.join(FILE_NAME)).unwrap()).unwrap();
    for artefact in &image.artefacts {
        let hex: String = Sha256::digest(fs::read(dir.join(artefact.name.as_str())).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(artefact.digest.as_str(), format!("sha256:{hex}"));
    }
    assert_eq!(names(parent.path()), ["image"]);
}
