//! `FROM [--platform=P] base [AS name]`.

use super::Cursor;
use super::flags::{Kind, Spec};
use crate::ast::{Instruction, Word};

/// A FROM; a broken one still opens a stage, so that what follows it is not reported as standing outside.
pub(crate) struct From {
    pub name: Option<Word>,
    pub base: Word,
    pub platform: Option<Word>,
    pub instruction: Instruction,
}

pub(super) fn parse(cursor: &mut Cursor, instruction: Instruction) -> From {
    let flags = cursor.flags("FROM", &[Spec::new("platform", Kind::One)]);
    let words = cursor.words();
    let empty = Word { value: String::new(), span: cursor.keyword_span() };
    let base = words.first().cloned().unwrap_or(empty);
    let mut name = None;
    match words.as_slice() {
        [] => {
            let span = cursor.line_span();
            cursor.error("missing-argument", span, "FROM needs an image, a stage or `scratch`");
        }
        [_] => {}
        [_, keyword, stage] if keyword.value.eq_ignore_ascii_case("as") => name = stage_name(cursor, stage),
        [_, second, rest @ ..] => {
            let span = cursor.text.span(cursor.raw.rest.clone());
            let problem = cursor.error("invalid-from", span, "FROM takes an image, or an image, `AS` and a name");
            if second.value.eq_ignore_ascii_case("as") && rest.is_empty() {
                problem.help.push("write the name of the stage after `AS`".to_string());
            } else if second.value.starts_with('#') || rest.iter().any(|w| w.value.starts_with('#')) {
                problem.help.push("a comment needs a line of its own".to_string());
            } else if second.value.starts_with("--platform") {
                problem.help.push("flags come before the image".to_string());
            }
        }
    }
    let platform = flags.one("platform");
    cursor.expands([&base].into_iter().chain(&platform));
    From { name, base, platform, instruction }
}

/// `[a-z][a-z0-9-_.]*`, any case, lower-cased.
fn stage_name(cursor: &mut Cursor, written: &Word) -> Option<Word> {
    let lower = written.value.to_lowercase();
    let is_valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if !is_valid {
        let problem = cursor.error("invalid-stage-name", written.span, format!("`{}` cannot be the name of a stage", written.value));
        problem.help.push("a name starts with a letter; letters, digits, `-`, `_` and `.` may follow".to_string());
        return None;
    }
    Some(Word { value: lower, span: written.span })
}
