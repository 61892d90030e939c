//! Heredoc operators: `<<EOF`, `<<-EOF`, `3<<"EOF"` in the line of a RUN, COPY or ADD.
//!
//! The line is split like a shell would, with `\` as the escape character whatever `# escape=` says; a word that is `[digits]<<[-]delimiter` announces a
//! body that follows the line. `a<<EOF` and `<<<x` are ordinary words (dockerfile reference, "Here-documents").

use crate::expand::{self, Mode};

/// What an operator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operator {
    pub name: String,
    pub fd: u32,
    pub strip_tabs: bool,
    pub expand: bool,
}

fn no_variables(_: &str) -> Option<String> {
    None
}

/// Whether a text is exactly one heredoc operator.
pub(crate) fn is_operator(text: &str) -> bool {
    parse(text).is_some()
}

/// Parses one word, quotes still in it.
pub(crate) fn parse(word: &str) -> Option<Operator> {
    let (fd, rest) = word.split_at(word.find(|c: char| !c.is_ascii_digit())?);
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let only_word = |mode: Mode| match expand::expand(rest, mode, &no_variables).ok()?.words.as_slice() {
        [word] => Some(word.clone()),
        _ => None,
    };
    let mode = Mode { keep_unset: true, ..Mode::default() };
    let name = only_word(mode)?;
    // If quotes make a difference, some part is quoted, and the body is meant literally.
    let expand = only_word(Mode { raw_quotes: true, ..mode })? == name;
    Some(Operator { name, fd: if fd.is_empty() { 0 } else { fd.parse().ok()? }, strip_tabs, expand })
}

/// Returns the operators of a logical line with a byte position at which each can be shown.
pub(crate) fn operators(line: &str) -> Vec<(Operator, std::ops::Range<usize>)> {
    if !line.contains("<<") {
        return vec![];
    }
    let mode = Mode { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Mode::default() };
    // A line with unbalanced quotes has no heredocs; the shell will say what is wrong with it.
    let Ok(split) = expand::expand(line, mode, &no_variables) else { return vec![] };
    let mut from = 0;
    let mut found = vec![];
    for word in split.words {
        let Some(operator) = parse(&word) else { continue };
        // In raw mode a word stands in the line as it is, except for odd `${}` forms; those are shown as the whole line.
        let range = match line[from..].find(&word) {
            Some(at) => from + at..from + at + word.len(),
            None => 0..line.len(),
        };
        from = range.end.min(line.len());
        found.push((operator, range));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        // word | name fd strip_tabs expand, or nothing
        let table = r#"
            <<EOF | EOF 0 false true
            <<-EOF | EOF 0 true true
            3<<EOF | EOF 3 false true
            <<"EOF" | EOF 0 false false
            <<'EOF' | EOF 0 false false
            <<E"O"F | EOF 0 false false
            <<"a b" | a b 0 false false
            <<-"EOF" | EOF 0 true false
            <<$X | $X 0 false true
            <<${X:-a} | ${X:-a} 0 false true
            <<\EOF | EOF 0 false true
            <<<EOF | -
            << | -
            <<- | -
            a<<EOF | -
            <EOF | -
            <<'EOF | -
            99999999999<<EOF | -"#;
        for line in table.lines().skip(1) {
            let (input, expected) = line.trim().split_once(" | ").unwrap();
            let got = match parse(input) {
                Some(o) => format!("{} {} {} {}", o.name, o.fd, o.strip_tabs, o.expand),
                None => "-".to_string(),
            };
            assert_eq!(got, expected, "{input}");
        }
    }

    #[test]
    fn several_per_line() {
        let found = operators("COPY <<A <<-'B' 'quoted <<C' /x/");
        assert_eq!(found.iter().map(|(o, r)| (o.name.as_str(), r.clone())).collect::<Vec<_>>(), [("A", 5..8), ("B", 9..15)]);
        assert!(operators("RUN echo 'it <<EOF").is_empty());
    }
}
