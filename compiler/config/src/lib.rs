//! Configuration files: `ukc.toml` beside the Dockerfile, the user's and the system's → settings, a policy, registries.
//!
//! ```toml
//! [build]                                  # any long flag of `ukc build`
//! target = "production"
//! build-arg = { VERSION = "1.4" }
//!
//! [run]                                    # any long flag of `ukc run`
//! publish = ["8080:80"]
//!
//! [policy]                                 # what an image must not be: see `ukc-policy`
//! max-image-size = "64m"
//! syscalls = { deny = ["ptrace"] }
//!
//! [registries."registry.example"]          # how a registry is reached
//! mirrors = ["mirror.example:5000"]
//! ```
//!
//! Precedence, the strongest first: flag, environment, `ukc.toml`, the user's file, the system's file. A setting is taken whole from the strongest
//! file that has it; lists are not joined. The policy is the only exception: every file's policy must hold, so that a project cannot lift the user's.
//!
//! What is absent: this crate does not know the flags (the command line does), and opens no file but those it is given.
#![forbid(unsafe_code)]

mod file;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use ukc_diagnostics::{Diagnostic, SourceMap, Span};
use ukc_policy::Policy;

/// The file's name in a build context.
pub const FILE_NAME: &str = "ukc.toml";

/// What the configuration files say, joined.
#[derive(Debug, Default)]
pub struct Config {
    settings: BTreeMap<(String, String), Setting>,
    /// The policies of all files; each must hold.
    pub policies: Vec<Policy>,
    /// Registries by host name.
    pub registries: BTreeMap<String, Registry>,
}

/// One setting: a long flag without its dashes, and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// One, or several for a flag that may be repeated; `true` and `false` for one without a value.
    pub values: Vec<String>,
    /// Where it stands.
    pub span: Span,
    /// Directory of the file: paths are relative to it.
    pub directory: PathBuf,
}

/// How a registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Registry {
    /// Hosts that are asked first, in this order, with an optional port and `http://` or `https://`.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Whether it is spoken to without TLS, or without checking its certificate.
    #[serde(default)]
    pub insecure: bool,
    /// A file with certificates of authorities that it is trusted by, beside the system's; relative to the configuration file.
    pub ca: Option<PathBuf>,
}

impl Config {
    /// Reads the files, the strongest first; a file that does not exist says nothing. The files are added to `sources`, which diagnostics point into.
    ///
    /// # Errors
    /// Everything that is wrong in all files.
    pub fn read(paths: &[PathBuf], sources: &mut SourceMap) -> Result<Config, Vec<Diagnostic>> {
        let mut config = Config::default();
        let mut found = Vec::new();
        for path in paths {
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(e) => {
                    found.push(Diagnostic::error("configuration", format!("cannot read `{}`: {e}", path.display())));
                    continue;
                }
            };
            let id = sources.add(path.display().to_string(), bytes.clone());
            let directory = path.parent().unwrap_or(Path::new("")).to_owned();
            match file::parse(id, &bytes, &directory) {
                Ok(file) => config.join(file),
                Err(diagnostic) => found.push(diagnostic),
            }
        }
        if found.is_empty() { Ok(config) } else { Err(found) }
    }

    /// Adds what a weaker file says.
    fn join(&mut self, weaker: Config) {
        for (key, setting) in weaker.settings {
            self.settings.entry(key).or_insert(setting);
        }
        self.policies.extend(weaker.policies);
        for (host, registry) in weaker.registries {
            self.registries.entry(host).or_insert(registry);
        }
    }

    /// Returns the settings of a command, by flag.
    pub fn of<'a>(&'a self, command: &'a str) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        self.settings.iter().filter(move |((c, _), _)| c == command).map(|((_, flag), setting)| (flag.as_str(), setting))
    }
}

#[cfg(test)]
mod tests;
