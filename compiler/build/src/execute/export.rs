//! The result as layers, for outputs that are container images: the base image's own, then the changes of each instruction.
//!
//! These are not the layers that RUN is executed on: those know results of RUN only by their name, and here the files themselves are wanted.

use std::collections::BTreeMap;
use std::rc::Rc;

use ukc_rootfs::{Change, Tree};

use crate::BuiltLayers;
use crate::graph::{Graph, Op, StepId};

/// Collects what the steps between the base and the result change.
pub(super) struct Export {
    /// From the base to the result.
    chain: Vec<StepId>,
    changes: BTreeMap<StepId, Vec<Change>>,
}

impl Export {
    pub fn new(graph: &Graph) -> Export {
        let mut chain = vec![graph.result];
        while let Some(base) = base_of(&graph.step(chain[chain.len() - 1]).op) {
            chain.push(base);
        }
        chain.reverse();
        Export { chain, changes: BTreeMap::new() }
    }

    /// Returns the step whose tree has to be kept for [`Export::add`], if `id` is part of the chain.
    pub fn base(&self, id: StepId) -> Option<StepId> {
        let at = self.chain.iter().position(|step| *step == id)?;
        self.chain.get(at.checked_sub(1)?).copied()
    }

    /// Notes what a step made of its base's tree.
    pub fn add(&mut self, id: StepId, before: &Rc<Tree>, after: &Rc<Tree>) {
        self.changes.insert(id, after.changes_since(before));
    }

    /// Returns the layers. A base that is no image is a layer itself.
    pub fn finish(mut self, graph: &Graph, base_tree: Option<&Tree>) -> BuiltLayers {
        let base = match &graph.step(self.chain[0]).op {
            Op::Image { image, .. } => Some((**image).clone()),
            _ => None,
        };
        let own = base_tree.map(|tree| tree.changes_since(&Tree::new()));
        let above = self.chain[1..].iter().map(|id| self.changes.remove(id).unwrap_or_default()).collect();
        BuiltLayers { base, whole: own, changes: above }
    }

    /// Whether the chain starts from a directory, whose tree [`Export::finish`] wants.
    pub fn starts_from_files(&self, graph: &Graph) -> Option<StepId> {
        matches!(graph.step(self.chain[0]).op, Op::Context { .. }).then_some(self.chain[0])
    }
}

fn base_of(op: &Op) -> Option<StepId> {
    match op {
        Op::Scratch | Op::Image { .. } | Op::Context { .. } => None,
        Op::Unknown { base, .. } => *base,
        Op::Workdir { base, .. } => Some(*base),
        Op::Copy(copy) => Some(copy.base),
        Op::Run(run) => Some(run.base),
    }
}
