//! Instructions whose argument is a text or a list of words.

use super::Cursor;
use crate::ast::Word;
use crate::value::{chown, port, signal};
use ukc_diagnostics::Span;

/// WORKDIR, MAINTAINER, USER, STOPSIGNAL: all of the rest is one argument, spaces included.
pub(super) fn one(cursor: &mut Cursor, name: &str, what: &str) -> Option<Word> {
    cursor.flags(name, &[]);
    let rest = cursor.rest();
    if rest.value.is_empty() {
        let span = cursor.line_span();
        cursor.error("missing-argument", span, format!("{name} needs {what}"));
        return None;
    }
    Some(rest)
}

/// As [`one`], for texts that will be expanded.
pub(super) fn one_expanded(cursor: &mut Cursor, name: &str, what: &str) -> Option<Word> {
    let rest = one(cursor, name, what)?;
    cursor.expands([&rest]);
    Some(rest)
}

/// Whether nothing in it can change by expansion, so that it can be checked now.
fn is_final(word: &Word) -> bool {
    !word.value.contains(['$', '"', '\'', '\\', '`'])
}

pub(super) fn user(cursor: &mut Cursor) -> Option<Word> {
    let user = one_expanded(cursor, "USER", "a user")?;
    if is_final(&user)
        && let Err(message) = chown::parse(&user.value)
    {
        cursor.error("invalid-user", user.span, message);
    }
    Some(user)
}

pub(super) fn stop_signal(cursor: &mut Cursor) -> Option<Word> {
    let word = one_expanded(cursor, "STOPSIGNAL", "a signal")?;
    if is_final(&word)
        && let Err(message) = signal::parse(&word.value)
    {
        cursor.error("invalid-signal", word.span, message);
    }
    Some(word)
}

pub(super) fn expose(cursor: &mut Cursor) -> Option<Vec<Word>> {
    cursor.flags("EXPOSE", &[]);
    let words = cursor.words();
    if words.is_empty() {
        let span = cursor.line_span();
        cursor.error("missing-argument", span, "EXPOSE needs at least one port");
    }
    cursor.expands(&words);
    for word in &words {
        if is_final(word)
            && let Err(message) = port::parse(&word.value)
        {
            cursor.error("invalid-port", word.span, message);
        }
    }
    Some(words)
}

pub(super) fn volume(cursor: &mut Cursor) -> Option<Vec<Word>> {
    cursor.flags("VOLUME", &[]);
    let words = match cursor.json(cursor.raw.rest.clone()) {
        Some(words) => words,
        None => cursor.words(),
    };
    if words.is_empty() {
        let span = cursor.line_span();
        cursor.error("missing-argument", span, "VOLUME needs at least one path");
    }
    cursor.expands(&words);
    for word in &words {
        if word.value.trim().is_empty() {
            // The span of an empty string is empty too: show its quotes.
            let Span { file, start, end } = word.span;
            cursor.error(
                "missing-argument",
                Span { file, start: start.saturating_sub(1), end: end + 1 },
                "the path of a VOLUME cannot be empty",
            );
        }
    }
    Some(words)
}

pub(super) fn shell(cursor: &mut Cursor) -> Option<Vec<Word>> {
    cursor.flags("SHELL", &[]);
    let rest = cursor.rest();
    let words = match cursor.json(cursor.raw.rest.clone()) {
        Some(words) => words,
        None => {
            let span = if rest.value.is_empty() { cursor.line_span() } else { rest.span };
            let problem = cursor.error("invalid-shell", span, "SHELL takes its arguments as a JSON array");
            problem.help.push("for example `SHELL [\"/bin/bash\", \"-c\"]`".to_string());
            return None;
        }
    };
    if words.is_empty() {
        let span = cursor.line_span();
        cursor.error("missing-argument", span, "SHELL needs at least one argument");
    }
    Some(words)
}
