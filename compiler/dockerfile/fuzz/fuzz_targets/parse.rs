//! Any bytes: no panic, spans inside the file, the tree prints the file, every diagnostic renders. Seeds: `fixtures/dockerfiles`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ukc_diagnostics::{SourceMap, render};

fuzz_target!(|bytes: &[u8]| {
    let mut sources = SourceMap::default();
    let file = sources.add("Dockerfile", bytes);
    let parsed = ukc_dockerfile::parse(file, bytes);
    assert_eq!(parsed.tree.print(bytes), bytes);
    for diagnostic in &parsed.diagnostics {
        for label in &diagnostic.labels {
            assert!(label.span.start <= label.span.end && label.span.end as usize <= bytes.len());
        }
        render(&sources, diagnostic, false);
    }
    parsed.to_text();
});
