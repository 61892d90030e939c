//! Prints the text form of a Dockerfile and its diagnostics: `cargo run -p ukc-dockerfile --example parse -- FILE`.

use std::process::ExitCode;
use ukc_diagnostics::{SourceMap, render};

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        eprintln!("usage: parse FILE");
        return ExitCode::from(2);
    };
    let bytes = match std::fs::read(&name) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut sources = SourceMap::default();
    let file = sources.add(name, bytes.clone());
    let parsed = ukc_dockerfile::parse(file, &bytes);
    for diagnostic in &parsed.diagnostics {
        eprintln!("{}", render(&sources, diagnostic, false));
    }
    print!("{}", parsed.to_text());
    if parsed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
