//! Which programs are tested, and how: the header line of each.

use std::fs;
use std::path::{Path, PathBuf};

/// How a program becomes a binary, or who interprets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Static,
    StaticPie,
    Dynamic,
    Musl,
    MuslDynamic,
    Go,
    Busybox,
    Bash,
}

impl Link {
    fn parse(text: &str) -> Option<Link> {
        Some(match text {
            "static" => Link::Static,
            "static-pie" => Link::StaticPie,
            "dynamic" => Link::Dynamic,
            "musl" => Link::Musl,
            "musl-dynamic" => Link::MuslDynamic,
            "go" => Link::Go,
            "busybox" => Link::Busybox,
            "bash" => Link::Bash,
            _ => return None,
        })
    }

    /// The word in headers and in names of tests.
    pub fn word(self) -> &'static str {
        match self {
            Link::Static => "static",
            Link::StaticPie => "static-pie",
            Link::Dynamic => "dynamic",
            Link::Musl => "musl",
            Link::MuslDynamic => "musl-dynamic",
            Link::Go => "go",
            Link::Busybox => "busybox",
            Link::Bash => "bash",
        }
    }
}

/// One program in one form.
#[derive(Debug, Clone)]
pub struct Test {
    /// `pipes.c/static`.
    pub name: String,
    /// The source.
    pub source: PathBuf,
    /// Form.
    pub link: Link,
    /// Arguments.
    pub args: Vec<String>,
    /// Libraries.
    pub libs: Vec<String>,
    /// Flags for `ukc run`.
    pub flags: Vec<String>,
}

/// Returns the tests of a folder, by name.
///
/// # Errors
/// A folder that cannot be read, or a header with a word that nobody knows.
pub fn tests(folder: &Path) -> Result<Vec<Test>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut sources: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    sources.sort();
    let mut all = Vec::new();
    for source in sources {
        let default = match source.extension().and_then(|e| e.to_str()) {
            Some("c") => Link::Static,
            Some("go") => Link::Go,
            Some("sh") => Link::Busybox,
            _ => continue,
        };
        let text = fs::read(&source).map_err(|e| format!("{}: {e}", source.display()))?;
        all.extend(of_source(&source, &String::from_utf8_lossy(&text), default)?);
    }
    Ok(all)
}

fn of_source(source: &Path, text: &str, default: Link) -> Result<Vec<Test>, String> {
    let file = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let header = text.lines().take(30).find_map(|line| line.split_once("guest-test:")).map_or("", |(_, rest)| rest);
    let (mut links, mut args, mut libs, mut flags) = (vec![default], vec![], vec![], vec![]);
    for word in header.trim_end().trim_end_matches("*/").split_ascii_whitespace() {
        let unknown = || format!("{file}: `{word}` means nothing in a `guest-test:` line");
        let (key, value) = word.split_once('=').ok_or_else(unknown)?;
        let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        match key {
            "link" => links = value.split(',').map(Link::parse).collect::<Option<_>>().ok_or_else(unknown)?,
            "args" => args = list(),
            "libs" => libs = list(),
            "memory" | "cpus" | "machine" => flags.push(format!("--{key}={value}")),
            "root" if matches!(value, "initrd" | "disk") => flags.push(format!("--{value}")),
            _ => return Err(unknown()),
        }
    }
    let test = |link: Link| Test {
        name: format!("{file}/{}", link.word()),
        source: source.to_owned(),
        link,
        args: args.clone(),
        libs: libs.clone(),
        flags: flags.clone(),
    };
    Ok(links.into_iter().map(test).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let of = |text| of_source(Path::new("x/a.c"), text, Link::Static);
        let plain = of("int main;").unwrap();
        assert_eq!((plain.len(), plain[0].name.as_str()), (1, "a.c/static"));
        let all = of("/* Pipes.\n * guest-test: link=dynamic,musl args=-v,x memory=64m root=disk */").unwrap();
        assert_eq!(all.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a.c/dynamic", "a.c/musl"]);
        assert_eq!(
            (&all[1].args, &all[1].flags),
            (&vec!["-v".to_owned(), "x".to_owned()], &vec!["--memory=64m".to_owned(), "--disk".to_owned()])
        );
        for bad in ["guest-test: link=glibc", "guest-test: nonsense", "guest-test: root=nfs"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
