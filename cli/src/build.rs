//! `ukc build`: the flags become a request, the driver compiles it, and the image goes to the store or to a directory.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ukc_config::Config;
use ukc_diagnostics::{Diagnostic, SourceMap};
use ukc_driver::build::{NamedContext, Options, Remote};
use ukc_driver::dockerfile::outline;
use ukc_driver::fetch::Cancel;
use ukc_driver::image_json::Image;
use ukc_driver::oci::registry::{RegistryError, Settings};
use ukc_driver::output::{Output, OutputKind};
use ukc_driver::{Assembled, Compiled, GuestWish, Network, Request, Stage, compile};
use ukc_store::{ImageStore, Name};

use crate::args::{BuildArgs, Call, Source};
use crate::containers::{Metadata, Writer};
use crate::interrupt::Interrupt;
use crate::network::{self, Transfers};
use crate::progress::Display;
use crate::report::{self, FAILED, Failure, NETWORK, UNSUPPORTED};
use crate::{outputs, places, steps, units};

/// Names of Dockerfiles in a context, in the order in which they are looked for.
const FILE_NAMES: [&str; 2] = ["Dockerfile", "Containerfile"];

/// Runs the command.
pub fn command(args: BuildArgs, config: &Config) -> Result<u8, Failure> {
    let names: Vec<Name> = args.tags.iter().map(|t| Name::parse(t)).collect::<Result<_, _>>().map_err(|e| Failure::usage(e.to_string()))?;
    outputs::check(&args.outputs, !names.is_empty())?;
    warn_of_ignored(&args.source, args.memory.is_some().then_some("--memory"));
    let interrupt = Interrupt::listen()?;
    let mut display = Display::new(args.source.progress, args.quiet, &interrupt);
    let prepared = Prepared::new(&args.path, &args.source, config, interrupt.cancel(), display.transfers())?;
    let is_check = args.check || args.call == Some(Call::Check);
    if let Some(call @ (Call::Outline | Call::Targets)) = args.call {
        return describe(call, &prepared.request);
    }
    let (machines, containers): (Vec<Output>, Vec<Output>) = args.outputs.iter().cloned().partition(|o| o.kind.needs_kernel());
    let is_container_only = machines.is_empty() && !containers.is_empty();
    let last = match (is_check, args.emit.iter().max()) {
        (true, _) => Stage::Graph,
        (false, Some(last)) => *last,
        (false, None) if is_container_only => Stage::Rootfs,
        (false, None) => Stage::Image,
    };
    let mut sources = SourceMap::default();
    let mut request = Request { emit: args.emit.clone(), last, wants_container: !containers.is_empty(), ..prepared.request };
    request.options.keep_layers = containers.iter().any(|o| !matches!(o.kind, OutputKind::Tar | OutputKind::Local));
    let compiled = compile(&request, &mut sources, &mut display);
    if is_check {
        display.finish();
        return check(&sources, compiled);
    }
    let compiled = compiled.map_err(|found| failed(&mut display, &interrupt, &sources, &found))?;
    let written = compiled.image.as_ref().map(|image| match args.outputs.is_empty() {
        true => write_to_store(image, &names, &interrupt).map(Some),
        false if machines.is_empty() => Ok(None),
        false => outputs::write(image, &machines, &interrupt).map(Some),
    });
    let written = written.transpose().map(Option::flatten);
    let mut metadata = Metadata::default();
    let sent = match &compiled.container {
        Some(container) if written.is_ok() => {
            let registries = network::client(settings(&args.source, config, interrupt.cancel())?, display.transfers());
            let writer = Writer { container, tags: &args.tags, registries, store: &request.store, interrupt: &interrupt };
            containers.iter().try_for_each(|output| writer.write(output, &mut metadata))
        }
        _ => Ok(()),
    };
    let time = display.finish();
    interrupt.check()?;
    report::diagnostics(&sources, &compiled.warnings);
    let written = written?;
    sent?;
    if let Some(path) = &args.metadata_file {
        let mut document = metadata.to_json();
        if let Some(written) = &written {
            document["ukc.image.id"] = serde_json::json!(written.id);
            document["ukc.image"] = serde_json::to_value(&written.image).unwrap_or_default();
        }
        std::fs::write(path, report::json(&document)?).map_err(|e| Failure::new(format!("cannot write `{}`: {e}", path.display())))?;
    }
    if let (Some(path), None) = (&args.iidfile, &written) {
        std::fs::write(path, metadata.config.as_deref().unwrap_or_default())
            .map_err(|e| Failure::new(format!("cannot write `{}`: {e}", path.display())))?;
    }
    if let Some(written) = &written {
        if !args.quiet {
            display.say(&summary(&written.image, &names, time));
        }
        if let Some(path) = &args.iidfile {
            let id = written.id.as_deref().unwrap_or_default();
            std::fs::write(path, id).map_err(|e| Failure::new(format!("cannot write `{}`: {e}", path.display())))?;
        }
    }
    print(&args, compiled, written)
}

/// Prints the results: texts that were asked for, else the image's id or directory.
fn print(args: &BuildArgs, compiled: Compiled, written: Option<Written>) -> Result<u8, Failure> {
    let mut texts = compiled.texts;
    if let Some(written) = &written
        && args.emit.contains(&Stage::Image)
    {
        texts.push((Stage::Image, written.image.to_json()));
    }
    if texts.is_empty() {
        let result = written.map(|w| w.id.unwrap_or_else(|| w.dir.display().to_string()));
        return report::output(&result.map(|r| r + "\n").unwrap_or_default()).map(|()| 0);
    }
    let has_heads = texts.len() > 1;
    for (stage, text) in texts {
        if has_heads {
            report::output(&format!("# {stage}\n"))?;
        }
        report::output(&text)?;
    }
    Ok(0)
}

/// `--call=outline` and `--call=targets`: what the Dockerfile offers.
fn describe(call: Call, request: &Request) -> Result<u8, Failure> {
    let mut sources = SourceMap::default();
    let file = sources.add(&request.dockerfile_name, request.dockerfile.clone());
    let parsed = ukc_driver::dockerfile::parse(file, &request.dockerfile);
    if !parsed.is_ok() {
        report::diagnostics(&sources, &parsed.diagnostics);
        return Err(Failure::new("the Dockerfile cannot be read"));
    }
    let options = &request.options;
    let target = match &options.target {
        Some(name) => parsed.stage(name).ok_or_else(|| Failure::new(format!("there is no stage `{name}`")))?,
        None => parsed.stages.len().saturating_sub(1),
    };
    let value = |name: &str| options.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    report::output(&match call {
        Call::Targets => outline::targets(&parsed),
        _ => outline::outline(&parsed, target, &value),
    })?;
    Ok(0)
}

/// `--check`: everything that is wrong with the Dockerfile.
fn check(sources: &SourceMap, compiled: Result<Compiled, Vec<Diagnostic>>) -> Result<u8, Failure> {
    let found = compiled.map_or_else(|found| found, |compiled| compiled.warnings);
    report::diagnostics(sources, &found);
    if found.is_empty() {
        report::output("check complete, no warnings found\n")?;
        return Ok(0);
    }
    Err(Failure::new(format!("check complete, {} found", counted(&found))))
}

/// Returns `2 errors and 1 warning`.
fn counted(found: &[Diagnostic]) -> String {
    let errors = found.iter().filter(|d| d.is_error()).count();
    let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    match (errors, found.len() - errors) {
        (errors, 0) => count(errors, "error"),
        (0, warnings) => count(warnings, "warning"),
        (errors, warnings) => format!("{} and {}", count(errors, "error"), count(warnings, "warning")),
    }
}

/// Shows why a build failed.
pub fn failed(display: &mut Display<'_>, interrupt: &Interrupt, sources: &SourceMap, found: &[Diagnostic]) -> Failure {
    display.finish();
    if let Err(interrupted) = interrupt.check() {
        return interrupted;
    }
    report::diagnostics(sources, found);
    let is_network = |d: &Diagnostic| RegistryError::NAMES.contains(&d.name);
    let is_all_network = found.iter().any(Diagnostic::is_error) && found.iter().filter(|d| d.is_error()).all(is_network);
    let status = match found.iter().any(|d| d.is_error() && d.name == ukc_driver::UNSERVED) {
        true => UNSUPPORTED,
        false if is_all_network => NETWORK,
        false => FAILED,
    };
    Failure { status, message: format!("the build failed: {}", counted(found)) }
}

/// An image on disk.
pub struct Written {
    /// Its document.
    pub image: Image,
    /// Its directory.
    pub dir: PathBuf,
    /// `sha256:…`, when it is in the store.
    pub id: Option<String>,
}

/// Returns what a failed writing to `place` is called, unless it was interrupted.
pub fn write_failure(error: &dyn std::fmt::Display, place: &Path, interrupt: &Interrupt) -> Failure {
    // What fails in the middle of a file does not know its name.
    let (text, place) = (error.to_string(), place.display().to_string());
    let text = if text.contains(&place) { text } else { format!("{text}; the image was to go to `{place}`") };
    interrupt.check().err().unwrap_or_else(|| Failure::new(text))
}

/// Writes an image to the store, under `names`.
pub fn write_to_store(image: &Assembled, names: &[Name], interrupt: &Interrupt) -> Result<Written, Failure> {
    let root = places::data()?;
    let store = ImageStore::open(&root)?;
    let staging = store.begin()?;
    let document = image.write(&staging.path(), &|| interrupt.is_set()).map_err(|e| write_failure(&e, &root, interrupt))?;
    interrupt.check()?;
    let id = store.commit(staging, names)?;
    Ok(Written { image: document, dir: store.find(&id)?.dir, id: Some(format!("sha256:{id}")) })
}

/// Returns the line that ends a build.
fn summary(image: &Image, names: &[Name], time: std::time::Duration) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let root = image.artefacts.iter().find(|a| a.name.as_str() == "rootfs.ext4").map_or(0, |a| a.len_bytes);
    format!(
        "built {}in {}: kernel {}, root {}, {} modules",
        if names.is_empty() { String::new() } else { names.join(", ") + " " },
        units::duration(time),
        units::size(image.kernel.len_bytes),
        units::size(root),
        image.modules.len(),
    )
}

/// Mentions flags that docker has and that mean nothing here, once.
pub fn warn_of_ignored(source: &Source, further: Option<&'static str>) {
    let ignored: Vec<&str> = source.ignored.given().into_iter().chain(further).collect();
    if !ignored.is_empty() {
        report::warning(&format!(
            "{} {} no meaning here and {} ignored",
            ignored.join(", "),
            verb(&ignored, "has", "have"),
            verb(&ignored, "is", "are")
        ));
    }
}

fn verb<'a>(of: &[&str], one: &'a str, many: &'a str) -> &'a str {
    if of.len() == 1 { one } else { many }
}

/// A request, with the empty directory that is the context of a Dockerfile from standard input.
pub struct Prepared {
    /// What to compile.
    pub request: Request,
    _empty: Option<tempfile::TempDir>,
}

impl Prepared {
    /// Turns flags into a request.
    pub fn new(path: &Path, source: &Source, config: &Config, cancel: Cancel, transfers: &Transfers) -> Result<Prepared, Failure> {
        let text = path.to_string_lossy();
        if ["https://", "http://", "git://", "ssh://", "git@"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(Failure::new(format!("`{text}`: remote contexts are not supported yet; fetch it and give its directory")));
        }
        if let Some(platform) =
            source.platform.as_deref().filter(|p| !matches!(*p, "linux/amd64" | "linux/x86_64" | "linux/amd64/v1" | "amd64"))
        {
            return Err(Failure { status: 3, message: format!("images for `{platform}` are not supported; ukc makes linux/amd64 images") });
        }
        let (context, empty) = if path == Path::new("-") {
            if source.file.is_some() {
                return Err(Failure::usage("with `-` as the context, the Dockerfile is read from standard input: leave `--file` out"));
            }
            let dir = tempfile::tempdir().map_err(|e| Failure::new(format!("cannot make a temporary directory: {e}")))?;
            (dir.path().to_owned(), Some(dir))
        } else {
            (path.to_owned(), None)
        };
        if !context.is_dir() {
            let what = if context.exists() { "is not a directory" } else { "does not exist" };
            return Err(Failure::new(format!("the build context `{}` {what}", context.display())));
        }
        let (dockerfile_name, on_disk, dockerfile) = dockerfile(&context, source, empty.is_some())?;
        let options = Options {
            dockerfile: on_disk,
            target: source.target.clone(),
            build_args: build_args(&source.build_args),
            named_contexts: source
                .build_contexts
                .iter()
                .map(|c| NamedContext::parse(c))
                .collect::<Result<_, _>>()
                .map_err(Failure::usage)?,
            labels: source.labels.iter().map(|l| label(l)).collect::<Result<_, _>>()?,
            source_date_epoch: epoch()?,
            run: steps::options(source)?,
            remote: Some(remote(source, config, cancel, transfers)?),
            ..Options::new(context)
        };
        let cache = places::cache()?;
        let request = Request {
            dockerfile_name,
            dockerfile,
            options,
            store: cache.join("content"),
            runs: steps::surroundings(source)?,
            analysis_cache: Some(cache.join("analysis")),
            archive: ukc_runtime_libos::archive,
            extra_syscalls: source.syscalls.clone(),
            extra_modules: source.modules.clone(),
            guest: source.guest.map_or(GuestWish::Auto, Into::into),
            is_strict: source.strict,
            wants_container: false,
            policies: config.policies.clone(),
            emit: vec![],
            last: Stage::Image,
        };
        Ok(Prepared { request, _empty: empty })
    }
}

/// Returns what gets things from other machines.
fn remote(source: &Source, config: &Config, cancel: Cancel, transfers: &Transfers) -> Result<Arc<dyn Remote>, Failure> {
    Ok(Arc::new(Network::new(network::client(settings(source, config, cancel)?, transfers))))
}

/// Returns how registries are reached in this build.
fn settings(source: &Source, config: &Config, cancel: Cancel) -> Result<Settings, Failure> {
    Ok(Settings { cancel, always_resolve: source.pull, ..source.network_args.settings(config)? })
}

/// Returns the Dockerfile's name for messages, its path if it has one, and its bytes.
fn dockerfile(context: &Path, source: &Source, is_context_stdin: bool) -> Result<(String, Option<PathBuf>, Vec<u8>), Failure> {
    if is_context_stdin || source.file.as_deref() == Some(Path::new("-")) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?;
        return Ok(("Dockerfile".to_owned(), None, bytes));
    }
    let path = match &source.file {
        Some(file) => file.clone(),
        None => FILE_NAMES.iter().map(|name| context.join(name)).find(|p| p.exists()).ok_or_else(|| {
            let dir = context.display();
            Failure::new(format!("`{dir}` has neither a Dockerfile nor a Containerfile; name the file with `-f`"))
        })?,
    };
    let bytes = std::fs::read(&path).map_err(|e| Failure::new(format!("cannot read `{}`: {e}", path.display())))?;
    let shown = path.strip_prefix(".").unwrap_or(&path).display().to_string();
    Ok((shown, Some(path), bytes))
}

/// `NAME=VALUE`; `NAME` alone takes the environment's value, and is left out when there is none.
fn build_args(given: &[String]) -> Vec<(String, String)> {
    let split = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    given.iter().filter_map(split).collect()
}

fn label(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some(("", _)) => Err(Failure::usage(format!("`{text}`: a label needs a name"))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Ok((text.to_owned(), String::new())),
    }
}

/// Reads `SOURCE_DATE_EPOCH` (reproducible-builds.org).
fn epoch() -> Result<Option<i64>, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(epoch) => Ok(Some(epoch)),
            Err(_) => Err(Failure::usage(format!("SOURCE_DATE_EPOCH is `{text}`, which is no number of seconds"))),
        },
        _ => Ok(None),
    }
}
