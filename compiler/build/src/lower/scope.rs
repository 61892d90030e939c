//! Variables at a point of a stage.
//!
//! ENV and ARG share one set of names while building, and the later one wins; only ENV reaches the image's configuration. That is BuildKit's model
//! (`dispatchArg`, `dispatchEnv`): it makes an ENV win over an ARG before it, and an ARG with a value win over an ENV before it, for build steps.

use std::collections::BTreeSet;

use ukc_diagnostics::Diagnostic;
use ukc_dockerfile::{Heredoc, Word, expand, lint};
use ukc_rootfs::ImageConfig;

use super::{Lower, StageState};

/// Names and values; the last value of a name counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => *v = value.to_owned(),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(n, _)| n.as_str())
    }
}

/// The variables of a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// What expansion sees.
    pub variables: Variables,
    /// ARGs of this stage, with or without a value: using one that is unset is no mistake.
    pub declared: BTreeSet<String>,
}

impl Scope {
    /// Returns the scope at the start of a stage whose base has this configuration.
    pub fn of(config: &ImageConfig) -> Scope {
        Scope { variables: Variables(config.env.clone()), declared: BTreeSet::new() }
    }
}

/// Expands a word of FROM.
pub(super) fn expand_global(word: &Word, escape: char, globals: &Variables) -> Result<expand::Expansion, Diagnostic> {
    expand::word(word, escape, &|name| globals.get(name).map(str::to_owned))
}

impl Lower<'_> {
    /// Expands a word of an instruction to one string; trouble is reported, and `None` returned.
    pub(super) fn expand(&mut self, state: &StageState, word: &Word, escape: char) -> Option<String> {
        self.expansion(state, word, escape).map(|e| e.text)
    }

    /// As [`Lower::expand`], with all that is known about the expansion.
    pub(super) fn expansion(&mut self, state: &StageState, word: &Word, escape: char) -> Option<expand::Expansion> {
        match expand::word(word, escape, &|name| state.scope.variables.get(name).map(str::to_owned)) {
            Ok(expansion) => {
                self.report_undefined(state, word, &expansion.unset);
                Some(expansion)
            }
            Err(diagnostic) => {
                self.problems.push(diagnostic);
                None
            }
        }
    }

    /// Expands the body of a COPY or ADD heredoc.
    pub(super) fn expand_heredoc(&mut self, state: &StageState, doc: &Heredoc) -> Option<String> {
        match expand::heredoc(doc, &|name| state.scope.variables.get(name).map(str::to_owned)) {
            Ok(expansion) => {
                self.report_undefined(state, &doc.body, &expansion.unset);
                Some(expansion.text)
            }
            Err(diagnostic) => {
                self.problems.push(diagnostic);
                None
            }
        }
    }

    fn report_undefined(&mut self, state: &StageState, word: &Word, unset: &BTreeSet<String>) {
        for name in unset {
            // A base that could not be read may well have set it. With an operator (`${name:-x}`) being unset is provided for.
            let is_plain = word.value.contains(&format!("${{{name}}}")) || plain_use(&word.value, name);
            if state.is_broken || state.scope.declared.contains(name) || !is_plain || !self.undefined.insert((word.span, name.clone())) {
                continue;
            }
            let finding = lint::undefined_var(word, name, state.scope.variables.names());
            self.problems.extend(self.parsed.directives.check.admit(finding));
        }
    }
}

/// Whether `$name` stands in a text without braces.
fn plain_use(text: &str, name: &str) -> bool {
    let pattern = format!("${name}");
    text.match_indices(&pattern).any(|(at, _)| !text[at + pattern.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}
