//! Dockerfile → graph: which stages the target needs, what their instructions mean, and the configuration they make.
//!
//! Files:
//! - `scope`: the variables that are visible at a point of a stage, and expansion with them;
//! - `base`: what a FROM or `--from` names: a stage, a named context, an image;
//! - `instruction`: the metadata instructions; `copy`: COPY and ADD; `run`: RUN.
//!
//! Nothing here looks at files of contexts. Base images are opened, because their configuration (environment, ONBUILD) is part of the meaning.

mod base;
mod copy;
mod instruction;
mod run;
mod scope;

use std::collections::{BTreeMap, BTreeSet};

use ukc_diagnostics::{Diagnostic, SourceMap, Span, suggest};
use ukc_dockerfile::{InstructionKind, Parsed, parse_trigger};
use ukc_oci::{History, Store};
use ukc_rootfs::{ImageConfig, Origin};

use crate::graph::{Graph, Op, StepId};
use crate::{ConfigSpans, Options};
use scope::{Scope, Variables};

pub(crate) use base::image_problem;
pub(crate) use instruction::user_problem;

/// The default PATH of images that start from nothing (Docker's `DefaultPathEnv`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build arguments that mean something without an ARG (Dockerfile reference, "Predefined ARGs" and "BuildKit built-in build args").
const PREDEFINED: [&str; 16] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
    "SOURCE_DATE_EPOCH",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_SYNTAX",
];

/// A graph, and what was found on the way to it.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// What to execute. With errors it has steps that are [`Op::Unknown`].
    pub graph: Graph,
    /// Errors and warnings. Executing a graph with errors fails, but finds more of them.
    pub diagnostics: Vec<Diagnostic>,
}

/// Lowers a parsed Dockerfile to the graph of the target stage.
///
/// # Errors
/// A file that could not be parsed, and a target that is not there. What is wrong in the stages that the target needs is in [`Lowered::diagnostics`].
pub fn lower(parsed: &Parsed, sources: &mut SourceMap, options: &Options, store: &Store) -> Result<Lowered, Vec<Diagnostic>> {
    if !parsed.is_ok() {
        return Err(parsed.diagnostics.clone());
    }
    let target = target(parsed, options).map_err(|d| vec![d])?;
    let graph = Graph {
        steps: vec![],
        result: StepId(0),
        config: ImageConfig::default(),
        spans: ConfigSpans::default(),
        history: vec![],
        origins: vec![],
    };
    let mut lower = Lower {
        parsed,
        sources,
        options,
        store,
        globals: Variables::default(),
        graph,
        problems: vec![],
        stages: BTreeMap::new(),
        shared: BTreeMap::new(),
        undefined: BTreeSet::new(),
    };
    lower.globals(target);
    lower.unused_arguments();
    lower.need(target);
    let mut stage = lower.stages.remove(&target).expect("just lowered");
    for (name, value) in &options.labels {
        stage.config.labels.insert(name.clone(), value.clone());
    }
    let (mut graph, problems) = (lower.graph, lower.problems);
    graph.result = stage.step;
    graph.config = stage.config;
    graph.spans = stage.spans;
    graph.history = stage.history;
    Ok(Lowered { graph, diagnostics: problems })
}

fn target(parsed: &Parsed, options: &Options) -> Result<usize, Diagnostic> {
    let Some(last) = parsed.stages.len().checked_sub(1) else {
        return Err(Diagnostic::error("no-stage", "the Dockerfile has no FROM, so there is nothing to build"));
    };
    let Some(name) = &options.target else { return Ok(last) };
    parsed.stage(name).ok_or_else(|| {
        let names = || parsed.stages.iter().filter_map(|s| s.name.as_ref()).map(|n| n.value.as_str());
        let diagnostic = Diagnostic::error("unknown-target", format!("there is no stage `{name}` to build"));
        match suggest::closest(name, names()) {
            Some(close) => diagnostic.help(format!("did you mean `{close}`?")),
            None if names().next().is_some() => diagnostic.help(format!("the stages are {}", names().collect::<Vec<_>>().join(", "))),
            None => diagnostic.help(format!("no stage has a name; give its number, 0 to {last}")),
        }
    })
}

/// What is known at the end of a stage (and, while it is lowered, at the current instruction).
#[derive(Clone)]
struct StageState {
    step: StepId,
    config: ImageConfig,
    scope: Scope,
    history: Vec<History>,
    spans: ConfigSpans,
    /// Whether this stage has a CMD of its own, which an ENTRYPOINT then leaves alone.
    has_cmd: bool,
    /// The base is broken: what follows from that is not reported again.
    is_broken: bool,
}

struct Lower<'a> {
    parsed: &'a Parsed,
    sources: &'a mut SourceMap,
    options: &'a Options,
    store: &'a Store,
    /// ARGs before the first FROM, and the platform arguments.
    globals: Variables,
    graph: Graph,
    problems: Vec<Diagnostic>,
    /// Stages that are lowered.
    stages: BTreeMap<usize, StageState>,
    /// Contexts and images that have a step, by what they are.
    shared: BTreeMap<String, base::BaseStep>,
    /// Places where an undefined variable was already reported.
    undefined: BTreeSet<(Span, String)>,
}

impl Lower<'_> {
    /// Evaluates the global scope: platform arguments, then the ARGs before the first FROM.
    fn globals(&mut self, target: usize) {
        let platform = &self.options.platform;
        let stage = self.parsed.stages[target].name.as_ref().map_or("default", |n| n.value.as_str());
        for side in ["TARGET", "BUILD"] {
            for (name, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("OSVERSION", String::new()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone().unwrap_or_default()),
            ] {
                self.globals.set(&format!("{side}{name}"), &value);
            }
        }
        self.globals.set("TARGETSTAGE", stage);
        for (name, value) in &self.options.build_args {
            if self.globals.get(name).is_some() {
                self.globals.set(name, value);
            }
        }
        let escape = self.parsed.directives.escape;
        for instruction in &self.parsed.global_args {
            let InstructionKind::Arg(items) = &instruction.kind else { continue };
            for item in items {
                let globals = &self.globals;
                let expand =
                    |word| ukc_dockerfile::expand::word(word, escape, &|name| globals.get(name).map(str::to_owned)).map(|e| e.text);
                let name = expand(&item.name);
                let default = item.default.as_ref().map(expand).transpose();
                match (name, default) {
                    (Ok(name), Ok(default)) => {
                        if let Some(value) = self.options.build_arg(&name).map(str::to_owned).or(default) {
                            self.globals.set(&name, &value);
                        }
                    }
                    (name, default) => self.problems.extend(name.err().into_iter().chain(default.err())),
                }
            }
        }
    }

    fn unused_arguments(&mut self) {
        let of_stages = self.parsed.stages.iter().flat_map(|s| &s.instructions);
        let mut declared: BTreeSet<&str> = BTreeSet::new();
        for instruction in self.parsed.global_args.iter().chain(of_stages) {
            if let InstructionKind::Arg(items) = &instruction.kind {
                declared.extend(items.iter().map(|i| i.name.value.as_str()));
            }
        }
        let names: BTreeSet<&str> = self.options.build_args.iter().map(|(n, _)| n.as_str()).collect();
        for name in names {
            if !declared.contains(name) && !PREDEFINED.contains(&name) && self.globals.get(name).is_none() {
                let diagnostic = Diagnostic::warning("unused-build-arg", format!("no ARG declares the build argument `{name}`"));
                self.problems.push(match suggest::closest(name, declared.iter().copied()) {
                    Some(close) => diagnostic.help(format!("did you mean `{close}`?")),
                    None => diagnostic.help(format!("add `ARG {name}` to the stage that uses it")),
                });
            }
        }
    }

    /// Lowers a stage and everything before it that it needs. Stages only refer to earlier ones, so one pass back finds them and one pass forward
    /// lowers them, however long the chain is.
    fn need(&mut self, stage: usize) {
        let mut needed = BTreeSet::from([stage]);
        for index in (0..=stage).rev() {
            if needed.contains(&index) && !self.stages.contains_key(&index) {
                needed.extend(self.stages_used_by(index));
            }
        }
        for index in needed {
            if !self.stages.contains_key(&index) {
                let state = self.stage(index);
                self.stages.insert(index, state);
            }
        }
    }

    fn stages_used_by(&self, index: usize) -> Vec<usize> {
        let stage = &self.parsed.stages[index];
        if self.replacement_of(index).is_some() {
            return vec![];
        }
        let base = scope::expand_global(&stage.base, self.parsed.directives.escape, &self.globals)
            .ok()
            .and_then(|e| self.stage_by_name(&e.text, index));
        let used = stage.instructions.iter().flat_map(|i| match &i.kind {
            InstructionKind::Copy(args) => {
                args.from.as_ref().and_then(|from| self.stage_by_reference(from.as_str(), index)).into_iter().collect()
            }
            InstructionKind::Run(args) => self.mount_stages(args, index),
            _ => vec![],
        });
        base.into_iter().chain(used).collect()
    }

    fn stage(&mut self, index: usize) -> StageState {
        let stage = &self.parsed.stages[index];
        let mut state = self.base_of(index);
        if self.replacement_of(index).is_some() {
            return state;
        }
        let triggers = std::mem::take(&mut state.config.on_build);
        for text in triggers {
            let file = self.sources.add(format!("ONBUILD of `{}`", stage.base.value), text.as_bytes());
            let trigger = parse_trigger(file, &text);
            self.problems.extend(trigger.diagnostics);
            if let Some(instruction) = trigger.instruction {
                self.instruction(&mut state, index, &instruction, '\\');
            }
        }
        for instruction in &stage.instructions {
            self.instruction(&mut state, index, instruction, self.parsed.directives.escape);
        }
        state
    }

    /// From here on the files of the stage are not all known.
    fn unknown(&mut self, state: &mut StageState, what: &str, span: Span) {
        state.step = self.graph.add(Op::Unknown { base: Some(state.step), what: what.to_owned() }, span);
    }

    fn origin(&mut self, span: Span) -> Origin {
        self.graph.origins.push(span);
        Origin(self.graph.origins.len() as u32 - 1)
    }

    fn add_history(&self, state: &mut StageState, created_by: String, empty_layer: bool) {
        state.history.push(History {
            created: self.options.epoch().map(|t| ukc_oci::Timestamp(t).to_string()),
            created_by,
            author: state.config.author.clone().unwrap_or_default(),
            comment: "ukc".into(),
            empty_layer,
        });
    }

    /// The state of `FROM scratch`.
    fn scratch(&mut self, span: Span) -> StageState {
        let step = match self.shared.get("scratch") {
            Some((step, ..)) => *step,
            None => {
                let step = self.graph.add(Op::Scratch, span);
                self.shared.insert("scratch".into(), (step, None, vec![]));
                step
            }
        };
        self.bare(step)
    }

    /// The state of a stage that starts with the tree of `step` and no configuration.
    fn bare(&self, step: StepId) -> StageState {
        let config = ImageConfig {
            env: vec![("PATH".into(), DEFAULT_PATH.into())],
            working_dir: "/".into(),
            architecture: self.options.platform.architecture.clone(),
            os: self.options.platform.os.clone(),
            ..ImageConfig::default()
        };
        StageState {
            step,
            scope: Scope::of(&config),
            config,
            history: vec![],
            spans: ConfigSpans::default(),
            has_cmd: false,
            is_broken: false,
        }
    }
}
