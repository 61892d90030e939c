//! The glue of the pipeline: one small function per stage, from what the one before yields to what the next one asks for.

use std::fmt;
use std::str::FromStr;

use ukc_analyze::{Cache, DirCache, Facts};
use ukc_build::{Built, Graph, Op, Step};
use ukc_diagnostics::{Diagnostic, SourceMap, Span, suggest};
use ukc_link::{AppObject, ENOSYS_SYMBOL, LinkInput, Linked, app_object};
use ukc_oci::OciError;
use ukc_rootfs::Origin;
use ukc_select::{Catalogue, Plan};

use crate::{Request, notes};

/// A stage that has a text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The parsed Dockerfile.
    Ast,
    /// The build graph.
    Graph,
    /// The configuration and the root file tree.
    Rootfs,
    /// What the analysis found.
    Facts,
    /// What the kernel is made of, with the reasons.
    Plan,
    /// The linker's map.
    Map,
    /// `image.json`.
    Image,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 7] = [Stage::Ast, Stage::Graph, Stage::Rootfs, Stage::Facts, Stage::Plan, Stage::Map, Stage::Image];

    /// Returns the name that `--emit` takes.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Ast => "ast",
            Stage::Graph => "graph",
            Stage::Rootfs => "rootfs",
            Stage::Facts => "facts",
            Stage::Plan => "plan",
            Stage::Map => "map",
            Stage::Image => "image",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Stage, String> {
        Stage::ALL.into_iter().find(|s| s.name() == text).ok_or_else(|| {
            let names = Stage::ALL.map(Stage::name);
            match suggest::closest(text, names) {
                Some(close) => format!("there is no stage `{text}`; did you mean `{close}`?"),
                None => format!("there is no stage `{text}`; they are {}", names.join(", ")),
            }
        })
    }
}

/// The entries of the two boot protocols: Linux's 64-bit one and PVH.
const ROOTS: [&str; 2] = ["linux64_start", "pvh_start32"];

/// Notes that monitors look for.
const KEEP: [&str; 2] = [".note.pvh", ".note.Xen"];

/// What `begin` answered: `false` gives the build up.
pub fn go_on(answer: bool) -> Result<(), Vec<Diagnostic>> {
    if answer { Ok(()) } else { Err(vec![Diagnostic::error("interrupted", "the build was interrupted")]) }
}

/// Trouble with the content store itself.
pub fn store_problem(error: &OciError) -> Diagnostic {
    let diagnostic = Diagnostic::error(error.name(), error.to_string());
    match error.help() {
        Some(help) => diagnostic.help(help),
        None => diagnostic.help("set `XDG_CACHE_HOME` to a directory that can be written"),
    }
}

/// Returns what the progress says about each step that is executed: the instruction's first line where there is one.
pub fn step_words(graph: &Graph, sources: &SourceMap) -> Vec<String> {
    let uses = graph.uses();
    graph.steps.iter().zip(uses).filter(|(_, uses)| *uses > 0).map(|(step, _)| words(step, sources)).collect()
}

fn words(step: &Step, sources: &SourceMap) -> String {
    match &step.op {
        Op::Scratch => "FROM scratch".to_owned(),
        Op::Image { reference, .. } => format!("FROM {reference}"),
        Op::Context { named: None, .. } => "read the build context".to_owned(),
        Op::Context { name, .. } => format!("read the context {name}"),
        Op::Workdir { path, .. } => format!("WORKDIR {path}"),
        Op::Copy(_) | Op::Run(_) | Op::Unknown { .. } => first_line(step.span, sources),
    }
}

/// Returns the first line of what a span covers, without control characters and not longer than a terminal.
fn first_line(span: Span, sources: &SourceMap) -> String {
    let bytes = &sources.file(span.file).bytes;
    let bytes = bytes.get(span.start as usize..span.end as usize).unwrap_or_default();
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut shown: String = line.chars().filter(|c| !c.is_control()).take(72).collect();
    if shown.chars().count() < line.trim_end().chars().count() {
        shown.push('…');
    }
    shown
}

/// Calls the analysis.
///
/// # Errors
/// The analysis's own.
pub fn analyze(built: &Built, cache: Option<&DirCache>) -> Result<Facts, Vec<Diagnostic>> {
    let span_of = |origin: Origin| built.origins.get(origin.0 as usize).copied();
    let options = ukc_analyze::Options {
        span_of: &span_of,
        command_span: built.spans.entrypoint.or(built.spans.cmd),
        user_span: built.spans.user,
        follows_shells: true,
        cache: cache.map(|c| c as &dyn Cache),
    };
    ukc_analyze::analyze(&built.tree, &built.config, &options)
}

/// The kernel module that writes to volumes.
pub const VOLUME_MODULE: &str = "ext4rw";

/// Calls the selection.
///
/// # Errors
/// A name that no system call or module has, or a fault of the archive.
pub fn select(request: &Request, has_volumes: bool, facts: &Facts, archive: &[u8]) -> Result<Plan, Diagnostic> {
    let broken = |problem: String| {
        Diagnostic::error("broken-kernel", problem).help("this is a fault of ukc, not of the Dockerfile: please report it")
    };
    let catalogue = Catalogue::from_notes(&notes::module_notes(archive).map_err(broken)?).map_err(|e| broken(e.to_string()))?;
    let unknown = |kind: &str, name: &str, close: Option<&str>| {
        let diagnostic = Diagnostic::error("unknown-name", format!("there is no {kind} `{name}`"));
        match close {
            Some(close) => diagnostic.help(format!("did you mean `{close}`?")),
            None => diagnostic,
        }
    };
    let mut options = ukc_select::Options::default();
    for name in &request.extra_syscalls {
        let Some(number) = libos_abi::syscall::number(name) else {
            return Err(unknown("system call", name, suggest::closest(name, libos_abi::syscall::NAMES.iter().map(|(_, n)| *n))));
        };
        options.calls.push((number as u32, format!("--syscall {name}")));
    }
    for name in &request.extra_modules {
        if catalogue.module(name).is_none() {
            return Err(unknown("kernel module", name, suggest::closest(name, catalogue.modules().map(|m| m.name.as_str()))));
        }
        options.features.push((name.clone(), format!("--module {name}")));
    }
    if has_volumes {
        options.features.push((VOLUME_MODULE.to_owned(), "VOLUME".to_owned()));
    }
    ukc_select::select(facts, &catalogue, &options).map_err(|e| broken(e.to_string()))
}

/// Links the kernel that a plan describes.
///
/// # Errors
/// One diagnostic with every problem: a link that fails is a fault of the archive or of us, never of the Dockerfile.
pub fn link(plan: &Plan, archive: &[u8], record: &[u8]) -> Result<Linked, Diagnostic> {
    let failed = |problems: Vec<String>| {
        let mut diagnostic = Diagnostic::error("link-failed", "the kernel cannot be linked");
        diagnostic.notes = problems;
        diagnostic.help("this is a fault of ukc, not of the Dockerfile: please report it with the output of `ukc build --emit plan`")
    };
    let handlers: Vec<(u32, String)> = plan.handlers.iter().map(|h| (h.nr, h.symbol.clone())).collect();
    let app = AppObject { handlers: &handlers, stub: ENOSYS_SYMBOL, module_inits: &plan.inits, boot_record: record };
    let app = app_object(&app).map_err(|e| failed(vec![e.to_string()]))?;
    let input = LinkInput {
        archive,
        extra_objects: vec![app],
        roots: ROOTS.map(str::to_owned).to_vec(),
        keep: KEEP.map(str::to_owned).to_vec(),
        has_symbol_table: true,
        ..LinkInput::default()
    };
    ukc_link::link(&input).map_err(|e| failed(e.problems.iter().map(ToString::to_string).collect()))
}
