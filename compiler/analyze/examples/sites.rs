//! Prints the summary of ELF files as JSON: `cargo run -p ukc-analyze --example sites -- FILE...`.

fn main() {
    for path in std::env::args().skip(1) {
        let summary = std::fs::read(&path)
            .map_err(|e| e.to_string())
            .and_then(|b| ukc_analyze::object::summarize(&b, &[]).map_err(|e| e.to_string()));
        match summary {
            Ok(summary) => println!("{path} {}", serde_json::to_string_pretty(&summary).expect("a summary is plain data")),
            Err(error) => eprintln!("{path}: {error}"),
        }
    }
}
