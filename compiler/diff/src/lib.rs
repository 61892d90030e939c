//! What one image has that another has not: two documents and their root file systems → a comparison, as text, JSON and SARIF.
//!
//! It is about attack surface, so every part answers "what can be reached now that could not be before": system calls that the kernel answers, kernel
//! modules, files, programs that run as their owner or with capabilities, ports, packages, the kind of guest, sizes. A policy's `growth` says which of
//! these may grow ([`Comparison::violations`]).
//!
//! To add a part: a field of [`Comparison`], a line in `text.rs`, and if a policy shall govern it, a rule in `growth.rs`.
//!
//! What is absent: finding images (the command line does), and reading file systems of other kinds than ours writes.
#![forbid(unsafe_code)]

mod files;
mod growth;
mod sarif;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use ukc_image_json::{GuestKind, Handling, Image};

pub use files::{FileChange, Files, FilesError, Listing};
pub use growth::Violation;

/// Names that came and went, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Only in the new image.
    pub added: Vec<String>,
    /// Only in the old image.
    pub removed: Vec<String>,
}

impl Names {
    fn between(old: impl IntoIterator<Item = String>, new: impl IntoIterator<Item = String>) -> Names {
        let (old, new): (BTreeSet<String>, BTreeSet<String>) = (old.into_iter().collect(), new.into_iter().collect());
        Names { added: new.difference(&old).cloned().collect(), removed: old.difference(&new).cloned().collect() }
    }

    /// Whether nothing came and nothing went.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// A value before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// In the old image.
    pub old: T,
    /// In the new image.
    pub new: T,
}

/// A package whose version changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Versions.
    pub version: Change<String>,
}

/// What changed between two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Kind of guest.
    pub guest: Change<GuestKind>,
    /// Bytes of the kernel.
    pub kernel_bytes: Change<u64>,
    /// Bytes of the kernel and the contents of files.
    pub image_bytes: Change<u64>,
    /// System calls that the kernel answers.
    pub syscalls: Names,
    /// Kernel modules.
    pub modules: Names,
    /// Ports.
    pub ports: Names,
    /// Programs that run as their owner or group.
    pub setuid: Names,
    /// Capabilities of programs: `/bin/ping cap_net_raw`.
    pub capabilities: Names,
    /// Packages that came and went.
    pub packages: Names,
    /// Packages of another version.
    pub package_versions: Vec<PackageChange>,
    /// Files, when both root file systems were there to look at.
    pub files: Option<Files>,
}

/// Compares two images; the listings are their root file systems, if both can be had.
pub fn compare(old: &Image, new: &Image, listings: Option<(&Listing, &Listing)>) -> Comparison {
    let names = |of: fn(&Image) -> Vec<String>| Names::between(of(old), of(new));
    let bytes = |image: &Image| image.kernel.len_bytes + image.files.len_bytes;
    let versions = |image: &Image| image.packages.iter().map(|p| (p.name.clone(), p.version.clone())).collect::<BTreeMap<_, _>>();
    let (old_versions, new_versions) = (versions(old), versions(new));
    let package_versions = new_versions.iter().filter_map(|(name, new)| {
        let old = old_versions.get(name).filter(|old| *old != new)?;
        Some(PackageChange { name: name.clone(), version: Change { old: old.clone(), new: new.clone() } })
    });
    Comparison {
        guest: Change { old: old.guest.kind, new: new.guest.kind },
        kernel_bytes: Change { old: old.kernel.len_bytes, new: new.kernel.len_bytes },
        image_bytes: Change { old: bytes(old), new: bytes(new) },
        syscalls: names(|i| i.syscalls.iter().filter(|c| c.handling == Handling::Linked).map(|c| c.name.clone()).collect()),
        modules: names(|i| i.modules.iter().map(|m| m.name.clone()).collect()),
        ports: names(|i| i.ports.iter().map(ToString::to_string).collect()),
        setuid: names(|i| i.files.setuid.clone()),
        capabilities: names(|i| {
            i.files.capabilities.iter().flat_map(|f| f.names.iter().map(|n| format!("{} {n}", f.path)).collect::<Vec<_>>()).collect()
        }),
        packages: names(|i| i.packages.iter().map(|p| p.name.clone()).collect()),
        package_versions: package_versions.collect(),
        files: listings.map(|(old, new)| files::between(old, new)),
    }
}

impl Comparison {
    /// Whether nothing changed that is compared.
    pub fn is_empty(&self) -> bool {
        let names = [&self.syscalls, &self.modules, &self.ports, &self.setuid, &self.capabilities, &self.packages];
        self.guest.old == self.guest.new
            && self.kernel_bytes.old == self.kernel_bytes.new
            && self.image_bytes.old == self.image_bytes.new
            && names.iter().all(|n| n.is_empty())
            && self.package_versions.is_empty()
            && self.files.as_ref().is_none_or(Files::is_empty)
    }
}

#[cfg(test)]
mod tests;
