//! A logical line split into keyword, flags and the rest; and the rest split into words, the way each instruction wants it.
//!
//! Everything here works on ranges of the line's string; [`crate::text::Text`] turns them into spans.

use std::ops::Range;

/// `KEYWORD --flag=value ... rest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub keyword: Range<usize>,
    pub flags: Vec<RawFlag>,
    /// Trimmed.
    pub rest: Range<usize>,
}

/// A leading word that starts with `--`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFlag {
    pub range: Range<usize>,
    /// Without quotes and escapes, with the `--`.
    pub text: String,
}

/// White space between words; a line never holds newlines, and other Unicode spaces are part of words.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

fn trim(line: &str, range: Range<usize>) -> Range<usize> {
    let part = &line[range.clone()];
    let start = range.start + part.len() - part.trim_start().len();
    start..start + part.trim().len()
}

/// Splits a line, or the part of it that is an instruction (after ONBUILD).
pub(crate) fn split(line: &str, range: Range<usize>) -> Raw {
    let all = trim(line, range);
    let keyword_end = all.start + line[all.clone()].find(is_blank).unwrap_or(all.len());
    let mut pos = keyword_end;
    let mut flags = vec![];
    loop {
        let rest = trim(line, pos..all.end);
        if !line[rest.clone()].starts_with("--") {
            return Raw { keyword: all.start..keyword_end, flags, rest };
        }
        let (text, end) = flag(line, rest.clone());
        pos = end;
        if text == "--" {
            return Raw { keyword: all.start..keyword_end, flags, rest: trim(line, end..all.end) };
        }
        flags.push(RawFlag { range: rest.start..end, text });
    }
}

/// Reads a word with shell-like quotes and `\` escapes; returns it without them, and where it ends.
fn flag(line: &str, range: Range<usize>) -> (String, usize) {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = line[range.clone()].char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => return (text, range.start + at),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            // An escape character at the very end vanishes.
            ('\\', _) => text.extend(chars.next().map(|(_, c)| c)),
            (c, _) => text.push(c),
        }
    }
    (text, range.end)
}

/// Splits at blanks, no quotes.
pub(crate) fn blank_separated(line: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = vec![];
    let mut start = None;
    for (at, c) in line[range.clone()].char_indices() {
        let at = range.start + at;
        match (is_blank(c), start) {
            (true, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|from| from..range.end));
    words
}

/// Splits at white space outside quotes (ENV, LABEL, ARG). Quotes and escapes stay in the words, except an escape character at the very end.
pub(crate) fn quoted(line: &str, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words = vec![];
    let mut start = None;
    let mut quote = None;
    let mut chars = line[range.clone()].char_indices().peekable();
    let mut end = range.end;
    while let Some((at, c)) = chars.next() {
        let at = range.start + at;
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|from| from..at));
            continue;
        }
        let from = *start.get_or_insert(at);
        if c == escape && quote != Some('\'') {
            if chars.next().is_none() {
                end = at;
                if from == at {
                    start = None;
                }
            }
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        }
    }
    words.extend(start.map(|from| from..end));
    words
}

/// Splits `KEY rest of the line` at the first blanks.
pub(crate) fn key_and_rest(line: &str, range: Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let part = &line[range.clone()];
    let key_end = range.start + part.find(is_blank)?;
    let rest = line[key_end..range.end].trim_start_matches(is_blank);
    Some((range.start..key_end, range.end - rest.len()..range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_first() {
        let shown = |line: &str| {
            let raw = split(line, 0..line.len());
            let flags: Vec<_> = raw.flags.iter().map(|f| f.text.as_str()).collect();
            format!("{} {flags:?} {}", &line[raw.keyword.clone()], &line[raw.rest.clone()])
        };
        assert_eq!(shown("  COPY --from=a  --link x --y z "), r#"COPY ["--from=a", "--link"] x --y z"#);
        assert_eq!(shown("COPY --a=\"b c\" --d='e\"f' --g=h\\ i x"), r#"COPY ["--a=b c", "--d=e\"f", "--g=h i"] x"#);
        assert_eq!(shown("RUN -- --x"), "RUN [] --x");
        assert_eq!(shown("RUN"), "RUN [] ");
        assert_eq!(shown("RUN\t--x=\"unclosed y"), r#"RUN ["--x=unclosed y"] "#);
        assert_eq!(shown(""), " [] ");
    }

    #[test]
    fn quoted_words() {
        let shown = |line: &str| quoted(line, 0..line.len(), '\\').into_iter().map(|r| line[r].to_string()).collect::<Vec<_>>();
        assert_eq!(shown(r#"a=b c="d e" f='g h'i j=k\ l"#), ["a=b", r#"c="d e""#, "f='g h'i", r"j=k\ l"]);
        assert_eq!(shown(r#"a="b\" c" d"#), [r#"a="b\" c""#, "d"]);
        assert_eq!(shown(r"a='b\' c"), [r"a='b\'", "c"]);
        assert_eq!(shown(r"a=b \"), ["a=b"]);
        assert_eq!(shown(r"a=b\"), ["a=b"]);
        assert_eq!(shown(r#"a="b c"#), [r#"a="b c"#]);
        assert_eq!(shown(r#""" x"#), [r#""""#, "x"]);
    }
}
