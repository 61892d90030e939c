//! OCI layouts: reading what the writer and skopeo make, and refusing what is damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ukc_oci::{Compression, Digest, Image, ImageDocument, LayoutRef, LayoutWriter, OciError, Platform, Store, tar, write_layout};
use ukc_rootfs::{Content, ImageConfig, Meta, Tree};

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    Fixture { dir, store }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, text) in files {
        tree.write_file(path.as_bytes(), Content::from_bytes(text.as_bytes()), Meta::new(0o644)).unwrap();
    }
    tree
}

fn tar_of(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    tar::write_tree(tree, &mut bytes).unwrap();
    bytes
}

fn config() -> ImageConfig {
    ImageConfig { cmd: Some(vec!["/bin/x".into()]), architecture: "amd64".into(), os: "linux".into(), ..Default::default() }
}

impl Fixture {
    fn layout(&self) -> PathBuf {
        self.dir.path().join("layout")
    }

    fn write(&self, tag: &str, text: &str) -> Digest {
        write_layout(&tree(&[("/bin/x", text)]), &config(), &self.layout(), tag).unwrap()
    }

    fn read(&self, reference: &str) -> Result<(Image, Tree), OciError> {
        let text = format!("{}{reference}", self.layout().display());
        let image = Image::from_layout(&LayoutRef::parse(&text).unwrap(), &Platform::linux_amd64(), &self.store)?;
        let tree = image.tree(None, &self.store)?;
        Ok((image, tree))
    }

    fn error(&self, reference: &str) -> String {
        let error = self.read(reference).map(drop).unwrap_err();
        let help = error.help().map(|h| format!(" ({h})")).unwrap_or_default();
        format!("{}: {error}{help}", error.name()).replace(&self.layout().display().to_string(), "LAYOUT")
    }

    /// The only blob that is none of the JSON documents.
    fn layer_path(&self) -> PathBuf {
        let blobs = fs::read_dir(self.layout().join("blobs/sha256")).unwrap().map(|e| e.unwrap().path());
        blobs.into_iter().find(|p| fs::read(p).unwrap()[0] != b'{').unwrap()
    }

    fn edit(&self, path: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

fn text_of(tree: &Tree, path: &str) -> String {
    let id = tree.resolve(path.as_bytes()).unwrap().id;
    let ukc_rootfs::Kind::File(content) = &tree.node(id).kind else { panic!("{path}") };
    String::from_utf8(content.read_all().unwrap()).unwrap()
}

fn skopeo_is_here() -> bool {
    Command::new("skopeo").arg("--version").output().is_ok()
}

#[test]
fn write_and_read_by_tag_and_digest() {
    let f = fixture();
    let one = f.write("one", "1");
    let two = f.write("two", "2");
    assert_eq!(text_of(&f.read(":one").unwrap().1, "/bin/x"), "1");
    assert_eq!(text_of(&f.read(":two").unwrap().1, "/bin/x"), "2");
    assert_eq!(f.read(&format!("@{two}")).unwrap().0.manifest_digest, two);
    assert_eq!(f.read(":one").unwrap().0.config, config());
    assert_eq!(
        f.error(":three"),
        "unknown-tag: the layout `LAYOUT` has no image `three` (it has `one`, `two`: write `oci-layout://DIR:TAG`)"
    );
    assert_eq!(
        f.error(""),
        "ambiguous-image: the layout `LAYOUT` has 2 images, and nothing says which one is meant (it has `one`, `two`: write `oci-layout://DIR:TAG`)"
    );
    assert!(f.error(&format!(":two@{one}")).starts_with("unknown-tag"));
    // `latest` is what is meant when nothing is said; a tag that is written again is replaced.
    f.write("latest", "3");
    assert_eq!(text_of(&f.read("").unwrap().1, "/bin/x"), "3");
    f.write("one", "4");
    assert_eq!(text_of(&f.read(":one").unwrap().1, "/bin/x"), "4");
}

#[test]
fn the_writer_is_deterministic() {
    let (a, b) = (fixture(), fixture());
    assert_eq!(a.write("t", "same"), b.write("t", "same"));
    let list = |f: &Fixture| {
        let mut all: Vec<_> = fs::read_dir(f.layout().join("blobs/sha256")).unwrap().map(|e| e.unwrap().file_name()).collect();
        all.sort();
        (all, fs::read(f.layout().join("index.json")).unwrap())
    };
    assert_eq!(list(&a), list(&b));
}

#[test]
fn layers_in_all_compressions_are_applied_in_order() {
    let f = fixture();
    let mut writer = LayoutWriter::new(&f.layout()).unwrap();
    writer.layer(&tar_of(&tree(&[("/a", "1"), ("/d/x", "1"), ("/gone", "1")])), Compression::Plain).unwrap();
    writer.layer(&tar_of(&tree(&[("/a", "2"), ("/.wh.gone", "")])), Compression::Gzip).unwrap();
    writer.layer(&tar_of(&tree(&[("/d/.wh..wh..opq", ""), ("/d/y", "3")])), Compression::Zstd).unwrap();
    writer.finish(ImageDocument::default(), "t").unwrap();
    let (image, tree) = f.read("").unwrap();
    assert_eq!(image.layers.len(), 3);
    let mut names = vec![];
    tree.walk(&mut |p, _| names.push(String::from_utf8_lossy(p).into_owned()));
    assert_eq!(names, ["/", "/a", "/d", "/d/y"]);
    assert_eq!((text_of(&tree, "/a"), text_of(&tree, "/d/y")), ("2".into(), "3".into()));
    // Contents are in the store: the layout may go away.
    fs::remove_dir_all(f.layout()).unwrap();
    assert_eq!(text_of(&tree, "/a"), "2");
}

#[test]
fn damaged_blobs() {
    let f = fixture();
    f.write("t", &"text ".repeat(1000));
    let layer = f.layer_path();
    let name = layer.file_name().unwrap().to_string_lossy().into_owned();
    let good = fs::read(&layer).unwrap();
    let help = "(the layout is damaged or incomplete: make or copy it again)";

    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&layer, &bad).unwrap();
    let found = Digest::of(&bad);
    assert_eq!(f.error(""), format!("wrong-digest: in the layout `LAYOUT`, the layer sha256:{name} has the digest {found} {help}"));

    fs::write(&layer, &good[..good.len() - 10]).unwrap();
    let (expected, found) = (good.len(), good.len() - 10);
    assert_eq!(
        f.error(""),
        format!("wrong-digest: in the layout `LAYOUT`, the layer sha256:{name} should have {expected} bytes and has {found} {help}")
    );

    fs::remove_file(&layer).unwrap();
    assert_eq!(f.error(""), format!("missing-blob: the layout `LAYOUT` has no blob sha256:{name}, its layer {help}"));

    // Nothing of all this got into the store.
    assert_eq!(fs::read_dir(f.store.root().join("blobs/sha256")).unwrap().count(), 0);
    fs::write(&layer, &good).unwrap();
    f.read("").unwrap();
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says() {
    let f = fixture();
    // Two layers exchanged in the manifest: every blob is right, the diff ids are not.
    let mut writer = LayoutWriter::new(&f.layout()).unwrap();
    writer.layer(&tar_of(&tree(&[("/a", "1")])), Compression::Gzip).unwrap();
    writer.finish(ImageDocument::default(), "t").unwrap();
    let index = fs::read_to_string(f.layout().join("index.json")).unwrap();
    let blob = |hex: &str| f.layout().join("blobs/sha256").join(hex);
    let manifest_hex = index.split("sha256:").nth(1).unwrap()[..64].to_owned();
    let manifest = fs::read_to_string(blob(&manifest_hex)).unwrap();
    let other = fixture();
    let mut writer = LayoutWriter::new(&other.layout()).unwrap();
    writer.layer(&tar_of(&tree(&[("/a", "2")])), Compression::Gzip).unwrap();
    writer.finish(ImageDocument::default(), "t").unwrap();
    let foreign = fs::read(other.layer_path()).unwrap();
    let layer = f.layer_path();
    let (old, new) = (fs::read(&layer).unwrap(), Digest::of(&foreign));
    let old_digest = Digest::of(&old);
    fs::write(blob(&new.hex()), &foreign).unwrap();
    let changed =
        manifest.replace(&old_digest.hex(), &new.hex()).replace(&format!("\"size\":{}", old.len()), &format!("\"size\":{}", foreign.len()));
    let changed_digest = Digest::of(changed.as_bytes());
    fs::write(blob(&changed_digest.hex()), &changed).unwrap();
    f.edit(&f.layout().join("index.json"), &manifest_hex, &changed_digest.hex());
    f.edit(&f.layout().join("index.json"), &format!("\"size\":{}", manifest.len()), &format!("\"size\":{}", changed.len()));
    let expected = format!("the layer {new} uncompresses to {}", Digest::of(&tar_of(&tree(&[("/a", "2")]))));
    let error = f.error("");
    assert!(error.starts_with("wrong-digest") && error.contains(&expected), "{error}");
}

/// Puts an image together from documents as they are given.
fn raw(f: &Fixture, manifest: &str, config: &str) {
    let blobs = f.layout().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let config_digest = Digest::of(config.as_bytes());
    fs::write(blobs.join(config_digest.hex()), config).unwrap();
    let manifest = manifest.replace("CONFIG", &format!("{{\"digest\":\"{config_digest}\",\"size\":{}}}", config.len()));
    let digest = Digest::of(manifest.as_bytes());
    fs::write(blobs.join(digest.hex()), &manifest).unwrap();
    fs::write(f.layout().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":{}}}]}}"#, manifest.len());
    fs::write(f.layout().join("index.json"), index).unwrap();
}

#[test]
fn documents_that_make_no_sense() {
    let amd64 = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#;
    let zeros = format!("sha256:{}", "0".repeat(64));
    let layer = format!(r#"{{"config":CONFIG,"layers":[{{"mediaType":"application/x","digest":"{zeros}","size":1}}]}}"#);
    let one_layer = format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{zeros}"]}}}}"#);
    for (manifest, config, expected) in [
        ("{", amd64, "malformed-image: in the layout `LAYOUT`, the manifest sha256:"),
        ("{}", amd64, "it has neither `manifests` nor `config` and `layers`"),
        (r#"{"config":CONFIG,"layers":[],"manifests":[]}"#, amd64, "it is an index and a manifest at once"),
        (
            r#"{"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#,
            amd64,
            "has the digest `sha256:../../x`: only sha256 is supported",
        ),
        (r#"{"config":CONFIG,"layers":[]}"#, "nonsense", "the image configuration sha256:"),
        (r#"{"config":CONFIG,"layers":[]}"#, &one_layer, "it lists 1 layers, and the manifest 0"),
        (
            r#"{"config":CONFIG,"layers":[]}"#,
            r#"{"os":"windows","architecture":"amd64"}"#,
            "no-such-platform: the layout `LAYOUT` has no image for linux/amd64 (it has `windows/amd64`)",
        ),
        (&layer, &one_layer, "has the media type `application/x`: this is not a file system layer that ukc knows"),
    ] {
        let f = fixture();
        raw(&f, manifest, config);
        let error = f.error("");
        assert!(error.contains(expected), "{error}\nshould contain {expected}");
    }
    let f = fixture();
    assert!(f.error("").starts_with("not-a-layout: `LAYOUT` is not an OCI layout: there is no such directory"));
    fs::create_dir(f.layout()).unwrap();
    assert!(f.error("").contains("it has no `oci-layout`"));
    fs::write(f.layout().join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    assert!(f.error("").contains("its version is `9`"));
}

#[test]
fn an_index_of_platforms() {
    let f = fixture();
    let mut digests = vec![];
    for architecture in ["arm64", "amd64"] {
        let config = ImageConfig { architecture: architecture.into(), ..config() };
        digests.push(write_layout(&tree(&[("/arch", architecture)]), &config, &f.layout(), "multi").unwrap());
    }
    assert_eq!(text_of(&f.read(":multi").unwrap().1, "/arch"), "amd64");
    // The same, one level deeper, with an attestation beside it.
    let inner = fs::read_to_string(f.layout().join("index.json")).unwrap().replacen(
        "\"manifests\":[",
        &format!(
            "\"manifests\":[{{\"digest\":\"sha256:{}\",\"size\":1,\"platform\":{{\"os\":\"unknown\",\"architecture\":\"unknown\"}}}},",
            "1".repeat(64)
        ),
        1,
    );
    let digest = Digest::of(inner.as_bytes());
    fs::write(f.layout().join("blobs/sha256").join(digest.hex()), &inner).unwrap();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":{}}}]}}"#, inner.len());
    fs::write(f.layout().join("index.json"), index).unwrap();
    assert_eq!(f.read("").unwrap().0.manifest_digest, digests[1]);
}

#[test]
fn skopeo_reads_what_we_write_and_we_read_what_it_copies() {
    if !skopeo_is_here() {
        eprintln!("skipped: skopeo is not installed");
        return;
    }
    let f = fixture();
    f.write("t", "content");
    let copies = f.dir.path().join("copies");
    for extra in [&[][..], &["--dest-compress-format=zstd", "--dest-force-compress-format"]] {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "-q"]).args(extra);
        command.arg(format!("oci:{}:t", f.layout().display())).arg(format!("oci:{}:copy", copies.display()));
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("unknown flag") {
            continue;
        }
        assert!(output.status.success(), "{stderr}");
        let reference = LayoutRef { dir: copies.clone(), tag: Some("copy".into()), digest: None };
        let fresh = Store::open(f.dir.path().join("fresh")).unwrap();
        let image = Image::from_layout(&reference, &Platform::linux_amd64(), &fresh).unwrap();
        assert_eq!(text_of(&image.tree(None, &fresh).unwrap(), "/bin/x"), "content");
        assert_eq!(image.config.cmd, config().cmd);
    }
}

/// Runs itself in a namespace with a tiny tmpfs, where that is allowed.
#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    if let Ok(small) = std::env::var("UKC_TEST_SMALL_DISK") {
        let f = fixture();
        let noise: String = (0..400_000u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
        f.write("t", &noise);
        let store = Store::open(&small).unwrap();
        let reference = LayoutRef { dir: f.layout(), tag: None, digest: None };
        let error = Image::from_layout(&reference, &Platform::linux_amd64(), &store).unwrap_err();
        assert_eq!(error.name(), "disk-full", "{error}");
        assert!(error.to_string().starts_with("the disk is full") && error.help().unwrap().contains("free some space"));
        assert_eq!(fs::read_dir(Path::new(&small).join("blobs/sha256")).unwrap().count(), 0);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=128k none \"$0\" 2>/dev/null || exit 77; UKC_TEST_SMALL_DISK=\"$0\" exec \"$1\" --exact a_full_disk_is_said_and_leaves_nothing";
    let status = Command::new("unshare").args(["-rm", "sh", "-c", script]).arg(dir.path()).arg(std::env::current_exe().unwrap()).status();
    match status.map(|s| s.code()) {
        Ok(Some(0)) => {}
        Ok(Some(77 | 1)) | Err(_) if Command::new("unshare").args(["-rm", "true"]).status().map_or(true, |s| !s.success()) => {
            eprintln!("skipped: no user namespaces here");
        }
        Ok(Some(77)) => eprintln!("skipped: cannot mount a tmpfs"),
        other => panic!("{other:?}"),
    }
}

/// Kills processes that fill one store, several at once, and looks at what is left.
#[test]
fn kill_and_concurrency_leave_whole_blobs_only() {
    if let Ok(root) = std::env::var("UKC_TEST_FILL") {
        let root = Path::new(&root);
        loop {
            let store = Store::open(root.join("store")).unwrap();
            for n in 0..4 {
                let reference = LayoutRef { dir: root.join("layout"), tag: Some(format!("t{n}")), digest: None };
                let image = Image::from_layout(&reference, &Platform::linux_amd64(), &store).unwrap();
                image.tree(None, &store).unwrap();
                let _ = fs::remove_file(&image.layers[0].tar);
            }
        }
    }
    let f = fixture();
    for n in 0..4u32 {
        let noise: String = (0..300_000u32).map(|i| char::from(b'a' + ((i ^ n).wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
        f.write(&format!("t{n}"), &noise);
    }
    for delay_ms in [30, 45, 60, 85, 120] {
        // One that removes blobs while another is about to read them is a fault of the test's making, so there is one at a time here...
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_and_concurrency_leave_whole_blobs_only"])
            .env("UKC_TEST_FILL", f.dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in fs::read_dir(f.store.root().join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with(".ingest-") || Digest::of(&fs::read(&path).unwrap()).hex() == name, "{name} is not whole");
        }
    }
    // ... and several that only add here.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..4).for_each(|n| drop(f.read(&format!(":t{n}")).unwrap())));
        }
    });
}
