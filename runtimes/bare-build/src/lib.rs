//! Compiles crates that run without an operating system (kernel, boot loaders) from a build script.
//!
//! A nested cargo builds packages of this workspace with flags of their own, as static libraries and rlibs: no linker runs, so the ordinary host toolchain
//! suffices. The profile `kernel` of the workspace applies.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// What rustc compiles for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What to build.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The folder of the workspace's `Cargo.toml`.
    pub workspace: &'a Path,
    /// Name of a folder for the results beside those of the outer cargo's profiles: debug, release, clippy and test builds share it. The outer cargo
    /// holds the lock of its own folder while build scripts run, so it cannot be that one.
    pub target_name: &'a str,
    /// `OUT_DIR` of the build script.
    pub out_dir: &'a Path,
    /// Packages.
    pub packages: &'a [String],
    /// Flags of every rustc.
    pub rustflags: &'a [&'a str],
}

/// A static library or rlib.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// Its crate, as code names it.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
}

impl Request<'_> {
    /// Returns the folder in which the nested cargo leaves libraries, and in `deps` what these depend on.
    ///
    /// # Panics
    /// When `out_dir` is not what cargo gives to build scripts.
    pub fn library_dir(&self) -> PathBuf {
        self.target_dir().join(TARGET).join("kernel")
    }

    fn target_dir(&self) -> PathBuf {
        self.out_dir.ancestors().nth(4).expect("OUT_DIR lies four levels below the target folder").join(self.target_name)
    }
}

/// Returns the libraries of all packages and of what they depend on: static libraries first, each kind sorted.
///
/// # Panics
/// When the build fails, as build scripts do; cargo has printed the reasons.
pub fn build(request: &Request<'_>) -> Vec<Library> {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.current_dir(request.workspace).args(["build", "--profile", "kernel", "--target", TARGET, "--locked"]);
    cargo.args(["--message-format", "json-render-diagnostics", "--target-dir"]).arg(request.target_dir());
    for package in request.packages {
        cargo.args(["-p", package]);
    }
    scrub_environment(&mut cargo);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", request.rustflags.join("\x1f"));
    if let Some(rustc) = env::var_os("RUSTC") {
        cargo.env("RUSTC", rustc);
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("running cargo");
    assert!(output.status.success(), "building {} failed; the messages are above", request.packages.join(", "));

    let mut libraries = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let Some(name) = message["target"]["name"].as_str().filter(|_| message["reason"] == "compiler-artifact") else { continue };
        // Build scripts and procedural macros of dependencies are built for the host, outside the target's folder.
        let files = message["filenames"].as_array().into_iter().flatten().filter_map(|f| f.as_str()).map(PathBuf::from);
        let files = files.filter(|f| f.starts_with(request.library_dir()) && (is(f, "a") || is(f, "rlib")));
        libraries.extend(files.map(|file| Library { name: name.replace('-', "_"), file }));
    }
    libraries.sort_by_key(|library| (!is(&library.file, "a"), library.file.clone()));
    libraries
}

/// Returns a package's name.
///
/// # Panics
/// When the manifest cannot be read or has no line `name = "..."`.
pub fn package_name(manifest: &Path) -> String {
    let text = fs::read_to_string(manifest).unwrap_or_else(|e| panic!("{}: {e}", manifest.display()));
    let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    name.unwrap_or_else(|| panic!("{}: no line `name = \"...\"`", manifest.display())).to_owned()
}

fn is(file: &Path, extension: &str) -> bool {
    file.extension() == Some(OsStr::new(extension))
}

/// Removes what the outer cargo exports and what would change the code, but keeps how cargo reaches its registry and its job server.
pub fn scrub_environment(cargo: &mut Command) {
    const KEEP: &[&str] = &["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE"];
    const KEEP_PREFIXES: &[&str] = &["RUSTUP_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_"];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let is_outer = ["CARGO", "RUST", "DEP_", "LLVM_PROFILE_FILE"].iter().any(|prefix| text.starts_with(prefix))
            || ["TARGET", "HOST", "OUT_DIR", "PROFILE", "OPT_LEVEL", "DEBUG", "NUM_JOBS"].contains(&text);
        if is_outer && !KEEP.contains(&text) && !KEEP_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}
