//! The pipeline as one function: a Dockerfile with its context → everything that an image is made of.
//!
//! ```text
//! parse ─▶ lower ─▶ execute ─▶ analyze ─▶ select ─▶ link ─▶ Assembled ─▶ write
//!  ast     graph    rootfs     facts      plan      map                  image
//! ```
//!
//! This is the only crate that names every stage. [`compile`] calls them in order and stops after the last one asked for; what each yields has a text
//! form ([`Stage`]). Trouble, whatever its kind, comes back as [`Diagnostic`]s for the caller to show. The kernel's module archive is an input, so that
//! the pipeline can be tried on any.
//!
//! What is absent: no terminal, no image names (that is `compiler/store`), no decisions: those are the stages'.
#![forbid(unsafe_code)]

mod assemble;
mod container;
mod document;
mod explanation;
mod guest;
mod network;
mod notes;
pub mod output;
mod program;
mod record;
mod stage;
mod text;

use std::cell::RefCell;
use std::path::PathBuf;

use ukc_analyze::DirCache;
use ukc_build::Step;
use ukc_diagnostics::{Diagnostic, SourceMap};
use ukc_oci::Store;
use ukc_policy::Policy;
use ukc_sandbox::{RunEvent, Sandbox};

pub use assemble::Assembled;
pub use container::{Container, ContainerImage, said};
pub use explanation::Explanation;
pub use guest::{GuestWish, UNSERVED};
pub use network::Network;
pub use program::{Checked, check_program, judge};
pub use record::{signal_number, stop_signal_number};
pub use stage::Stage;
pub use text::config_text;
pub use ukc_image::machine;
pub use ukc_select::{Recommended, Verdict};
pub use {
    ukc_build as build, ukc_dockerfile as dockerfile, ukc_fetch as fetch, ukc_image_json as image_json, ukc_oci as oci,
    ukc_sandbox as sandbox,
};

/// What to compile.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the Dockerfile is called in messages: as the user wrote it.
    pub dockerfile_name: String,
    /// Its bytes.
    pub dockerfile: Vec<u8>,
    /// Context, target, arguments, labels.
    pub options: ukc_build::Options,
    /// Directory of the content store.
    pub store: PathBuf,
    /// What RUN is given: secrets, agents, certificates.
    pub runs: ukc_sandbox::Config,
    /// Directory of the summaries that the analysis keeps; `None` keeps none.
    pub analysis_cache: Option<PathBuf>,
    /// Returns the kernel's module archive; called only when a kernel is linked.
    pub archive: fn() -> &'static [u8],
    /// System calls that the kernel must have though the analysis does not find them.
    pub extra_syscalls: Vec<String>,
    /// Modules, likewise.
    pub extra_modules: Vec<String>,
    /// The guest that the user wants.
    pub guest: GuestWish,
    /// Whether a program that the libOS may not serve fails the build.
    pub is_strict: bool,
    /// What the image must not be.
    pub policies: Vec<Policy>,
    /// Whether the result is wanted as a container, too.
    pub wants_container: bool,
    /// Stages whose text is wanted.
    pub emit: Vec<Stage>,
    /// The last stage to run.
    pub last: Stage,
}

/// Hears what is being done.
pub trait Progress {
    /// Step `number` of `total` begins, and the one before it has ended. Answering `false` gives the build up.
    fn begin(&mut self, number: usize, total: usize, what: &str) -> bool;

    /// The step is a RUN and printed something, or was done before.
    fn ran(&mut self, event: RunEvent<'_>) {
        let _ = event;
    }

    /// Whether a RUN is to be stopped.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// What came of a request.
#[derive(Debug)]
pub struct Compiled {
    /// Warnings, in the order of the stages.
    pub warnings: Vec<Diagnostic>,
    /// The text forms that were asked for, in the order of the stages; [`Stage::Image`]'s is the document that [`Assembled::write`] returns.
    pub texts: Vec<(Stage, String)>,
    /// Everything for an image, when the request went that far.
    pub image: Option<Assembled>,
    /// What docker would make of it, when [`Request::wants_container`] asks for that.
    pub container: Option<Container>,
}

/// Steps after the graph's: analyze, link, write.
const STEPS_BEHIND: usize = 3;

/// Runs the pipeline. The Dockerfile, and texts that diagnostics point into, are added to `sources`.
///
/// # Errors
/// Every error that the first failing stage found, with the warnings before it.
pub fn compile(request: &Request, sources: &mut SourceMap, progress: &mut dyn Progress) -> Result<Compiled, Vec<Diagnostic>> {
    let mut out = Compiled { warnings: vec![], texts: vec![], image: None, container: None };
    let file = sources.add(&request.dockerfile_name, request.dockerfile.clone());

    let parsed = ukc_dockerfile::parse(file, &request.dockerfile);
    if out.has_ended(Stage::Ast, request, || parsed.to_text()) {
        return out.with_all(parsed.diagnostics);
    }
    let store = Store::open(&request.store).map_err(|e| vec![stage::store_problem(&e)])?;
    let is_parsed = parsed.is_ok();
    let lowered = ukc_build::lower(&parsed, sources, &request.options, &store);
    if is_parsed {
        out.warnings.extend(parsed.diagnostics);
    }
    let lowered = lowered.map_err(|errors| out.failed(errors))?;
    if out.has_ended(Stage::Graph, request, || lowered.graph.to_text()) {
        return out.with_all(lowered.diagnostics);
    }

    let mut inputs = document::inputs(request, &lowered.graph);
    let behind = if request.last > Stage::Rootfs { STEPS_BEHIND } else { 0 };
    let total = lowered.graph.uses().iter().filter(|n| **n > 0).count() + behind;
    let words = stage::step_words(&lowered.graph, sources);
    let mut number = 0;
    let shared = RefCell::new(&mut *progress);
    let mut begin = |_: &Step| {
        number += 1;
        shared.borrow_mut().begin(number, total, words.get(number - 1).map_or("", String::as_str))
    };
    let on_event = |event: RunEvent<'_>| shared.borrow_mut().ran(event);
    let mut runner = Sandbox::new(&request.store, request.runs.clone(), on_event, || shared.borrow().is_cancelled());
    let built = ukc_build::execute_with(lowered, sources, &request.options, &store, &mut begin, &mut runner);
    drop(runner);
    let built = built.map_err(|errors| out.failed(errors))?;
    out.warnings.extend(built.diagnostics.iter().cloned());
    out.container = request.wants_container.then(|| Container::new(&built, request.options.epoch()));
    if out.has_ended(Stage::Rootfs, request, || config_text(&built.config) + &built.tree.to_text()) {
        return Ok(out);
    }

    stage::go_on(progress.begin(total - 2, total, "analyze the programs")).map_err(|e| out.failed(e))?;
    let cache = request.analysis_cache.as_ref().map(DirCache::new);
    let facts = stage::analyze(&built, cache.as_ref()).map_err(|errors| out.failed(errors))?;
    out.warnings.extend(facts.warnings.iter().cloned());
    if out.has_ended(Stage::Facts, request, || facts.to_text()) {
        return Ok(out);
    }

    stage::go_on(progress.begin(total - 1, total, "link the kernel")).map_err(|e| out.failed(e))?;
    let archive = (request.archive)();
    inputs.push(document::kernel_input(archive));
    let plan = stage::select(request, !built.config.volumes.is_empty(), &facts, archive).map_err(|error| out.failed(vec![error]))?;
    let verdict = ukc_select::choose(&facts, &plan);
    let (told, refused): (Vec<_>, Vec<_>) = guest::judge(request, &verdict, &plan).into_iter().partition(|d| !d.is_error());
    out.warnings.extend(told);
    if !refused.is_empty() {
        return Err(out.failed(refused));
    }
    if out.has_ended(Stage::Plan, request, || plan.to_text()) {
        return Ok(out);
    }
    let record = record::boot_record(&built.config, &facts).map_err(|error| out.failed(vec![error]))?;
    let kernel = stage::link(&plan, archive, &record).map_err(|error| out.failed(vec![error]))?;
    if out.has_ended(Stage::Map, request, || kernel.map.clone()) {
        return Ok(out);
    }

    stage::go_on(progress.begin(total, total, "write the image")).map_err(|e| out.failed(e))?;
    let analysis = Explanation::new(&facts, &plan).to_json();
    let facts = document::document(&built.config, &built.tree, &facts, &plan, &verdict, &kernel, inputs);
    let forbidden: Vec<Diagnostic> = request.policies.iter().flat_map(|policy| policy.check(&facts)).collect();
    if !forbidden.is_empty() {
        return Err(out.failed(forbidden));
    }
    out.image = Some(Assembled { tree: built.tree, kernel, analysis, facts });
    Ok(out)
}

impl Compiled {
    /// Notes the text of a stage if it is wanted, and returns whether it was the last.
    fn has_ended(&mut self, stage: Stage, request: &Request, text: impl FnOnce() -> String) -> bool {
        if request.emit.contains(&stage) {
            self.texts.push((stage, text()));
        }
        request.last <= stage
    }

    /// The result of a run that ended early with these diagnostics, which may be errors.
    fn with_all(mut self, found: Vec<Diagnostic>) -> Result<Compiled, Vec<Diagnostic>> {
        self.warnings.extend(found);
        if self.warnings.iter().any(Diagnostic::is_error) { Err(self.warnings) } else { Ok(self) }
    }

    fn failed(&mut self, errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let mut all = std::mem::take(&mut self.warnings);
        all.extend(errors);
        all
    }
}
