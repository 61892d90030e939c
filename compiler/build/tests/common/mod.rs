//! A context on disk, a Dockerfile, and what comes of them.
#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use ukc_build::{Built, NamedContext, Options, build, lower};
use ukc_diagnostics::{SourceMap, render};
use ukc_dockerfile::parse;
use ukc_oci::{Store, write_layout};
use ukc_rootfs::{Content, ImageConfig, Kind, Meta, Node, Tree};

pub struct Case {
    pub dir: tempfile::TempDir,
    pub options: Options,
}

/// Returns a case with an empty context.
pub fn case() -> Case {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().join("context");
    fs::create_dir(&context).unwrap();
    Case { options: Options::new(context), dir }
}

impl Case {
    /// A case whose context was made by a shell script.
    pub fn shell(self, script: &str) -> Case {
        let output = Command::new("sh").args(["-c", &format!("set -e; umask 022; {script}")]).current_dir(self.context()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self
    }

    pub fn file(self, path: &str, text: &str) -> Case {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Files with their own names as text.
    pub fn files(mut self, paths: &str) -> Case {
        for path in paths.split_whitespace() {
            self = self.file(path, path);
        }
        self
    }

    pub fn arg(mut self, name: &str, value: &str) -> Case {
        self.options.build_args.push((name.into(), value.into()));
        self
    }

    pub fn target(mut self, name: &str) -> Case {
        self.options.target = Some(name.into());
        self
    }

    pub fn named(mut self, text: &str) -> Case {
        self.options.named_contexts.push(NamedContext::parse(text).unwrap());
        self
    }

    /// Gives `name` as a base image with these files and this configuration.
    pub fn base(self, name: &str, files: &[(&str, &str)], config: &ImageConfig) -> Case {
        let mut tree = Tree::new();
        for (path, text) in files {
            tree.write_file(path.as_bytes(), Content::from_bytes(text.as_bytes()), Meta::new(0o644)).unwrap();
        }
        self.base_tree(name, &tree, config)
    }

    pub fn base_tree(self, name: &str, tree: &Tree, config: &ImageConfig) -> Case {
        let layout = self.dir.path().join(format!("layout-{}", name.replace([':', '/'], "_")));
        write_layout(tree, config, &layout, "latest").unwrap();
        let text = format!("{name}=oci-layout://{}", layout.display());
        self.named(&text)
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn store(&self) -> Store {
        Store::open(self.dir.path().join("store")).unwrap()
    }

    /// Builds; diagnostics are rendered, with the case's directory as `DIR`.
    pub fn run(&self, dockerfile: &str) -> Result<Built, String> {
        let mut sources = SourceMap::default();
        let file = sources.add("Dockerfile", dockerfile.as_bytes());
        let parsed = parse(file, dockerfile.as_bytes());
        build(&parsed, &mut sources, &self.options, &self.store()).map_err(|problems| {
            let text: Vec<String> = problems.iter().map(|d| render(&sources, d, false)).collect();
            text.join("\n").replace(&self.dir.path().display().to_string(), "DIR")
        })
    }

    pub fn built(&self, dockerfile: &str) -> Built {
        self.run(dockerfile).unwrap_or_else(|e| panic!("{dockerfile}\n{e}"))
    }

    pub fn error(&self, dockerfile: &str) -> String {
        match self.run(dockerfile) {
            Ok(built) => panic!("{dockerfile}\nbuilds:\n{}", built.tree.to_text()),
            Err(text) => text,
        }
    }

    pub fn graph(&self, dockerfile: &str) -> String {
        let mut sources = SourceMap::default();
        let file = sources.add("Dockerfile", dockerfile.as_bytes());
        let parsed = parse(file, dockerfile.as_bytes());
        lower(&parsed, &mut sources, &self.options, &self.store()).map(|l| l.graph.to_text()).unwrap_or_else(|e| panic!("{e:?}"))
    }
}

/// The paths of a tree, directories with a `/` at the end, separated by spaces.
pub fn paths(built: &Built) -> String {
    let mut out = vec![];
    built.tree.walk(&mut |path, id| {
        let slash = if built.tree.entries(id).is_some() && path != b"/" { "/" } else { "" };
        out.push(format!("{}{slash}", String::from_utf8_lossy(path)));
    });
    out.get(1..).unwrap_or_default().join(" ")
}

pub fn node<'a>(built: &'a Built, path: &str) -> &'a Node {
    let found = built.tree.resolve_nofollow(path.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e:?}\n{}", built.tree.to_text()));
    built.tree.node(found.id)
}

pub fn text(built: &Built, path: &str) -> String {
    let Kind::File(content) = &node(built, path).kind else { panic!("{path} is no file") };
    String::from_utf8(content.read_all().unwrap()).unwrap()
}

/// `mode uid:gid` of a path.
pub fn owner(built: &Built, path: &str) -> String {
    let meta = &node(built, path).meta;
    format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid)
}

pub fn debian_like() -> Vec<(&'static str, &'static str)> {
    vec![
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/bin/false\napp:x:1000:1001::/home/app:/bin/sh\n"),
        ("/etc/group", "root:x:0:\nwww-data:x:33:\nstaff:x:50:app\n"),
        ("/bin/sh", "shell"),
    ]
}
