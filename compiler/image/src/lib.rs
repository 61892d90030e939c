//! Kernel and root file tree to artefacts.
#![forbid(unsafe_code)]

pub mod ext4;
