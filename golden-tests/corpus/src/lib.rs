//! Builds the Dockerfiles of `fixtures/corpus` and compares file trees and configurations with what buildah makes of them.
//!
//! ```text
//! cases/<name>/
//!   Dockerfile         its first line: `# 31, 33: why`, the items of the reference that the case is about
//!   Dockerfile.oracle  the same in words that the oracle knows, where it lacks the syntax
//!   context/           the build context, if it has files
//!   make               further files (`golden_harness::make`)
//!   flags              target=, build-arg=, label=, build-context=; `slow` keeps the case out of the quick run, `root` needs root,
//!                      `fails` is a build that must fail
//!   expected           what buildah made: configuration, and what is new, changed or gone in the tree beside the base image
//!   differences        where BuildKit, and so ukc, does otherwise: the reasons as comments, then the lines that differ
//! bases/<name>/        the base images: packages, configuration, further files
//! ```
//!
//! A test compares with `expected`, without buildah; `UKC_CORPUS=ask` asks buildah again, `UKC_CORPUS=bless` also writes its answers, and
//! `UKC_CORPUS=accept` rewrites the lines of `differences` below its comments. Times are not compared: the two builders date new directories differently.
#![forbid(unsafe_code)]

pub mod base;
pub mod case;
pub mod oracle;
pub mod ours;
pub mod text;
