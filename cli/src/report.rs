//! What goes to standard error: messages, diagnostics with excerpts; and the failure that ends a command.

use std::io::{IsTerminal, Write};

use ukc_diagnostics::{Diagnostic, SourceMap, render};

/// The build or the command failed.
pub const FAILED: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// A registry or the network is to blame.
pub const NETWORK: u8 = 4;
/// Exit status of `ukc verify` when the image is another one.
pub const MISMATCH: u8 = 5;
/// A signal ended the command.
pub const INTERRUPTED: u8 = 130;
/// The program is not supported, and there is nothing to fall back to.
pub const UNSUPPORTED: u8 = 3;
/// `ukc run` itself failed, not the program (docker run's convention).
pub const RUN_FAILED: u8 = 125;

/// Why a command ends: the message is empty when everything was said.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub status: u8,
    /// One sentence, lower case.
    pub message: String,
}

impl Failure {
    /// The command failed, with a sentence.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { status: FAILED, message: message.into() }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { status: USAGE, message: message.into() }
    }
}

impl From<ukc_store::StoreError> for Failure {
    fn from(error: ukc_store::StoreError) -> Failure {
        Failure::new(error.to_string())
    }
}

/// Whether standard error may have colors (no-color.org).
pub fn has_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stderr().is_terminal()
}

/// Prints `error: ...`.
pub fn error(message: &str) {
    line(if has_color() { "\x1b[1;31merror\x1b[0m" } else { "error" }, message);
}

/// Prints `warning: ...`.
pub fn warning(message: &str) {
    line(if has_color() { "\x1b[1;33mwarning\x1b[0m" } else { "warning" }, message);
}

/// Prints a remark.
pub fn note(message: &str) {
    line("ukc", message);
}

/// Prints a line of the progress as it is.
pub fn line_of_progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn line(head: &str, message: &str) {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{head}: {message}");
}

/// Prints diagnostics, one after the other with an empty line between.
pub fn diagnostics(sources: &SourceMap, found: &[Diagnostic]) {
    let color = has_color();
    let mut err = std::io::stderr().lock();
    for diagnostic in found {
        let _ = writeln!(err, "{}", render(sources, diagnostic, color).trim_end());
        let _ = writeln!(err);
    }
}

/// Returns a value as JSON text for people and programs.
pub fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| Failure::new(e.to_string()))
}

/// Prints to standard output; a reader that went away ends us quietly, as it does other tools.
pub fn output(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure { status: FAILED, message: String::new() }),
        Err(e) => Err(Failure::new(format!("cannot write to standard output: {e}"))),
        Ok(()) => Ok(()),
    }
}
