//! What is asked of the helper process, and what it answers: JSON through its standard input and output.
//!
//! ```text
//! parent → helper   4 bytes: length n, little-endian; n bytes: [Order]; then single bytes: G (identity maps are written), I, T (signals)
//! helper → parent   one JSON [Answer] per line
//! ```
//!
//! The end of the helper's standard input means that the parent is gone. Standard error carries the process's output and nothing else.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Jobs, done in order until one fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Whether to work in a user namespace of its own; the parent writes the maps.
    pub is_rootless: bool,
    /// What to do.
    pub jobs: Vec<Job>,
}

/// Paths are absolute on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Finds out whether overlay mounts work on the file system of this (empty) directory.
    Probe { dir: PathBuf },
    /// Writes the changes of a record into an empty directory: as an overlay layer, or as a plain tree when there is nothing below it.
    Materialise { record: PathBuf, dir: PathBuf },
    /// Makes a directory with this owner and mode, if it is not there.
    MakeDir { path: PathBuf, node: NodeSpec },
    /// Gives a file of the parent to this owner.
    Give { path: PathBuf, node: NodeSpec },
    /// Runs a process.
    Run(Box<RunSpec>),
    /// Finds what a run changed, and writes it as a record. `own_dir` is where copies of files go that the parent could not read.
    Scan { root: ScanRoot, record: PathBuf, own_dir: PathBuf, hidden: Vec<Hidden> },
    /// Removes a file, or a directory with all that is in it.
    Remove { path: PathBuf },
}

/// Where a run's changes are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ScanRoot {
    /// The upper directory of an overlay.
    Upper(PathBuf),
    /// A tree that the same order materialised; what changed is moved to the second directory.
    Copy(PathBuf, PathBuf),
}

/// A path inside the root that was made for a mount, and is not part of the result.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Hidden {
    /// Without a leading `/`.
    pub path: Vec<u8>,
    /// A directory is part of the result once something else is in it.
    pub is_dir: bool,
}

/// Owner and mode.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct NodeSpec {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A process and the root it runs in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunSpec {
    pub root: RootSpec,
    /// Working space on disk, private to the run.
    pub scratch: PathBuf,
    pub mounts: Vec<MountSpec>,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub hostname: String,
    /// A network of its own with nothing but loopback.
    pub is_offline: bool,
    /// All capabilities, nothing masked.
    pub is_insecure: bool,
    /// Files below `/dev/pipes`.
    pub scripts: Vec<(String, Vec<u8>)>,
    /// Whether the host's `/proc` and the like limit what can be mounted.
    pub is_rootless: bool,
}

/// How the root is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum RootSpec {
    /// `lower` are names relative to `layers`, the lowest first.
    Overlay { layers: PathBuf, lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// A directory that is used as it is.
    Plain(PathBuf),
}

/// One mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MountSpec {
    /// Absolute inside the root; it exists.
    pub target: Vec<u8>,
    pub what: MountWhat,
    /// The flag it is from, for errors.
    pub index: Option<usize>,
}

/// What is mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum MountWhat {
    /// A file or directory of the host.
    Host { source: PathBuf, read_only: bool },
    /// A directory of the host, where writes go to a place of their own.
    Overlay { lower: PathBuf, upper: PathBuf, work: PathBuf },
    /// An empty directory in memory.
    Tmpfs { size_bytes: Option<u64> },
    /// A file in memory.
    File { bytes: Vec<u8>, node: NodeSpec, read_only: bool },
}

/// What the helper says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The user namespace is there: write its maps and answer `G`.
    WantsMaps { pid: i32 },
    /// All jobs are done.
    Done,
    /// The process ended: its status as a shell shows it.
    Ended { status: i32 },
    /// The process could not be started: 126 or 127.
    NotStarted { status: i32, why: String },
    /// A mount of the step failed.
    Mount { index: usize, why: String },
    /// A job failed.
    Failed { why: String, errno: Option<i32> },
}
