//! Analyses a program of this machine and prints the facts: `cargo run -p ukc-analyze --example host -- COMMAND [ARGUMENT...]`.

#[path = "../tests/common/mod.rs"]
mod common;

fn main() {
    let argv: Vec<String> = std::env::args().skip(1).collect();
    let config = common::starts(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    match ukc_analyze::analyze(&common::host_tree(), &config, &ukc_analyze::Options::default()) {
        Ok(facts) => print!("{}", facts.to_text()),
        Err(errors) => errors.iter().for_each(|e| eprintln!("error[{}]: {}", e.name, e.message)),
    }
}
