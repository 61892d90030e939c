//! COPY and ADD.

use super::Cursor;
use super::flags::{Kind, Spec};
use crate::ast::{CopyArgs, Source, Word};
use crate::value::{chmod, chown};
use crate::{expand, heredoc};

const COPY: [Spec; 6] = [
    Spec::new("from", Kind::One),
    Spec::new("chown", Kind::One),
    Spec::new("chmod", Kind::One),
    Spec::new("link", Kind::Bool),
    Spec::new("parents", Kind::Bool),
    Spec::new("exclude", Kind::Many),
];

const ADD: [Spec; 7] = [
    Spec::new("chown", Kind::One),
    Spec::new("chmod", Kind::One),
    Spec::new("link", Kind::Bool),
    Spec::new("exclude", Kind::Many),
    Spec::new("checksum", Kind::One),
    Spec::new("keep-git-dir", Kind::Bool),
    Spec::new("unpack", Kind::Bool),
];

pub(super) fn parse(cursor: &mut Cursor, name: &str) -> Option<CopyArgs> {
    let is_copy = name == "COPY";
    let flags = cursor.flags(name, if is_copy { &COPY[..] } else { &ADD[..] });
    let chown = flags.one("chown").inspect(|word| check(cursor, word, "invalid-chown", |text| chown::parse(text).map(drop)));
    let chmod = flags.one("chmod").inspect(|word| check(cursor, word, "invalid-chmod", |text| chmod::parse(text).map(drop)));
    let from = flags.one("from");
    if let Some(from) = &from {
        if from.value.contains('$') {
            let problem = cursor.error("variable-in-from", from.span, "`--from` does not take variables");
            problem.help.push("give the image a stage of its own, `FROM $image AS name`, and write `--from=name`".to_string());
        } else if from.value.is_empty() {
            cursor.error("missing-flag-value", from.span, "`--from` needs a stage, a context or an image");
        }
    }
    let mut words = match cursor.json(cursor.raw.rest.clone()) {
        Some(words) => words,
        None => cursor.words(),
    };
    if words.len() < 2 {
        let span = cursor.line_span();
        let message = match words.is_empty() {
            true => format!("{name} needs a source and a destination"),
            false => format!("{name} needs a destination after `{}`", words[0].value),
        };
        cursor.error("missing-argument", span, message);
        return None;
    }
    let dest = words.pop()?;
    if !cursor.heredocs.is_empty() && heredoc::is_operator(&dest.value) {
        cursor.error("heredoc-destination", dest.span, format!("a heredoc cannot be the destination of {name}"));
        return None;
    }
    // Quoted delimiters with spaces are several words here but one operator, so each operator claims the words it spans.
    let mut sources: Vec<Source> = vec![];
    for word in words {
        let doc = cursor.heredocs.iter().find(|doc| doc.name.span.start <= word.span.start && word.span.end <= doc.name.span.end);
        match doc {
            None => sources.push(Source::Path(word)),
            Some(doc) => {
                if !matches!(sources.last(), Some(Source::Heredoc(last)) if last == doc) {
                    sources.push(Source::Heredoc(doc.clone()));
                }
            }
        }
    }
    let exclude = flags.many("exclude");
    let checksum = flags.one("checksum");
    for source in &sources {
        match source {
            Source::Path(path) => cursor.expands([path]),
            Source::Heredoc(doc) => cursor.problems.extend(expand::heredoc(doc, &|_| Some("x".to_string())).err()),
        }
    }
    cursor.expands([&dest].into_iter().chain(&chown).chain(&chmod).chain(&exclude).chain(&checksum));
    Some(CopyArgs {
        sources,
        dest,
        from,
        chown,
        chmod,
        link: flags.switch("link").is_some_and(|s| s.value),
        parents: flags.switch("parents").is_some_and(|s| s.value),
        exclude,
        checksum,
        keep_git_dir: flags.switch("keep-git-dir").map(|s| s.value),
        unpack: flags.switch("unpack").map(|s| s.value),
    })
}

/// Checks a value now if it holds nothing that is only known later.
fn check(cursor: &mut Cursor, word: &Word, name: &'static str, parse: impl Fn(&str) -> Result<(), String>) {
    if let Err(message) = parse(&word.value)
        && !word.value.contains('$')
    {
        cursor.error(name, word.span, message);
    }
}
