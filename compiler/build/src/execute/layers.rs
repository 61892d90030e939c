//! Trees as layers with content keys, for the RUNs that build on them.
//!
//! A key stands for paths, types, modes, owners, attributes and bytes, but not for times: touching a file of the context makes nothing new. Base images
//! are known by their digests, results of RUN by the run that made them.

use std::io;
use std::rc::Rc;

use ukc_diagnostics::{Diagnostic, Span};
use ukc_rootfs::{Action, Change, Content, Kind, Meta, Tree};

use super::{Made, Output, Run};
use crate::graph::{Graph, Key, Op, StepId};
use crate::run::{LayerFiles, Layers, RootLayer};

/// Returns which steps a RUN builds on, directly or through other steps.
pub(super) fn layered(graph: &Graph) -> Vec<bool> {
    let mut out = vec![false; graph.steps.len()];
    for (n, step) in graph.steps.iter().enumerate().rev() {
        match &step.op {
            Op::Run(run) => out[run.base.0 as usize] = true,
            Op::Copy(copy) if out[n] => out[copy.base.0 as usize] = true,
            Op::Workdir { base, .. } if out[n] => out[base.0 as usize] = true,
            _ => {}
        }
    }
    out
}

impl Run<'_> {
    /// Keeps the tree that a step changes, if the change has to be known.
    pub(super) fn keep(&self, id: StepId, base: &Output) -> Option<(Rc<Tree>, Layers)> {
        base.layers.as_ref().filter(|_| self.layered[id.0 as usize]).map(|layers| (base.tree.clone(), layers.clone()))
    }

    /// Returns the layers of what a step made, if a RUN builds on it.
    pub(super) fn layers(&self, id: StepId, op: &Op, made: &Made, span: Span) -> Result<Option<Layers>, Diagnostic> {
        if made.is_broken || !self.layered[id.0 as usize] {
            return Ok(None);
        }
        if made.layers.is_some() {
            return Ok(made.layers.clone());
        }
        let unreadable = |e: io::Error| {
            Diagnostic::error("unreadable-file", format!("a file that this instruction brings cannot be read: {e}")).at(span, "")
        };
        let Some((before, layers)) = &made.from else {
            let key = match op {
                Op::Image { image, .. } => {
                    let mut hash = blake3::Hasher::new();
                    hash.update(b"image");
                    for layer in &image.layers {
                        hash.update(layer.diff_id.to_string().as_bytes());
                    }
                    Key(*hash.finalize().as_bytes())
                }
                _ => content_key(&made.tree.changes_since(&Tree::new())).map_err(unreadable)?,
            };
            return Ok(Some(vec![Rc::new(RootLayer { key, files: LayerFiles::Whole(made.tree.clone()) })]));
        };
        let changes = made.tree.changes_since(before);
        if changes.is_empty() {
            return Ok(Some(layers.clone()));
        }
        let below = layers.last().expect("a root has a layer").key;
        let key = combine(&[&below.0, &content_key(&changes).map_err(unreadable)?.0]);
        Ok(Some([layers.as_slice(), &[Rc::new(RootLayer { key, files: LayerFiles::Changes(changes) })]].concat()))
    }
}

/// Returns the key of several parts, of which each stands for itself.
pub(super) fn combine(parts: &[&[u8]]) -> Key {
    let mut hash = blake3::Hasher::new();
    parts.iter().for_each(|part| text(&mut hash, part));
    Key(*hash.finalize().as_bytes())
}

/// Returns the key of what changes say, times aside.
pub(super) fn content_key(changes: &[Change]) -> io::Result<Key> {
    let mut hash = blake3::Hasher::new();
    for change in changes {
        text(&mut hash, &change.path);
        match &change.action {
            Action::Put(meta, kind) => put(&mut hash, meta, kind)?,
            Action::HardLink(to) => {
                hash.update(b"h");
                text(&mut hash, to);
            }
            Action::Whiteout => {
                hash.update(b"w");
            }
            Action::Opaque => {
                hash.update(b"o");
            }
        }
    }
    Ok(Key(*hash.finalize().as_bytes()))
}

fn text(hash: &mut blake3::Hasher, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn put(hash: &mut blake3::Hasher, meta: &Meta, kind: &Kind) -> io::Result<()> {
    hash.update(b"p");
    hash.update(&u32::from(meta.mode).to_le_bytes());
    hash.update(&meta.uid.to_le_bytes());
    hash.update(&meta.gid.to_le_bytes());
    hash.update(&(meta.xattrs.len() as u64).to_le_bytes());
    for (name, value) in &meta.xattrs {
        text(hash, name);
        text(hash, value);
    }
    match kind {
        Kind::Dir(_) => {
            hash.update(b"d");
        }
        Kind::File(content) => {
            hash.update(b"f");
            hash.update(&content.len_bytes().to_le_bytes());
            match content {
                Content::Bytes(bytes) => hash.update(blake3::hash(bytes).as_bytes()),
                Content::Host { .. } => {
                    let mut file = blake3::Hasher::new();
                    file.update_reader(content.open()?)?;
                    hash.update(file.finalize().as_bytes())
                }
            };
        }
        Kind::Symlink(target) => {
            hash.update(b"l");
            text(hash, target);
        }
        Kind::CharDevice(major, minor) => {
            hash.update(format!("c{major}:{minor};").as_bytes());
        }
        Kind::BlockDevice(major, minor) => {
            hash.update(format!("b{major}:{minor};").as_bytes());
        }
        Kind::Fifo => {
            hash.update(b"q");
        }
    }
    Ok(())
}
