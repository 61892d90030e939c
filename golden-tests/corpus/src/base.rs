//! The base images of the corpus: small Debian trees with the configuration of official images.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ukc_oci::{Image, LayoutRef, Platform, Store};
use ukc_rootfs::Tree;

/// An image that cases are built on.
#[derive(Debug)]
pub struct Base {
    /// The OCI layout.
    pub layout: PathBuf,
    /// Its tree.
    pub tree: Tree,
}

/// Base images by name, made when they are first asked for.
#[derive(Debug)]
pub struct Bases {
    fixtures: PathBuf,
    dir: PathBuf,
    made: BTreeMap<String, Base>,
}

impl Bases {
    /// Returns a collection that keeps its layouts below `dir`.
    pub fn new(fixtures: &Path, dir: &Path) -> Bases {
        Bases { fixtures: fixtures.to_owned(), dir: dir.to_owned(), made: BTreeMap::new() }
    }

    /// Returns the base that a reference, with or without a tag, stands for.
    pub fn get(&self, reference: &str) -> Option<&Base> {
        self.made.get(reference.split(':').next()?)
    }

    /// Makes the bases that a Dockerfile names in its FROM lines and `--from`; returns the references.
    ///
    /// # Errors
    /// A base that cannot be made.
    pub fn of(&mut self, dockerfile: &str, store: &Store) -> Result<Vec<String>, String> {
        let known: Vec<String> = fs::read_dir(self.fixtures.join("corpus/bases"))
            .map_err(|e| e.to_string())?
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        let name_of = |reference: &str| reference.split(':').next().unwrap_or_default().to_owned();
        let words = dockerfile.split([' ', '\n', '\r', ',', '"', '=', '\t']);
        let mut names: Vec<String> = words.filter(|w| known.contains(&name_of(w))).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        for name in names.iter().map(|reference| name_of(reference)) {
            if !self.made.contains_key(&name) {
                let base = self.make(&name, store)?;
                self.made.insert(name, base);
            }
        }
        Ok(names)
    }

    fn make(&self, name: &str, store: &Store) -> Result<Base, String> {
        let folder = self.fixtures.join("corpus/bases").join(name);
        let layout = self.dir.join(name);
        let mut command = Command::new(self.fixtures.join("make-debian-base"));
        command.arg(&layout);
        let options = fs::read_to_string(folder.join("options")).map_err(|e| format!("bases/{name}/options: {e}"))?;
        command.args(options.lines().filter(|l| !l.is_empty() && !l.starts_with('#')));
        for (flag, file) in [("--config", "config.json"), ("--add", "files")] {
            if folder.join(file).exists() {
                command.arg(format!("{flag}={}", folder.join(file).display()));
            }
        }
        let made = command.output().map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(format!("the base `{name}` cannot be made: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let reference = LayoutRef { dir: layout.clone(), tag: None, digest: None };
        let image = Image::from_layout(&reference, &Platform::linux_amd64(), store).map_err(|e| e.to_string())?;
        let tree = image.tree(None, store).map_err(|e| e.to_string())?;
        Ok(Base { layout, tree })
    }
}
