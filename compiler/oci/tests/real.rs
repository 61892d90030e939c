//! A real image against GNU tar: set `UKC_TEST_LAYOUT` to an OCI layout (`fixtures/make-debian-base OUT` makes one) and run with `--ignored`.

use std::process::Command;

use ukc_oci::{Image, LayoutRef, Platform, Store, tar};

/// Lists an archive, one sorted line per entry: mode, owner, size, time, name, target.
fn listing(path: &std::path::Path) -> Vec<String> {
    let output =
        Command::new("tar").args(["--numeric-owner", "--full-time", "--utc", "-tvf"]).arg(path).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        // Alignment and the spelling of the root differ.
        .map(|l| l.split_whitespace().map(|w| w.strip_prefix("./").unwrap_or(w)).collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "needs UKC_TEST_LAYOUT"]
fn a_real_layer_comes_out_as_it_went_in() {
    let layout = std::env::var("UKC_TEST_LAYOUT").expect("UKC_TEST_LAYOUT");
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for round in ["first", "again"] {
        let start = std::time::Instant::now();
        let image = Image::from_layout(&LayoutRef::parse(&layout).unwrap(), &Platform::linux_amd64(), &store).unwrap();
        let tree = image.tree(None, &store).unwrap();
        eprintln!("{round}: {} nodes in {:?}", tree.len(), start.elapsed());
        if image.layers.len() == 1 {
            let ours = dir.path().join("ours.tar");
            tar::write_tree(&tree, &mut std::fs::File::create(&ours).unwrap()).unwrap();
            let (ours, theirs) = (listing(&ours), listing(&image.layers[0].tar));
            for line in ours.iter().filter(|l| theirs.binary_search(l).is_err()) {
                eprintln!("ours: {line}");
            }
            assert!(ours == theirs, "{} and {} lines", ours.len(), theirs.len());
        }
    }
}
