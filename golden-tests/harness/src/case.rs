//! One case: prepare its work folder, run the pipeline, compare.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ukc_diagnostics::{Diagnostic, SourceMap, render};
use ukc_driver::build::{NamedContext, Options};
use ukc_driver::{Progress, Request, Stage, compile};

use crate::{archive, make};

/// The stages that cases can pin; the last two of the pipeline need a kernel.
const STAGES: [Stage; 5] = [Stage::Ast, Stage::Graph, Stage::Rootfs, Stage::Facts, Stage::Plan];

struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: usize, _: usize, _: &str) -> bool {
        true
    }
}

/// Runs the case in the folder `case`. With `bless`, its expected files are rewritten instead of compared.
///
/// # Errors
/// The differences, or why the case makes no sense.
pub fn run(case: &Path, bless: bool) -> Result<(), String> {
    let dockerfile = fs::read(case.join("Dockerfile")).map_err(|e| format!("Dockerfile: {e}"))?;
    if !dockerfile.starts_with(b"#") {
        return Err("the first line of the Dockerfile must be a comment that says why the case exists".to_owned());
    }
    let expected = |name: &str| case.join(format!("expected.{name}"));
    let stages: Vec<Stage> = STAGES.into_iter().filter(|s| expected(s.name()).exists()).collect();
    let has_errors = expected("errors").exists();
    let Some(&last) = stages.last().or(has_errors.then_some(&Stage::Plan)) else {
        return Err("no file expected.* says which stages the case is about".to_owned());
    };

    let work = tempfile::tempdir().map_err(|e| e.to_string())?;
    let context = work.path().join("context");
    fs::create_dir(&context).map_err(|e| e.to_string())?;
    copy(&case.join("context"), &context)?;
    let mut named = match fs::read_to_string(case.join("make")) {
        Ok(text) => make::run(&text, work.path())?,
        Err(_) => vec![],
    };
    let mut options = Options::new(context);
    for line in fs::read_to_string(case.join("flags")).unwrap_or_default().lines().filter(|l| !l.is_empty()) {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("flags: `{line}` is not KEY=VALUE"))?;
        let pair = || value.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).ok_or_else(|| format!("flags: `{line}`"));
        match key {
            "target" => options.target = Some(value.to_owned()),
            "build-arg" => options.build_args.push(pair()?),
            "label" => options.labels.push(pair()?),
            "build-context" => named.push(value.replace("WORK", &work.path().display().to_string())),
            _ => return Err(format!("flags: nobody knows `{key}`")),
        }
    }
    options.named_contexts = named.iter().map(|n| NamedContext::parse(n)).collect::<Result<_, _>>()?;
    // From here on nothing is read from the case's own folder.
    let request = Request {
        dockerfile_name: "Dockerfile".to_owned(),
        dockerfile,
        options,
        store: work.path().join("store"),
        runs: Default::default(),
        analysis_cache: None,
        archive: archive::archive,
        extra_syscalls: vec![],
        extra_modules: vec![],
        guest: Default::default(),
        is_strict: false,
        policies: vec![],
        wants_container: false,
        emit: stages.clone(),
        last,
    };
    let mut sources = SourceMap::default();
    let (texts, said) = match compile(&request, &mut sources, &mut Silent) {
        Ok(compiled) => (compiled.texts, compiled.warnings),
        Err(found) => (vec![], found),
    };
    let said = shown(&sources, &said, work.path());
    if !has_errors && texts.len() < stages.len() {
        return Err(format!("the build failed, and no expected.errors says so:\n{said}"));
    }
    let mut results: Vec<(PathBuf, String)> = texts.into_iter().map(|(stage, text)| (expected(stage.name()), text)).collect();
    if has_errors {
        results.push((expected("errors"), said));
    }
    let mut differences = String::new();
    for (path, found) in results {
        if bless {
            fs::write(&path, found).map_err(|e| format!("{}: {e}", path.display()))?;
            continue;
        }
        let expected = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if expected != found {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            differences += &format!("{name} differs:\n{}", difference(&expected, &found));
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}

fn shown(sources: &SourceMap, said: &[Diagnostic], work: &Path) -> String {
    let texts: Vec<String> = said.iter().map(|d| render(sources, d, false)).collect();
    texts.join("\n").replace(&work.display().to_string(), "WORK")
}

/// Copies the context. Permissions are those that git keeps: executable or not.
///
/// # Errors
/// What cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let failed = |e: std::io::Error| format!("{}: {e}", source.display());
        let meta = entry.metadata().map_err(failed)?;
        if meta.is_symlink() {
            fs::read_link(&source).and_then(|l| std::os::unix::fs::symlink(l, &target)).map_err(failed)?;
        } else if meta.is_dir() {
            fs::create_dir(&target).map_err(failed)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(failed)?;
            copy(&source, &target)?;
        } else {
            let mode = if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            fs::copy(&source, &target).map_err(failed)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Shows what lies between the first and the last line that agree.
fn difference(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let mut out = format!("  (line {})\n", head + 1);
    a[head..a.len() - tail].iter().for_each(|line| out += &format!("- {line}\n"));
    b[head..b.len() - tail].iter().for_each(|line| out += &format!("+ {line}\n"));
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_difference_is_only_the_middle() {
        assert_eq!(super::difference("a\nb\nc\n", "a\nx\ny\nc\n"), "  (line 2)\n- b\n+ x\n+ y\n");
    }
}
