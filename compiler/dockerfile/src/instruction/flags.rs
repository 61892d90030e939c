//! `--name` and `--name=value` of an instruction, checked against what it knows.

use super::Cursor;
use crate::ast::{Spanned, Word};
use ukc_diagnostics::{Span, suggest};

/// A flag an instruction knows.
pub(super) struct Spec {
    pub name: &'static str,
    pub kind: Kind,
}

/// What values it takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--link`, `--link=true`, `--link=false`.
    Bool,
    /// Exactly one value.
    One,
    /// May be repeated.
    Many,
}

impl Spec {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Spec {
        Spec { name, kind }
    }
}

/// The flags given.
pub(super) struct Flags {
    given: Vec<(&'static str, Option<Word>, Span)>,
}

impl Flags {
    /// The value of a flag given once.
    pub(super) fn one(&self, name: &str) -> Option<Word> {
        self.given.iter().find(|(given, ..)| *given == name).and_then(|(_, value, _)| value.clone())
    }

    /// The values of a repeatable flag.
    pub(super) fn many(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|(given, ..)| *given == name).filter_map(|(_, value, _)| value.clone()).collect()
    }

    /// A switch: `None` if not given.
    pub(super) fn switch(&self, name: &str) -> Option<Spanned<bool>> {
        let (_, value, span) = self.given.iter().find(|(given, ..)| *given == name)?;
        Some(Spanned { value: value.as_ref().is_none_or(|v| v.value.eq_ignore_ascii_case("true")), span: *span })
    }
}

/// Reads all flags of the line; unknown, repeated and malformed ones are reported and left out.
pub(super) fn read(cursor: &mut Cursor, instruction: &str, specs: &[Spec]) -> Flags {
    let mut flags = Flags { given: vec![] };
    for flag in &cursor.raw.flags {
        let span = cursor.text.span(flag.range.clone());
        let (name, value) = match flag.text[2..].split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&flag.text[2..], None),
        };
        let Some(spec) = specs.iter().find(|s| s.name == name) else {
            let help = match suggest::closest(name, specs.iter().map(|s| s.name)) {
                Some(close) => format!("did you mean `--{close}`?"),
                None if specs.is_empty() => format!("{instruction} has no flags; write `--` before arguments that begin with `--`"),
                None => format!("{instruction} has {}", specs.iter().map(|s| format!("`--{}`", s.name)).collect::<Vec<_>>().join(", ")),
            };
            cursor.error("unknown-flag", span, format!("{instruction} has no flag `--{name}`")).help.push(help);
            continue;
        };
        let first = flags.given.iter().find(|(given, ..)| *given == spec.name).map(|(.., span)| *span);
        if let Some(first) = first
            && spec.kind != Kind::Many
        {
            let problem = cursor.error("duplicate-flag", span, format!("the flag `--{name}` is given twice"));
            problem.labels.push(ukc_diagnostics::Label { span: first, text: "first given here".to_string() });
            continue;
        }
        let problem = match (spec.kind, value) {
            (Kind::Bool, Some(v)) if !v.eq_ignore_ascii_case("true") && !v.eq_ignore_ascii_case("false") => {
                Some(("invalid-flag-value", format!("`--{name}` is either `true` or `false`, not `{v}`")))
            }
            (Kind::One | Kind::Many, None) => Some(("missing-flag-value", format!("the flag `--{name}` needs a value: `--{name}=...`"))),
            _ => None,
        };
        if let Some((code, message)) = problem {
            cursor.error(code, span, message);
            continue;
        }
        let value = value.map(|value| {
            let source = cursor.str(flag.range.clone());
            let after = source.find('=').map_or(flag.range.start, |at| flag.range.start + at + 1);
            Word { value: value.to_string(), span: cursor.text.span(after..flag.range.end) }
        });
        flags.given.push((spec.name, value, span));
    }
    flags
}
