//! What the sources of a COPY name: finding them, and saying well what is wrong when they are not there.

use ukc_diagnostics::{Diagnostic, suggest};
use ukc_rootfs::{Content, Kind, NodeId, ResolveError, Tree, path};

use super::{Output, Run};
use crate::graph::{CopyOp, CopySource};
use crate::pattern;

impl Run<'_> {
    /// Finds what a source names: paths as they are called, and their nodes with links followed.
    pub(super) fn find(
        &self,
        op: &CopyOp,
        source: &CopySource,
        tree: &Tree,
        from: &Output,
    ) -> Result<Vec<(Vec<u8>, NodeId)>, Box<Diagnostic>> {
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
    pub(super) fn missing(&self, op: &CopyOp, source: &CopySource, from: &Output, literal: &[u8], error: ResolveError) -> Diagnostic {
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
    pub(super) fn check_readable(
        &self,
        op: &CopyOp,
        source: &CopySource,
        from: &Output,
        found: &[u8],
        id: NodeId,
    ) -> Result<(), Box<Diagnostic>> {
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

    /// Warns about patterns that match nothing, or several files of which only the last is left. BuildKit accepts both without a word.
    pub(super) fn judge_wildcard(&self, op: &CopyOp, source: &CopySource, target: &Tree, copied: &[(Vec<u8>, bool)]) -> Option<Diagnostic> {
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
}
