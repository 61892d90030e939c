//! `/etc/ld.so.conf` and the files it includes (ldconfig(8)).

use ukc_rootfs::{Kind, Tree};

/// Returns the directories that ldconfig would look into, in order.
pub fn configured_directories(tree: &Tree) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    read(tree, b"/etc/ld.so.conf", 0, &mut out);
    out
}

fn read(tree: &Tree, path: &[u8], depth: u32, out: &mut Vec<Vec<u8>>) {
    // An include of itself is a loop in ldconfig, too.
    if depth > 8 {
        return;
    }
    let Ok(found) = tree.resolve(path) else { return };
    let Kind::File(content) = &tree.node(found.id).kind else { return };
    let Ok(bytes) = content.read_all() else { return };
    for line in bytes.split(|&b| b == b'\n') {
        let line = line.split(|&b| b == b'#').next().unwrap_or(b"").trim_ascii();
        if let Some(patterns) = line.strip_prefix(b"include").filter(|r| r.first().is_some_and(u8::is_ascii_whitespace)) {
            for pattern in patterns.split(u8::is_ascii_whitespace).filter(|p| !p.is_empty()) {
                for file in glob(tree, path, pattern) {
                    read(tree, &file, depth + 1, out);
                }
            }
        } else if line.starts_with(b"/") {
            let dir = line.split(|b| b.is_ascii_whitespace() || *b == b'=').next().unwrap_or(line);
            out.push(dir.strip_suffix(b"/").filter(|d| !d.is_empty()).unwrap_or(dir).to_vec());
        }
    }
}

/// Expands a pattern whose last component may hold `*`.
fn glob(tree: &Tree, from: &[u8], pattern: &[u8]) -> Vec<Vec<u8>> {
    let base = &from[..from.iter().rposition(|&b| b == b'/').unwrap_or(0)];
    let full = if pattern.starts_with(b"/") { pattern.to_vec() } else { [base, b"/", pattern].concat() };
    let Some(slash) = full.iter().rposition(|&b| b == b'/') else { return Vec::new() };
    let (dir, last) = (&full[..slash], &full[slash + 1..]);
    let Ok(found) = tree.resolve(if dir.is_empty() { b"/" } else { dir }) else { return Vec::new() };
    let names = tree.entries(found.id).into_iter().flatten().map(|(name, _)| name);
    names.filter(|name| matches(last, name)).map(|name| [dir, b"/", name].concat()).collect()
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        // A name that starts with a dot is not matched by `*` (glob(7)); no configuration relies on it.
        Some((b'*', rest)) => (0..=name.len()).any(|n| matches(rest, &name[n..])),
        Some((p, rest)) => name.split_first().is_some_and(|(n, name)| p == n && matches(rest, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_match_any_run() {
        for (pattern, name, expected) in
            [("*.conf", "libc.conf", true), ("*.conf", "libc.confx", false), ("a*b*c", "aXbYc", true), ("x", "x", true), ("x", "", false)]
        {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
