//! The lossless tree: every byte of the file, in order, with what it is.
//!
//! ```text
//! # build it          Comment
//!                     Blank
//! RUN --network=none \    Instruction: Keyword, Space, Flag, Continuation,
//!   # why                              Comment,
//!   make                               Space, Text, Newline
//! ```
//!
//! Nodes tile the file and pieces tile their node: no gap, no overlap. [`Tree::print`] is therefore the file itself, and a tool that rewrites one piece
//! leaves all others as they were.

use ukc_diagnostics::Span;

/// A file as a sequence of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// In file order; together they cover the whole file.
    pub nodes: Vec<Node>,
}

/// A run of whole lines (or the byte order mark).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Its bytes, final newline included.
    pub span: Span,
    /// What an instruction consists of; empty for other nodes.
    pub pieces: Vec<Piece>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// The UTF-8 byte order mark.
    Bom,
    /// `# name=value` of the directive block.
    Directive,
    /// A comment line.
    Comment,
    /// A line of white space.
    Blank,
    /// One instruction, known or not.
    Instruction,
}

/// A part of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// Its bytes.
    pub span: Span,
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// The instruction's name.
    Keyword,
    /// `--name=value`, or the part of it that stands on this line.
    Flag,
    /// White space between words or before the keyword.
    Space,
    /// Arguments.
    Text,
    /// The escape character, white space after it and the newline.
    Continuation,
    /// A comment line inside a continued instruction.
    Comment,
    /// A blank line inside a continued instruction.
    Blank,
    /// The newline that ends the logical line, or white space before it.
    Newline,
    /// Lines of a heredoc.
    HeredocBody,
    /// The line that ends a heredoc.
    HeredocEnd,
}

impl Tree {
    /// Returns the bytes of the tree, given the file it was made from: the whole file.
    ///
    /// # Panics
    /// If `source` is shorter than the file the tree was made from.
    pub fn print(&self, source: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(source.len());
        for node in &self.nodes {
            if node.pieces.is_empty() {
                out.extend_from_slice(bytes(source, node.span));
            }
            for piece in &node.pieces {
                out.extend_from_slice(bytes(source, piece.span));
            }
        }
        out
    }
}

fn bytes(source: &[u8], span: Span) -> &[u8] {
    &source[span.start as usize..span.end as usize]
}
