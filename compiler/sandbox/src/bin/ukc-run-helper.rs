//! The helper as a program of its own: what tests start in place of `ukc`.

fn main() -> std::process::ExitCode {
    ukc_sandbox::dispatch().unwrap_or(std::process::ExitCode::from(2))
}
