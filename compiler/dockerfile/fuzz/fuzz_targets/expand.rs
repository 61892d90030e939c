//! Any text: expansion never panics, and errors point into the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ukc_dockerfile::expand::{Mode, expand};

fuzz_target!(|text: &str| {
    for escape in ['\\', '`'] {
        let lookup = |name: &str| name.starts_with(|c: char| c < 'm').then(|| name.to_uppercase());
        if let Err(error) = expand(text, Mode::new(escape), &lookup) {
            assert!(error.range.end <= text.len());
        }
    }
});
