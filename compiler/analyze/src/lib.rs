//! Root file tree to facts: what the image starts, which ELF files that brings in, and which system calls they can make.
//!
//! ```text
//! config ──root──▶ program ──ldso, rules──▶ closure ──object (parallel, cached)──▶ summaries ──compose──▶ Facts
//! ```
//!
//! [`analyze`] is sound first: a `syscall` instruction counts unless the objects' graphs show that nothing leads to its code (`reach`), and when the
//! number at one that counts cannot be found, [`Facts::unknown`] says so and `select` links everything.
//!
//! **What belongs to the closure.** The program, its interpreters (`#!`) and dynamic loader, `DT_NEEDED` by the loader's own rules (`ldso`), and what the
//! rules of `rules` add. Programs that the entry may start:
//! - words of the arguments that are programs of the image (`tini -- server`, `gosu user server`, `sh -c "exec server"`);
//! - words of the entry's scripts, likewise;
//! - when the entry is a shell or a shell script, or one of those words is one: every ELF program in the directories of PATH and every
//!   library in the loader's directories, since what a script starts is not decidable.
//!
//! A program that starts a shell on its own (`system(3)`) is not followed; a call that was not linked is reported at run time.
//!
//! What is absent: `analyze` does not know modules or guests, and it does not open host files except through [`ukc_rootfs::Content`].
#![forbid(unsafe_code)]

mod cache;
mod closure;
mod compose;
mod facts;
mod files;
mod ldso;
pub mod object;
mod reach;
mod root;
mod rules;
mod script;
mod text;
mod user;

pub use cache::{Cache, DirCache};
pub use closure::analyze;
pub use facts::{Facts, Features, Object, Place, Program, Reason, Rule, Syscall, User};

use ukc_diagnostics::{Diagnostic, Span};
use ukc_rootfs::{ImageConfig, NodeId, Origin, Tree};

/// Where things come from, for diagnostics, and where summaries are kept.
pub struct Options<'a> {
    /// The span of an instruction.
    pub span_of: &'a dyn Fn(Origin) -> Option<Span>,
    /// The `ENTRYPOINT` or `CMD` that says what to start.
    pub command_span: Option<Span>,
    /// The `USER`.
    pub user_span: Option<Span>,
    /// Whether what a shell may start belongs to the closure, too: all programs and libraries of the image.
    pub follows_shells: bool,
    /// Summaries by content.
    pub cache: Option<&'a dyn Cache>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { span_of: &|_| None, command_span: None, user_span: None, follows_shells: true, cache: None }
    }
}

/// What every part of the analysis reads.
pub struct Context<'a> {
    tree: &'a Tree,
    config: &'a ImageConfig,
    options: &'a Options<'a>,
}

impl Context<'_> {
    /// Points a diagnostic at the instruction that brought a node in, when known.
    fn at_node(&self, id: NodeId, label: &str, diagnostic: Diagnostic) -> Box<Diagnostic> {
        let span = self.tree.node(id).origin.and_then(self.options.span_of);
        Box::new(match span {
            Some(span) => diagnostic.at(span, label),
            None => self.at_command(diagnostic),
        })
    }

    /// Points a diagnostic at the instruction that says what to start, when known.
    fn at_command(&self, diagnostic: Diagnostic) -> Diagnostic {
        match self.options.command_span {
            Some(span) if !diagnostic.labels.iter().any(|l| l.span == span) => diagnostic.at(span, "this starts it"),
            _ => diagnostic,
        }
    }
}
