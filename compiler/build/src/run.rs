//! What a RUN needs of whoever executes it: the [`Runner`] that the caller of a build passes.
//!
//! ```text
//! layers (lowest first) + process + mounts ──Runner──▶ changes of the files
//! ```
//!
//! `build` starts no process itself. It gives the runner the root as a list of layers, each with a key that stands for its contents, so that a runner can
//! keep them on disk; and it gets back what the process changed. The key of the step stands for everything that decides its result, so a runner may
//! answer with what an equal step changed before.

use std::collections::BTreeSet;
use std::rc::Rc;

use ukc_diagnostics::Span;
pub use ukc_dockerfile::mount::{Access, Sharing};
pub use ukc_dockerfile::{Network, Security};
use ukc_rootfs::{Change, Tree, User};

use crate::graph::Key;

/// What the command line says about RUN.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// `--allow network.host`.
    pub allow_host_network: bool,
    /// `--allow security.insecure`.
    pub allow_insecure: bool,
    /// `--network`: for the steps that do not say themselves.
    pub network: Option<Network>,
    /// `--add-host`: lines of `/etc/hosts`, as name and address.
    pub hosts: Vec<(String, String)>,
    /// Which steps may be answered with what an equal one changed before.
    pub cache: CacheUse,
}

/// See [`RunOptions::cache`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CacheUse {
    /// All.
    #[default]
    All,
    /// None (`--no-cache`).
    Nothing,
    /// All but those of the stages with these names or numbers (`--no-cache-filter`).
    NotOf(BTreeSet<String>),
}

/// Executes RUN steps.
pub trait Runner {
    /// Runs a process in a root and returns what it changed.
    ///
    /// # Errors
    /// [`RunError`]; nothing of the run is kept then.
    fn run(&mut self, step: &RunStep<'_>) -> Result<Ran, RunError>;
}

/// A root file system, as layers: each is laid over the ones before it.
pub type Layers = Vec<Rc<RootLayer>>;

/// A part of a root file system.
#[derive(Debug)]
pub struct RootLayer {
    /// Stands for the contents.
    pub key: Key,
    /// What is in it.
    pub files: LayerFiles,
}

/// See [`RootLayer`].
#[derive(Debug)]
pub enum LayerFiles {
    /// All files: the lowest layer.
    Whole(Rc<Tree>),
    /// Changes of the layers below.
    Changes(Vec<Change>),
    /// What the runner itself returned with this [`Ran::id`].
    Ran(String),
}

/// A RUN whose turn it is.
#[derive(Debug)]
pub struct RunStep<'a> {
    /// Stands for everything that decides the result.
    pub key: Key,
    /// Whether the result of an equal step may be used.
    pub may_use_cache: bool,
    /// The root.
    pub layers: &'a Layers,
    /// The same as one tree.
    pub tree: &'a Tree,
    /// What to start.
    pub process: &'a Process,
    /// Its user, looked up in the tree.
    pub user: User,
    /// What is mounted into the root.
    pub mounts: Vec<RunMount>,
    /// Which network the process sees.
    pub network: Network,
    /// What the process may do.
    pub security: Security,
    /// Further lines of `/etc/hosts`.
    pub hosts: &'a [(String, String)],
}

/// A program and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The program and its arguments; the program is looked for in PATH.
    pub argv: Vec<String>,
    /// A file that is not in the root and that `argv[0]` names: a heredoc that is a program of its own.
    pub script: Option<Script>,
    /// Environment; a name stands once.
    pub env: Vec<(String, String)>,
    /// Further variables, which do not decide the result: proxies.
    pub hidden_env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// Host name.
    pub hostname: String,
}

/// See [`Process::script`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Name below [`SCRIPT_DIR`].
    pub name: String,
    /// Content.
    pub text: String,
}

/// Where scripts appear: BuildKit's place.
pub const SCRIPT_DIR: &str = "/dev/pipes";

/// Something mounted into the root of a [`RunStep`].
#[derive(Debug)]
pub struct RunMount {
    /// Where: absolute, links in it are followed inside the root.
    pub target: String,
    /// What.
    pub what: RunMountKind,
    /// Its place in the Dockerfile.
    pub span: Span,
}

/// See [`RunMount`].
#[derive(Debug)]
pub enum RunMountKind {
    /// Files of another tree; writes are refused or thrown away.
    Bind { files: MountFiles, read_only: bool },
    /// A directory that outlives the build; `seed` is its first content.
    Cache { id: String, seed: Option<MountFiles>, sharing: Sharing, read_only: bool, access: Access },
    /// An empty directory in memory.
    Tmpfs { size_bytes: Option<u64> },
    /// A secret of the command line, as a file and as an environment variable.
    Secret { id: String, is_file: bool, env: Option<String>, required: bool, access: Access },
    /// The socket of an agent.
    Ssh { id: String, required: bool, access: Access },
}

/// A file or directory of a tree, to be mounted.
#[derive(Debug)]
pub struct MountFiles {
    /// Stands for the contents.
    pub key: Key,
    /// Its root is the directory; a file is the only entry of the root, with [`MountFiles::FILE_NAME`].
    pub tree: Tree,
    /// Whether it is a file.
    pub is_file: bool,
}

impl MountFiles {
    /// Name of a mounted file in its tree.
    pub const FILE_NAME: &'static str = "file";
}

/// What a [`Runner`] returns.
#[derive(Debug)]
pub struct Ran {
    /// Stands for this result: two runs of one step have different ones, an answer from the cache has that of the run.
    pub id: String,
    /// What was changed.
    pub changes: Vec<Change>,
}

/// Why a step has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunError {
    /// The process ended with this status; 128 + n for signal n.
    Exited(i32),
    /// The process could not be started: 127 when the program is not there, else 126, and the system's words.
    NotStarted(i32, String),
    /// One of the mounts is not possible: which, why, and what to do.
    Mount(usize, String, Option<String>),
    /// Whoever executes it cannot: why, and what to do.
    Unable(String, Vec<String>),
    /// It was asked to stop.
    Interrupted,
}

/// For callers that execute no RUN.
#[derive(Debug, Clone, Copy)]
pub struct NoRunner;

impl Runner for NoRunner {
    fn run(&mut self, _: &RunStep<'_>) -> Result<Ran, RunError> {
        Err(RunError::Unable("RUN cannot be executed here".into(), vec![]))
    }
}
