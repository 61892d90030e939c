//! Where ukc keeps things (XDG Base Directory Specification).

use std::path::PathBuf;

use crate::report::Failure;

/// Returns the directory for what can be made again: blobs, summaries of the analysis.
pub fn cache() -> Result<PathBuf, Failure> {
    directory("XDG_CACHE_HOME", ".cache")
}

/// Returns the directory for images.
pub fn data() -> Result<PathBuf, Failure> {
    directory("XDG_DATA_HOME", ".local/share")
}

/// Returns the directory for what is so now and need not be kept: the machines that run.
pub fn state() -> Result<PathBuf, Failure> {
    directory("XDG_STATE_HOME", ".local/state")
}

/// Returns the directory for what the user set: the configuration, credentials.
pub fn config() -> Result<PathBuf, Failure> {
    directory("XDG_CONFIG_HOME", ".config")
}

fn directory(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)));
    base.map(|b| b.join("ukc")).ok_or_else(|| Failure::new(format!("neither {variable} nor HOME says where to keep files")))
}
