//! The runner: `cargo test -p golden-guest [FILTER...]` runs the tests whose names contain a filter, two at a time, and prints lines as other tests do.
//!
//! `UKC_GUEST_KEEP=1` keeps the folders of tests that failed, to look at and to run by hand.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use golden_guest::{compile, plan, run};

fn main() -> ExitCode {
    let mut filters: Vec<String> = std::env::args().skip(1).collect();
    let lists = filters.iter().any(|f| f == "--list");
    filters.retain(|f| !f.starts_with('-'));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tests = match plan::tests(&workspace.join("fixtures/guest")) {
        Ok(tests) => tests,
        Err(e) => {
            eprintln!("error: {e}");
            return ExitCode::FAILURE;
        }
    };
    let tests: Vec<plan::Test> =
        tests.into_iter().filter(|t| filters.is_empty() || filters.iter().any(|f| t.name.contains(f.as_str()))).collect();
    if lists {
        tests.iter().for_each(|t| println!("{}: test", t.name));
        return ExitCode::SUCCESS;
    }
    let ukc = match compile::ukc(&workspace) {
        Ok(ukc) => ukc,
        Err(e) => {
            eprintln!("error: {e}");
            return ExitCode::FAILURE;
        }
    };
    println!("\nrunning {} guest tests", tests.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = one(test, &ukc);
                    println!("test {} ... {}", test.name, if result.is_ok() { "ok" } else { "FAILED" });
                    if let Err(why) = result {
                        failures.lock().unwrap_or_else(|e| e.into_inner()).push((test.name.clone(), why));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    failures.sort();
    if !failures.is_empty() {
        println!("\nfailures:\n");
    }
    failures.iter().for_each(|(name, why)| println!("---- {name} ----\n{why}\n"));
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {} failed; 0 ignored\n", tests.len() - failures.len(), failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(test: &plan::Test, ukc: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let result = compile::prepare(test, dir.path()).and_then(|prepared| run::compare(test, &prepared, ukc, dir.path()));
    if result.is_err() && std::env::var_os("UKC_GUEST_KEEP").is_some() {
        let kept = dir.keep();
        return result.map_err(|why| format!("{why}\nkept in {}", kept.display()));
    }
    result
}
