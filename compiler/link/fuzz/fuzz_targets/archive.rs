//! Every archive of arbitrary bytes is linked or refused. Run with `cargo +nightly fuzz run archive` in `compiler/link`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ukc_link::{LinkInput, link};

fuzz_target!(|data: &[u8]| {
    // As an archive, and as an object beside it: the fuzzer need not find both formats at once.
    let roots = vec!["main".to_owned()];
    let _ = link(&LinkInput { archive: data, roots: roots.clone(), keep: vec![".note*".to_owned()], ..LinkInput::default() });
    let _ = link(&LinkInput { extra_objects: vec![data.to_vec()], roots, has_symbol_table: true, ..LinkInput::default() });
});
