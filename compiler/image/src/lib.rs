//! Kernel and root file tree to artefacts.
