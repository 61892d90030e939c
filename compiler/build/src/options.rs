//! What the command line adds to a Dockerfile.

use std::path::PathBuf;

use ukc_oci::{LayoutRef, Platform, Reference};

use crate::remote::RemoteHandle;
use crate::run::RunOptions;

/// Inputs of a build besides the Dockerfile's text.
#[derive(Debug, Clone)]
pub struct Options {
    /// The build context's directory.
    pub context: PathBuf,
    /// Path of the Dockerfile on the host, if it has one: a `<path>.dockerignore` beside it wins over the context's own.
    pub dockerfile: Option<PathBuf>,
    /// Name or index of the stage to build; the last one by default.
    pub target: Option<String>,
    /// `--build-arg`, in order; the last of a name wins.
    pub build_args: Vec<(String, String)>,
    /// `--build-context`.
    pub named_contexts: Vec<NamedContext>,
    /// `--label`: they win over the Dockerfile's.
    pub labels: Vec<(String, String)>,
    /// `SOURCE_DATE_EPOCH`: no time of the result lies after it. A build argument of this name is used when this is `None`.
    pub source_date_epoch: Option<i64>,
    /// What the image is for.
    pub platform: Platform,
    /// How RUN is executed.
    pub run: RunOptions,
    /// What gets things from other machines; without it they are refused.
    pub remote: RemoteHandle,
    /// Whether the result is wanted as layers, too.
    pub keep_layers: bool,
}

impl Options {
    /// Returns options for a context and nothing else.
    pub fn new(context: impl Into<PathBuf>) -> Options {
        Options {
            context: context.into(),
            dockerfile: None,
            target: None,
            build_args: vec![],
            named_contexts: vec![],
            labels: vec![],
            source_date_epoch: None,
            platform: Platform::linux_amd64(),
            run: RunOptions::default(),
            remote: None,
            keep_layers: false,
        }
    }

    pub(crate) fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Returns the time that no file may be later than.
    pub fn epoch(&self) -> Option<i64> {
        self.source_date_epoch.or_else(|| self.build_arg("SOURCE_DATE_EPOCH")?.parse().ok())
    }
}

/// A `--build-context NAME=SOURCE`: it stands for an image or stage of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedContext {
    /// The image (`debian`, `debian:12`), stage, or free name.
    pub name: String,
    /// Where its files are.
    pub source: ContextSource,
}

/// See [`NamedContext`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory; it has no configuration.
    Dir(PathBuf),
    /// An image in an OCI layout.
    Layout(LayoutRef),
    /// An image in a registry.
    Image(Reference),
}

impl NamedContext {
    /// Parses `NAME=DIR`, `NAME=oci-layout://DIR[:TAG][@DIGEST]` and `NAME=docker-image://REFERENCE`.
    ///
    /// # Errors
    /// A sentence, lower case.
    pub fn parse(text: &str) -> Result<NamedContext, String> {
        let (name, source) = text.split_once('=').filter(|(n, s)| !n.is_empty() && !s.is_empty()).ok_or_else(|| {
            format!("`{text}` should have the form NAME=DIR, NAME=oci-layout://DIR[:TAG][@DIGEST] or NAME=docker-image://IMAGE")
        })?;
        let source = match source.split_once("://").map_or((source.split_once(':').map(|s| s.0), source), |(s, rest)| (Some(s), rest)) {
            (Some("oci-layout"), rest) => ContextSource::Layout(LayoutRef::parse(rest)?),
            (Some("docker-image"), rest) => ContextSource::Image(rest.trim_start_matches("//").parse()?),
            (Some(scheme @ ("http" | "https" | "git" | "ssh" | "target")), _) => {
                return Err(format!("contexts of the kind `{scheme}:` are not supported yet; give a directory or `oci-layout://DIR`"));
            }
            _ => ContextSource::Dir(source.into()),
        };
        Ok(NamedContext { name: name.to_owned(), source })
    }

    /// Whether this context stands for the image `reference`: equal once Docker's default registry and tag are left out.
    pub(crate) fn stands_for(&self, reference: &str) -> bool {
        self.name == reference || familiar(&self.name) == familiar(reference)
    }
}

/// `docker.io/library/debian:latest` → `debian` (distribution/reference, "FamiliarName").
fn familiar(reference: &str) -> &str {
    let rest = ["docker.io/", "index.docker.io/"].iter().find_map(|p| reference.strip_prefix(p)).unwrap_or(reference);
    let rest = rest.strip_prefix("library/").unwrap_or(rest);
    rest.strip_suffix(":latest").unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_contexts() {
        let layout =
            |dir: &str, tag: Option<&str>| ContextSource::Layout(LayoutRef { dir: dir.into(), tag: tag.map(str::to_owned), digest: None });
        for (text, name, source) in [
            ("a=dir", "a", ContextSource::Dir("dir".into())),
            ("a=../x=y", "a", ContextSource::Dir("../x=y".into())),
            ("a=odd:name/x", "a", ContextSource::Dir("odd:name/x".into())),
            ("debian:12=oci-layout:///b/d:12", "debian:12", layout("/b/d", Some("12"))),
            ("a=oci-layout://rel", "a", layout("rel", None)),
            ("a=docker-image://alpine", "a", ContextSource::Image("docker.io/library/alpine:latest".parse().unwrap())),
        ] {
            assert_eq!(NamedContext::parse(text), Ok(NamedContext { name: name.into(), source }), "{text}");
        }
        for bad in ["", "a", "=x", "a=", "a=docker-image://Alpine", "a=https://x/y.git", "a=target:b", "a=oci-layout://"] {
            assert!(NamedContext::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contexts_stand_for_images() {
        let stands = |name: &str, reference: &str| NamedContext::parse(&format!("{name}=x")).unwrap().stands_for(reference);
        for (name, reference) in [
            ("debian", "debian"),
            ("debian", "debian:latest"),
            ("debian", "docker.io/library/debian"),
            ("debian:latest", "debian"),
            ("user/app", "docker.io/user/app:latest"),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        ] {
            assert!(stands(name, reference), "{name} {reference}");
        }
        for (name, reference) in [("debian", "debian:12"), ("debian:12", "debian"), ("debian", "ghcr.io/debian"), ("library", "debian")] {
            assert!(!stands(name, reference), "{name} {reference}");
        }
    }
}
