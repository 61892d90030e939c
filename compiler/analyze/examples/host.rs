//! Analyses a program of this machine, or of an unpacked root file system, and prints the facts:
//! `cargo run -p ukc-analyze --example host -- [--root DIR] COMMAND [ARGUMENT...]`. The time that the analysis took goes to stderr.

#[path = "../tests/common/mod.rs"]
mod common;

fn main() {
    let mut argv: Vec<String> = std::env::args().skip(1).collect();
    let tree = match argv.as_slice() {
        [flag, dir, ..] if flag == "--root" => {
            let tree = common::tree_of(dir);
            argv.drain(..2);
            tree
        }
        _ => common::host_tree(),
    };
    let config = common::starts(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    let start = std::time::Instant::now();
    let result = ukc_analyze::analyze(&tree, &config, &ukc_analyze::Options::default());
    eprintln!("{:?}", start.elapsed());
    match result {
        Ok(facts) => print!("{}", facts.to_text()),
        Err(errors) => errors.iter().for_each(|e| eprintln!("error[{}]: {}", e.name, e.message)),
    }
}
