//! The build graph: what has to be done to get the target's tree, as data.
//!
//! ```text
//! %0 = image debian sha256:9f1c…
//! %1 = context
//! %2 = workdir %0 /srv
//! %3 = copy %2 from %1 "app/" to "/srv/" chown=www-data
//! ```
//!
//! A *step* takes the trees of earlier steps and makes a new one. Its key is a hash of what it does and of its inputs' keys: equal keys mean equal
//! definitions. Keys know base images by their digest and contexts by their name; the contents of contexts are not in them.

use std::fmt::{self, Write};

use ukc_diagnostics::Span;
use ukc_dockerfile::chmod::Chmod;
use ukc_oci::{History, Image};
use ukc_rootfs::{ImageConfig, Origin};

use crate::ConfigSpans;
use crate::run::{Access, Network, Process, Security, Sharing};

/// Index of a step in its [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u32);

/// Hash of a step's definition and of everything it builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A node of the graph.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it does.
    pub op: Op,
    /// See [`Key`].
    pub key: Key,
    /// The instruction it is from.
    pub span: Span,
}

/// What a [`Step`] does.
#[derive(Debug, Clone)]
pub enum Op {
    /// The empty tree of `FROM scratch`.
    Scratch,
    /// A tree that cannot be made, because its base is missing or an instruction is not supported; that was reported. Steps that need it are still
    /// there, so that executing them finds what else is wrong.
    Unknown { base: Option<StepId>, what: String },
    /// The tree of a base image.
    Image { reference: String, image: Box<Image>, origin: Origin },
    /// A directory of the host: the build context (`None`) or the named context with this index in the options.
    Context { named: Option<usize>, name: String, origin: Origin },
    /// The directory at `path`, made if it is missing and then owned by `user`.
    Workdir { base: StepId, path: String, user: String, origin: Origin },
    /// COPY and ADD.
    Copy(Box<CopyOp>),
    /// RUN.
    Run(Box<RunOp>),
}

/// See [`Op::Run`].
#[derive(Debug, Clone)]
pub struct RunOp {
    /// The root.
    pub base: StepId,
    /// What to start.
    pub process: Process,
    /// `USER`; empty is root.
    pub user: String,
    /// Where it was set.
    pub user_span: Option<Span>,
    /// In order.
    pub mounts: Vec<MountOp>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// Whether an earlier result may be used.
    pub may_use_cache: bool,
    /// What changed files are marked with.
    pub origin: Origin,
}

/// A `--mount` of a [`RunOp`].
#[derive(Debug, Clone)]
pub struct MountOp {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute and clean.
    pub target: String,
    /// The flag's value.
    pub span: Span,
}

/// See [`MountOp`].
#[derive(Debug, Clone)]
pub enum MountKind {
    /// Files of a tree.
    Bind { source: MountSource, read_only: bool },
    /// A directory that outlives the build.
    Cache { id: String, seed: Option<MountSource>, sharing: Sharing, read_only: bool, access: Access },
    /// A directory in memory.
    Tmpfs { size_bytes: Option<u64> },
    /// A secret of the command line.
    Secret { id: String, is_file: bool, env: Option<String>, required: bool, access: Access },
    /// An agent's socket.
    Ssh { id: String, required: bool, access: Access },
}

/// Where the files of a mount come from.
#[derive(Debug, Clone)]
pub struct MountSource {
    /// The tree.
    pub step: StepId,
    /// How it is spoken of.
    pub text: String,
    /// Path in it.
    pub path: String,
}

impl MountKind {
    /// The tree it needs.
    pub fn source(&self) -> Option<&MountSource> {
        match self {
            MountKind::Bind { source, .. } => Some(source),
            MountKind::Cache { seed, .. } => seed.as_ref(),
            _ => None,
        }
    }
}

impl RunOp {
    /// What the command, its surroundings and its mounts are, without the trees.
    pub(crate) fn key_text(&self) -> String {
        self.describe(&|_| String::new())
    }

    /// Says what is run, with `name` for the trees. Proxies and what the cache does with the result are not part of it.
    fn describe(&self, name: &dyn Fn(StepId) -> String) -> String {
        let Process { argv, script, env, hidden_env: _, cwd, hostname } = &self.process;
        let mut out = format!("run {}", name(self.base));
        for argument in argv {
            let _ = write!(out, " {argument:?}");
        }
        if let Some(script) = script {
            let _ = write!(out, " script={:?}", script.text);
        }
        for (variable, value) in env {
            let _ = write!(out, " {variable}={value:?}");
        }
        let _ = write!(out, " cwd={cwd:?} hostname={hostname}");
        if !self.user.is_empty() {
            let _ = write!(out, " user={}", self.user);
        }
        if self.network != Network::Default {
            let _ = write!(out, " network={:?}", self.network);
        }
        if self.security != Security::Sandbox {
            let _ = write!(out, " security={:?}", self.security);
        }
        for mount in &self.mounts {
            let _ = write!(out, " mount={:?}:", mount.target);
            let _ = match &mount.kind {
                MountKind::Bind { source, read_only } => {
                    write!(out, "bind({} {:?}{})", name(source.step), source.path, if *read_only { "" } else { " rw" })
                }
                MountKind::Cache { id, seed, sharing, read_only, access } => {
                    let seed = seed.as_ref().map(|s| format!(" from {} {:?}", name(s.step), s.path)).unwrap_or_default();
                    write!(out, "cache({id:?}{seed} {sharing:?}{}{})", if *read_only { " ro" } else { "" }, shown_access(access))
                }
                MountKind::Tmpfs { size_bytes } => write!(out, "tmpfs({})", size_bytes.map(|n| n.to_string()).unwrap_or_default()),
                MountKind::Secret { id, is_file, env, required: _, access } => {
                    let env = env.as_ref().map(|e| format!(" env={e}")).unwrap_or_default();
                    write!(out, "secret({id:?}{}{env}{})", if *is_file { "" } else { " no-file" }, shown_access(access))
                }
                MountKind::Ssh { id, required: _, access } => write!(out, "ssh({id:?}{})", shown_access(access)),
            };
        }
        out
    }
}

fn shown_access(access: &Access) -> String {
    let mut out = String::new();
    let _ = access.mode.map(|mode| write!(out, " mode={mode:04o}"));
    let _ = access.uid.map(|uid| write!(out, " uid={uid}"));
    let _ = access.gid.map(|gid| write!(out, " gid={gid}"));
    out
}

/// See [`Op::Copy`].
#[derive(Debug, Clone)]
pub struct CopyOp {
    /// What is copied into.
    pub base: StepId,
    /// What is copied from; `None` when all sources are inline.
    pub from: Option<StepId>,
    /// How `from` is spoken of: `the build context`, `` stage `build` ``.
    pub from_text: String,
    /// Whether `from` is the build context, where .dockerignore may hide a source.
    pub from_context: bool,
    /// In order.
    pub sources: Vec<CopySource>,
    /// Absolute and clean, with a `/` at its end when it must be a directory.
    pub dest: String,
    /// The destination's word.
    pub dest_span: Span,
    /// `--chown`.
    pub chown: Option<(String, Span)>,
    /// `--chmod`, as written and parsed.
    pub chmod: Option<(String, Chmod)>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

/// A source of a [`CopyOp`].
#[derive(Debug, Clone)]
pub struct CopySource {
    /// Path, pattern, or the name of an inline file.
    pub path: String,
    /// Its word.
    pub span: Span,
    /// The bytes of an inline file.
    pub inline: Option<Vec<u8>>,
    /// What its files are marked with.
    pub origin: Origin,
}

/// All steps, inputs before the steps that use them.
#[derive(Debug, Clone)]
pub struct Graph {
    /// In an order in which they can be executed.
    pub steps: Vec<Step>,
    /// The step whose tree is the target's.
    pub result: StepId,
    /// The target's configuration.
    pub config: ImageConfig,
    /// Where it comes from.
    pub spans: ConfigSpans,
    /// The target's history.
    pub history: Vec<History>,
    /// What origins stand for.
    pub origins: Vec<Span>,
}

impl Op {
    /// The steps whose trees this one takes.
    pub fn inputs(&self) -> Vec<StepId> {
        match self {
            Op::Scratch | Op::Image { .. } | Op::Context { .. } => vec![],
            Op::Unknown { base, .. } => base.iter().copied().collect(),
            Op::Workdir { base, .. } => vec![*base],
            Op::Copy(copy) => [Some(copy.base), copy.from].into_iter().flatten().collect(),
            Op::Run(run) => std::iter::once(run.base).chain(run.mounts.iter().filter_map(|m| m.kind.source().map(|s| s.step))).collect(),
        }
    }

    /// Says what is done, with `name` for the inputs.
    fn describe(&self, name: &dyn Fn(StepId) -> String) -> String {
        let mut out = String::new();
        match self {
            Op::Scratch => out.push_str("scratch"),
            Op::Unknown { base, what } => {
                let _ = write!(out, "unknown {}", base.map(name).unwrap_or_default());
                let _ = write!(out, "{}{what:?}", if base.is_some() { " " } else { "" });
            }
            Op::Image { reference, image, .. } => {
                let _ = write!(out, "image {reference} {}", image.manifest_digest);
            }
            Op::Context { named: None, .. } => out.push_str("context"),
            Op::Context { name, .. } => {
                let _ = write!(out, "context {name}");
            }
            Op::Workdir { base, path, user, .. } => {
                let _ = write!(out, "workdir {} {path:?}", name(*base));
                if !user.is_empty() {
                    let _ = write!(out, " user={user}");
                }
            }
            Op::Run(run) => out.push_str(&run.describe(name)),
            Op::Copy(c) => {
                let _ = write!(out, "{} {}", if c.unpack { "add" } else { "copy" }, name(c.base));
                if let Some(from) = c.from {
                    let _ = write!(out, " from {}", name(from));
                }
                for source in &c.sources {
                    let _ = write!(out, " {:?}", source.path);
                    if let Some(bytes) = &source.inline {
                        let _ = write!(out, "=<{} bytes, {}>", bytes.len(), Key(*blake3::hash(bytes).as_bytes()));
                    }
                }
                let _ = write!(out, " to {:?}", c.dest);
                if let Some((owner, _)) = &c.chown {
                    let _ = write!(out, " chown={owner}");
                }
                if let Some((mode, _)) = &c.chmod {
                    let _ = write!(out, " chmod={mode}");
                }
                for (flag, given) in [("link", c.link), ("parents", c.parents)] {
                    if given {
                        let _ = write!(out, " {flag}");
                    }
                }
                for pattern in &c.exclude {
                    let _ = write!(out, " exclude={pattern:?}");
                }
            }
        }
        out
    }
}

impl Graph {
    /// Returns a step of this graph.
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0 as usize]
    }

    /// Returns for each step how many others take its tree, the result's user among them; a step with 0 is not executed.
    pub fn uses(&self) -> Vec<u32> {
        let mut uses = vec![0; self.steps.len()];
        self.steps.iter().flat_map(|s| s.op.inputs()).chain([self.result]).for_each(|id| uses[id.0 as usize] += 1);
        uses
    }

    /// Adds a step and gives it its key.
    pub(crate) fn add(&mut self, op: Op, span: Span) -> StepId {
        let text = op.describe(&|id| self.step(id).key.0.iter().map(|b| format!("{b:02x}")).collect());
        let mut hash = blake3::Hasher::new();
        hash.update(text.as_bytes());
        if let Op::Copy(copy) = &op {
            // The text shows only the start of their hashes.
            for bytes in copy.sources.iter().filter_map(|s| s.inline.as_ref()) {
                hash.update(blake3::hash(bytes).as_bytes());
            }
        }
        let key = Key(*hash.finalize().as_bytes());
        self.steps.push(Step { op, key, span });
        StepId(self.steps.len() as u32 - 1)
    }

    /// The readable form (`--emit graph`): one line per step, its key last.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for (n, step) in self.steps.iter().enumerate() {
            let _ = writeln!(out, "%{n} = {}  # {}", step.op.describe(&|id| format!("%{}", id.0)), step.key);
        }
        let _ = writeln!(out, "result %{}", self.result.0);
        out
    }
}
