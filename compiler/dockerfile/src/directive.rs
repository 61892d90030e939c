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
use crate::expand::part_of;
use crate::lint::RULES;
use ukc_diagnostics::{Diagnostic, Severity, Span, suggest};

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

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// The directive block while it is read.
pub(crate) struct Block {
    pub directives: Directives,
    is_open: bool,
    seen: Vec<(&'static str, Span)>,
}

impl Block {
    pub(crate) fn new(is_open: bool) -> Block {
        Block { directives: Directives::default(), is_open, seen: vec![] }
    }

    /// A line that is no comment ends the block.
    pub(crate) fn end(&mut self) {
        self.is_open = false;
    }

    /// Takes a comment line, from its `#` on; returns whether it is a directive.
    pub(crate) fn line(&mut self, line: &Word, problems: &mut Vec<Diagnostic>) -> bool {
        let Some((name, value)) = split(line).filter(|_| self.is_open) else {
            self.is_open = false;
            return false;
        };
        if let Some((_, first)) = self.seen.iter().find(|(seen, _)| *seen == name) {
            let problem = Diagnostic::error("duplicate-directive", format!("the directive `{name}` is given twice"));
            problems.push(problem.at(line.span, "").at(*first, "first given here"));
            return true;
        }
        self.seen.push((name, line.span));
        match name {
            "syntax" => self.directives.syntax = Some(value),
            "escape" => match value.value.as_str() {
                "\\" => self.directives.escape = '\\',
                "`" => self.directives.escape = '`',
                other => {
                    let problem = Diagnostic::error("invalid-escape", format!("`{other}` cannot be the escape character"));
                    problems.push(problem.at(value.span, "").help("it is either `\\` or a backquote"));
                }
            },
            _ => self.directives.check = check(&value, problems),
        }
        true
    }
}

/// Splits `#  name = value  `; `None` if it has not this form or the name is unknown.
fn split(line: &Word) -> Option<(&'static str, Word)> {
    let text = line.as_str();
    let (name, value) = text.strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let name = NAMES.into_iter().find(|n| *n == name)?;
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    let start = value.as_ptr() as usize - text.as_ptr() as usize;
    Some((name, Word { value: value.to_string(), span: part_of(line, start..start + value.len()) }))
}

/// Parses `skip=A,B;error=true;experimental=C`.
fn check(value: &Word, problems: &mut Vec<Diagnostic>) -> Check {
    let mut check = Check::default();
    let text = value.as_str();
    for option in text.split(';').filter(|o| !o.trim().is_empty()) {
        let start = option.as_ptr() as usize - text.as_ptr() as usize;
        let span = part_of(value, start..start + option.len());
        let (key, setting) = match option.split_once('=') {
            Some((key, setting)) => (key.trim(), setting.trim()),
            None => (option.trim(), ""),
        };
        match key {
            "skip" | "experimental" => {
                let (all, list) = match key {
                    "skip" => (&mut check.skip_all, &mut check.skip),
                    _ => (&mut check.experimental_all, &mut check.experimental),
                };
                for rule in setting.split(',').map(str::trim).filter(|r| !r.is_empty()) {
                    if rule == "all" {
                        *all = true;
                    } else if !RULES.iter().any(|known| known.eq_ignore_ascii_case(rule)) {
                        let close = suggest::closest(rule, RULES).map(|close| format!("did you mean `{close}`?"));
                        let mut problem = Diagnostic::warning("unknown-check", format!("there is no build check `{rule}`")).at(span, "");
                        problem.help.extend(close);
                        problems.push(problem);
                    }
                    list.push(rule.to_lowercase());
                }
            }
            "error" => match setting {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => check.error = true,
                "false" | "0" | "f" | "F" | "FALSE" | "False" => check.error = false,
                other => problems.push(Diagnostic::error("invalid-check", format!("`{other}` is neither `true` nor `false`")).at(span, "")),
            },
            other => {
                let problem = Diagnostic::error("invalid-check", format!("unknown option `{other}` of the directive `check`"));
                problems.push(problem.at(span, "").help("the options are `skip`, `error` and `experimental`, separated by `;`"));
            }
        }
    }
    check
}
