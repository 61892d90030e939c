//! Runs golden cases: a Dockerfile with its context → the text forms of the pipeline's stages and what it says, compared with files.
//!
//! ```text
//! cases/copy-chmod/
//!   Dockerfile         its first line is a comment that says why the case exists
//!   context/           files of the build context, if there are any
//!   make               further files, one per line, for what git cannot hold (see `make`)
//!   flags              flags of `ukc build`, one per line: target=, build-arg=, build-context=, label=
//!   expected.rootfs    the text of a stage: ast, graph, rootfs, facts, plan
//!   expected.errors    what a build that fails says, or the warnings of one that does not
//! ```
//!
//! Only the stages whose file exists are run and compared. `UKC_BLESS=1` writes the files instead.
#![forbid(unsafe_code)]

pub mod archive;
pub mod case;
pub mod make;
