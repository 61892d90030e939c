//! Spans, source map and diagnostics: how every stage says what is wrong with the user's input.
//!
//! A stage returns [`Diagnostic`]s as data; only `cli` renders them, once. A [`Span`] is a byte range of one source file and lives to the last stage,
//! so trouble found while linking can point at the Dockerfile line that caused it. This crate knows no stage.
#![forbid(unsafe_code)]

mod render;
pub mod suggest;

pub use render::render;

/// Index of a source file in a [`SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileId(pub u32);

/// A half-open range of bytes `start..end` of one source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// Which file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A source file: the name shown to the user and its text.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// As the user wrote it.
    pub name: String,
    /// Raw bytes; they need not be UTF-8.
    pub bytes: Vec<u8>,
}

/// All source files of one run.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    /// Adds a file.
    pub fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> FileId {
        self.files.push(SourceFile { name: name.into(), bytes: bytes.into() });
        FileId(self.files.len() as u32 - 1)
    }

    /// Returns a file that was added to this map.
    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }
}

/// How bad it is: an error ends the run with exit status 1, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The result may not be what the user means.
    Warning,
    /// There is no result.
    Error,
}

/// A place in the source and what is to be seen there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What; may be empty.
    pub text: String,
}

/// Trouble in the user's input. `name` is the stable identifier in brackets (`missing-library`); texts are lower case without a final period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable identifier, kebab-case; build checks keep the names of BuildKit's rules.
    pub name: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The first label is the primary one.
    pub labels: Vec<Label>,
    /// Why it matters, further facts.
    pub notes: Vec<String>,
    /// What to try next.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// Returns an error with no place yet.
    pub fn error(name: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { name, severity: Severity::Error, message: message.into(), labels: vec![], notes: vec![], help: vec![] }
    }

    /// Returns a warning with no place yet.
    pub fn warning(name: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(name, message) }
    }

    /// Adds a place; the first one is the primary.
    pub fn at(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds a note.
    pub fn note(mut self, text: impl Into<String>) -> Diagnostic {
        self.notes.push(text.into());
        self
    }

    /// Adds a next step.
    pub fn help(mut self, text: impl Into<String>) -> Diagnostic {
        self.help.push(text.into());
        self
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
