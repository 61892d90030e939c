//! Every Dockerfile of `fixtures/dockerfiles`: valid ones parse without errors and have the expected text form, broken ones the expected diagnostics.
//! `UKC_BLESS=1` rewrites the expectations.

use std::fs;
use std::path::{Path, PathBuf};
use ukc_diagnostics::{SourceMap, render};
use ukc_dockerfile::{Parsed, parse};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/dockerfiles")
}

fn dockerfiles(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "Dockerfile"))
        .collect();
    files.sort();
    files
}

/// The rendered diagnostics, a blank line between them.
fn read(path: &Path) -> (Parsed, Vec<u8>, String) {
    let bytes = fs::read(path).unwrap();
    let mut sources = SourceMap::default();
    let file = sources.add(path.file_name().unwrap().to_string_lossy(), bytes.clone());
    let parsed = parse(file, &bytes);
    let rendered: Vec<String> = parsed.diagnostics.iter().map(|d| render(&sources, d, false)).collect();
    (parsed, bytes, rendered.join("\n"))
}

fn compare(path: &Path, got: &str, failures: &mut Vec<String>) {
    let expected_path = path.with_extension("txt");
    if std::env::var_os("UKC_BLESS").is_some() {
        fs::write(&expected_path, got).unwrap();
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    if expected != got {
        let line = expected.lines().zip(got.lines()).take_while(|(a, b)| a == b).count();
        let show = |text: &str| text.lines().skip(line).take(8).collect::<Vec<_>>().join("\n    ");
        failures.push(format!(
            "{}: line {} differs\n  expected:\n    {}\n  got:\n    {}",
            expected_path.display(),
            line + 1,
            show(&expected),
            show(got)
        ));
    }
}

#[test]
fn valid_files() {
    let files = dockerfiles(&folder());
    assert!(files.len() >= 25, "only {} files", files.len());
    let mut failures = vec![];
    for path in files {
        let (parsed, bytes, rendered) = read(&path);
        if !parsed.is_ok() {
            failures.push(format!("{} has errors:\n{rendered}", path.display()));
        }
        assert_eq!(parsed.tree.print(&bytes), bytes, "{}", path.display());
        let separator = if rendered.is_empty() { "" } else { "\n" };
        compare(&path, &format!("{rendered}{separator}{}", parsed.to_text()), &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn broken_files() {
    let mut failures = vec![];
    for path in dockerfiles(&folder().join("broken")) {
        let (parsed, bytes, rendered) = read(&path);
        assert!(!parsed.diagnostics.is_empty(), "{} is fine", path.display());
        assert_eq!(parsed.tree.print(&bytes), bytes, "{}", path.display());
        compare(&path, &rendered, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_file_says_why() {
    for path in dockerfiles(&folder()).into_iter().chain(dockerfiles(&folder().join("broken"))) {
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.is_empty() || text.contains("# Why: "), "{} does not say why it exists", path.display());
    }
}
