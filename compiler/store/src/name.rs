//! Names of images: `[registry[:port]/]path[:tag]`, the tag `latest` when none is given (distribution/reference, "Grammar").

use std::fmt;

use crate::StoreError;

/// A name with its tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    repository: String,
    tag: String,
}

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`StoreError::BadName`].
    pub fn parse(text: &str) -> Result<Name, StoreError> {
        let bad = |why| StoreError::BadName { text: text.to_owned(), why };
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (text, "latest"),
        };
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let is_tag =
            tag.len() <= 128 && tag.bytes().next().is_some_and(is_word) && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-');
        if !is_tag {
            return Err(bad("a tag is 1 to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two"));
        }
        if repository.len() > 200 {
            return Err(bad("it is longer than 200 bytes"));
        }
        let components: Vec<&str> = repository.split('/').collect();
        for (index, component) in components.iter().enumerate() {
            // Only a registry's host may have capital letters and a port.
            let is_host = index == 0 && components.len() > 1 && (component.contains(['.', ':']) || *component == "localhost");
            let component = if is_host { component.split_once(':').map_or(*component, |(host, _)| host) } else { component };
            let is_edge =
                |b: Option<u8>| b.is_some_and(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || is_host && b.is_ascii_alphanumeric());
            let is_inner = |b: u8| is_edge(Some(b)) || matches!(b, b'.' | b'_' | b'-');
            if !is_edge(component.bytes().next()) || !is_edge(component.bytes().next_back()) || !component.bytes().all(is_inner) {
                return Err(if component.bytes().any(|b| b.is_ascii_uppercase()) {
                    bad("it must be lower case")
                } else {
                    bad("its parts are lower-case letters and digits, with `.`, `_` and `-` between them")
                });
            }
        }
        Ok(Name { repository: repository.to_owned(), tag: tag.to_owned() })
    }

    /// Returns the file that holds the name.
    pub(crate) fn file_name(&self) -> String {
        self.to_string().replace('/', "%2f")
    }

    pub(crate) fn from_file_name(file_name: &str) -> Option<Name> {
        Name::parse(&file_name.replace("%2f", "/")).ok()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (text, expected) in [
            ("app", "app:latest"),
            ("app:1.0", "app:1.0"),
            ("user/app", "user/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("Ghcr.io/a/b:X-1", "Ghcr.io/a/b:X-1"),
            ("a_b-c.d", "a_b-c.d:latest"),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.to_string(), expected);
            assert_eq!(Name::from_file_name(&name.file_name()), Some(name));
        }
        for bad in
            ["", ":", "app:", ":tag", "App", "a b", "../x", "a//b", "/a", "a/", "-a", "a:-x", "a:b:c/", "a%2fb", "é", &"a".repeat(201)]
        {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(Name::parse("App").unwrap_err().to_string().contains("lower case"));
    }
}
