//! One case: its work folder, and the comparison of two answers.

use std::fs;
use std::path::{Path, PathBuf};

use golden_harness::{case::copy, make};
use ukc_rootfs::Tree;

use crate::base::Bases;

/// A case whose work folder is there.
#[derive(Debug)]
pub struct Prepared {
    /// Name of its folder.
    pub name: String,
    /// Its build context.
    pub context: PathBuf,
    /// Its Dockerfile.
    pub dockerfile: PathBuf,
    /// What the oracle reads.
    pub oracle_dockerfile: PathBuf,
    /// The base that its tree is compared with.
    pub base: Option<String>,
    /// Flags.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: Vec<(String, String)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--build-context`.
    pub contexts: Vec<String>,
    /// `--secret`: id and file.
    pub secrets: Vec<(String, PathBuf)>,
    /// Not part of the quick run.
    pub is_slow: bool,
    /// Makes what only root can.
    pub needs_root: bool,
    /// The build is to fail.
    pub must_fail: bool,
    empty: Tree,
    _work: tempfile::TempDir,
}

impl Prepared {
    /// Makes the work folder of the case in `folder`.
    ///
    /// # Errors
    /// Why the case makes no sense.
    pub fn new(folder: &Path) -> Result<Prepared, String> {
        let fail = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
        let work = tempfile::tempdir().map_err(fail("work folder"))?;
        let context = work.path().join("context");
        fs::create_dir(&context).map_err(fail("context"))?;
        copy(&folder.join("context"), &context)?;
        if let Ok(text) = fs::read_to_string(folder.join("make")) {
            make::run(&text, work.path())?;
        }
        let dockerfile = work.path().join("Dockerfile");
        let inside = context.join("Dockerfile");
        let dockerfile = if folder.join("Dockerfile").exists() {
            fs::copy(folder.join("Dockerfile"), &dockerfile).map_err(fail("Dockerfile"))?;
            dockerfile
        } else {
            inside
        };
        let oracle = work.path().join("Dockerfile.oracle");
        let oracle_dockerfile = match fs::copy(folder.join("Dockerfile.oracle"), &oracle) {
            Ok(_) => oracle,
            Err(_) => dockerfile.clone(),
        };
        let mut case = Prepared {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            context,
            dockerfile,
            oracle_dockerfile,
            base: None,
            target: None,
            build_args: vec![],
            labels: vec![],
            contexts: vec![],
            secrets: vec![],
            is_slow: false,
            needs_root: false,
            must_fail: false,
            empty: Tree::new(),
            _work: work,
        };
        for line in fs::read_to_string(folder.join("flags")).unwrap_or_default().lines().filter(|l| !l.is_empty()) {
            case.flag(line)?;
        }
        Ok(case)
    }

    fn flag(&mut self, line: &str) -> Result<(), String> {
        let wrong = || format!("flags: nobody knows `{line}`");
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let pair = || value.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).ok_or_else(wrong);
        let work = self.context.parent().expect("made in a folder").to_owned();
        match key {
            "slow" => self.is_slow = true,
            "root" => self.needs_root = true,
            "fails" => self.must_fail = true,
            "target" => self.target = Some(value.to_owned()),
            "build-arg" => self.build_args.push(pair()?),
            "label" => self.labels.push(pair()?),
            "build-context" => self.contexts.push(value.replace("WORK", &work.display().to_string())),
            "secret" => {
                let (id, file) = pair()?;
                self.secrets.push((id, work.join(file)));
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Returns the text of the Dockerfile.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self) -> Result<String, String> {
        let bytes = fs::read(&self.dockerfile).map_err(|e| format!("Dockerfile: {e}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the tree beside which the result is described: that of the last base the Dockerfile names, or an empty one.
    pub fn base_tree<'a>(&'a self, bases: &'a Bases) -> &'a Tree {
        self.base.as_ref().and_then(|name| bases.get(name)).map_or(&self.empty, |base| &base.tree)
    }
}

/// Returns the reference of the image that the last stage is built on, through the stages it begins with.
pub fn last_base(dockerfile: &str) -> Option<String> {
    let stages: Vec<Vec<&str>> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
        .map(|line| line.split_whitespace().filter(|word| !word.starts_with("--")).collect())
        .collect();
    let mut at = stages.len().checked_sub(1)?;
    loop {
        let base = *stages[at].first()?;
        match stages[..at].iter().rposition(|stage| stage.get(2).is_some_and(|name| name.eq_ignore_ascii_case(base))) {
            Some(earlier) => at = earlier,
            None => return Some(base.to_owned()),
        }
    }
}

/// Returns the items of the reference that a Dockerfile says it is about.
///
/// # Errors
/// Its first line does not say so.
pub fn items(dockerfile: &str) -> Result<Vec<u32>, String> {
    let wrong = "the first comment of the Dockerfile must be `# 31, 33: why`, the items of the reference that it is about";
    let line =
        dockerfile.trim_start_matches('\u{feff}').lines().find(|l| l.starts_with("# ") && l[2..].starts_with(|c: char| c.is_ascii_digit()));
    let numbers = line.and_then(|l| l.strip_prefix("# ")).and_then(|l| l.split_once(':')).ok_or(wrong)?.0;
    numbers.split(',').map(|n| n.trim().parse().map_err(|_| wrong.to_owned())).collect()
}

/// Returns the lines that only one side has: `-` the first, `+` the second.
pub fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    let only = |a: &[String], b: &[String], sign: char| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign}{line}")).collect()
    };
    let mut out = only(expected, found, '-');
    out.extend(only(found, expected, '+'));
    // The order of variables matters: the last one of a name wins.
    let env = |lines: &[String]| lines.iter().filter(|l| l.starts_with("Env ")).cloned().collect::<Vec<_>>();
    if out.is_empty() && env(expected) != env(found) {
        out.push("+the variables stand in another order".to_owned());
    }
    out
}
