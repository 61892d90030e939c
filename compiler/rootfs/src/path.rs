//! Paths inside a tree: bytes, `/` between components, no meaning beyond that.
//!
//! `clean` follows Go's `path.Clean`, because that is what the Dockerfile's reference implementation applies to every path of a Dockerfile; the other
//! functions assume nothing and never look at a file system.

/// Returns the shortest path that means the same lexically: no `.`, no repeated or trailing `/`, `..` taken back where a component stands before it,
/// and none above the root. The empty path becomes `.` (Go, `path.Clean`).
pub fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut out: Vec<&[u8]> = Vec::new();
    for part in components(path) {
        match part {
            b"." => {}
            b".." => match out.last() {
                Some(&last) if last != b".." => {
                    out.pop();
                }
                _ if rooted => {}
                _ => out.push(part),
            },
            _ => out.push(part),
        }
    }
    let body = out.join(&b'/');
    match (rooted, body.is_empty()) {
        (true, _) => [b"/", body.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => body,
    }
}

/// Returns `path` as an absolute clean path: a relative one is taken from `cwd`, and `..` stops at the root.
pub fn absolute(cwd: &[u8], path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") { clean(path) } else { clean(&[b"/", cwd, b"/", path].concat()) }
}

/// Returns the non-empty components of a path.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty())
}

/// Splits a clean path into its directory (`/` or `.` when there is none) and its last component (empty for `/`).
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(0) => (b"/", &path[1..]),
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".", path),
    }
}

/// Returns the last component of a path, ignoring trailing slashes; empty for `/`.
pub fn base(path: &[u8]) -> &[u8] {
    components(path).next_back().unwrap_or(b"")
}

/// Joins two paths with one `/`; `path` is always taken below `dir`, also when it is absolute.
pub fn join(dir: &[u8], path: &[u8]) -> Vec<u8> {
    clean(&[dir, b"/", path].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_is_gos() {
        // Go's own table (path_test.go), and a few of ours: input | expected.
        for line in [
            "|.",
            "abc|abc",
            "abc/def|abc/def",
            "a/b/c|a/b/c",
            ".|.",
            "..|..",
            "../..|../..",
            "../../abc|../../abc",
            "/abc|/abc",
            "/|/",
            "abc/|abc",
            "abc/def/|abc/def",
            "./|.",
            "../|..",
            "/abc/|/abc",
            "abc//def//ghi|abc/def/ghi",
            "//abc|/abc",
            "///abc|/abc",
            "//abc//|/abc",
            "abc/./def|abc/def",
            "/./abc/def|/abc/def",
            "abc/.|abc",
            "abc/def/ghi/../jkl|abc/def/jkl",
            "abc/def/..|abc",
            "abc/def/../..|.",
            "/abc/def/../..|/",
            "abc/def/../../..|..",
            "/abc/def/../../..|/",
            "abc/def/../../../ghi/jkl/../../../mno|../../mno",
            "abc/./../def|def",
            "abc//./../def|def",
            "abc/../../././../def|../../def",
            "/..|/",
            "/../a|/a",
        ] {
            let (input, expected) = line.split_once('|').unwrap();
            assert_eq!(String::from_utf8(clean(input.as_bytes())).unwrap(), expected, "clean({input:?})");
        }
    }

    #[test]
    fn other_functions() {
        assert_eq!(absolute(b"/srv", b"a/../../../b"), b"/b");
        assert_eq!(absolute(b"/srv", b"/x/"), b"/x");
        assert_eq!(absolute(b"", b"x"), b"/x");
        assert_eq!(split(b"/a/b"), (&b"/a"[..], &b"b"[..]));
        assert_eq!(split(b"/a"), (&b"/"[..], &b"a"[..]));
        assert_eq!(split(b"a"), (&b"."[..], &b"a"[..]));
        assert_eq!(base(b"/a/b//"), b"b");
        assert_eq!(base(b"/"), b"");
        assert_eq!(join(b"/a", b"/b/../c"), b"/a/c");
    }
}
