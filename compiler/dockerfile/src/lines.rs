//! Physical lines to logical lines: byte order mark, directives, comments, continuations, heredoc bodies.
//!
//! Facts (BuildKit, `frontend/dockerfile/parser`): white space before an instruction and before a `#` does not count; comment and blank lines inside a
//! continued instruction vanish; a line continues if its last escape character, followed by blanks only, does not itself follow an escape character;
//! `\r` before the newline is part of the newline; heredoc bodies are raw.

use crate::ast::{Heredoc, Word};
use crate::directive::{Block, Directives};
use crate::heredoc;
use crate::json::{self, Json};
use crate::raw::{self, Raw};
use crate::text::Text;
use crate::tree::{Node, NodeKind, Piece, PieceKind, Tree};
use ukc_diagnostics::{Diagnostic, FileId, Span};

/// A logical line.
#[derive(Debug)]
pub(crate) struct Line {
    pub text: Text,
    pub raw: Raw,
    pub heredocs: Vec<Heredoc>,
    /// Comment lines directly above.
    pub comments: Vec<String>,
    /// From the keyword to the end of the last heredoc.
    pub span: Span,
    /// The first blank line inside a continuation.
    pub blank_inside: Option<Span>,
}

/// Everything that needs no knowledge of single instructions.
pub(crate) struct Lines {
    pub directives: Directives,
    pub lines: Vec<Line>,
    pub tree: Tree,
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Splits a file. `with_directives` is false for text that is not a file of its own (triggers).
pub(crate) fn split(file: FileId, bytes: &[u8], with_directives: bool, problems: &mut Vec<Diagnostic>) -> Lines {
    let mut reader = Reader { file, bytes, pos: 0, escape: '\\', nodes: vec![], problems };
    if bytes.starts_with(BOM) {
        reader.pos = BOM.len();
        reader.node(NodeKind::Bom, 0, vec![]);
    }
    let mut block = Block::new(with_directives);
    let mut comments = vec![];
    let mut lines = vec![];
    while reader.pos < bytes.len() {
        let start = reader.pos;
        let line = reader.peek_line();
        let content = start + leading_space(&bytes[start..line.end])..line.end;
        if bytes[content.clone()].starts_with(b"#") {
            let span = reader.span(content.start, content.end);
            let text = String::from_utf8_lossy(&bytes[content]).into_owned();
            let is_directive = block.line(&Word { value: text.clone(), span }, reader.problems);
            reader.escape = block.directives.escape;
            reader.pos = line.next;
            reader.node(if is_directive { NodeKind::Directive } else { NodeKind::Comment }, start, vec![]);
            let comment = text[1..].trim();
            if comment.is_empty() || is_directive {
                comments.clear();
            } else {
                comments.push(comment.to_string());
            }
            continue;
        }
        block.end();
        if content.is_empty() {
            reader.pos = line.next;
            reader.node(NodeKind::Blank, start, vec![]);
            comments.clear();
            continue;
        }
        lines.push(reader.logical_line(std::mem::take(&mut comments)));
    }
    Lines { directives: block.directives, lines, tree: Tree { nodes: reader.nodes } }
}

struct Reader<'a> {
    file: FileId,
    bytes: &'a [u8],
    pos: usize,
    escape: char,
    nodes: Vec<Node>,
    problems: &'a mut Vec<Diagnostic>,
}

/// One physical line: content up to `end`, newline characters up to `next`.
struct PhysicalLine {
    end: usize,
    next: usize,
}

fn not_utf8(what: &str, span: Span) -> Diagnostic {
    Diagnostic::warning("not-utf8", format!("{what} is not UTF-8; the bytes that are not were replaced by U+FFFD")).at(span, "")
}

/// Bytes of white space (Unicode) at the start.
fn leading_space(bytes: &[u8]) -> usize {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.len() - valid.trim_start().len()
}

impl Reader<'_> {
    fn span(&self, start: usize, end: usize) -> Span {
        Span { file: self.file, start: start as u32, end: end as u32 }
    }

    fn node(&mut self, kind: NodeKind, start: usize, pieces: Vec<Piece>) {
        let span = self.span(start, self.pos);
        self.nodes.push(Node { kind, span, pieces });
    }

    fn peek_line(&self) -> PhysicalLine {
        let rest = &self.bytes[self.pos..];
        let next = rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |at| at + 1);
        let newline = rest[..next].iter().rev().take_while(|&&b| b == b'\n' || b == b'\r').count();
        PhysicalLine { end: self.pos + next - newline, next: self.pos + next }
    }

    /// Where the continuation begins: the position of a trailing escape character that is not itself escaped.
    fn continuation(&self, start: usize, end: usize) -> Option<usize> {
        let line = &self.bytes[start..end];
        let blanks = line.iter().rev().take_while(|&&b| b == b' ' || b == b'\t').count();
        let at = (line.len() - blanks).checked_sub(1)?;
        // The escape character is one of two ASCII characters.
        let escape = self.escape as u8;
        (line[at] == escape && (at == 0 || line[at - 1] != escape)).then_some(start + at)
    }

    /// Reads from the start of a line that is neither blank nor a comment.
    fn logical_line(&mut self, comments: Vec<String>) -> Line {
        let start = self.pos;
        let mut text = Text::new(self.file, start as u32);
        let mut pieces = vec![];
        let mut blank_inside = None;
        let mut lossy = None;
        let mut is_first = true;
        while self.pos < self.bytes.len() {
            let line_start = self.pos;
            let line = self.peek_line();
            let indent = line_start + leading_space(&self.bytes[line_start..line.end]);
            self.pos = line.next;
            if !is_first && (indent == line.end || self.bytes[indent] == b'#') {
                let kind = if indent == line.end { PieceKind::Blank } else { PieceKind::Comment };
                if kind == PieceKind::Blank {
                    blank_inside.get_or_insert(self.span(line_start, line.end));
                }
                pieces.push(Piece { kind, span: self.span(line_start, line.next) });
                continue;
            }
            let content = if is_first { indent } else { line_start };
            let continuation = self.continuation(content, line.end);
            let end = continuation.unwrap_or(line.end);
            if text.push(&self.bytes[content..end], content as u32) {
                lossy.get_or_insert(self.span(content, end));
            }
            for (kind, from, to) in [
                (PieceKind::Space, line_start, content),
                (PieceKind::Text, content, end),
                (if continuation.is_some() { PieceKind::Continuation } else { PieceKind::Newline }, end, line.next),
            ] {
                if from < to {
                    pieces.push(Piece { kind, span: self.span(from, to) });
                }
            }
            is_first = false;
            if continuation.is_none() {
                break;
            }
        }
        if let Some(span) = lossy {
            self.problems.push(not_utf8("this line", span));
        }
        let raw = raw::split(text.as_str(), 0..text.len());
        let mut span = text.span(raw.keyword.start..raw.rest.end.max(raw.keyword.end));
        let heredocs = self.heredocs(&text, &raw, &mut pieces);
        if let Some(last) = pieces.iter().rfind(|p| p.kind == PieceKind::HeredocEnd || p.kind == PieceKind::HeredocBody) {
            let bytes = &self.bytes[..last.span.end as usize];
            span.end = (bytes.len() - bytes.iter().rev().take_while(|&&b| b == b'\n' || b == b'\r').count()).max(span.end as usize) as u32;
        }
        let pieces = name_pieces(pieces, &text, &raw);
        self.node(NodeKind::Instruction, start, pieces);
        Line { text, raw, heredocs, comments, span, blank_inside }
    }

    /// Reads the bodies that a line announces.
    fn heredocs(&mut self, text: &Text, raw: &Raw, pieces: &mut Vec<Piece>) -> Vec<Heredoc> {
        if !takes_heredocs(text.as_str(), raw) {
            return vec![];
        }
        let mut docs = vec![];
        for (operator, range) in heredoc::operators(text.as_str()) {
            let body_start = self.pos;
            let mut body_end = None;
            while self.pos < self.bytes.len() {
                let line_start = self.pos;
                let line = self.peek_line();
                self.pos = line.next;
                let mut possible = &self.bytes[line_start..line.end];
                while operator.strip_tabs && possible.starts_with(b"\t") {
                    possible = &possible[1..];
                }
                if possible == operator.name.as_bytes() {
                    body_end = Some(line_start);
                    break;
                }
            }
            let span = text.span(range);
            let end = body_end.unwrap_or(self.pos);
            let mut body = Text::new(self.file, body_start as u32);
            if body.push(&self.bytes[body_start..end], body_start as u32) {
                self.problems.push(not_utf8("the heredoc", span));
            }
            for (kind, from, to) in [(PieceKind::HeredocBody, body_start, end), (PieceKind::HeredocEnd, end, self.pos)] {
                if from < to {
                    pieces.push(Piece { kind, span: self.span(from, to) });
                }
            }
            if body_end.is_none() {
                let problem = Diagnostic::error("unterminated-heredoc", format!("the heredoc `{}` has no end", operator.name));
                let tabs = if operator.strip_tabs { ", after tabs at most" } else { ", without spaces around it" };
                self.problems.push(problem.at(span, "starts here").help(format!("end it with a line `{}`{tabs}", operator.name)));
            }
            docs.push(Heredoc {
                name: Word { value: operator.name, span },
                fd: operator.fd,
                strip_tabs: operator.strip_tabs,
                expand: operator.expand,
                body: Word { value: body.as_str().to_string(), span: self.span(body_start, end) },
            });
        }
        docs
    }
}

/// Only RUN, COPY and ADD have heredocs, also under ONBUILD, and not in JSON form.
fn takes_heredocs(line: &str, raw: &Raw) -> bool {
    let keyword = line[raw.keyword.clone()].to_ascii_lowercase();
    match keyword.as_str() {
        "onbuild" => {
            let inner = raw::split(line, raw.rest.clone());
            let keyword = line[inner.keyword.clone()].to_ascii_lowercase();
            keyword != "onbuild" && takes_heredocs(line, &inner)
        }
        "run" | "copy" | "add" => json::parse(&line[raw.rest.clone()]) == Json::No,
        _ => false,
    }
}

/// Cuts the text pieces at keyword, flags and white space.
fn name_pieces(coarse: Vec<Piece>, text: &Text, raw: &Raw) -> Vec<Piece> {
    let mut named = vec![(PieceKind::Keyword, text.span(raw.keyword.clone()))];
    named.extend(raw.flags.iter().map(|f| (PieceKind::Flag, text.span(f.range.clone()))));
    if !raw.rest.is_empty() {
        named.push((PieceKind::Text, text.span(raw.rest.clone())));
    }
    let mut pieces = vec![];
    for piece in coarse {
        if piece.kind != PieceKind::Text {
            pieces.push(piece);
            continue;
        }
        let Span { file, start, end } = piece.span;
        let mut at = start;
        for &(kind, span) in &named {
            let (from, to) = (span.start.clamp(at, end), span.end.clamp(at, end));
            if from < to {
                if at < from {
                    pieces.push(Piece { kind: PieceKind::Space, span: Span { file, start: at, end: from } });
                }
                pieces.push(Piece { kind, span: Span { file, start: from, end: to } });
                at = to;
            }
        }
        if at < end {
            pieces.push(Piece { kind: PieceKind::Space, span: Span { file, start: at, end } });
        }
    }
    pieces
}
