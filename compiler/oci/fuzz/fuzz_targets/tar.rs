//! Any bytes as a layer: no panic, contents inside the archive, every path of the tree resolves to itself, and what we write we read back. Checksums are
//! put right first, so that the fuzzer need not find them. Seeds: `tar -cf` of anything small, in all formats.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ukc_oci::Store;
use ukc_oci::tar::{Whiteouts, changes_of_file, write_tree};
use ukc_rootfs::{Content, Kind, Tree};

static DIR: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
});

fn tree_of(bytes: &[u8], whiteouts: Whiteouts) -> Option<Tree> {
    let (dir, store) = &*DIR;
    let path = dir.path().join("layer.tar");
    std::fs::write(&path, bytes).unwrap();
    let changes = changes_of_file(&path, "layer", whiteouts, store).ok()?;
    let mut tree = Tree::new();
    tree.apply(b"/", changes, None).ok().map(|()| tree)
}

fuzz_target!(|bytes: &[u8]| {
    let mut archive = bytes.to_vec();
    for block in archive.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    }
    tree_of(&archive, Whiteouts::Apply);
    let Some(tree) = tree_of(&archive, Whiteouts::Literal) else { return };
    let mut total = 0;
    tree.walk(&mut |path, id| {
        assert_eq!(tree.resolve_nofollow(path).map(|found| found.id), Ok(id));
        if let Kind::File(content) = &tree.node(id).kind {
            if let Content::Host { path, offset, len_bytes } = content {
                assert!(offset + len_bytes <= std::fs::metadata(path.as_path()).unwrap().len());
            }
            total += content.len_bytes();
        }
    });
    // Sparse files can be as large as they say.
    if total < 1 << 20 {
        let mut again = Vec::new();
        write_tree(&tree, &mut again).unwrap();
        assert_eq!(tree_of(&again, Whiteouts::Literal).unwrap().to_text(), tree.to_text());
    }
});
