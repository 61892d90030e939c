//! What ukc makes of a case.

use std::cell::RefCell;

use ukc_build::{NamedContext, Options, execute_with, lower};
use ukc_diagnostics::{Diagnostic, SourceMap, render};
use ukc_oci::Store;
use ukc_sandbox::{Config, RunEvent, Sandbox, Secret};

use crate::base::Bases;
use crate::case::Prepared;
use crate::text;

/// Builds a case; the lines of its result, or why there is none.
///
/// # Errors
/// The rendered diagnostics and what commands printed.
pub fn build(case: &Prepared, bases: &Bases, names: &[String], store: &Store, store_dir: &std::path::Path) -> Result<Vec<String>, String> {
    let mut options = Options::new(&case.context);
    options.dockerfile = Some(case.dockerfile.clone());
    options.target = case.target.clone();
    options.build_args = case.build_args.clone();
    options.labels = case.labels.clone();
    for (name, base) in names.iter().filter_map(|name| Some((name, bases.get(name)?))) {
        let context = format!("{name}=oci-layout://{}", base.layout.display());
        options.named_contexts.push(NamedContext::parse(&context)?);
    }
    for context in &case.contexts {
        options.named_contexts.push(NamedContext::parse(context)?);
    }
    let bytes = std::fs::read(&case.dockerfile).map_err(|e| e.to_string())?;
    let mut sources = SourceMap::default();
    let file = sources.add("Dockerfile", bytes.clone());
    let parsed = ukc_dockerfile::parse(file, &bytes);
    let log = RefCell::new(String::new());
    let on_event = |event: RunEvent<'_>| {
        if let RunEvent::Output(bytes) = event {
            log.borrow_mut().push_str(&String::from_utf8_lossy(bytes));
        }
    };
    let config = Config {
        secrets: case.secrets.iter().map(|(id, path)| (id.clone(), Secret::File(path.clone()))).collect(),
        ca_bundle: std::env::var_os("UKC_CORPUS_CA_BUNDLE").map(Into::into),
        ..Config::default()
    };
    let mut sandbox = Sandbox::new(store_dir, config, on_event, || false);
    let built = lower(&parsed, &mut sources, &options, store)
        .and_then(|lowered| execute_with(lowered, &mut sources, &options, store, &mut |_| true, &mut sandbox));
    drop(sandbox);
    let built = built.map_err(|problems: Vec<Diagnostic>| {
        let text: Vec<String> = problems.iter().map(|d| render(&sources, d, false)).collect();
        format!("{}\n{}", log.borrow(), text.join("\n"))
    })?;
    let mut lines = text::config(&built.config);
    lines.extend(text::tree(&built.tree, case.base_tree(bases))?);
    Ok(lines)
}
