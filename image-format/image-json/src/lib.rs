//! `image.json`: everything about an image, for people, for `ukc inspect`, `ukc run` and `ukc diff`, and for other tools.
//!
//! One JSON document per image, beside the artefacts it describes. [`Image`] is the document as a value, [`Image::to_json`] the writer (equal values give
//! equal bytes), [`Image::parse`] the reader: it names the first field that is wrong. [`SCHEMA`] is the same as a JSON Schema.
//!
//! Versions: `version` rises when a field changes its meaning or goes away; a new field does not raise it, and readers ignore fields they do not know.
#![forbid(unsafe_code)]

mod read;
mod types;

pub use read::Error;
pub use types::{
    Artefact, ArtefactKind, ArtefactName, Digest, FileCapabilities, Files, Guest, GuestKind, Handling, Image, Input, InputKind, Kernel,
    Module, Package, Port, Program, Protocol, Syscall, User,
};

/// Value of the field `format`.
pub const FORMAT: &str = "ukc-image";

/// The version that this crate reads and writes.
pub const VERSION: u32 = 1;

/// File name of the document.
pub const FILE_NAME: &str = "image.json";

/// The document's JSON Schema (draft 2020-12).
pub const SCHEMA: &str = include_str!("../schema.json");
