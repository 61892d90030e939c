//! One file: text → [`Config`], or the first thing that is wrong with it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use ukc_diagnostics::{Diagnostic, FileId, Span};
use ukc_policy::Policy;

use crate::value::texts;
use crate::{Config, Registry, Setting};

/// The tables of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    build: Settings,
    #[serde(default)]
    run: Settings,
    policy: Option<Policy>,
    #[serde(default)]
    registries: BTreeMap<String, Registry>,
}

type Settings = BTreeMap<Spanned<String>, Spanned<toml::Value>>;

/// Parses a file of this directory.
///
/// # Errors
/// Where it is no TOML, a table or field has a name that is none, or a value a wrong type.
pub fn parse(id: FileId, bytes: &[u8], directory: &Path) -> Result<Config, Diagnostic> {
    let wrong = |span: Span, message: &str| Diagnostic::error("configuration", message.trim_end().replace('\n', "; ")).at(span, "");
    let span_of = |range: std::ops::Range<usize>| Span { file: id, start: offset(range.start), end: offset(range.end) };
    let text = std::str::from_utf8(bytes).map_err(|e| wrong(span_of(e.valid_up_to()..e.valid_up_to() + 1), "this is not UTF-8"))?;
    let file: File = toml::from_str(text).map_err(|e| wrong(span_of(e.span().unwrap_or(0..0)), e.message()))?;
    let mut config = Config::default();
    for (command, settings) in [("build", file.build), ("run", file.run)] {
        for (flag, value) in settings {
            let span = span_of(flag.span());
            let values = texts(value.get_ref()).ok_or_else(|| {
                wrong(span_of(value.span()), "a setting is a text, a number, true or false, a list of these, or a table of NAME = value")
            })?;
            let setting = Setting { values, span, directory: directory.to_owned() };
            config.settings.insert((command.to_owned(), flag.into_inner()), setting);
        }
    }
    config.policies.extend(file.policy);
    config.registries = file.registries;
    for registry in config.registries.values_mut() {
        registry.ca = registry.ca.take().map(|path| directory.join(path));
    }
    Ok(config)
}

/// Spans have 32 bits; a configuration file that is longer is shown without its place.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(0)
}
