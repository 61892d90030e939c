//! Images for the tests of registries, and clients that do not wait long.
#![allow(dead_code)] // each test file uses a part

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use golden_registry::{need, run};
use tempfile::TempDir;
use ukc_oci::registry::{Event, Registries, Settings};
use ukc_oci::{Compression, Image, ImageDocument, LayoutWriter, OciError, Platform, Reference, Store, tar};
use ukc_rootfs::{Content, Kind, Meta, Node, Tree};

pub struct Bench {
    pub dir: TempDir,
    pub events: Arc<Mutex<Vec<Event>>>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap(), events: Arc::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(self.path("store")).unwrap()
    }

    /// A client that tries again at once.
    pub fn client(&self, change: impl FnOnce(&mut Settings)) -> Registries {
        let mut settings = Settings::default();
        settings.retries.first = Duration::from_millis(1);
        settings.retries.attempts = 4;
        change(&mut settings);
        let events = self.events.clone();
        Registries::new(settings, Arc::new(move |event| events.lock().unwrap().push(event)))
    }

    pub fn notices(&self) -> Vec<String> {
        let is_notice = |e: &Event| if let Event::Notice(text) = e { Some(text.clone()) } else { None };
        self.events.lock().unwrap().iter().filter_map(is_notice).collect()
    }

    /// Writes an image of some layers to the layout `name`, each with a file of this many bytes that do not compress.
    pub fn layout(&self, name: &str, tag: &str, sizes: &[usize]) -> PathBuf {
        let dir = self.path(name);
        let mut writer = LayoutWriter::new(&dir).unwrap();
        for (n, size) in sizes.iter().enumerate() {
            let compression = [Compression::Gzip, Compression::Zstd, Compression::Plain][n % 3];
            writer.layer(&layer(&format!("file{n}"), &noise(n as u64, *size)), compression).unwrap();
        }
        let mut document = ImageDocument::default();
        document.config.set_env("WHICH", tag);
        (document.config.os, document.config.architecture) = ("linux".into(), "amd64".into());
        writer.finish(document, tag).unwrap();
        dir
    }
}

/// A layer of one file.
pub fn layer(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut tree = Tree::new();
    let file = tree.add(Node { meta: Meta::new(0o644), kind: Kind::File(Content::from_bytes(bytes)), origin: None });
    tree.link(Tree::ROOT, name.as_bytes(), file);
    let mut out = vec![];
    tar::write_tree(&tree, &mut out).unwrap();
    out
}

/// Bytes that look random and are the same each time.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}

/// Copies an image with skopeo, without TLS.
pub fn skopeo(arguments: &[&str]) -> String {
    need("skopeo", "skopeo");
    run(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

pub fn upload(layout: &Path, tag: &str, to: &str) {
    let from = format!("oci:{}:{tag}", layout.display());
    skopeo(&["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", &from, &format!("docker://{to}")]);
}

pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Pulls an image whole.
pub fn pull(client: &Registries, name: &str, store: &Store) -> Result<Image, OciError> {
    let image = client.resolve(&reference(name), &Platform::linux_amd64(), store)?;
    client.layers(&image, store)?;
    Ok(image)
}

/// The files of an image with their bytes.
pub fn files(image: &Image, store: &Store) -> Vec<(String, Vec<u8>)> {
    let tree = image.tree(None, store).unwrap();
    let mut out = vec![];
    tree.walk_from(Tree::ROOT, &mut |path, id| {
        if let Kind::File(content) = &tree.node(id).kind {
            let mut bytes = vec![];
            std::io::Read::read_to_end(&mut content.open().unwrap(), &mut bytes).unwrap();
            out.push((String::from_utf8_lossy(path).into_owned(), bytes));
        }
    });
    out
}
