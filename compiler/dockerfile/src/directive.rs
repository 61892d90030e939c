//! Parser directives: `# name=value` comments that stand before everything else.
//!
//! ```text
//! # syntax=docker/dockerfile:1
//! # escape=`
//! # check=skip=StageNameCasing,UndefinedVar;error=true
//! ```
//!
//! The block ends at the first line that is not a known directive, an ordinary comment and a blank line included (dockerfile reference, "Parser
//! directives"). Names are case-insensitive; a repeated one is an error.

use crate::ast::Word;
use ukc_diagnostics::{Diagnostic, Severity};

/// What the directives of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the front end the file asks for.
    pub syntax: Option<Word>,
    /// `# escape=`: the character that continues lines and escapes others, `\` or `` ` ``.
    pub escape: char,
    /// `# check=`: which build checks to skip, and whether the others are errors.
    pub check: Check,
}

impl Default for Directives {
    fn default() -> Directives {
        Directives { syntax: None, escape: '\\', check: Check::default() }
    }
}

/// How the build checks (lint rules) of a file are configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// `skip=all`.
    pub skip_all: bool,
    /// `skip=Rule,...`, lower-cased.
    pub skip: Vec<String>,
    /// `experimental=all`.
    pub experimental_all: bool,
    /// `experimental=Rule,...`, lower-cased: rules that are off by default and wanted here.
    pub experimental: Vec<String>,
    /// `error=true`: a finding ends the build.
    pub error: bool,
}

/// Rules that only run when asked for (BuildKit marks them `Experimental`).
const EXPERIMENTAL: [&str; 2] = ["CopyIgnoredFile", "InvalidDefinitionDescription"];

impl Check {
    /// Whether the rule of this name applies to the file.
    pub fn is_on(&self, rule: &str) -> bool {
        let lower = rule.to_lowercase();
        if EXPERIMENTAL.contains(&rule) && !self.experimental_all && !self.experimental.contains(&lower) {
            return false;
        }
        !self.skip_all && !self.skip.contains(&lower)
    }

    /// Passes a finding of a rule through the configuration: `None` if the rule is skipped, an error if findings are errors. A later stage that has
    /// rules of its own (UndefinedVar, CopyIgnoredFile, ...) sends its findings through here too.
    pub fn admit(&self, finding: Diagnostic) -> Option<Diagnostic> {
        if !self.is_on(finding.name) {
            return None;
        }
        let severity = if self.error { Severity::Error } else { finding.severity };
        Some(Diagnostic { severity, ..finding })
    }
}
