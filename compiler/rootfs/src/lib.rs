//! The file tree of an image as a value, and the process that the image starts.
//!
//! A [`Tree`] is what a build produces and every later stage reads: analysis looks programs up in it, the image stage streams it into a file system.
//! It holds owners, modes, times, extended attributes, hard links and device nodes exactly; file contents stay where they are (in the build context,
//! in an unpacked layer, in memory) and are only referred to, so a tree of a gigabyte costs a few megabytes.
//!
//! Only [`Tree::write_to`] touches the host, and follows no link there. Else a symbolic link is data, and [`Tree::resolve`] follows it inside the tree, never outside.
//!
//! What is absent: `rootfs` knows neither Dockerfiles nor registries nor ext4.
#![forbid(unsafe_code)]

mod apply;
mod config;
mod content;
mod diff;
pub mod path;
mod resolve;
mod surface;
mod text;
mod tree;
mod users;
mod write;

pub use apply::{Action, ApplyError, ApplyErrorKind, Change};
pub use config::{Healthcheck, ImageConfig};
pub use content::Content;
pub use resolve::{ResolveError, Resolved};
pub use surface::{Surface, surface};
pub use tree::{Kind, Meta, Name, Node, NodeId, Origin, Tree};
pub use users::{User, UserError};
pub use write::Written;
