//! Text that remembers which bytes of the file it came from.
//!
//! A logical line is put together from parts of physical lines: `RUN a \⏎# why⏎  b` becomes `RUN a   b`. [`Text`] holds the joined string and, for each
//! part, where it was, so that any range of the string has a span in the file.

use std::ops::Range;
use ukc_diagnostics::{FileId, Span};

/// A string with a map to the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text {
    string: String,
    file: FileId,
    /// Where the text would begin if it had any.
    start: u32,
    parts: Vec<Part>,
}

/// `len` bytes of the string from `text` on are the bytes of the file from `source` on. `text_len` differs only where bytes were not UTF-8.
#[derive(Debug, Clone, Copy)]
struct Part {
    text: usize,
    text_len: usize,
    source: u32,
    source_len: u32,
}

impl Text {
    pub(crate) fn new(file: FileId, start: u32) -> Text {
        Text { file, start, ..Text::default() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.string
    }

    pub(crate) fn len(&self) -> usize {
        self.string.len()
    }

    /// Appends bytes that begin at `source` in the file. Bytes that are not UTF-8 become U+FFFD each; returns whether there were any.
    pub(crate) fn push(&mut self, bytes: &[u8], source: u32) -> bool {
        let mut at = source;
        let mut lossy = false;
        for chunk in bytes.utf8_chunks() {
            self.push_part(chunk.valid(), at, chunk.valid().len() as u32);
            at += chunk.valid().len() as u32;
            for _ in chunk.invalid() {
                self.push_part("\u{fffd}", at, 1);
                at += 1;
                lossy = true;
            }
        }
        lossy
    }

    fn push_part(&mut self, text: &str, source: u32, source_len: u32) {
        if !text.is_empty() {
            self.parts.push(Part { text: self.string.len(), text_len: text.len(), source, source_len });
            self.string.push_str(text);
        }
    }

    /// Returns the bytes of the file that a range of the string stands for: from its first to its last character, whatever lies between.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        let start = self.source_of(range.start);
        let end = if range.end > range.start { self.source_end_of(range.end) } else { start };
        Span { file: self.file, start, end: end.max(start) }
    }

    /// Where the character at `pos` begins; at the end of the string, where its last character ends.
    fn source_of(&self, pos: usize) -> u32 {
        let next = self.parts.partition_point(|p| p.text <= pos);
        let Some(part) = next.checked_sub(1).map(|i| self.parts[i]) else { return self.start };
        part.source + ((pos - part.text) as u32).min(part.source_len)
    }

    /// Where the character that ends at `pos` ends.
    fn source_end_of(&self, pos: usize) -> u32 {
        let next = self.parts.partition_point(|p| p.text < pos);
        let Some(part) = next.checked_sub(1).map(|i| self.parts[i]) else { return self.start };
        if pos >= part.text + part.text_len { part.source + part.source_len } else { part.source + (pos - part.text) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_map_back() {
        let mut text = Text::new(FileId(3), 10);
        assert!(!text.push(b"RUN a ", 10));
        assert!(text.push(b"x\xffz", 30));
        assert_eq!(text.as_str(), "RUN a x\u{fffd}z");
        let span = |range: Range<usize>| (text.span(range.clone()).start, text.span(range).end);
        assert_eq!(span(0..3), (10, 13));
        assert_eq!(span(4..7), (14, 31));
        assert_eq!(span(6..7), (30, 31));
        assert_eq!(span(7..10), (31, 32));
        assert_eq!(span(10..11), (32, 33));
        assert_eq!(span(11..11), (33, 33));
    }
}
