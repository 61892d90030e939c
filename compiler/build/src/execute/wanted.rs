//! Reading only what is asked for of a context: a `COPY app /` should not wait for a large `node_modules` beside it.

use std::collections::BTreeSet;

use ukc_rootfs::{Kind, NodeId, Tree, path};

use crate::context::Context;
use crate::graph::{Graph, Op, StepId};
use crate::pattern;

/// Returns the sources (absolute in the context, clean, wildcards in them) that the steps name of the context of step `id`, or `None` when some step
/// takes it as a whole.
pub(super) fn wanted(graph: &Graph, id: StepId) -> Option<Vec<Vec<u8>>> {
    let mut out = vec![];
    if graph.result == id {
        return None;
    }
    for step in graph.steps.iter().filter(|s| s.op.inputs().contains(&id)) {
        match &step.op {
            Op::Copy(copy) if copy.base != id => {
                out.extend(copy.sources.iter().filter(|s| s.inline.is_none()).map(|s| path::absolute(b"/", s.path.as_bytes())));
            }
            Op::Run(run) if run.base != id => {
                let sources = run.mounts.iter().filter_map(|m| m.kind.source()).filter(|s| s.step == id);
                out.extend(sources.map(|s| path::absolute(b"/", s.path.as_bytes())));
            }
            _ => return None,
        }
    }
    Some(out)
}

/// Reads the top-level entries that the sources name, and everything if that turns out not to be enough.
pub(super) fn fill(context: Context, sources: Option<Vec<Vec<u8>>>) -> Context {
    let Some((sources, names)) = sources.and_then(|sources| top_names(&sources).map(|names| (sources, names))) else {
        return context.fill(None);
    };
    let context = context.fill(Some(&names));
    if is_enough(&context.tree, &sources) { context } else { context.fill(None) }
}

/// Returns the first components of the sources, or `None` when one has a wildcard there or is the whole context.
fn top_names(sources: &[Vec<u8>]) -> Option<BTreeSet<Vec<u8>>> {
    let first = |source: &Vec<u8>| path::components(source).next().filter(|c| !pattern::has_wildcards(c)).map(pattern::unescape);
    sources.iter().map(first).collect()
}

/// Whether a part of the context answers for the whole: every source is found, and no link leads from one entry to another.
fn is_enough(tree: &Tree, sources: &[Vec<u8>]) -> bool {
    let is_link = |id: NodeId| matches!(tree.node(id).kind, Kind::Symlink(_));
    let leads_away = |id: NodeId| match &tree.node(id).kind {
        Kind::Symlink(target) => target.starts_with(b"/") || path::components(target).any(|c| c == b".."),
        _ => false,
    };
    let is_found = |source: &Vec<u8>| {
        let literal: Vec<&[u8]> = path::components(source).take_while(|c| !pattern::has_wildcards(c)).collect();
        tree.resolve(&pattern::unescape(&[b"/", literal.join(&b'/').as_slice()].concat())).is_ok()
    };
    sources.iter().all(is_found)
        && !tree.entries(Tree::ROOT).into_iter().flatten().any(|(_, &id)| is_link(id))
        && !(0..tree.len()).any(|n| leads_away(NodeId(n as u32)))
}
