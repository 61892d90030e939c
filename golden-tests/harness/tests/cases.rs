//! The runner: `cargo test -p golden-harness [FILTER...]`; `UKC_BLESS=1` rewrites what is expected.

use std::path::Path;
use std::process::ExitCode;

use golden_harness::case;

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases");
    let bless = std::env::var_os("UKC_BLESS").is_some_and(|v| !v.is_empty());
    let mut cases: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    cases.sort();
    let name = |case: &Path| case.file_name().unwrap_or_default().to_string_lossy().into_owned();
    cases.retain(|c| filters.is_empty() || filters.iter().any(|f| name(c).contains(f.as_str())));
    println!("\nrunning {} golden cases", cases.len());
    let mut failed = 0;
    for case in &cases {
        match case::run(case, bless) {
            Ok(()) => println!("test {} ... ok", name(case)),
            Err(why) => {
                failed += 1;
                println!("test {} ... FAILED\n{}", name(case), why.trim_end());
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored\n", cases.len() - failed);
    // An empty folder would pass everything.
    if failed == 0 && (!cases.is_empty() || !filters.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
