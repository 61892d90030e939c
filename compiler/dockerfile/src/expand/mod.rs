//! Variable expansion: `$name`, `${name}` with all its operators, quotes and escapes.
//!
//! | form | meaning |
//! |---|---|
//! | `$a`, `${a}` | the value, empty if unset |
//! | `${a-w}`, `${a:-w}` | `w` if unset (`:` or empty) |
//! | `${a+w}`, `${a:+w}` | `w` if set (`:` and not empty), else nothing |
//! | `${a?w}`, `${a:?w}` | an error with the text `w` if unset (`:` or empty) |
//! | `${a#p}`, `${a##p}` | without the shortest, longest prefix that matches the pattern |
//! | `${a%p}`, `${a%%p}` | without the shortest, longest suffix that matches |
//! | `${a/p/w}`, `${a//p/w}` | the first, every longest match replaced |
//!
//! Single quotes suppress expansion, double quotes keep spaces, the escape character makes the next one ordinary. This is BuildKit's lexer
//! (`frontend/dockerfile/shell`), quirks included: `w` is itself expanded; numeric and special names (`$1`, `$@`) are legal and normally unset; `${a,,}` is
//! an error. The value a name has comes from the caller, who must pass the environment as it was *before* the instruction.

mod lexer;
mod pattern;

use crate::ast::{Heredoc, Word};
use std::collections::BTreeSet;
use std::ops::Range;
use ukc_diagnostics::{Diagnostic, Span};

/// What a name stands for; `None` is unset.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How to expand. The default is what Dockerfile instructions use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// The escape character: [`crate::Directives::escape`].
    pub escape: char,
    /// Keep quote characters in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters (heredoc bodies).
    pub ignore_quotes: bool,
    /// Leave references to unset names as they stand.
    pub keep_unset: bool,
}

impl Mode {
    /// The mode of instruction words with this escape character.
    pub fn new(escape: char) -> Mode {
        Mode { escape, raw_quotes: false, raw_escapes: false, ignore_quotes: false, keep_unset: false }
    }
}

impl Default for Mode {
    fn default() -> Mode {
        Mode::new('\\')
    }
}

/// The outcome of an expansion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The whole text as one word, spaces included.
    pub text: String,
    /// The text split at unquoted white space, after expansion.
    pub words: Vec<String>,
    /// Names that were looked up and had a value.
    pub used: BTreeSet<String>,
    /// Names that were looked up and had none (the UndefinedVar check).
    pub unset: BTreeSet<String>,
    /// The same, but the text provides for it: `${a:-w}`, `${a:+w}`, `${a:?w}`. BuildKit's check counts these as undefined; nobody who wrote them would.
    pub unset_allowed: BTreeSet<String>,
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandError {
    /// A sentence, lower case.
    pub message: String,
    /// Whether a `${name?...}` asked for the error; else the text is malformed.
    pub is_required_variable: bool,
    /// The bytes of the text it is about.
    pub range: Range<usize>,
}

impl ExpandError {
    /// Returns the error as a diagnostic at its place in a word.
    pub fn diagnostic(&self, word: &Word) -> Diagnostic {
        let name = if self.is_required_variable { "required-variable" } else { "bad-substitution" };
        Diagnostic::error(name, self.message.clone()).at(part_of(word, self.range.clone()), "")
    }
}

/// Returns the span of some bytes of a word: exact where text and source agree byte for byte, else the word's own span.
pub fn part_of(word: &Word, range: Range<usize>) -> Span {
    let span = word.span;
    if (span.end - span.start) as usize != word.value.len() || range.is_empty() {
        return span;
    }
    Span { start: span.start + range.start as u32, end: span.start + range.end as u32, ..span }
}

/// Expands a text.
///
/// # Errors
/// Unbalanced quotes or braces, unknown operators, bad patterns, and `?` on an unset name.
pub fn expand(text: &str, mode: Mode, lookup: Lookup) -> Result<Expansion, ExpandError> {
    lexer::Lexer::new(text, mode, lookup).run()
}

/// Expands a word of an instruction to one string: `result.text`.
///
/// # Errors
/// As [`expand`], as a diagnostic at the word.
pub fn word(word: &Word, escape: char, lookup: Lookup) -> Result<Expansion, Diagnostic> {
    expand(&word.value, Mode::new(escape), lookup).map_err(|e| e.diagnostic(word))
}

/// Checks that a word can be expanded, whatever its variables stand for; `${name?}` counts as set.
pub(crate) fn check(text: &Word, escape: char) -> Option<Diagnostic> {
    // Any value will do: only pattern operands are read again, and a letter is a pattern.
    word(text, escape, &|_| Some("x".to_string())).err()
}

/// Expands the body of a COPY or ADD heredoc whose delimiter is not quoted. Quotes are ordinary characters there and the escape character is always `\`.
/// A heredoc with a quoted delimiter comes back unchanged.
///
/// # Errors
/// As [`expand`], as a diagnostic at the body.
pub fn heredoc(doc: &Heredoc, lookup: Lookup) -> Result<Expansion, Diagnostic> {
    let text = doc.file_text();
    if !doc.expand {
        return Ok(Expansion { text, ..Expansion::default() });
    }
    let mode = Mode { ignore_quotes: true, ..Mode::default() };
    expand(&text, mode, lookup).map_err(|e| {
        let exact = Word { value: text.clone(), span: doc.body.span };
        e.diagnostic(&exact)
    })
}
