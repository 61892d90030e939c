//! Running tools, and the few statistics used here.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What can go wrong in a measurement is for a person to read, never for a caller to tell apart.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Runs a tool to its end and returns what it wrote to standard output.
///
/// # Errors
/// The tool cannot be started, or ends with another status than 0; the text has the last lines of its standard error.
pub fn tool<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> Result<String> {
    output(Command::new(name).args(args))
}

/// [`tool`] for a command with more to it than arguments.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run `{name}`: {error}"))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        let lines: Vec<&str> = text.lines().collect();
        return Err(format!("`{name}` failed ({}): {}", out.status, lines[lines.len().saturating_sub(6)..].join(" | ")).into());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The middle of the samples; of an even number, the lower middle.
pub fn median<T: Copy + PartialOrd>(mut samples: Vec<T>) -> Option<T> {
    samples.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    samples.get(samples.len().checked_sub(1)? / 2).copied()
}

/// Milliseconds with one decimal.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3, 1, 2]), Some(2));
        assert_eq!(median(vec![4, 1, 2, 3]), Some(2));
        assert_eq!(median(Vec::<u8>::new()), None);
    }

    #[test]
    fn a_failing_tool_tells_why() {
        let error = tool("sh", ["-c", "echo no such thing >&2; exit 3"]).expect_err("fails");
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
}
