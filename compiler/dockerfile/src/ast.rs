//! What a Dockerfile says, as typed values: stages, instructions, flags, words.
//!
//! Every [`Word`] is *unexpanded*: `$VAR` is still in it, quotes too where the instruction keeps them (ENV, LABEL, ARG, COPY paths, ...). What a variable
//! means is only known while building, so whoever lowers these values calls [`crate::expand`]; the documentation of each field says how. Spans point into
//! the file as the user wrote it, continuation lines included.

use crate::directive::Directives;
use crate::tree::Tree;
use std::time::Duration;
use ukc_diagnostics::{Diagnostic, FileId, Severity, Span};

/// A value and the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the source.
    pub span: Span,
}

/// A piece of text of the file. The text may be shorter than the span: line continuations and comments inside it are gone.
pub type Word = Spanned<String>;

impl Word {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.value
    }
}

/// A whole file: everything that could be read, and everything that was wrong.
///
/// The values are meant for building only if no diagnostic is an error ([`Parsed::is_ok`]); an instruction with an error is missing from its stage (a
/// broken FROM still opens one), while the [`Tree`] always holds every byte.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The file that was parsed.
    pub file: FileId,
    /// `# syntax=`, `# escape=`, `# check=`.
    pub directives: Directives,
    /// Every byte of the file in order.
    pub tree: Tree,
    /// ARG instructions before the first FROM.
    pub global_args: Vec<Instruction>,
    /// In file order.
    pub stages: Vec<Stage>,
    /// Errors and warnings (the build checks that need only the text among them), in file order.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether there is no error among the diagnostics.
    pub fn is_ok(&self) -> bool {
        self.diagnostics.iter().all(|d| d.severity != Severity::Error)
    }

    /// Returns the stage with this name (any case) or decimal index; of several with the same name the last one, as BuildKit resolves `--target`.
    pub fn stage(&self, name: &str) -> Option<usize> {
        let lower = name.to_lowercase();
        let by_name = self.stages.iter().rposition(|s| s.name.as_ref().is_some_and(|n| n.value == lower));
        by_name.or_else(|| name.parse().ok().filter(|&i: &usize| i < self.stages.len()))
    }
}

/// One FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Lower-cased; matches `[a-z][a-z0-9-_.]*`.
    pub name: Option<Word>,
    /// Image, earlier stage or `scratch`; expands with the global arguments ([`crate::expand::word`]). Empty only if the FROM was broken.
    pub base: Word,
    /// `--platform=`; expands with the global arguments.
    pub platform: Option<Word>,
    /// The FROM line itself: its keyword, comments and source (its kind is [`InstructionKind::From`]).
    pub from: Instruction,
    /// In file order, without the FROM.
    pub instructions: Vec<Instruction>,
    /// From FROM to the last instruction.
    pub span: Span,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: InstructionKind,
    /// The keyword as written (`run`, `RUN`).
    pub keyword: Word,
    /// From the keyword to the last byte, heredoc bodies and their terminators included, the final newline not.
    pub span: Span,
    /// The logical line: continuations joined, comments and blank lines in it dropped, heredoc bodies not included. This is BuildKit's `Original`.
    pub source: String,
    /// The comment lines directly above, without `#` and outer spaces (`--call=outline` shows them).
    pub comments: Vec<String>,
}

impl Instruction {
    /// The keyword in capitals.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }
}

/// The instructions and their arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// Only as [`Stage::from`]; its values are the stage's fields.
    From,
    /// `ARG a b=1`: names and values expand ([`crate::expand::word`]), left to right, each seeing the ones before it.
    Arg(Vec<ArgItem>),
    /// Keys and values expand with the environment before the instruction.
    Env(Vec<KeyValue>),
    /// As ENV.
    Label(Vec<KeyValue>),
    /// See [`CopyArgs`].
    Copy(CopyArgs),
    /// See [`CopyArgs`].
    Add(CopyArgs),
    /// See [`RunArgs`].
    Run(RunArgs),
    /// Never expands.
    Cmd(Command),
    /// Never expands.
    Entrypoint(Command),
    /// A path; expands.
    Workdir(Word),
    /// `user`, `uid`, `user:group`, `uid:gid`; expands.
    User(Word),
    /// `port`, `a-b`, `port/proto`: each expands to any number of words (`words` of [`crate::expand::word`]), then [`crate::port::parse`] reads them.
    Expose(Vec<Word>),
    /// Paths, from words or a JSON array; each expands to one word.
    Volume(Vec<Word>),
    /// Name or number; expands, then [`crate::signal::parse`] reads it.
    StopSignal(Word),
    /// The shell of later shell forms; never expands.
    Shell(Vec<Word>),
    /// Never expands.
    Healthcheck(Healthcheck),
    /// See [`Onbuild`].
    Onbuild(Onbuild),
    /// The author; never expands.
    Maintainer(Word),
}

impl InstructionKind {
    /// The keyword in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            InstructionKind::From => "FROM",
            InstructionKind::Arg(_) => "ARG",
            InstructionKind::Env(_) => "ENV",
            InstructionKind::Label(_) => "LABEL",
            InstructionKind::Copy(_) => "COPY",
            InstructionKind::Add(_) => "ADD",
            InstructionKind::Run(_) => "RUN",
            InstructionKind::Cmd(_) => "CMD",
            InstructionKind::Entrypoint(_) => "ENTRYPOINT",
            InstructionKind::Workdir(_) => "WORKDIR",
            InstructionKind::User(_) => "USER",
            InstructionKind::Expose(_) => "EXPOSE",
            InstructionKind::Volume(_) => "VOLUME",
            InstructionKind::StopSignal(_) => "STOPSIGNAL",
            InstructionKind::Shell(_) => "SHELL",
            InstructionKind::Healthcheck(_) => "HEALTHCHECK",
            InstructionKind::Onbuild(_) => "ONBUILD",
            InstructionKind::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// One `NAME` or `NAME=value` of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgItem {
    /// Before the `=`.
    pub name: Word,
    /// After it, quotes and escapes still in place; `None` without `=`.
    pub default: Option<Word>,
}

/// One pair of an ENV or LABEL. Quotes and escapes are still in place: expansion removes them, also in the old `KEY rest of the line` form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the `=`.
    pub key: Word,
    /// After it.
    pub value: Word,
}

/// Arguments of COPY and ADD: one type, because all but four flags are common; the parser rejects a flag that does not belong to the instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyArgs {
    /// At least one.
    pub sources: Vec<Source>,
    /// Destination; expands to one word. A trailing `/` means a directory.
    pub dest: Word,
    /// COPY `--from`: stage name or index, named context or image. Never expands (the parser rejects a `$`).
    pub from: Option<Word>,
    /// `--chown`: expands, then [`crate::chown::parse`] reads it.
    pub chown: Option<Word>,
    /// `--chmod`: expands, then [`crate::chmod::parse`] reads it.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// COPY `--parents`.
    pub parents: bool,
    /// `--exclude` patterns; each expands to one word.
    pub exclude: Vec<Word>,
    /// ADD `--checksum`; expands.
    pub checksum: Option<Word>,
    /// ADD `--keep-git-dir`; `None` when not given (a build argument decides then).
    pub keep_git_dir: Option<bool>,
    /// ADD `--unpack`; `None` when not given (local archives are unpacked, remote ones not).
    pub unpack: Option<bool>,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, pattern, URL or git reference; expands to one word.
    Path(Word),
    /// An inline file, named after the delimiter when the destination is a directory; [`Heredoc::file_text`] is its content before expansion.
    Heredoc(Heredoc),
}

/// An inline document of RUN, COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; the span is the whole `3<<-"EOF"`.
    pub name: Word,
    /// The number before `<<`, 0 when there is none.
    pub fd: u32,
    /// `<<-`: leading tabs do not count.
    pub strip_tabs: bool,
    /// Whether variables in a COPY or ADD body expand: no part of the delimiter is quoted ([`crate::expand::heredoc`]).
    pub expand: bool,
    /// The lines between, each with its newline, tabs not yet stripped.
    pub body: Word,
}

impl Heredoc {
    /// The body as a file or script holds it: without leading tabs if the operator was `<<-`.
    pub fn file_text(&self) -> String {
        if !self.strip_tabs {
            return self.body.value.clone();
        }
        self.body.value.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Exec form or shell form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["a", "b"]`: the arguments exactly.
    Exec(Vec<Word>),
    /// The text for the shell: continuations joined, nothing else changed; may be empty.
    Shell(Word),
}

/// Arguments of RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunArgs {
    /// What to run. With heredocs, [`RunArgs::script`] is what really runs.
    pub command: Command,
    /// In the order of their operators.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values: [`crate::mount::parse`] reads each with an expander. They were already checked as far as they hold no variables.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Option<Spanned<Network>>,
    /// `--security`.
    pub security: Option<Spanned<Security>>,
    /// `--device` values, unparsed.
    pub devices: Vec<Word>,
}

/// What a RUN executes once heredocs are resolved (dockerfile reference, "Here-documents").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// These arguments exactly.
    Exec(Vec<String>),
    /// This text as the last argument of the stage's SHELL.
    Shell(String),
    /// A lone heredoc that starts with `#!`: an executable file (mode 0755) with this name and text.
    File {
        /// The delimiter.
        name: String,
        /// The content.
        text: String,
    },
}

impl RunArgs {
    /// What is executed: a lone heredoc is itself the script; otherwise the shell gets the text followed by the bodies and their delimiters, and reads
    /// the heredocs on its own.
    pub fn script(&self) -> Script {
        let text = match &self.command {
            Command::Exec(argv) => return Script::Exec(argv.iter().map(|w| w.value.clone()).collect()),
            Command::Shell(text) => &text.value,
        };
        match self.heredocs.first() {
            None => Script::Shell(text.clone()),
            Some(only) if crate::heredoc::is_operator(text) => {
                let body = only.file_text();
                if only.body.value.starts_with("#!") {
                    Script::File { name: only.name.value.clone(), text: body }
                } else {
                    Script::Shell(body)
                }
            }
            Some(_) => {
                let mut full = text.clone();
                for doc in &self.heredocs {
                    full.push('\n');
                    full.push_str(&doc.body.value);
                    full.push_str(&doc.name.value);
                }
                Script::Shell(full)
            }
        }
    }
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The builder's usual network.
    Default,
    /// Loopback only.
    None,
    /// The host's (needs to be allowed).
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Docker's default capabilities.
    Sandbox,
    /// All of them (needs to be allowed).
    Insecure,
}

/// Arguments of HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: disables an inherited check.
    None,
    /// `CMD`.
    Cmd {
        /// What to run.
        command: Command,
        /// `--interval`.
        interval: Option<Duration>,
        /// `--timeout`.
        timeout: Option<Duration>,
        /// `--start-period`.
        start_period: Option<Duration>,
        /// `--start-interval`.
        start_interval: Option<Duration>,
        /// `--retries`.
        retries: Option<u32>,
    },
}

/// Arguments of ONBUILD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The instruction's text as the image config stores it (OnBuild), heredoc bodies included; [`crate::parse_trigger`] reads it again.
    pub trigger: Word,
    /// The same, already read, with spans in this file.
    pub instruction: Box<Instruction>,
}
