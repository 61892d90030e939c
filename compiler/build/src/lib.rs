//! Instructions → build graph → root file tree and image configuration.
//!
//! ```text
//! Parsed + Options ──lower──▶ Graph (steps: images, contexts, copies, directories) ──execute──▶ Built (tree, config, history)
//! ```
//!
//! [`lower`] expands variables, resolves stages and named contexts, and keeps only what the target needs; it reads the configurations of base images,
//! because their environment and ONBUILD triggers decide what the instructions mean. [`execute`] makes the trees. Both collect every error they find.
//! Where the Dockerfile reference is silent, BuildKit's behaviour decides.
//!
//! The result depends on nothing but its inputs: files of a build context keep their modification times (the only thing of the host's that shows),
//! directories that the build itself creates are dated at the epoch, and with `SOURCE_DATE_EPOCH` no time lies after it.
//!
//! What is absent: `build` starts no process and opens no connection: the caller passes a [`run::Runner`] and a [`Remote`] for that. It does not know
//! what the files are; that is `analyze`'s.
#![forbid(unsafe_code)]

mod context;
mod copy;
mod execute;
mod graph;
mod ignore;
mod lower;
mod options;
mod pattern;
mod remote;
pub mod run;

use ukc_diagnostics::{Diagnostic, SourceMap, Span};
use ukc_dockerfile::Parsed;
use ukc_oci::{History, Store};
use ukc_rootfs::{ImageConfig, Tree};

pub use execute::{execute, execute_observed, execute_with};
pub use graph::{Graph, Key, Op, RunOp, Step, StepId};
pub use ignore::{BadPattern, Matcher};
pub use lower::{Lowered, lower};
pub use options::{ContextSource, NamedContext, Options};
pub use remote::{Remote, RemoteHandle};

/// What a build yields.
#[derive(Debug, Clone)]
pub struct Built {
    /// The file tree of the target stage.
    pub tree: Tree,
    /// The process it starts.
    pub config: ImageConfig,
    /// `origins[n]` is what [`ukc_rootfs::Origin`]`(n)` stands for: where the Dockerfile brings a file in.
    pub origins: Vec<Span>,
    /// Where the configuration comes from.
    pub spans: ConfigSpans,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// The base image's, then one line per instruction.
    pub history: Vec<History>,
    /// The tree as layers, when [`Options::keep_layers`] asks for them.
    pub layers: Option<BuiltLayers>,
}

/// A tree as layers.
#[derive(Debug, Clone)]
pub struct BuiltLayers {
    /// The image that the lowest layers are from.
    pub base: Option<ukc_oci::Image>,
    /// The lowest layer, when that is a directory of this machine.
    pub whole: Option<Vec<ukc_rootfs::Change>>,
    /// What each RUN, COPY, ADD and WORKDIR changed, in order; perhaps nothing. Times are as the files have them.
    pub changes: Vec<Vec<ukc_rootfs::Change>>,
}

/// Where the Dockerfile sets parts of the configuration; `None` for what is inherited from a base image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigSpans {
    /// `USER`'s argument.
    pub user: Option<Span>,
    /// `WORKDIR`'s argument.
    pub working_dir: Option<Span>,
    /// The ENTRYPOINT instruction.
    pub entrypoint: Option<Span>,
    /// The CMD instruction.
    pub cmd: Option<Span>,
}

/// Builds `parsed`. `sources` is the map that the Dockerfile is in; texts that later diagnostics point into (triggers of base images, .dockerignore)
/// are added to it.
///
/// # Errors
/// All errors that were found, with the warnings among them. A file that could not be parsed gives its own errors again.
pub fn build(parsed: &Parsed, sources: &mut SourceMap, options: &Options, store: &Store) -> Result<Built, Vec<Diagnostic>> {
    let lowered = lower(parsed, sources, options, store)?;
    execute(lowered, sources, options, store)
}
