//! The text of a diagnostic, in rustc's form.
//!
//! ```text
//! error[unknown-instruction]: unknown instruction `FORM`
//!  --> Dockerfile:1:1
//!   |
//! 1 | FORM alpine
//!   | ^^^^
//!   |
//! help: did you mean `FROM`?
//! ```
//!
//! Excerpts are drawn by `annotate-snippets`, which wants UTF-8 and plain newlines; [`Display`] makes that of any file and moves the spans along.

use crate::{Diagnostic, FileId, Severity, SourceMap, Span};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;

/// A span over more lines than this is shown by its first line only.
const MAX_LINES: usize = 4;

/// Renders a diagnostic with its source excerpts; ends with a newline. With `color` it has ANSI escapes, and it makes sense without.
///
/// # Panics
/// If a label names a file that is not in `sources`. Spans beyond the end of their file are cut.
pub fn render(sources: &SourceMap, diagnostic: &Diagnostic, color: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut primary = Group::with_title(level.primary_title(visible(&diagnostic.message)).id(diagnostic.name));
    for (file, display) in files(sources, diagnostic) {
        let mut snippet = Snippet::source(display.text.clone()).path(visible(&sources.file(file).name));
        for (index, label) in diagnostic.labels.iter().enumerate().filter(|(_, label)| label.span.file == file) {
            let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let text = (!label.text.is_empty()).then(|| visible(&label.text));
            snippet = snippet.annotation(kind.span(display.range(label.span)).label(text));
        }
        primary = primary.element(snippet);
    }
    for note in &diagnostic.notes {
        primary = primary.element(Level::NOTE.message(visible(note)));
    }
    let mut groups = vec![primary];
    groups.extend(diagnostic.help.iter().map(|help| Group::with_title(Level::HELP.secondary_title(visible(help)))));
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.render(&groups);
    text.push('\n');
    if diagnostic.labels.is_empty() && !color {
        // The gutter leads to nothing without an excerpt.
        text = text.replace("\n |\n", "\n");
    }
    text
}

/// Text that cannot steer a terminal: messages quote the user's input. Control characters become their pictures (U+2400 and on), newlines stay.
fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' => c,
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or(c),
        '\x7f' => '\u{2421}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(picture).collect()
}

/// The files of the labels, the primary one's first, each once.
fn files(sources: &SourceMap, diagnostic: &Diagnostic) -> Vec<(FileId, Display)> {
    let mut files: Vec<(FileId, Display)> = vec![];
    for label in &diagnostic.labels {
        if !files.iter().any(|(file, _)| *file == label.span.file) {
            files.push((label.span.file, Display::new(&sources.file(label.span.file).bytes)));
        }
    }
    files
}

/// A file as it can be shown: valid UTF-8 (each byte that is none becomes U+FFFD), no byte order mark, no `\r` at line ends.
struct Display {
    text: String,
    /// For each byte of the file, and the end of it, where its character begins in `text`.
    position: Vec<usize>,
}

impl Display {
    fn new(bytes: &[u8]) -> Display {
        let mut text = String::with_capacity(bytes.len());
        let mut position = Vec::with_capacity(bytes.len() + 1);
        for chunk in bytes.utf8_chunks() {
            let mut chars = chunk.valid().chars().peekable();
            while let Some(c) = chars.next() {
                position.extend(std::iter::repeat_n(text.len(), c.len_utf8()));
                let is_bom = c == '\u{feff}' && position.len() == c.len_utf8();
                let is_line_end = c == '\r' && chars.peek() == Some(&'\n');
                if !is_bom && !is_line_end {
                    text.push(c);
                }
            }
            for _ in chunk.invalid() {
                position.push(text.len());
                text.push('\u{fffd}');
            }
        }
        position.push(text.len());
        Display { text, position }
    }

    /// Where a span of the file is in the text: whole characters, at most [`MAX_LINES`] lines.
    fn range(&self, span: Span) -> Range<usize> {
        let last = self.position.len() - 1;
        let (start, end) = ((span.start as usize).min(last), (span.end as usize).min(last));
        let from = self.position[start];
        let mut to = from;
        if end > start {
            let last_char = self.position[end - 1];
            to = last_char + self.text[last_char..].chars().next().map_or(0, char::len_utf8);
        }
        let shown = &self.text[from..to.max(from)];
        if shown.lines().count() > MAX_LINES {
            to = from + shown.lines().next().map_or(0, str::len);
        }
        from..to.max(from)
    }
}
