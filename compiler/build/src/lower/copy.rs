//! COPY and ADD → [`CopyOp`].

use ukc_diagnostics::{Diagnostic, Span};
use ukc_dockerfile::{CopyArgs, Instruction, Source, Word, chmod, chown};
use ukc_rootfs::path;

use super::{Lower, StageState};
use crate::graph::{CopyOp, CopySource, Op};

impl Lower<'_> {
    pub(super) fn copy(
        &mut self,
        state: &mut StageState,
        index: usize,
        instruction: &Instruction,
        args: &CopyArgs,
        is_add: bool,
        escape: char,
    ) {
        let problems = self.problems.len();
        let op = self.copy_op(state, index, instruction, args, is_add, escape);
        if let Some(op) = op
            && !self.problems[problems..].iter().any(Diagnostic::is_error)
        {
            let words: Vec<&str> = op.sources.iter().map(|s| s.path.as_str()).collect();
            let mut created_by = format!("{} ", instruction.name());
            let flags = [
                args.from.as_ref().map(|f| format!("--from={}", f.value)),
                op.chown.as_ref().map(|(owner, _)| format!("--chown={owner}")),
                op.chmod.as_ref().map(|(mode, _)| format!("--chmod={mode}")),
                op.link.then(|| "--link".to_owned()),
                op.parents.then(|| "--parents".to_owned()),
            ];
            for flag in flags.into_iter().flatten() {
                created_by.push_str(&flag);
                created_by.push(' ');
            }
            created_by.push_str(&format!("{} {} # ukc", words.join(" "), op.dest));
            state.step = self.graph.add(Op::Copy(Box::new(op)), instruction.span);
            self.add_history(state, created_by, false);
        }
    }

    fn copy_op(
        &mut self,
        state: &StageState,
        index: usize,
        instruction: &Instruction,
        args: &CopyArgs,
        is_add: bool,
        escape: char,
    ) -> Option<CopyOp> {
        let from = match &args.from {
            Some(word) => self.copy_source(&word.value, index, word.span),
            None => None,
        };
        let dest_text = self.expand(state, &args.dest, escape);
        let mut sources = Vec::new();
        let single = args.sources.len() == 1;
        for source in &args.sources {
            let word = match source {
                Source::Path(word) => word,
                Source::Heredoc(doc) => {
                    let body = self.expand_heredoc(state, doc);
                    let origin = self.origin(doc.name.span);
                    let inline = Some(body.unwrap_or_default().into_bytes());
                    sources.push(CopySource { path: doc.name.value.clone(), span: doc.name.span, inline, origin });
                    continue;
                }
            };
            let Some(text) = self.expand(state, word, escape) else { continue };
            if is_add && is_remote(&text) {
                self.problems.push(
                    Diagnostic::error("remote-source", format!("`{text}` cannot be fetched: remote sources are not supported yet"))
                        .at(word.span, "")
                        .help("download it into the build context and add the file"),
                );
                continue;
            }
            if text.is_empty() {
                self.problems.push(
                    Diagnostic::error("empty-source", format!("`{}` expands to nothing, so there is nothing to copy", word.value))
                        .at(word.span, ""),
                );
                continue;
            }
            // Trouble with a file is shown where the user says where it shall be, unless only the source's word tells it from others.
            let origin = self.origin(if single { args.dest.span } else { word.span });
            sources.push(CopySource { path: text, span: word.span, inline: None, origin });
        }
        self.refuse_remote_flags(args);
        let dest_text = dest_text?;
        if dest_text.is_empty() {
            let message = format!("`{}` expands to nothing, so there is no destination", args.dest.value);
            self.problems.push(Diagnostic::error("empty-destination", message).at(args.dest.span, ""));
        }
        let is_dir = dest_text.ends_with('/') || dest_text.ends_with("/.") || dest_text == ".";
        if args.sources.len() > 1 && !is_dir {
            let message = format!("with several sources the destination is a directory, and `{dest_text}` does not end in `/`");
            self.problems.push(
                Diagnostic::error("destination-not-a-directory", message).at(args.dest.span, "").help(format!("write `{dest_text}/`")),
            );
        }
        let mut dest = String::from_utf8_lossy(&path::absolute(state.config.working_dir.as_bytes(), dest_text.as_bytes())).into_owned();
        if is_dir && dest != "/" {
            dest.push('/');
        }
        let chown = self
            .flag(state, args.chown.as_ref(), escape, "invalid-chown", |text| chown::parse(text).map(drop))
            .map(|(text, (), span)| (text, span));
        let chmod = self.flag(state, args.chmod.as_ref(), escape, "invalid-chmod", chmod::parse).map(|(text, mode, _)| (text, mode));
        let mut exclude = Vec::new();
        for word in &args.exclude {
            let Some(text) = self.expand(state, word, escape) else { continue };
            match crate::Matcher::new([text.as_bytes()]) {
                Ok(_) => exclude.push(text),
                Err(bad) => self.problems.push(
                    Diagnostic::error("invalid-pattern", format!("`{text}` cannot be used as a pattern: {}", bad.why)).at(word.span, ""),
                ),
            }
        }
        let needs_source = sources.iter().any(|s| s.inline.is_none());
        let (from, from_text) = match (from, &args.from) {
            (Some(source), _) => (Some(source.step), source.text),
            (None, Some(_)) => return None,
            (None, None) if needs_source => (Some(self.main_context(instruction.span)), "the build context".to_owned()),
            (None, None) => (None, String::new()),
        };
        Some(CopyOp {
            base: state.step,
            from,
            from_text,
            from_context: args.from.is_none(),
            sources,
            dest,
            dest_span: args.dest.span,
            chown,
            chmod,
            link: args.link,
            parents: args.parents,
            exclude,
            unpack: is_add && args.unpack.unwrap_or(true),
        })
    }

    /// Expands and parses the value of a flag.
    fn flag<T>(
        &mut self,
        state: &StageState,
        word: Option<&Word>,
        escape: char,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<(String, T, Span)> {
        let word = word?;
        let text = self.expand(state, word, escape)?;
        match parse(&text) {
            Ok(value) => Some((text, value, word.span)),
            Err(message) => {
                self.problems.push(Diagnostic::error(name, message).at(word.span, ""));
                None
            }
        }
    }

    /// `--checksum` and `--keep-git-dir` say something about remote sources only.
    fn refuse_remote_flags(&mut self, args: &CopyArgs) {
        let is_local = args.sources.iter().all(|s| !matches!(s, Source::Path(word) if is_remote(&word.value) || word.value.contains('$')));
        if let Some(checksum) = &args.checksum
            && is_local
        {
            let message = "`--checksum` is for sources that are downloaded, and this one is local";
            self.problems.push(Diagnostic::error("checksum-of-local-source", message).at(checksum.span, ""));
        }
    }
}

/// Whether a source of ADD is a URL or a git reference (Dockerfile reference, "ADD").
fn is_remote(text: &str) -> bool {
    ["http://", "https://", "ftp://", "git://", "ssh://", "git@"].iter().any(|scheme| text.starts_with(scheme))
        || text.starts_with("github.com/")
}
