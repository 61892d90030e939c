//! Checks on the repository itself: what STYLE asks for and a machine can see. Each check takes the tracked files and returns what is wrong, one line each.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A tracked text file.
#[derive(Debug, Clone)]
pub struct TextFile {
    /// Path in the repository.
    pub path: String,
    /// Contents.
    pub text: String,
}

/// Files above this are worth splitting.
pub const LONG: usize = 600;

/// Returns the repository's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns every file that git tracks or would track and that is UTF-8.
///
/// # Errors
/// git is missing, or this is no checkout.
pub fn files() -> Result<Vec<TextFile>, String> {
    let output = Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root()).output();
    let output = output.map_err(|e| format!("cannot run git: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let paths = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = |path: &str| Some(TextFile { path: path.to_owned(), text: std::fs::read_to_string(root().join(path)).ok()? });
    Ok(paths.split('\0').filter(|p| !p.is_empty()).filter_map(read).collect())
}

/// Every Rust file opens with what it is for.
pub fn opening(files: &[TextFile]) -> Vec<String> {
    let is_ours = |f: &&TextFile| f.path.ends_with(".rs");
    files
        .iter()
        .filter(is_ours)
        .filter(|f| !f.text.starts_with("//! ") && !f.text.starts_with("#!"))
        .map(|f| format!("{}: does not open with `//!`", f.path))
        .collect()
}

/// Every top-level folder has a README.
pub fn readmes(files: &[TextFile]) -> Vec<String> {
    let mut folders: Vec<&str> = files.iter().filter_map(|f| Some(f.path.split_once('/')?.0)).filter(|d| !d.starts_with('.')).collect();
    folders.sort_unstable();
    folders.dedup();
    let has = |folder: &&str| files.iter().any(|f| f.path == format!("{folder}/README.md"));
    folders.iter().filter(|f| !has(f)).map(|f| format!("{f}/: no README.md")).collect()
}

/// The change log has an Unreleased part, which stands first.
pub fn changelog(files: &[TextFile]) -> Vec<String> {
    let first = files.iter().find(|f| f.path == "CHANGELOG.md").and_then(|f| f.text.lines().find(|l| l.starts_with("## ")));
    if first == Some("## Unreleased") { vec![] } else { vec!["CHANGELOG.md: its first part is not `## Unreleased`".to_owned()] }
}

/// Every package takes the workspace's lints.
pub fn lints(files: &[TextFile]) -> Vec<String> {
    let is_member = |f: &&TextFile| f.path.ends_with("/Cargo.toml") && !f.path.contains("/fuzz/") && !f.text.contains("[workspace]");
    let inherits = |f: &&TextFile| f.text.contains("[lints]\nworkspace = true");
    files.iter().filter(is_member).filter(|f| !inherits(f)).map(|f| format!("{}: does not take the workspace's lints", f.path)).collect()
}

/// Every dependency of the workspace has its reason beside it, and members take versions from there.
pub fn dependencies(files: &[TextFile]) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(manifest) = files.iter().find(|f| f.path == "Cargo.toml") {
        let lines = manifest.text.lines().skip_while(|l| *l != "[workspace.dependencies]").skip(1).take_while(|l| !l.starts_with('['));
        let silent = lines.filter(|l| !l.trim().is_empty() && !l.starts_with('#') && !l.contains(" # "));
        wrong.extend(silent.map(|l| format!("Cargo.toml: `{}` has no reason beside it", l.split(' ').next().unwrap_or(l))));
    }
    for manifest in files.iter().filter(|f| f.path.ends_with("/Cargo.toml") && !f.path.contains("/fuzz/")) {
        let mut is_list = false;
        for line in manifest.text.lines() {
            if line.starts_with('[') {
                is_list = line.ends_with("dependencies]");
            } else if is_list && line.contains(" = \"") && !line.contains("path = ") {
                wrong.push(format!("{}: `{line}` names a version of its own", manifest.path));
            }
        }
    }
    wrong
}

/// Crates and modules that must not contain unsafe code say so: all but the places that STYLE names.
pub fn unsafe_code(files: &[TextFile]) -> Vec<String> {
    const MAY: [&str; 7] = [
        "kernel-libos/arch/",
        "kernel-libos/core/",
        "kernel-libos/drivers/",
        "runtimes/boot/bios/",
        "runtimes/boot/mem/",
        "runtimes/boot/uefi/",
        "golden-tests/bench/",
    ];
    let is_root = |f: &&TextFile| f.path.ends_with("/src/lib.rs") || f.path.ends_with("/src/main.rs");
    let is_bound = |f: &&TextFile| !MAY.iter().any(|m| f.path.starts_with(m)) && !f.path.contains("/fuzz/");
    let forbids = |f: &&TextFile| f.text.contains("#![forbid(unsafe_code)]") || f.text.contains("#![deny(unsafe_code)]");
    files
        .iter()
        .filter(is_root)
        .filter(is_bound)
        .filter(|f| !forbids(f))
        .map(|f| format!("{}: does not forbid unsafe code", f.path))
        .collect()
}

/// No file speaks of the machine it was written on, and nothing is left undone in code.
pub fn words(files: &[TextFile]) -> Vec<String> {
    // Put together here, so that this file does not contain them.
    let somebodys = [format!("/{}/.cargo", "root"), format!("/{}/wt/", "work"), format!("/{}/main/", "work")];
    let undone = [format!("{}!(", "todo"), format!("{}!(", "unimplemented"), format!("{}!(", "dbg")];
    let mut wrong = Vec::new();
    for file in files {
        for (n, line) in file.text.lines().enumerate() {
            let at = || format!("{}:{}", file.path, n + 1);
            if somebodys.iter().any(|s| line.contains(s.as_str())) {
                wrong.push(format!("{}: a path of somebody's machine", at()));
            }
            if file.path.ends_with(".rs") && undone.iter().any(|u| line.contains(u.as_str())) {
                wrong.push(format!("{}: something is left undone", at()));
            }
            if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
                wrong.push(format!("{}: a conflict that was not resolved", at()));
            }
        }
    }
    wrong
}

/// Every golden case says in its first line why it exists, and expects something.
pub fn cases(files: &[TextFile]) -> Vec<String> {
    let dockerfiles = files
        .iter()
        .filter(|f| f.path.starts_with("golden-tests/cases/") && f.path.ends_with("/Dockerfile") && f.path.split('/').count() == 4);
    let mut wrong = Vec::new();
    for dockerfile in dockerfiles {
        if !dockerfile.text.starts_with("# ") {
            wrong.push(format!("{}: its first line does not say why the case exists", dockerfile.path));
        }
        let expected = dockerfile.path.replace("/Dockerfile", "/expected.");
        if !files.iter().any(|f| f.path.starts_with(&expected)) {
            wrong.push(format!("{}: nothing is expected of it", dockerfile.path));
        }
    }
    wrong
}

/// Rust files that are long: no mistake, but a hint to split.
pub fn long(files: &[TextFile]) -> Vec<String> {
    let count = |f: &TextFile| f.text.lines().count();
    files.iter().filter(|f| f.path.ends_with(".rs") && count(f) > LONG).map(|f| format!("{}: {} lines", f.path, count(f))).collect()
}
