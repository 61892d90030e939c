//! Graph → trees: executes the steps in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use ukc_diagnostics::{Diagnostic, SourceMap, Span, suggest};
use ukc_oci::tar::{Whiteouts, changes_of_file};
use ukc_oci::{Store, is_archive, unpack_to_store};
use ukc_rootfs::{Content, Kind, Meta, Node, NodeId, Origin, ResolveError, Tree, path};

use crate::context::Context;
use crate::copy::{Conflict, Rules, Select, copy, make_dirs};
use crate::graph::{CopyOp, CopySource, Op, StepId};
use crate::ignore::Matcher;
use crate::lower::{Lowered, image_problem, user_problem};
use crate::options::ContextSource;
use crate::{Built, Options, pattern};

/// Executes a graph and returns the target's tree.
///
/// # Errors
/// Everything that went wrong, with the warnings of `lowered` before it. Steps that build on a failed one still run as far as that makes sense, so
/// that independent mistakes are all reported.
pub fn execute(lowered: Lowered, sources: &mut SourceMap, options: &Options, store: &Store) -> Result<Built, Vec<Diagnostic>> {
    let Lowered { graph, diagnostics } = lowered;
    let mut uses = vec![0u32; graph.steps.len()];
    graph.steps.iter().flat_map(|s| s.op.inputs()).for_each(|id| uses[id.0 as usize] += 1);
    uses[graph.result.0 as usize] += 1;
    let mut run =
        Run { sources, options, store, trees: BTreeMap::new(), uses, problems: diagnostics, date: (options.epoch().unwrap_or(0), 0) };
    for (n, step) in graph.steps.iter().enumerate() {
        let id = StepId(n as u32);
        // Lowering makes a step for every reference; one that nothing uses was the base of a broken stage.
        if run.uses[n] > 0 {
            run.step(id, &step.op, step.span);
        }
    }
    let result = run.take(graph.result);
    let problems = run.problems;
    if problems.iter().any(Diagnostic::is_error) {
        return Err(problems);
    }
    let mut tree = result.tree.compact();
    if let Some(epoch) = options.epoch() {
        clamp(&mut tree, epoch);
    }
    let (config, origins, spans, history) = (graph.config, graph.origins, graph.spans, graph.history);
    Ok(Built { tree, config, origins, spans, diagnostics: problems, history })
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
}

struct Run<'a> {
    sources: &'a mut SourceMap,
    options: &'a Options,
    store: &'a Store,
    trees: BTreeMap<StepId, Output>,
    /// How often each step's tree will still be asked for: the last time it is taken instead of copied.
    uses: Vec<u32>,
    problems: Vec<Diagnostic>,
    /// Of directories that no source has.
    date: (i64, u32),
}

impl Run<'_> {
    fn take(&mut self, id: StepId) -> Output {
        let left = &mut self.uses[id.0 as usize];
        *left -= 1;
        let output = if *left == 0 { self.trees.remove(&id) } else { self.trees.get(&id).cloned() };
        output.expect("inputs come before the steps that use them")
    }

    fn step(&mut self, id: StepId, op: &Op, span: Span) {
        let output = match op {
            Op::Scratch => Ok((Tree::new(), None, false)),
            Op::Image { image, origin, .. } => {
                let tree = image.tree(Some(*origin), self.store).map_err(|e| vec![image_problem(&e, span)]);
                tree.map(|tree| (tree, None, false))
            }
            Op::Context { named, origin, .. } => self.context(*named, *origin, span).map(|c| (c.tree.clone(), Some(Rc::new(c)), false)),
            Op::Workdir { base, path, user, origin } => {
                let base = self.take(*base);
                let mut tree = Rc::unwrap_or_clone(base.tree);
                let found = self.workdir(&mut tree, path, user, *origin, span);
                let is_broken = base.is_broken || found.is_err();
                self.problems.extend(found.err());
                Ok((tree, None, is_broken))
            }
            Op::Copy(copy) => Ok(self.copy(copy)),
        };
        let (tree, context, is_broken) = output.unwrap_or_else(|problems| {
            self.problems.extend(problems);
            (Tree::new(), None, true)
        });
        self.trees.insert(id, Output { tree: Rc::new(tree), context, is_broken });
    }

    fn context(&mut self, named: Option<usize>, origin: Origin, span: Span) -> Result<Context, Vec<Diagnostic>> {
        let scanned = match named.map(|n| &self.options.named_contexts[n].source) {
            None => Context::scan(&self.options.context, self.options.dockerfile.as_deref(), self.sources),
            Some(ContextSource::Dir(dir)) => Context::scan(dir, None, self.sources),
            Some(ContextSource::Layout(_)) => unreachable!("layouts are images"),
        };
        let mut context = scanned.map_err(|mut problems| {
            // What is wrong with the directory itself is shown where it is asked for.
            problems.iter_mut().filter(|d| d.labels.is_empty()).for_each(|d| *d = d.clone().at(span, ""));
            problems
        })?;
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

    fn copy(&mut self, op: &CopyOp) -> (Tree, Option<Rc<Context>>, bool) {
        let base = self.take(op.base);
        let from = op.from.map(|id| self.take(id));
        let mut target = Rc::unwrap_or_clone(base.tree);
        let before = self.problems.len();
        if from.as_ref().is_none_or(|f| !f.is_broken) {
            self.copy_into(op, from.as_ref(), &mut target);
        }
        let failed = self.problems[before..].iter().any(Diagnostic::is_error);
        let from_is_broken = from.is_some_and(|f| f.is_broken);
        (target, None, base.is_broken || from_is_broken || failed)
    }

    fn copy_into(&mut self, op: &CopyOp, from: Option<&Output>, target: &mut Tree) {
        let owner = match &op.chown {
            None => None,
            Some((owner, place)) => match target.lookup_owner(owner) {
                Ok(owner) => Some(owner),
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

    /// Warns about patterns that match nothing, or several files of which only the last is left. BuildKit accepts both without a word.
    fn judge_wildcard(&self, op: &CopyOp, source: &CopySource, target: &Tree, copied: &[(Vec<u8>, bool)]) -> Option<Diagnostic> {
        if copied.is_empty() && op.exclude.is_empty() && !op.unpack {
            let message = format!("`{}` matches nothing in {}", source.path, op.from_text);
            return Some(Diagnostic::warning("nothing-copied", message).at(source.span, ""));
        }
        let is_dir = target.resolve(op.dest.as_bytes()).is_ok_and(|found| target.entries(found.id).is_some());
        let files = copied.iter().filter(|(_, is_dir)| !is_dir).count();
        (files > 1 && !is_dir).then(|| {
            let message = format!("`{}` matches {files} files, and each replaces the one before at `{}`", source.path, op.dest);
            Diagnostic::warning("overwritten-source", message).at(op.dest_span, "").help(format!("write `{}/`", op.dest))
        })
    }

    /// Finds what a source names: paths as they are called, and their nodes with links followed.
    fn find(&self, op: &CopyOp, source: &CopySource, tree: &Tree, from: &Output) -> Result<Vec<(Vec<u8>, NodeId)>, Box<Diagnostic>> {
        let text = path::absolute(b"/", source.path.as_bytes());
        let malformed = || {
            Box::new(
                Diagnostic::error("invalid-pattern", format!("`{}` is not a well-formed pattern", source.path))
                    .at(source.span, "")
                    .help("write `[[]` for a literal `[`"),
            )
        };
        pattern::check(&text).map_err(|_| malformed())?;
        if !pattern::has_wildcards(&text) {
            let literal = pattern::unescape(&text);
            return match tree.resolve(&literal) {
                Ok(found) => Ok(vec![(literal, found.id)]),
                Err(error) => Err(Box::new(self.missing(op, source, from, &literal, error))),
            };
        }
        // Components before the first wildcard are an ordinary path, whose links are followed.
        let parts: Vec<&[u8]> = path::components(&text).collect();
        let first = parts.iter().position(|p| pattern::has_wildcards(p)).unwrap_or(0);
        let dir = pattern::unescape(&[b"/", parts[..first].join(&b'/').as_slice()].concat());
        let Ok(root) = tree.resolve(&dir) else { return Ok(vec![]) };
        let mut level = vec![(dir, root.id)];
        for (depth, part) in parts[first..].iter().enumerate() {
            let is_last = first + depth + 1 == parts.len();
            let mut next = vec![];
            for (above, id) in level {
                for (name, &child) in tree.entries(id).into_iter().flatten() {
                    if pattern::matches(part, name) == Ok(true) {
                        let here = path::join(&above, name);
                        // Links on the way are not followed (fsutil walks the tree); a link that matches is.
                        let node = if is_last { tree.resolve(&here).map_or(child, |f| f.id) } else { child };
                        next.push((here, node));
                    }
                }
            }
            level = next;
        }
        Ok(level)
    }

    /// The diagnostic of a source that is not there.
    fn missing(&self, op: &CopyOp, source: &CopySource, from: &Output, literal: &[u8], error: ResolveError) -> Diagnostic {
        if error == ResolveError::Loop {
            let message = format!("too many symbolic links on the way to `{}` in {}", source.path, op.from_text);
            return Diagnostic::error("link-loop", message).at(source.span, "");
        }
        let relative = &literal[1..];
        let message = format!("`{}` is not in {}", source.path, op.from_text);
        let diagnostic = Diagnostic::error("missing-source", message).at(source.span, "");
        if let Some(context) = &from.context {
            let unreadable =
                context.unreadable.iter().find(|(p, _)| relative == p.as_slice() || relative.starts_with(&[p.as_slice(), b"/"].concat()));
            if let Some((path, why)) = unreadable {
                return Diagnostic::error("unreadable-file", format!("`{}` cannot be read: {why}", String::from_utf8_lossy(path)))
                    .at(source.span, "");
            }
            if context.exists_on_host(relative) {
                return match context.ignore.reason(relative) {
                    Some(line) => diagnostic
                        .at(line, "excluded here")
                        .note("the path exists, but .dockerignore excludes it")
                        .help(format!("add `!{}` below that line", String::from_utf8_lossy(relative))),
                    None => diagnostic.note("the path exists, but sockets cannot be copied"),
                };
            }
            if op.from_context && source.path.starts_with("..") {
                return diagnostic.note("sources are inside the build context: `..` does not leave it");
            }
        }
        let (dir, name) = path::split(literal);
        let siblings: Vec<String> = from
            .tree
            .resolve(dir)
            .ok()
            .and_then(|d| from.tree.entries(d.id))
            .map_or(vec![], |entries| entries.keys().map(|n| String::from_utf8_lossy(n).into_owned()).collect());
        match suggest::closest(&String::from_utf8_lossy(name), siblings.iter().map(String::as_str)) {
            Some(close) => {
                let shown = match source.path.rsplit_once('/') {
                    Some((dir, _)) => format!("{dir}/{close}"),
                    None => close.to_owned(),
                };
                diagnostic.help(format!("did you mean `{shown}`?"))
            }
            None => diagnostic,
        }
    }

    /// Refuses to copy what the system does not let us read: better here, at its instruction, than while the image is written.
    fn check_readable(&self, op: &CopyOp, source: &CopySource, from: &Output, found: &[u8], id: NodeId) -> Result<(), Box<Diagnostic>> {
        let Some(context) = &from.context else { return Ok(()) };
        let refuse = |path: &[u8], why: &str| {
            let message = format!("`{}` cannot be read: {why}", String::from_utf8_lossy(path));
            let help = if op.from_context { "change its permissions, or exclude it in .dockerignore" } else { "change its permissions" };
            Box::new(Diagnostic::error("unreadable-file", message).at(source.span, "").help(help))
        };
        let root = &found[1..];
        let below = |p: &[u8]| root.is_empty() || p == root || p.starts_with(&[root, b"/"].concat());
        if let Some((path, why)) = context.unreadable.iter().find(|(p, _)| below(p)) {
            return Err(refuse(path, why));
        }
        let mut bad = None;
        let mut check = |path: &[u8], id: NodeId| {
            if let Kind::File(Content::Host { path: host, .. }) = &from.tree.node(id).kind
                && bad.is_none()
                && let Err(e) =
                    rustix::fs::accessat(rustix::fs::CWD, host.as_path(), rustix::fs::Access::READ_OK, rustix::fs::AtFlags::EACCESS)
            {
                bad = Some((path.to_vec(), std::io::Error::from(e).to_string()));
            }
        };
        check(root, id);
        from.tree.walk_from(id, &mut |rel, id| check(path::join(root, rel).as_slice(), id));
        match bad {
            Some((path, why)) => Err(refuse(&path, &why)),
            None => Ok(()),
        }
    }

    /// Unpacks an archive of ADD; false when the source is none.
    fn unpack(
        &self,
        op: &CopyOp,
        source: &CopySource,
        tree: &Tree,
        id: NodeId,
        target: &mut Tree,
        rules: &Rules,
    ) -> Result<bool, Box<Diagnostic>> {
        let Kind::File(Content::Host { path: host, offset: 0, .. }) = &tree.node(id).kind else { return Ok(false) };
        let problem = |e: &ukc_oci::OciError| Box::new(image_problem(e, source.span));
        if !is_archive(host).map_err(|e| problem(&e))? {
            return Ok(false);
        }
        let what = format!("the archive `{}`", source.path);
        let plain = self.plain_archive(host).map_err(|e| problem(&e))?;
        let mut changes = changes_of_file(&plain, &what, Whiteouts::Literal, self.store).map_err(|e| problem(&e))?;
        if let Some((uid, gid)) = rules.owner {
            for change in &mut changes {
                if let ukc_rootfs::Action::Put(meta, _) = &mut change.action {
                    (meta.uid, meta.gid) = (uid, gid);
                }
            }
        }
        make_dirs(target, op.dest.as_bytes(), rules).map_err(|c| conflict(&c, op, source))?;
        let dest = target
            .resolve_for_creation(op.dest.as_bytes())
            .map_err(|_| conflict(&Conflict::LinkLoop(op.dest.clone().into()), op, source))?;
        target.apply(&dest, changes, Some(rules.origin)).map_err(|error| problem(&ukc_oci::OciError::Apply { archive: what, error }))?;
        Ok(true)
    }

    /// Returns the archive uncompressed; a plain one is used where it is.
    fn plain_archive(&self, host: &Path) -> Result<std::path::PathBuf, ukc_oci::OciError> {
        let compression = ukc_oci::Compression::of_file(host).map_err(|error| ukc_oci::OciError::Read { path: host.to_owned(), error })?;
        match compression {
            ukc_oci::Compression::Plain => Ok(host.to_owned()),
            _ => unpack_to_store(self.store, host),
        }
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
