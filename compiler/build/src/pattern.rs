//! Wildcards of COPY and ADD sources: Go's `filepath.Match`.
//!
//! `*` any characters but `/`, `?` one of them, `[a-z]` and `[^a-z]` one of a class, `\` makes the next character ordinary. Go matches characters,
//! we match bytes, except that `?` and classes take a whole UTF-8 character where there is one: names need not be UTF-8.

/// Why a pattern is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Whether a source has a wildcard that [`matches`] would look at; an escaped one is none (fsutil, `containsWildcards`).
pub(crate) fn has_wildcards(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(b) = bytes.next() {
        match b {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

/// Removes the escapes of a text without wildcards.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => out.push(bytes.next().unwrap_or(b'\\')),
            _ => out.push(b),
        }
    }
    out
}

/// Whether `name` matches `pattern` as a whole.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, Malformed> {
    check(pattern)?;
    // Greedy with one point of return: a later star makes an earlier one's choice final, because neither crosses what lies between.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() {
            if pattern[p] == b'*' {
                star = Some((p, n));
                p += 1;
                continue;
            }
            if let Some((pattern_len, name_len)) = one(&pattern[p..], &name[n..]) {
                p += pattern_len;
                n += name_len;
                continue;
            }
        } else if n == name.len() {
            return Ok(true);
        }
        match star {
            Some((at, eaten)) if eaten < name.len() && name[eaten] != b'/' => {
                star = Some((at, eaten + 1));
                (p, n) = (at + 1, eaten + 1);
            }
            _ => return Ok(false),
        }
    }
}

/// Matches one element that is not a star; returns the lengths used up.
fn one(pattern: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    let &first = name.first()?;
    match pattern[0] {
        b'?' if first != b'/' => Some((1, char_len(name))),
        b'?' => None,
        b'[' => {
            let (len, is_member) = class(pattern, &name[..char_len(name)]).ok()?;
            (is_member && first != b'/').then_some((len, char_len(name)))
        }
        b'\\' => (pattern[1] == first).then_some((2, 1)),
        literal => (literal == first).then_some((1, 1)),
    }
}

/// Length of the UTF-8 character at the start, 1 if there is none.
fn char_len(bytes: &[u8]) -> usize {
    (2..=4.min(bytes.len())).find(|&n| std::str::from_utf8(&bytes[..n]).is_ok_and(|s| s.chars().count() == 1)).unwrap_or(1)
}

/// The order of characters in classes; bytes outside Unicode come after everything that is inside.
fn number(bytes: &[u8]) -> u32 {
    match std::str::from_utf8(bytes).ok().and_then(|s| s.chars().next()) {
        Some(c) => c as u32,
        None => 0x11_0000 + u32::from(bytes.first().copied().unwrap_or(0)),
    }
}

/// Reads one end of a range; something must follow it.
fn element(pattern: &[u8], at: &mut usize) -> Result<u32, Malformed> {
    match pattern.get(*at) {
        None | Some(b'-' | b']') => return Err(Malformed),
        Some(b'\\') => *at += 1,
        Some(_) => {}
    }
    let rest = pattern.get(*at..).filter(|r| !r.is_empty()).ok_or(Malformed)?;
    let len = char_len(rest);
    *at += len;
    if *at >= pattern.len() { Err(Malformed) } else { Ok(number(&rest[..len])) }
}

/// Reads the class at the start of `pattern`; returns its length and whether `c` (one character) is in it.
fn class(pattern: &[u8], c: &[u8]) -> Result<(usize, bool), Malformed> {
    let c = number(c);
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut found = false;
    let mut ranges = 0;
    loop {
        if pattern.get(at) == Some(&b']') && ranges > 0 {
            return Ok((at + 1, found != negated));
        }
        let low = element(pattern, &mut at)?;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') {
            at += 1;
            high = element(pattern, &mut at)?;
        }
        ranges += 1;
        found |= (low..=high).contains(&c);
    }
}

/// Checks that a pattern is well formed.
pub(crate) fn check(pattern: &[u8]) -> Result<(), Malformed> {
    let mut at = 0;
    while at < pattern.len() {
        at += match pattern[at] {
            b'[' => class(&pattern[at..], b"a")?.0,
            b'\\' if at + 1 == pattern.len() => return Err(Malformed),
            b'\\' => 2,
            _ => 1,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gos_table() {
        // Go's own table (path/filepath/match_test.go): pattern | name | `y`, `n`, or `!` for a malformed pattern.
        for line in [
            "abc|abc|y",
            "*|abc|y",
            "*c|abc|y",
            "a*|a|y",
            "a*|abc|y",
            "a*|ab/c|n",
            "a*/b|abc/b|y",
            "a*/b|a/c/b|n",
            "a*b*c*d*e*/f|axbxcxdxe/f|y",
            "a*b*c*d*e*/f|axbxcxdxexxx/f|y",
            "a*b*c*d*e*/f|axbxcxdxe/xxx/f|n",
            "a*b*c*d*e*/f|axbxcxdxexxx/fff|n",
            "a*b?c*x|abxbbxdbxebxczzx|y",
            "a*b?c*x|abxbbxdbxebxczzy|n",
            "ab[c]|abc|y",
            "ab[b-d]|abc|y",
            "ab[e-g]|abc|n",
            "ab[^c]|abc|n",
            "ab[^b-d]|abc|n",
            "ab[^e-g]|abc|y",
            "a\\*b|a*b|y",
            "a\\*b|ab|n",
            "a?b|a☺b|y",
            "a[^a]b|a☺b|y",
            "a???b|a☺b|n",
            "a[^a][^a][^a]b|a☺b|n",
            "[a-ζ]*|α|y",
            "*[a-ζ]|A|n",
            "a?b|a/b|n",
            "a*b|a/b|n",
            "[\\]a]|]|y",
            "[\\-]|-|y",
            "[x\\-]|x|y",
            "[x\\-]|-|y",
            "[x\\-]|z|n",
            "[\\-x]|x|y",
            "[\\-x]|-|y",
            "[\\-x]|a|n",
            "[]a]|]|!",
            "[-]|-|!",
            "[x-]|x|!",
            "[x-]|-|!",
            "[x-]|z|!",
            "[-x]|x|!",
            "[-x]|-|!",
            "[-x]|a|!",
            "\\|a|!",
            "[a-b-c]|a|!",
            "[|a|!",
            "[^|a|!",
            "[^bc|a|!",
            "a[|a|!",
            "a[|ab|!",
            "a[|x|!",
            "a/b[|x|!",
            "*x|xxx|y",
            "[[]|[|y",
            "|  |n",
            "||y",
            "*||y",
            "*||y",
            "**|ab|y",
        ] {
            let fields: Vec<&str> = line.split('|').collect();
            let expected = match fields[2] {
                "y" => Ok(true),
                "n" => Ok(false),
                _ => Err(Malformed),
            };
            assert_eq!(matches(fields[0].as_bytes(), fields[1].as_bytes()), expected, "{line}");
        }
        assert_eq!(matches(b"a?c", b"a\xffc"), Ok(true), "any byte is a character where there is no UTF-8");
    }

    #[test]
    fn escapes() {
        for (text, wild) in [("a*", true), ("a\\*", false), ("[x]", true), ("a\\", false), ("plain", false)] {
            assert_eq!(has_wildcards(text.as_bytes()), wild, "{text}");
        }
        assert_eq!(unescape(b"a\\*b\\\\c\\"), b"a*b\\c\\");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_panic(pattern in "[a-c*?\\[\\]^\\\\/-]{0,12}", name in "[a-c/-]{0,12}") {
            let _ = matches(pattern.as_bytes(), name.as_bytes());
        }

        #[test]
        fn a_literal_matches_itself_escaped(name in proptest::collection::vec(any::<u8>(), 0..20)) {
            let escaped: Vec<u8> = name.iter().flat_map(|&b| [b'\\', b]).collect();
            prop_assert_eq!(matches(&escaped, &name), Ok(true));
            prop_assert_eq!(unescape(&escaped), name);
        }
    }
}
