//! Dockerfile bytes to instructions with spans.
#![forbid(unsafe_code)]

pub mod ast;
mod directive;
pub mod expand;
mod heredoc;
#[allow(dead_code)] // used by the parser
mod text;
pub mod tree;
mod value;

pub use ast::*;
pub use directive::{Check, Directives};
pub use value::{chmod, chown, duration, mount, port, signal, size};
