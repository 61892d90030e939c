//! The runner: `cargo test -p golden-corpus --test corpus -- [NAME...]`. Without names, cases that need a package registry are left out;
//! `UKC_CORPUS=ask|bless|accept` (see the crate) runs them too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use golden_corpus::base::Bases;
use golden_corpus::case::{Prepared, differences, items, last_base};
use golden_corpus::oracle::Buildah;
use golden_corpus::ours;
use ukc_oci::Store;

/// Items of the reference.
const ITEMS: u32 = 80;
/// Items that a file tree does not show, and the tests that are about them.
const ELSEWHERE: [(u32, &str); 8] = [
    (16, "compiler/oci/tests/layout.rs"),
    (44, "compiler/build/tests/errors.rs"),
    (45, "compiler/build/tests/errors.rs"),
    (71, "compiler/sandbox/tests/cache.rs"),
    (72, "compiler/sandbox/tests/cache.rs"),
    (73, "cli/tests/build.rs"),
    (75, "cli/tests/build.rs"),
    (76, "cli/tests/steps.rs"),
];

struct Corpus {
    mode: String,
    bases: Bases,
    buildah: Buildah,
    store: Store,
    store_dir: PathBuf,
}

fn main() -> ExitCode {
    // This program is its own helper for RUN.
    if let Some(code) = ukc_sandbox::dispatch() {
        return code;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    match run(&filters) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(filters: &[String]) -> Result<bool, String> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let work = tempfile::tempdir().map_err(|e| e.to_string())?;
    let store_dir = match std::env::var_os("UKC_CORPUS_STORE") {
        Some(dir) => PathBuf::from(dir),
        None => work.path().join("store"),
    };
    let oracle_dir = std::env::var_os("UKC_CORPUS_ORACLE_DIR").map_or_else(|| work.path().join("oracle"), PathBuf::from);
    let store = Store::open(&store_dir).map_err(|e| e.to_string())?;
    let mut corpus = Corpus {
        mode: std::env::var("UKC_CORPUS").unwrap_or_default(),
        bases: Bases::new(&fixtures, &work.path().join("bases")),
        buildah: Buildah::new(&oracle_dir),
        store,
        store_dir,
    };
    let mut folders: Vec<PathBuf> =
        fs::read_dir(fixtures.join("corpus/cases")).map_err(|e| e.to_string())?.flatten().map(|e| e.path()).collect();
    folders.sort();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut untouched: Vec<u32> = (1..=ITEMS).collect();
    let (mut passed, mut failed, mut left_out) = (0, 0, 0);
    for folder in &folders {
        let case = Prepared::new(folder).map_err(|e| format!("{}: {e}", name(folder)))?;
        let touched = items(&case.text()?).map_err(|e| format!("{}: {e}", case.name))?;
        untouched.retain(|item| !touched.contains(item));
        let is_wanted =
            if filters.is_empty() { !case.is_slow || !corpus.mode.is_empty() } else { filters.iter().any(|f| case.name.contains(f)) };
        if !is_wanted || (case.needs_root && !is_root()) {
            left_out += 1;
            continue;
        }
        match corpus.case(folder, case) {
            Ok(()) => passed += 1,
            Err(why) => {
                failed += 1;
                println!("test {} ... FAILED\n{}", name(folder), why.trim_end());
            }
        }
    }
    untouched.retain(|item| {
        let test = ELSEWHERE.iter().find(|(known, _)| known == item).map(|(_, test)| fixtures.join("..").join(test));
        !test.is_some_and(|path| path.is_file())
    });
    let is_whole = untouched.is_empty() && !folders.is_empty();
    if !is_whole {
        println!("no case is about these items of the reference: {untouched:?}");
    }
    let verdict = if failed == 0 && is_whole { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {left_out} ignored\n");
    Ok(failed == 0 && is_whole)
}

fn is_root() -> bool {
    // The owner of this process's files (proc(5)).
    fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

impl Corpus {
    fn case(&mut self, folder: &Path, mut case: Prepared) -> Result<(), String> {
        let text = case.text()?;
        let names = self.bases.of(&text, &self.store)?;
        case.base = last_base(&text);
        let ours = ours::build(&case, &self.bases, &names, &self.store, &self.store_dir);
        let expected = folder.join("expected");
        let answer: Vec<String> = if self.mode.is_empty() {
            let text = fs::read_to_string(&expected).map_err(|e| format!("expected: {e}; `UKC_CORPUS=bless` makes it"))?;
            text.lines().map(str::to_owned).collect()
        } else {
            let answer = match self.buildah.build(&case, &self.bases, &names, &self.store)? {
                Ok(lines) => lines,
                Err(why) => {
                    if ours.is_ok() || self.mode == "bless" {
                        println!("note: buildah fails: {}: {}", case.name, why.lines().last().unwrap_or_default());
                    }
                    vec!["the build fails".to_owned()]
                }
            };
            if self.mode == "bless" || self.mode == "accept" {
                fs::write(&expected, answer.join("\n") + "\n").map_err(|e| e.to_string())?;
            }
            answer
        };
        let why = ours.as_ref().err().cloned().unwrap_or_default();
        if ours.is_err() != case.must_fail {
            return Err(format!("the build {}\n{why}", if case.must_fail { "does not fail" } else { "fails" }));
        }
        let found = ours.unwrap_or_else(|_| vec!["the build fails".to_owned()]);
        let differences = differences(&answer, &found);
        let path = folder.join("differences");
        let known = fs::read_to_string(&path).unwrap_or_default();
        let reasons: Vec<&str> = known.lines().filter(|l| l.starts_with('#')).collect();
        if self.mode == "accept" && !reasons.is_empty() {
            let text = reasons.iter().copied().chain(differences.iter().map(String::as_str)).collect::<Vec<_>>().join("\n");
            return fs::write(&path, text + "\n").map_err(|e| e.to_string());
        }
        let known: Vec<String> = known.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(str::to_owned).collect();
        let new: Vec<&String> = differences.iter().filter(|d| !known.contains(d)).collect();
        let lost: Vec<&String> = known.iter().filter(|d| !differences.contains(d)).collect();
        if new.is_empty() && lost.is_empty() {
            return if known.is_empty() || !reasons.is_empty() { Ok(()) } else { Err("`differences` gives no reason".to_owned()) };
        }
        let mut text = String::new();
        new.iter().for_each(|line| text += &format!("  {line}\n"));
        lost.iter().for_each(|line| text += &format!("  no longer: {line}\n"));
        Err(text + &why)
    }
}
