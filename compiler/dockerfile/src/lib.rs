//! Dockerfile bytes to instructions with spans.
//!
//! ```text
//! bytes ──lines──▶ logical lines ──raw──▶ keyword, flags, rest ──instruction──▶ typed instructions ──parse──▶ stages + diagnostics
//!        BOM, CRLF, comments,      quotes, words, JSON            one parser a family                 + lint
//!        continuations, heredocs
//! ```
//!
//! - [`parse`] takes a file and never fails: it returns stages, the lossless [`tree::Tree`] and *all* diagnostics, warnings of the build checks included.
//! - Words stay unexpanded and keep their spans. [`expand`] is a separate step, because only the build knows what variables mean; each field of [`ast`] says
//!   whether and how it expands.
//! - The modules [`mount`], [`chmod`], [`chown`], [`port`], [`signal`], [`duration`] and [`size`] read argument texts after expansion.
//! - [`Parsed::to_text`] is the stage's text form.
//!
//! Behaviour follows BuildKit's parser (the Dockerfile reference where it is precise), quirks included; what we report beyond it would fail there too, if only
//! when the image runs (`USER a:b:c`). This crate opens no file and knows no image: base images, contexts and build arguments are `build`'s.
//!
//! To add an instruction: a variant in [`InstructionKind`], a parser in `instruction/`, its line in `instruction/mod.rs`, its text in `emit.rs`. To add a
//! build check: see `lint/mod.rs`.
#![forbid(unsafe_code)]

pub mod ast;
mod directive;
mod emit;
pub mod expand;
mod heredoc;
mod instruction;
mod json;
mod lines;
pub mod lint;
pub mod outline;
mod parse;
mod raw;
mod text;
pub mod tree;
mod value;

pub use ast::*;
pub use directive::{Check, Directives};
pub use parse::{Trigger, parse, parse_trigger};
pub use value::{chmod, chown, duration, mount, port, signal, size};
