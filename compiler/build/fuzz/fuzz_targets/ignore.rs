//! Any file and any path (split at the first NUL): no panic, spans inside the file, the deciding pattern and the verdict agree, and what is below an
//! excluded directory is excluded unless there are exceptions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ukc_build::Matcher;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |&b| b == 0);
    let (file, path) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b"a/b"));
    match Matcher::from_file(file, Default::default()) {
        Ok(matcher) => {
            let reason = matcher.reason(path);
            assert_eq!(reason.is_some(), matcher.matches(path));
            assert!(reason.is_none_or(|span| span.start < span.end && span.end as usize <= file.len()));
            if matcher.matches(path) && !matcher.has_exceptions_below(path) {
                assert!(matcher.matches(&[path, b"/below"].concat()));
            }
        }
        Err(bad) => assert!(bad.iter().all(|b| b.span.is_some_and(|s| s.end as usize <= file.len()))),
    }
});
