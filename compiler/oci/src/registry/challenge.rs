//! `WWW-Authenticate`: what a registry wants to see before it answers (RFC 9110, 11.6.1; distribution, "Token Authentication Specification").
//!
//! ```text
//! Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull"
//! Basic realm="Registry Realm"
//! ```

use std::collections::BTreeMap;

/// A way to authenticate that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token that `realm` gives out.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Returns the best of what the headers offer: a token if possible.
    pub fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let mut all: Vec<Challenge> = headers.flat_map(parse).collect();
        all.sort_by_key(|c| matches!(c, Challenge::Basic));
        all.into_iter().next()
    }
}

/// Reads the challenges of one header; what is not understood is left out.
fn parse(header: &str) -> Vec<Challenge> {
    let mut out = vec![];
    for (scheme, parameters) in split(header) {
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => out.push(Challenge::Basic),
            "bearer" => {
                let get = |name: &str| parameters.get(name).cloned().filter(|v| !v.is_empty());
                if let Some(realm) = get("realm") {
                    out.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
                }
            }
            _ => {}
        }
    }
    out
}

/// Splits `Scheme a=b, c="d" Scheme2 …`.
fn split(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut out: Vec<(String, BTreeMap<String, String>)> = vec![];
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let word = &rest[..end];
        let after = rest[end..].trim_start();
        if let Some(value) = after.strip_prefix('=') {
            let (value, left) = read_value(value.trim_start());
            if let Some((_, parameters)) = out.last_mut() {
                parameters.insert(word.to_ascii_lowercase(), value);
            }
            rest = left;
        } else {
            if !word.is_empty() {
                out.push((word.to_owned(), BTreeMap::new()));
            }
            rest = after;
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    out
}

/// Reads a token or a quoted string, and returns what is behind it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://a/t",service="r",scope="repository:a/b:pull,push""#,
                vec![bearer("https://a/t", Some("r"), Some("repository:a/b:pull,push"))],
            ),
            (r#"bearer realm=https://a , service="a \"b\"""#, vec![bearer("https://a", Some("a \"b\""), None)]),
            (r#"Basic realm="Registry, Realm""#, vec![Challenge::Basic]),
            (r#"Negotiate, Basic realm="x", Bearer realm="y""#, vec![Challenge::Basic, bearer("y", None, None)]),
            (r#"Bearer service="x""#, vec![]),
            ("", vec![]),
            (r#"Bearer realm="unfinished"#, vec![bearer("unfinished", None, None)]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
        let headers = ["Basic realm=\"x\"", "Bearer realm=\"y\""];
        assert_eq!(Challenge::best(headers.into_iter()), Some(bearer("y", None, None)));
        assert_eq!(Challenge::best([].into_iter()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn nothing_panics(header in "[ -~é]{0,60}") {
            parse(&header);
        }
    }
}
