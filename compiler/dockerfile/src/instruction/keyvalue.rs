//! ENV, LABEL and ARG: lists of `key=value`.

use super::Cursor;
use crate::ast::{ArgItem, KeyValue, Word};
use crate::raw;
use std::ops::Range;

/// ENV and LABEL. Whether the first word has a `=` decides between `k=v k=v` and the old `k rest of the line`.
pub(super) fn pairs(cursor: &mut Cursor, name: &str) -> Option<Vec<KeyValue>> {
    cursor.flags(name, &[]);
    let words = split(cursor);
    let Some(first) = words.first().cloned() else {
        let span = cursor.line_span();
        cursor.error("missing-argument", span, format!("{name} needs at least one `key=value`"));
        return None;
    };
    if !cursor.str(first.clone()).contains('=') {
        let Some((key, value)) = raw::key_and_rest(cursor.text.as_str(), cursor.raw.rest.clone()) else {
            let span = cursor.text.span(first.clone());
            let key = cursor.str(first).to_string();
            cursor.error("missing-argument", span, format!("{name} `{key}` has no value")).help.push(format!("write `{key}=value`"));
            return None;
        };
        let pair = KeyValue { key: cursor.word(key), value: cursor.word(value) };
        cursor.expands([&pair.key, &pair.value]);
        return Some(vec![pair]);
    }
    let mut pairs = vec![];
    for range in words {
        let Some((key, value)) = cut(cursor, range.clone()) else {
            let word = cursor.word(range);
            let problem =
                cursor.error("invalid-key-value", word.span, format!("`{}` has no `=`: {name} takes `key=value` pairs", word.value));
            problem.help.push("put quotes around a value with spaces, or a backslash before each space".to_string());
            continue;
        };
        if blank(cursor, name, &key) {
            continue;
        }
        cursor.expands([&key, &value]);
        pairs.push(KeyValue { key, value });
    }
    Some(pairs)
}

/// ARG.
pub(super) fn arg(cursor: &mut Cursor) -> Option<Vec<ArgItem>> {
    cursor.flags("ARG", &[]);
    let words = split(cursor);
    if words.is_empty() {
        let span = cursor.line_span();
        cursor.error("missing-argument", span, "ARG needs a name, or `name=default`");
        return None;
    }
    let mut items = vec![];
    for range in words {
        match cut(cursor, range.clone()) {
            None => {
                let name = cursor.word(range);
                cursor.expands([&name]);
                items.push(ArgItem { name, default: None });
            }
            Some((name, default)) => {
                cursor.expands([&name, &default]);
                if !blank(cursor, "ARG", &name) {
                    items.push(ArgItem { name, default: Some(default) });
                }
            }
        }
    }
    Some(items)
}

fn split(cursor: &Cursor) -> Vec<Range<usize>> {
    raw::quoted(cursor.text.as_str(), cursor.raw.rest.clone(), cursor.escape)
}

fn cut(cursor: &Cursor, range: Range<usize>) -> Option<(Word, Word)> {
    let equals = range.start + cursor.str(range.clone()).find('=')?;
    Some((cursor.word(range.start..equals), cursor.word(equals + 1..range.end)))
}

fn blank(cursor: &mut Cursor, name: &str, key: &Word) -> bool {
    if key.value.is_empty() {
        cursor.error("invalid-key-value", key.span, format!("a name is missing before the `=` of {name}"));
    }
    key.value.is_empty()
}
