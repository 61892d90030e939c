//! RUN: asks the runner, and says what went wrong.

use std::rc::Rc;

use ukc_diagnostics::{Diagnostic, Span};
use ukc_oci::OciError;
use ukc_rootfs::{Kind, ResolveError, Tree, path};

use super::layers::{combine, content_key};
use super::{Made, Run};
use crate::graph::{Key, MountKind, MountOp, MountSource, RunOp};
use crate::lower::{image_problem, user_problem};
use crate::run::{LayerFiles, Layers, MountFiles, Process, Ran, RootLayer, RunError, RunMount, RunMountKind, RunStep};

/// How much of a command a message repeats.
const SHOWN_CHARS: usize = 160;

impl Run<'_> {
    pub(super) fn run(&mut self, op: &RunOp, span: Span) -> Made {
        let base = self.take(op.base);
        let sources: Vec<_> = op.mounts.iter().map(|m| m.kind.source().map(|s| self.take(s.step))).collect();
        let broken = |tree: Rc<Tree>| Made { tree, is_broken: true, ..Made::whole(Tree::new()) };
        // A program that takes minutes is not started for a build that fails anyway.
        let is_lost = self.problems.iter().any(Diagnostic::is_error) || sources.iter().flatten().any(|s| s.is_broken);
        let Some(layers) = base.layers.as_ref().filter(|_| !is_lost) else { return broken(base.tree) };
        let options = self.options;
        let step = match run_step(op, layers, &base.tree, &sources, &options.run.hosts, span) {
            Ok(step) => step,
            Err(problem) => {
                self.problems.push(*problem);
                return broken(base.tree);
            }
        };
        match self.runner.run(&step) {
            Ok(Ran { id, changes }) => {
                let key = combine(&[&step.key.0, id.as_bytes()]);
                drop(step);
                let layer = RootLayer { key, files: LayerFiles::Ran(id) };
                let layers: Layers = [layers.as_slice(), &[Rc::new(layer)]].concat();
                let mut tree = Rc::unwrap_or_clone(base.tree);
                match tree.apply(b"/", changes, Some(op.origin)) {
                    Ok(()) => Made { layers: Some(layers), ..Made::whole(tree) },
                    Err(error) => {
                        let error = OciError::Apply { archive: "what the command changed".into(), error };
                        self.problems.push(image_problem(&error, span));
                        broken(Rc::new(tree))
                    }
                }
            }
            Err(RunError::Interrupted) => {
                self.is_interrupted = true;
                broken(base.tree)
            }
            Err(error) => {
                self.problems.push(failure(&op.process, &op.mounts, &base.tree, &error, span));
                broken(base.tree)
            }
        }
    }
}

fn run_step<'a>(
    op: &'a RunOp,
    layers: &'a Layers,
    tree: &'a Tree,
    sources: &[Option<super::Output>],
    hosts: &'a [(String, String)],
    span: Span,
) -> Result<RunStep<'a>, Box<Diagnostic>> {
    let user = tree.lookup_user(&op.user).map_err(|e| Box::new(user_problem(&e, op.user_span.unwrap_or(span))))?;
    if let Some(missing) = missing_program(&op.process, tree, span) {
        return Err(Box::new(missing));
    }
    let mut parts = op.key_text().into_bytes();
    parts.extend(format!(" {}:{}:{:?} {:?}", user.uid, user.gid, user.groups, hosts).bytes());
    let mut mounts = vec![];
    for (mount, source) in op.mounts.iter().zip(sources) {
        let mut files = || -> Result<Option<MountFiles>, Box<Diagnostic>> {
            let (Some(named), Some(source)) = (mount.kind.source(), source) else { return Ok(None) };
            let files = mount_files(named, &source.tree, mount.span)?;
            parts.extend(files.key.0);
            Ok(Some(files))
        };
        let what = match &mount.kind {
            MountKind::Bind { read_only, .. } => {
                let files = files()?.expect("a bind mount has a source");
                RunMountKind::Bind { files, read_only: *read_only }
            }
            MountKind::Cache { id, sharing, read_only, access, .. } => {
                RunMountKind::Cache { id: id.clone(), seed: files()?, sharing: *sharing, read_only: *read_only, access: *access }
            }
            MountKind::Tmpfs { size_bytes } => RunMountKind::Tmpfs { size_bytes: *size_bytes },
            MountKind::Secret { id, is_file, env, required, access } => {
                RunMountKind::Secret { id: id.clone(), is_file: *is_file, env: env.clone(), required: *required, access: *access }
            }
            MountKind::Ssh { id, required, access } => RunMountKind::Ssh { id: id.clone(), required: *required, access: *access },
        };
        mounts.push(RunMount { target: mount.target.clone(), what, span: mount.span });
    }
    let below = layers.last().expect("a root has a layer").key;
    Ok(RunStep {
        key: combine(&[b"run", &below.0, &parts]),
        may_use_cache: op.may_use_cache,
        layers,
        tree,
        process: &op.process,
        user,
        mounts,
        network: op.network,
        security: op.security,
        hosts,
    })
}

/// Returns the files that a mount names, as a tree of their own.
fn mount_files(source: &MountSource, tree: &Tree, span: Span) -> Result<MountFiles, Box<Diagnostic>> {
    let wanted = path::absolute(b"/", source.path.as_bytes());
    let found = tree.resolve(&wanted).map_err(|e| {
        let message = match e {
            ResolveError::Loop => format!("too many symbolic links on the way to `{}` in {}", source.path, source.text),
            _ => format!("`{}` is not in {}", source.path, source.text),
        };
        Box::new(Diagnostic::error("missing-source", message).at(span, ""))
    })?;
    let (files, is_file) = match &tree.node(found.id).kind {
        Kind::Dir(_) => (tree.subtree(found.id), false),
        _ => {
            let mut files = Tree::new();
            let id = files.add(tree.node(found.id).clone());
            files.link(Tree::ROOT, MountFiles::FILE_NAME.as_bytes(), id);
            (files, true)
        }
    };
    let key: Key = content_key(&files.changes_since(&Tree::new())).map_err(|e| {
        Box::new(
            Diagnostic::error("unreadable-file", format!("a file of `{}` in {} cannot be read: {e}", source.path, source.text))
                .at(span, ""),
        )
    })?;
    Ok(MountFiles { key, tree: files, is_file })
}

fn shown(process: &Process) -> String {
    let text = process.argv.join(" ");
    let line = text.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push_str(" ...");
    }
    shown
}

/// Returns the diagnostic of a program that the root does not have, if it was named by its path: that is clearer than what execve(2) says.
fn missing_program(process: &Process, tree: &Tree, span: Span) -> Option<Diagnostic> {
    let program = process.argv.first()?;
    if process.script.is_some() || !program.starts_with('/') || tree.resolve(program.as_bytes()).is_ok() {
        return None;
    }
    let message = format!("process \"{}\" cannot be started: there is no `{program}` in this image", shown(process));
    let diagnostic = Diagnostic::error("missing-program", message).at(span, "");
    Some(if tree.entries(Tree::ROOT).is_some_and(|e| e.is_empty()) {
        diagnostic
            .note("`FROM scratch` has no files at all, so no program either")
            .help("start from an image with a shell, or COPY a static program first")
    } else if program == "/bin/sh" {
        diagnostic
            .help("this image has no shell: use the exec form, `RUN [\"program\", \"argument\"]`, or run the command in an earlier stage")
    } else {
        diagnostic
    })
}

fn failure(process: &Process, mounts: &[MountOp], tree: &Tree, error: &RunError, span: Span) -> Diagnostic {
    let shown = shown(process);
    match error {
        RunError::Exited(status) => {
            let diagnostic =
                Diagnostic::error("run-failed", format!("process \"{shown}\" did not complete successfully: exit code: {status}"));
            let diagnostic = diagnostic.at(span, "");
            match status {
                137 => diagnostic.note("signal 9 ended it: often the system was out of memory"),
                129..=192 => diagnostic.note(format!("signal {} ended it", status - 128)),
                _ => diagnostic,
            }
        }
        RunError::NotStarted(status, why) => {
            let message = format!("process \"{shown}\" cannot be started (exit code {status}): {why}");
            let diagnostic = Diagnostic::error("missing-program", message).at(span, "");
            match interpreter(process, tree) {
                Some(name) if *status == 127 => diagnostic.note(format!("the program is there, but its interpreter `{name}` is not")),
                _ => diagnostic,
            }
        }
        RunError::Mount(index, why, help) => {
            let diagnostic = Diagnostic::error("mount-failed", why.clone()).at(mounts.get(*index).map_or(span, |m| m.span), "");
            help.iter().fold(diagnostic, |d, help| d.help(help.clone()))
        }
        RunError::Unable(why, help) => {
            let diagnostic = Diagnostic::error("cannot-run", why.clone()).at(span, "");
            help.iter().fold(diagnostic, |d, help| d.help(help.clone()))
        }
        RunError::Interrupted => Diagnostic::error("interrupted", "the build was interrupted"),
    }
}

/// Returns the interpreter that a script names and that is not there (execve(2), "Interpreter scripts").
fn interpreter(process: &Process, tree: &Tree) -> Option<String> {
    let start = match &process.script {
        Some(script) => script.text.clone().into_bytes(),
        None => {
            let id = tree.resolve(process.argv.first()?.as_bytes()).ok()?.id;
            let Kind::File(content) = &tree.node(id).kind else { return None };
            let mut start = vec![0; 256];
            let len = std::io::Read::read(&mut content.open().ok()?, &mut start).ok()?;
            start.truncate(len);
            start
        }
    };
    let line = start.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let name = String::from_utf8_lossy(line).split_whitespace().next()?.to_owned();
    tree.resolve(name.as_bytes()).is_err().then_some(name)
}
