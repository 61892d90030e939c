//! Graph → trees: executes the steps in order.

mod archive;
mod export;
mod layers;
mod run;
mod source;
mod wanted;

use std::collections::BTreeMap;
use std::rc::Rc;

use ukc_diagnostics::{Diagnostic, SourceMap, Span};
use ukc_oci::Store;
use ukc_rootfs::{Content, Kind, Meta, Node, NodeId, Origin, ResolveError, Tree, path};

use crate::context::Context;
use crate::copy::{Conflict, Rules, Select, copy};
use crate::graph::{CopyOp, CopySource, Graph, Op, Step, StepId};
use crate::ignore::Matcher;
use crate::lower::{Lowered, image_problem, user_problem};
use crate::options::ContextSource;
use crate::run::{Layers, NoRunner, Runner};
use crate::{Built, Options, pattern};
use export::Export;
use wanted::{fill, wanted};

/// Executes a graph and returns the target's tree.
///
/// # Errors
/// Everything that went wrong, with the warnings of `lowered` before it. Steps that build on a failed one still run as far as that makes sense, so
/// that independent mistakes are all reported.
pub fn execute(lowered: Lowered, sources: &mut SourceMap, options: &Options, store: &Store) -> Result<Built, Vec<Diagnostic>> {
    execute_observed(lowered, sources, options, store, &mut |_| true)
}

/// As [`execute`], and calls `begin` before each step that is executed; when it answers `false`, the build is given up.
///
/// # Errors
/// As [`execute`]; a build that was given up has the error `interrupted`.
pub fn execute_observed(
    lowered: Lowered,
    sources: &mut SourceMap,
    options: &Options,
    store: &Store,
    begin: &mut dyn FnMut(&Step) -> bool,
) -> Result<Built, Vec<Diagnostic>> {
    execute_with(lowered, sources, options, store, begin, &mut NoRunner)
}

/// As [`execute_observed`], with someone who executes RUN.
///
/// # Errors
/// As [`execute_observed`].
pub fn execute_with(
    lowered: Lowered,
    sources: &mut SourceMap,
    options: &Options,
    store: &Store,
    begin: &mut dyn FnMut(&Step) -> bool,
    runner: &mut dyn Runner,
) -> Result<Built, Vec<Diagnostic>> {
    let Lowered { graph, diagnostics } = lowered;
    let uses = graph.uses();
    let mut run = Run {
        graph: &graph,
        sources,
        options,
        store,
        trees: BTreeMap::new(),
        uses,
        problems: diagnostics,
        date: (options.epoch().unwrap_or(0), 0),
        layered: layers::layered(&graph),
        runner,
        is_interrupted: false,
        export: options.keep_layers.then(|| Export::new(&graph)),
    };
    // The tree of a directory that the result starts from.
    let mut lowest = None;
    for (n, step) in graph.steps.iter().enumerate() {
        let id = StepId(n as u32);
        // Lowering makes a step for every reference; one that nothing uses was the base of a broken stage.
        if run.uses[n] > 0 {
            if run.is_interrupted || !begin(step) {
                run.problems.push(Diagnostic::error("interrupted", "the build was interrupted"));
                return Err(run.problems);
            }
            let base = run.export.as_ref().and_then(|export| export.base(id)).and_then(|base| run.trees.get(&base));
            let before = base.map(|output| output.tree.clone());
            run.step(id, &step.op, step.span);
            if let (Some(export), Some(before), Some(after)) = (&mut run.export, before, run.trees.get(&id)) {
                export.add(id, &before, &after.tree);
            }
            if run.export.as_ref().is_some_and(|export| export.starts_from_files(&graph) == Some(id)) {
                lowest = run.trees.get(&id).map(|output| output.tree.clone());
            }
        }
    }
    if run.is_interrupted {
        run.problems.push(Diagnostic::error("interrupted", "the build was interrupted"));
        return Err(run.problems);
    }
    let result = run.take(graph.result);
    let layers = run.export.map(|export| export.finish(&graph, lowest.as_deref()));
    let problems = run.problems;
    if problems.iter().any(Diagnostic::is_error) {
        return Err(problems);
    }
    let mut tree = result.tree.compact();
    if let Some(epoch) = options.epoch() {
        clamp(&mut tree, epoch);
    }
    let (config, origins, spans, history) = (graph.config, graph.origins, graph.spans, graph.history);
    Ok(Built { tree, config, origins, spans, diagnostics: problems, history, layers })
}

/// Moves times after `epoch` to it.
fn clamp(tree: &mut Tree, epoch: i64) {
    for n in 0..tree.len() {
        let meta = &mut tree.node_mut(NodeId(n as u32)).meta;
        meta.mtime = meta.mtime.min((epoch, 0));
    }
}

/// The tree of a step.
#[derive(Clone)]
struct Output {
    tree: Rc<Tree>,
    /// For contexts: what is excluded and what cannot be read.
    context: Option<Rc<Context>>,
    /// Something in it is missing because of an error that was reported.
    is_broken: bool,
    /// The tree as layers, when a RUN builds on it and it is not broken.
    layers: Option<Layers>,
}

/// What a step made.
struct Made {
    tree: Rc<Tree>,
    context: Option<Rc<Context>>,
    is_broken: bool,
    /// What it was made from, if that is needed to know the difference.
    from: Option<(Rc<Tree>, Layers)>,
    /// Its layers, if the step knows them itself.
    layers: Option<Layers>,
}

impl Made {
    fn whole(tree: Tree) -> Made {
        Made { tree: Rc::new(tree), context: None, is_broken: false, from: None, layers: None }
    }
}

struct Run<'a> {
    graph: &'a Graph,
    sources: &'a mut SourceMap,
    options: &'a Options,
    store: &'a Store,
    trees: BTreeMap<StepId, Output>,
    /// How often each step's tree will still be asked for: the last time it is taken instead of copied.
    uses: Vec<u32>,
    problems: Vec<Diagnostic>,
    /// Of directories that no source has.
    date: (i64, u32),
    /// Which steps' trees are needed as layers.
    layered: Vec<bool>,
    runner: &'a mut dyn Runner,
    is_interrupted: bool,
    /// What the outputs need besides the tree.
    export: Option<Export>,
}

impl Run<'_> {
    fn take(&mut self, id: StepId) -> Output {
        let left = &mut self.uses[id.0 as usize];
        *left -= 1;
        let output = if *left == 0 { self.trees.remove(&id) } else { self.trees.get(&id).cloned() };
        output.expect("inputs come before the steps that use them")
    }

    fn step(&mut self, id: StepId, op: &Op, span: Span) {
        let made = match op {
            Op::Scratch => Ok(Made::whole(Tree::new())),
            Op::Unknown { base, .. } => {
                let tree = base.map_or_else(Tree::new, |id| Rc::unwrap_or_clone(self.take(id).tree));
                Ok(Made { is_broken: true, ..Made::whole(tree) })
            }
            Op::Image { image, origin, .. } => {
                let complete = match &self.options.remote {
                    Some(remote) if !image.is_complete() => remote.layers(image, self.store),
                    _ => Ok(()),
                };
                let tree = complete.and_then(|()| image.tree(Some(*origin), self.store));
                tree.map(Made::whole).map_err(|e| vec![image_problem(&e, span)])
            }
            Op::Context { named, origin, .. } => self.context(id, *named, *origin, span).map(|c| Made {
                tree: Rc::new(c.tree.clone()),
                context: Some(Rc::new(c)),
                ..Made::whole(Tree::new())
            }),
            Op::Workdir { base, path, user, origin } => {
                let base = self.take(*base);
                let before = self.keep(id, &base);
                let mut tree = Rc::unwrap_or_clone(base.tree);
                let found = self.workdir(&mut tree, path, user, *origin, span);
                let is_broken = base.is_broken || found.is_err();
                // In a tree that is not all there, a user may be missing for that reason.
                self.problems.extend(found.err().filter(|_| !base.is_broken));
                Ok(Made { is_broken, from: before, ..Made::whole(tree) })
            }
            Op::Copy(copy) => Ok(self.copy(id, copy)),
            Op::Run(run) => Ok(self.run(run, span)),
        };
        let made = made.and_then(|made| Ok((self.layers(id, op, &made, span).map_err(|d| vec![d])?, made)));
        let output = match made {
            Ok((layers, made)) => Output { tree: made.tree, context: made.context, is_broken: made.is_broken, layers },
            Err(problems) => {
                self.problems.extend(problems);
                Output { tree: Rc::new(Tree::new()), context: None, is_broken: true, layers: None }
            }
        };
        self.trees.insert(id, output);
    }

    fn context(&mut self, id: StepId, named: Option<usize>, origin: Origin, span: Span) -> Result<Context, Vec<Diagnostic>> {
        let scanned = match named.map(|n| &self.options.named_contexts[n].source) {
            None => Context::open(&self.options.context, self.options.dockerfile.as_deref(), self.sources),
            Some(ContextSource::Dir(dir)) => Context::open(dir, None, self.sources),
            Some(ContextSource::Layout(_) | ContextSource::Image(_)) => unreachable!("these are images"),
        };
        let context = scanned.map_err(|mut problems| {
            // What is wrong with the directory itself is shown where it is asked for.
            problems.iter_mut().filter(|d| d.labels.is_empty()).for_each(|d| *d = d.clone().at(span, ""));
            problems
        })?;
        let mut context = fill(context, wanted(self.graph, id));
        for n in 0..context.tree.len() {
            context.tree.node_mut(NodeId(n as u32)).origin = Some(origin);
        }
        Ok(context)
    }

    fn workdir(&mut self, tree: &mut Tree, dir: &str, user: &str, origin: Origin, span: Span) -> Result<(), Diagnostic> {
        let (uid, gid) = match user {
            "" => (0, 0),
            user => tree
                .lookup_user(user)
                .map(|u| (u.uid, u.gid))
                .map_err(|e| user_problem(&e, span).note("the directory of WORKDIR belongs to the current USER"))?,
        };
        let meta = Meta { uid, gid, mtime: self.date, ..Meta::new(0o755) };
        match tree.make_dirs_with(dir.as_bytes(), false, &mut |_| meta.clone(), Some(origin)) {
            Ok(_) => Ok(()),
            Err(ResolveError::Loop) => {
                Err(Diagnostic::error("link-loop", format!("too many symbolic links on the way to `{dir}`")).at(span, ""))
            }
            Err(_) => Err(Diagnostic::error("not-a-directory", format!("`{dir}` cannot be the working directory: a part of it is a file"))
                .at(span, "")),
        }
    }

    fn copy(&mut self, id: StepId, op: &CopyOp) -> Made {
        let base = self.take(op.base);
        let kept = self.keep(id, &base);
        let from = op.from.map(|id| self.take(id));
        let mut target = Rc::unwrap_or_clone(base.tree);
        let before = self.problems.len();
        if from.as_ref().is_none_or(|f| !f.is_broken) {
            self.copy_into(op, from.as_ref(), &mut target, base.is_broken);
        }
        let failed = self.problems[before..].iter().any(Diagnostic::is_error);
        let from_is_broken = from.is_some_and(|f| f.is_broken);
        Made { is_broken: base.is_broken || from_is_broken || failed, from: kept, ..Made::whole(target) }
    }

    fn copy_into(&mut self, op: &CopyOp, from: Option<&Output>, target: &mut Tree, is_broken: bool) {
        let owner = match &op.chown {
            None => None,
            Some((owner, place)) => match target.lookup_owner(owner) {
                Ok(owner) => Some(owner),
                Err(_) if is_broken => None,
                Err(error) => {
                    self.problems.push(user_problem(&error, *place));
                    return;
                }
            },
        };
        let exclude = Matcher::new(op.exclude.iter().map(|p| p.as_bytes())).expect("checked while lowering");
        // An independent layer starts from nothing and is laid over the tree at the end.
        let mut layer = op.link.then(Tree::new);
        let into: &mut Tree = layer.as_mut().unwrap_or(target);
        for source in &op.sources {
            let rules = Rules { owner, mode: op.chmod.as_ref().map(|(_, mode)| mode), origin: source.origin, date: self.date };
            let done = match (&source.inline, from) {
                (Some(bytes), _) => self.inline(op, source, bytes, into, &rules),
                (None, Some(from)) if op.parents => self.with_parents(op, source, from, into, &exclude, &rules),
                (None, Some(from)) => self.paths(op, source, from, into, &exclude, &rules),
                (None, None) => Ok(()),
            };
            if let Err(problem) = done {
                self.problems.push(*problem);
            }
        }
        if let Some(layer) = layer {
            overlay(&layer, target);
        }
    }

    fn inline(&self, op: &CopyOp, source: &CopySource, bytes: &[u8], target: &mut Tree, rules: &Rules) -> Result<(), Box<Diagnostic>> {
        let mut file = Tree::new();
        let meta = Meta { mtime: self.date, ..Meta::new(0o644) };
        let id = file.add(Node { meta, kind: Kind::File(Content::from_bytes(bytes)), origin: None });
        let copied = copy(&file, id, source.path.as_bytes(), target, op.dest.as_bytes(), &Select::All, rules);
        copied.map(drop).map_err(|c| conflict(&c, op, source))
    }

    /// COPY and ADD without `--parents`.
    fn paths(
        &self,
        op: &CopyOp,
        source: &CopySource,
        from: &Output,
        target: &mut Tree,
        exclude: &Matcher,
        rules: &Rules,
    ) -> Result<(), Box<Diagnostic>> {
        let found = self.find(op, source, &from.tree, from)?;
        let mut copied = vec![];
        for (name, id) in found {
            let base = path::base(&name);
            // The contents of a directory are matched below it; a file, and whatever a wildcard found, by its own name.
            let by_name = from.tree.entries(id).is_none() || pattern::has_wildcards(source.path.as_bytes());
            if by_name && !base.is_empty() && exclude.matches(base) {
                continue;
            }
            // A wildcard can match a link that leads nowhere; that is copied as it is, like a link inside a directory.
            let found = from.tree.resolve(&name).or_else(|_| from.tree.resolve_nofollow(&name)).map_or(name.clone(), |f| f.path);
            self.check_readable(op, source, from, &found, id)?;
            if op.unpack && self.unpack(op, source, &from.tree, id, target, rules)? {
                continue;
            }
            let keep = |rel: &[u8]| !exclude.matches(rel);
            let select = if exclude.is_empty() { Select::All } else { Select::If(&keep) };
            copy(&from.tree, id, base, target, op.dest.as_bytes(), &select, rules).map_err(|c| conflict(&c, op, source))?;
            copied.push((name, from.tree.entries(id).is_some()));
        }
        self.judge_wildcard(op, source, target, &copied).map_or(Ok(()), |warning| Err(Box::new(warning)))
    }

    /// COPY with `--parents`: what matches keeps its path, from a `/./` on if there is one.
    fn with_parents(
        &self,
        op: &CopyOp,
        source: &CopySource,
        from: &Output,
        target: &mut Tree,
        exclude: &Matcher,
        rules: &Rules,
    ) -> Result<(), Box<Diagnostic>> {
        let (pivot, rest) = source.path.split_once("/./").unwrap_or(("/", &source.path));
        let wanted = path::absolute(b"/", rest.as_bytes())[1..].to_vec();
        let root = path::absolute(b"/", pivot.as_bytes());
        let root_id = from.tree.resolve(&root).map_err(|e| Box::new(self.missing(op, source, from, &root, e)))?;
        let include = Matcher::new([wanted.as_slice()])
            .map_err(|bad| Box::new(Diagnostic::error("invalid-pattern", format!("`{}`: {}", source.path, bad.why)).at(source.span, "")))?;
        let selected = |rel: &[u8]| (wanted.is_empty() || include.matches(rel)) && !exclude.matches(rel);
        let mut matched = vec![];
        from.tree.walk_from(root_id.id, &mut |rel, id| {
            if selected(&rel[1..]) {
                matched.push((rel[1..].to_vec(), id));
            }
        });
        if matched.is_empty() && !pattern::has_wildcards(&wanted) && exclude.is_empty() {
            let literal = path::join(&root, &pattern::unescape(&wanted));
            return Err(Box::new(self.missing(op, source, from, &literal, ResolveError::NotFound)));
        }
        for (rel, id) in &matched {
            if from.tree.entries(*id).is_none() {
                self.check_readable(op, source, from, &path::join(&root_id.path, rel), *id)?;
            }
        }
        let dest = if op.dest.ends_with('/') { op.dest.clone() } else { format!("{}/", op.dest) };
        copy(&from.tree, root_id.id, b"", target, dest.as_bytes(), &Select::If(&selected), rules).map_err(|c| conflict(&c, op, source))?;
        Ok(())
    }
}

/// The diagnostic of a destination that has something else in the way.
fn conflict(conflict: &Conflict, op: &CopyOp, source: &CopySource) -> Box<Diagnostic> {
    let show = |p: &[u8]| String::from_utf8_lossy(p).into_owned();
    let diagnostic = match conflict {
        Conflict::DirectoryOverOther(at) => {
            let message = format!("cannot copy the directory `{}` over `{}`, which is no directory", source.path, show(at));
            Diagnostic::error("cannot-copy", message).at(op.dest_span, "").note("symbolic links below the destination are not followed")
        }
        Conflict::OtherOverDirectory(at) => {
            let message = format!("cannot replace the directory `{}` with a file of `{}`", show(at), source.path);
            Diagnostic::error("cannot-copy", message).at(op.dest_span, "")
        }
        Conflict::NotADirectory(at) => {
            let message = format!("cannot copy to `{}`: a part of it is not a directory", show(at));
            Diagnostic::error("not-a-directory", message).at(op.dest_span, "")
        }
        Conflict::LinkLoop(at) => {
            Diagnostic::error("link-loop", format!("too many symbolic links on the way to `{}`", show(at))).at(op.dest_span, "")
        }
    };
    Box::new(diagnostic)
}

/// Lays a `--link` layer over a tree: directories merge and take the layer's metadata, everything else replaces.
fn overlay(layer: &Tree, target: &mut Tree) {
    let mut dirs: BTreeMap<Vec<u8>, NodeId> = BTreeMap::from([(Vec::new(), Tree::ROOT)]);
    let mut links: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    layer.walk_from(Tree::ROOT, &mut |rel, id| {
        let (dir, name) = rel.split_at(rel.iter().rposition(|&b| b == b'/').unwrap_or(0));
        let (parent, name) = (dirs[dir], &name[1..]);
        let node = layer.node(id);
        if let Kind::Dir(_) = node.kind {
            let existing = target.entries(parent).and_then(|e| e.get(name)).copied().filter(|&e| target.entries(e).is_some());
            let made = existing.unwrap_or_else(|| {
                let new = target.add(Node { meta: node.meta.clone(), kind: Kind::Dir(BTreeMap::new()), origin: node.origin });
                target.link(parent, name, new);
                new
            });
            target.node_mut(made).meta = node.meta.clone();
            dirs.insert(rel.to_vec(), made);
        } else {
            let made = *links.entry(id).or_insert_with(|| target.add(node.clone()));
            target.link(parent, name, made);
        }
    });
}
