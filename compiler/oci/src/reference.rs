//! Names of images in registries: `[registry[:port]/]repository[:tag][@digest]` (distribution/reference, "Grammar").
//!
//! ```text
//! debian                      docker.io/library/debian:latest
//! user/app:1                  docker.io/user/app:1
//! localhost:5000/app@sha256:… localhost:5000/app@sha256:…
//! ```

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names without one.
const DEFAULT_TAG: &str = "latest";
/// Of the whole name without tag and digest.
const MAX_NAME_BYTES: usize = 255;
/// Of a tag.
const MAX_TAG_BYTES: usize = 128;

/// An image in a registry, with everything that Docker leaves out filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns `docker.io`, `localhost:5000`, ...
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns `library/debian`, `user/app`, ...
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag: `latest` when nothing else was said; `None` beside a digest alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest that pins the image.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns what stands for the image in a URL: the digest, which wins over the tag, or the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// Returns the same image by its digest alone.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns another tag of the same repository.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Reference {
        Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// Returns `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the short form that users write: `debian:12` for `docker.io/library/debian:12`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(short).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Reference, String> {
        let bad = |why: &str| Err(format!("`{text}` is not the name of an image: {why}"));
        if text.is_empty() {
            return Err("the name of an image is empty".to_owned());
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return bad(&format!("leave `{scheme}://` out"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => match digest.parse() {
                Ok(digest) => (rest, Some(digest)),
                Err(()) => return bad(&format!("`{digest}` is not a digest, which is `sha256:` and 64 digits 0-9 and a-f")),
            },
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if tag.len() > MAX_TAG_BYTES
                || !tag.bytes().next().is_some_and(is_word)
                || !tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
            {
                return bad("a tag is 1 to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two");
            }
        }
        let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase());
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if let Err(why) = check_host(registry) {
            return bad(&why);
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return bad("it must be lower case");
        }
        if !repository.split('/').all(is_component) {
            return bad("its parts are lower-case letters and digits, with single `.` or `_`, `__`, or `-` between them");
        }
        if tag.is_none() && digest.is_none() && repository.len() == 64 && repository.bytes().all(|b| b.is_ascii_hexdigit()) {
            return bad("64 digits alone are an id, which no registry knows");
        }
        let repository =
            if registry == DEFAULT_REGISTRY && !repository.contains('/') { format!("library/{repository}") } else { repository.to_owned() };
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return bad(&format!("it is longer than {MAX_NAME_BYTES} bytes"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// `host[:port]`, where a host is a name or an address in brackets.
fn check_host(text: &str) -> Result<(), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or("the address of the registry has no `]`")?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| format!("`{address}` is not an address"))?;
            (None, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let is_label = |label: &str| {
        let is_edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        is_edge(label.bytes().next()) && is_edge(label.bytes().next_back()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.is_some_and(|host| !host.split('.').all(is_label)) {
        return Err(format!("`{text}` is not the name of a registry"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() || port.starts_with('+') => Err(format!("`{port}` is not a port")),
        _ => Ok(()),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut bytes = text.bytes();
    if !bytes.next().is_some_and(is_inner) || !text.bytes().next_back().is_some_and(is_inner) {
        return false;
    }
    let separators = text.split(|c: char| c.is_ascii() && is_inner(c as u8)).filter(|s| !s.is_empty());
    separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        let digest = Digest::of(b"abc");
        let pinned = format!("a@{digest}");
        let both = format!("ghcr.io/a/b:1@{digest}");
        for (text, full, short) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12-slim", "docker.io/library/debian:12-slim", "debian:12-slim"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/a/b/c:X", "localhost:5000/a/b/c:X", "localhost:5000/a/b/c:X"),
            ("Host/app", "Host/app:latest", "Host/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("a__b/c--d/e.f_g", "docker.io/a__b/c--d/e.f_g:latest", "a__b/c--d/e.f_g:latest"),
            (&pinned, &format!("docker.io/library/a@{digest}"), &pinned),
            (&both, &both, &both),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, short), "{text}");
            assert_eq!(reference.to_string().parse(), Ok(reference));
        }
        for (bad, why) in [
            ("", "empty"),
            ("App", "lower case"),
            ("a/B", "lower case"),
            ("a b", "its parts"),
            ("a..b", "its parts"),
            ("a___b", "its parts"),
            ("-a", "its parts"),
            ("a//b", "its parts"),
            ("/a", "its parts"),
            ("a/", "its parts"),
            ("a:", "a tag"),
            ("a:-x", "a tag"),
            ("a:é", "a tag"),
            ("a@sha256:12", "not a digest"),
            ("a@md5:00", "not a digest"),
            ("https://a.b/c", "leave `https://` out"),
            ("a.b:99999/c", "not a port"),
            ("a_b.c/d", "not the name of a registry"),
            ("[::1/d", "has no `]`"),
            (&"a".repeat(64), "an id"),
            (&"b".repeat(300), "longer"),
        ] {
            let error = bad.parse::<Reference>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn versions() {
        let reference: Reference = "a:1".parse().unwrap();
        let digest = Digest::of(b"x");
        assert_eq!((reference.version(), reference.at(digest).version()), ("1".to_owned(), digest.to_string()));
        assert_eq!(reference.at(digest).tagged("2").to_string(), "docker.io/library/a:2");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn nothing_panics_and_what_parses_prints_the_same(text in "[a-zA-Z0-9:@/._\\[\\]é-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
                prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
