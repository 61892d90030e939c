//! Raw logical lines to typed instructions. One file per family; [`parse`] is the list of all keywords.
//!
//! Each parser reports everything wrong with its line and returns `None` if there is an error. What Docker accepts is accepted; what it rejects is rejected
//! here too, in words that say what to do.

mod copy;
mod flags;
mod from;
mod healthcheck;
mod keyvalue;
mod onbuild;
mod run;
mod simple;

pub(crate) use from::From;

use crate::ast::{Command, Heredoc, Instruction, InstructionKind, Word};
use crate::expand;
use crate::json::{self, Json};
use crate::lines::Line;
use crate::raw::{self, Raw};
use crate::text::Text;
use flags::{Flags, Spec};
use std::ops::Range;
use ukc_diagnostics::{Diagnostic, Span, suggest};

/// Every keyword.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A FROM, or anything else.
pub(crate) enum Parsed {
    From(From),
    Other(Instruction),
    /// It was reported.
    Broken,
}

/// Parses a logical line.
pub(crate) fn parse(line: &Line, escape: char, problems: &mut Vec<Diagnostic>) -> Parsed {
    let mut cursor = Cursor { text: &line.text, raw: &line.raw, heredocs: &line.heredocs, escape, problems };
    let keyword = cursor.word(line.raw.keyword.clone());
    let make = |kind| Instruction {
        kind,
        keyword: keyword.clone(),
        span: line.span,
        source: line.text.as_str().trim().to_string(),
        comments: line.comments.clone(),
    };
    if keyword.value.eq_ignore_ascii_case("FROM") {
        return Parsed::From(from::parse(&mut cursor, make(InstructionKind::From)));
    }
    match cursor.kind(&keyword) {
        Some(kind) => Parsed::Other(make(kind)),
        None => Parsed::Broken,
    }
}

/// One instruction while it is read.
pub(crate) struct Cursor<'a> {
    text: &'a Text,
    raw: &'a Raw,
    heredocs: &'a [Heredoc],
    escape: char,
    problems: &'a mut Vec<Diagnostic>,
}

impl Cursor<'_> {
    /// The typed form, or `None` after reporting why not.
    fn kind(&mut self, keyword: &Word) -> Option<InstructionKind> {
        let errors = |problems: &[Diagnostic]| problems.iter().filter(|d| d.is_error()).count();
        let before = errors(self.problems);
        let kind = match keyword.value.to_ascii_uppercase().as_str() {
            "ADD" => copy::parse(self, "ADD").map(InstructionKind::Add),
            "ARG" => keyvalue::arg(self).map(InstructionKind::Arg),
            "CMD" => self.only_command("CMD").map(InstructionKind::Cmd),
            "COPY" => copy::parse(self, "COPY").map(InstructionKind::Copy),
            "ENTRYPOINT" => self.only_command("ENTRYPOINT").map(InstructionKind::Entrypoint),
            "ENV" => keyvalue::pairs(self, "ENV").map(InstructionKind::Env),
            "EXPOSE" => simple::expose(self).map(InstructionKind::Expose),
            "HEALTHCHECK" => healthcheck::parse(self).map(InstructionKind::Healthcheck),
            "LABEL" => keyvalue::pairs(self, "LABEL").map(InstructionKind::Label),
            "MAINTAINER" => simple::one(self, "MAINTAINER", "a name").map(InstructionKind::Maintainer),
            "ONBUILD" => onbuild::parse(self).map(InstructionKind::Onbuild),
            "RUN" => run::parse(self).map(InstructionKind::Run),
            "SHELL" => simple::shell(self).map(InstructionKind::Shell),
            "STOPSIGNAL" => simple::stop_signal(self).map(InstructionKind::StopSignal),
            "USER" => simple::user(self).map(InstructionKind::User),
            "VOLUME" => simple::volume(self).map(InstructionKind::Volume),
            "WORKDIR" => simple::one_expanded(self, "WORKDIR", "a path").map(InstructionKind::Workdir),
            _ => {
                self.unknown(keyword);
                None
            }
        };
        kind.filter(|_| errors(self.problems) == before)
    }

    fn unknown(&mut self, keyword: &Word) {
        let problem = match keyword.value.as_str() {
            "" => Diagnostic::error("unknown-instruction", "nothing follows this line continuation").at(keyword.span, ""),
            word => Diagnostic::error("unknown-instruction", format!("unknown instruction `{word}`")).at(keyword.span, ""),
        };
        self.problems.push(match suggest::closest(&keyword.value, KEYWORDS) {
            Some(close) => problem.help(format!("did you mean `{close}`?")),
            None if keyword.value.is_empty() => problem,
            None => problem.help(format!("if this line belongs to the instruction above it, that one must end with `{}`", self.escape)),
        });
    }

    fn error(&mut self, name: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.problems.push(Diagnostic::error(name, message).at(span, ""));
        self.problems.last_mut().expect("just pushed")
    }

    fn str(&self, range: Range<usize>) -> &str {
        &self.text.as_str()[range]
    }

    fn word(&self, range: Range<usize>) -> Word {
        Word { value: self.str(range.clone()).to_string(), span: self.text.span(range) }
    }

    /// Reports malformed variables and quotes of a word that will be expanded.
    fn expands<'w>(&mut self, words: impl IntoIterator<Item = &'w Word>) {
        let escape = self.escape;
        self.problems.extend(words.into_iter().filter_map(|word| expand::check(word, escape)));
    }

    /// All after keyword and flags.
    fn rest(&self) -> Word {
        self.word(self.raw.rest.clone())
    }

    fn keyword_span(&self) -> Span {
        self.text.span(self.raw.keyword.clone())
    }

    /// From the keyword to the end of the line.
    fn line_span(&self) -> Span {
        self.text.span(self.raw.keyword.start..self.raw.rest.end.max(self.raw.keyword.end))
    }

    fn words(&self) -> Vec<Word> {
        raw::blank_separated(self.text.as_str(), self.raw.rest.clone()).into_iter().map(|r| self.word(r)).collect()
    }

    fn flags(&mut self, instruction: &str, specs: &[Spec]) -> Flags {
        flags::read(self, instruction, specs)
    }

    /// The strings of a JSON array in this part of the line; `None` if it is none. An array of other things is reported, and counts as empty.
    fn json(&mut self, range: Range<usize>) -> Option<Vec<Word>> {
        match json::parse(self.str(range.clone())) {
            Json::No => None,
            Json::Strings(strings) => {
                let word = |(value, at): (String, Range<usize>)| Word {
                    value,
                    span: self.text.span(range.start + at.start..range.start + at.end),
                };
                Some(strings.into_iter().map(word).collect())
            }
            Json::NotStrings(at) => {
                let span = self.text.span(range.start + at.start..range.start + at.end);
                let problem = self.error("not-a-string", span, "a JSON array of arguments may hold only strings");
                problem.help.push("put double quotes around it".to_string());
                Some(vec![])
            }
        }
    }

    /// Exec form or shell form.
    fn command(&mut self, range: Range<usize>) -> Command {
        match self.json(range.clone()) {
            Some(argv) => Command::Exec(argv),
            None => Command::Shell(self.word(range)),
        }
    }

    /// CMD and ENTRYPOINT.
    fn only_command(&mut self, name: &str) -> Option<Command> {
        self.flags(name, &[]);
        Some(self.command(self.raw.rest.clone()))
    }
}

/// Why a shell form was surely meant to be an exec form, if so. The shell would run it as it stands and fail at run time.
pub(crate) fn broken_exec_form(text: &Word) -> Option<&'static str> {
    match text.value.strip_prefix('[')?.trim_start().chars().next()? {
        '\'' => Some("this is no exec form: JSON strings need double quotes"),
        '"' => Some("this is no exec form: it is not valid JSON"),
        _ => None,
    }
}
