//! What an image must not be: the `[policy]` table of `ukc.toml` and an image's document → diagnostics, each with its reason.
//!
//! ```toml
//! [policy]
//! max-image-size = "64m"                 # kernel and files together; powers of 1024, as docker's --memory
//! max-kernel-size = "1m"
//! guests = ["libos"]                     # kinds of guests that are allowed
//! modules = { deny = ["trace"] }         # kernel modules; `allow = [...]` forbids all others
//! syscalls = { deny = ["ptrace"] }       # system calls that the kernel must not answer; likewise
//! files = { setuid = false, capabilities = false, max-count = 5000 }
//! packages = { deny = ["telnetd"] }      # packages by name; likewise
//! growth = { max-size = "1m", syscalls = false, modules = false, setuid = false }
//! ```
//!
//! Everything that is forbidden and there is reported, not the first thing only. `growth` holds between two images and is looked at by `ukc diff`.
//!
//! To add a rule: a field here, its check in `check.rs` or, if it compares two images, in `compiler/diff`.
#![forbid(unsafe_code)]

mod check;
mod size;

use serde::Deserialize;
use ukc_image_json::GuestKind;

pub use size::Size;

/// A policy. What it does not mention is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Policy {
    /// Most bytes of the kernel and the contents of files together.
    pub max_image_size: Option<Size>,
    /// Most bytes of the kernel.
    pub max_kernel_size: Option<Size>,
    /// The kinds of guests that are allowed.
    pub guests: Option<Vec<Guest>>,
    /// Kernel modules.
    pub modules: Names,
    /// System calls that the kernel answers.
    pub syscalls: Names,
    /// Packages of the distribution in the root file system.
    pub packages: Names,
    /// Files.
    pub files: Files,
    /// What may come with a new version of an image.
    pub growth: Growth,
}

/// A kind of guest as users name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// The libOS.
    Libos,
    /// A Linux kernel.
    Linux,
}

impl Guest {
    /// Returns the kind as documents name it.
    pub fn kind(self) -> GuestKind {
        match self {
            Guest::Libos => GuestKind::Unikernel,
            Guest::Linux => GuestKind::Linux,
        }
    }
}

/// Names that may or may not be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Names {
    /// If given, nothing else is allowed.
    pub allow: Option<Vec<String>>,
    /// What is forbidden.
    pub deny: Vec<String>,
}

/// What files may be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Files {
    /// Whether programs may run as another user or group than the one who starts them.
    pub setuid: bool,
    /// Whether programs may have capabilities of their own.
    pub capabilities: bool,
    /// Most files, directories, links and devices.
    pub max_count: Option<u64>,
}

impl Default for Files {
    fn default() -> Files {
        Files { setuid: true, capabilities: true, max_count: None }
    }
}

/// What a new version of an image may have that the old one had not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Growth {
    /// Most bytes that the kernel and the contents of files may grow by.
    pub max_size: Option<Size>,
    /// System calls.
    pub syscalls: bool,
    /// Kernel modules.
    pub modules: bool,
    /// Programs that run as another user, and such with capabilities.
    pub setuid: bool,
    /// Ports.
    pub ports: bool,
    /// Packages.
    pub packages: bool,
}

impl Default for Growth {
    fn default() -> Growth {
        Growth { max_size: None, syscalls: true, modules: true, setuid: true, ports: true, packages: true }
    }
}

#[cfg(test)]
mod tests;
