//! `.dockerignore`, and the same patterns in `--exclude` and `--parents` (moby/patternmatcher).
//!
//! One pattern per line; `*` not across `/`, `**` any number of directories, `?`, `[...]`, `\` escapes; `!` takes paths back in; the last pattern that
//! matches a path or one of its parents decides:
//!
//! ```text
//! node_modules
//! **/*.log
//! !important.log
//! ```

use ukc_diagnostics::Span;
use ukc_rootfs::path;

use crate::pattern;

/// A list of patterns in order.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    tokens: Vec<Token>,
    /// Where it stands, when it is from a file.
    span: Option<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(u8),
    /// `?`: one character that is no `/`.
    Any,
    /// `*`: characters that are no `/`.
    Star,
    /// `**` at the end: everything.
    Rest,
    /// `**/` or `**` elsewhere: nothing, or anything up to and including a `/`.
    Directories,
    /// `[...]`, in the spelling of [`pattern`].
    Class(Vec<u8>),
}

/// A pattern that is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern {
    /// As written.
    pub pattern: String,
    /// A sentence.
    pub why: &'static str,
    /// Where, when it is from a file.
    pub span: Option<Span>,
}

impl Matcher {
    /// Reads a `.dockerignore` file; `file` places spans (moby/patternmatcher, `ignorefile.ReadAll`): comments start in the first column, spaces around
    /// a pattern do not count, a leading `/` means nothing.
    ///
    /// # Errors
    /// [`BadPattern`] for each line that is not a pattern.
    pub fn from_file(bytes: &[u8], file: ukc_diagnostics::FileId) -> Result<Matcher, Vec<BadPattern>> {
        let (mut patterns, mut bad) = (vec![], vec![]);
        let mut at = 0;
        for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let start = at;
            at += line.len() + 1;
            let (skipped, line) = match line.strip_prefix(b"\xef\xbb\xbf") {
                Some(rest) if number == 0 => (3, rest),
                _ => (0, line),
            };
            if line.starts_with(b"#") || line.trim_ascii().is_empty() {
                continue;
            }
            let start = start + skipped + (line.len() - line.trim_ascii_start().len());
            let line = line.trim_ascii();
            let span = Span { file, start: start as u32, end: (start + line.len()) as u32 };
            match Pattern::new(line, Some(span)) {
                Ok(pattern) => patterns.extend(pattern),
                Err(error) => bad.push(error),
            }
        }
        if bad.is_empty() { Ok(Matcher { patterns }) } else { Err(bad) }
    }

    /// Returns a matcher of patterns from the command line or a Dockerfile.
    ///
    /// # Errors
    /// [`BadPattern`] for the first that is none.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Result<Matcher, BadPattern> {
        let mut patterns = vec![];
        for text in texts {
            patterns.extend(Pattern::new(text.trim_ascii(), None)?);
        }
        Ok(Matcher { patterns })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some pattern could take back in what lies below the excluded directory `dir`.
    pub fn has_exceptions_below(&self, dir: &[u8]) -> bool {
        let below = [dir, b"/"].concat();
        self.patterns.iter().any(|p| p.negated && p.run(&below).is_some())
    }

    /// Whether a path (relative, clean) is matched: the last pattern that matches it or one of its parents decides.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.decides(path).is_some_and(|p| !p.negated)
    }

    /// Returns the place of the pattern that matches `path`, if it is matched and the pattern is from a file.
    pub fn reason(&self, path: &[u8]) -> Option<Span> {
        self.decides(path).filter(|p| !p.negated)?.span
    }

    fn decides(&self, path: &[u8]) -> Option<&Pattern> {
        self.patterns.iter().rev().find(|p| {
            p.matches(path) || path.iter().enumerate().filter(|(_, b)| **b == b'/').any(|(parent_end, _)| p.matches(&path[..parent_end]))
        })
    }
}

impl Pattern {
    /// `None` for a pattern that is empty or a lone `/`.
    fn new(text: &[u8], span: Option<Span>) -> Result<Option<Pattern>, BadPattern> {
        let bad = |why| BadPattern { pattern: String::from_utf8_lossy(text).into_owned(), why, span };
        let (negated, rest) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest.trim_ascii()),
            None => (false, text),
        };
        if rest.is_empty() {
            return if negated { Err(bad("`!` needs a pattern after it")) } else { Ok(None) };
        }
        let clean = path::clean(rest);
        let body = clean.strip_prefix(b"/").unwrap_or(&clean);
        // Go cleans first: `.` is the context itself, which cannot be excluded.
        pattern::check(body).map_err(|_| bad("it is not a well-formed pattern"))?;
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < body.len() {
            match body[at] {
                b'*' if body.get(at + 1) == Some(&b'*') => {
                    at += 2;
                    // `**/` is `**`: the slash belongs to the directories that it stands for.
                    if body.get(at) == Some(&b'/') {
                        at += 1;
                    }
                    tokens.push(if at >= body.len() { Token::Rest } else { Token::Directories });
                    continue;
                }
                b'*' => tokens.push(Token::Star),
                b'?' => tokens.push(Token::Any),
                b'[' => {
                    let len = class_len(&body[at..]);
                    tokens.push(Token::Class(body[at..at + len].to_vec()));
                    at += len;
                    continue;
                }
                b'\\' => {
                    at += 1;
                    tokens.push(Token::Literal(body[at]));
                }
                literal => tokens.push(Token::Literal(literal)),
            }
            at += 1;
        }
        Ok((!tokens.is_empty()).then_some(Pattern { negated, tokens, span }))
    }

    fn matches(&self, path: &[u8]) -> bool {
        self.run(path).is_some_and(|states| states[self.tokens.len()])
    }

    /// Simulates the pattern as an automaton: time grows with pattern × path, whatever the pattern is. Returns which states are reached at the end of
    /// `path` (a state is how many tokens are used up), or `None` when nothing that starts with `path` can match.
    fn run(&self, path: &[u8]) -> Option<Vec<bool>> {
        let tokens = &self.tokens;
        let mut states = vec![false; tokens.len() + 1];
        states[0] = true;
        // Tokens that can match nothing can be used up at once.
        let close = |states: &mut [bool]| {
            for i in 0..tokens.len() {
                if states[i] && matches!(tokens[i], Token::Star | Token::Rest | Token::Directories) {
                    states[i + 1] = true;
                }
            }
        };
        close(&mut states);
        // Inside the directories of `**/`, which end only at a slash.
        let mut inside = vec![false; tokens.len()];
        let mut at = 0;
        while at < path.len() {
            let c = path[at];
            let len = char_len(&path[at..]);
            let mut next = vec![false; tokens.len() + 1];
            let mut next_inside = vec![false; tokens.len()];
            for (i, token) in tokens.iter().enumerate() {
                if matches!(token, Token::Directories) && (states[i] || inside[i]) {
                    next_inside[i] = true;
                    next[i + 1] |= c == b'/';
                }
                if !states[i] {
                    continue;
                }
                match token {
                    Token::Literal(b) => next[i + 1] |= *b == c && len == 1,
                    Token::Any => next[i + 1] |= c != b'/',
                    Token::Star => next[i] |= c != b'/',
                    Token::Rest => next[i] = true,
                    Token::Class(class) => next[i + 1] |= c != b'/' && pattern::matches(class, &path[at..at + len]) == Ok(true),
                    Token::Directories => {}
                }
            }
            // Literal bytes of longer characters come one by one in the pattern.
            if len > 1 {
                literal_run(tokens, &states, &path[at..at + len], &mut next);
            }
            close(&mut next);
            if !next.contains(&true) && !next_inside.contains(&true) {
                return None;
            }
            (states, inside) = (next, next_inside);
            at += len;
        }
        Some(states)
    }
}

/// Advances over a character of several bytes that the pattern spells out.
fn literal_run(tokens: &[Token], states: &[bool], bytes: &[u8], next: &mut [bool]) {
    for i in 0..tokens.len() {
        let run = tokens[i..].iter().zip(bytes).filter(|(t, b)| **t == Token::Literal(**b)).count();
        if states[i] && run == bytes.len() && tokens.len() - i >= bytes.len() {
            next[i + bytes.len()] = true;
        }
    }
}

fn char_len(bytes: &[u8]) -> usize {
    (2..=4.min(bytes.len())).find(|&n| std::str::from_utf8(&bytes[..n]).is_ok_and(|s| s.chars().count() == 1)).unwrap_or(1)
}

/// Length of the class at the start of a checked pattern.
fn class_len(body: &[u8]) -> usize {
    let mut at = 1 + usize::from(body.get(1) == Some(&b'^'));
    while let Some(b) = body.get(at) {
        match b {
            b'\\' => at += 2,
            b']' => return at + 1,
            _ => at += 1,
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ignores(file: &str, path: &str) -> bool {
        Matcher::from_file(file.as_bytes(), Default::default()).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn table() {
        // The file with `;` for newlines | path | y or n.
        for line in [
            "a|a|y",
            "a|a/b/c|y",
            "a|ab|n",
            "a|b/a|n",
            "/a|a|y",
            "a/|a|y",
            "./a|a|y",
            "a/../b|b|y",
            "*|x|y",
            "*|x/y|y",
            "*/temp*|a/temporary/b|y",
            "*/temp*|temporary|n",
            "*/*/temp*|a/b/temp|y",
            "temp?|tempa|y",
            "temp?|temp|n",
            "**|a/b|y",
            "**/a|a|y",
            "**/a|x/y/a|y",
            "**/a|x/ya|n",
            "a/**|a/x/y|y",
            "a/**|a|n",
            "a/**/b|a/b|y",
            "a/**/b|a/x/y/b|y",
            "a/**/b|a/xb|n",
            "**/*.go|x/y.go|y",
            "**/*.go|y.go|y",
            "*.md;!README.md|README.md|n",
            "*.md;!README*.md;README-secret.md|README-secret.md|y",
            "*.md;README-secret.md;!README*.md|README-secret.md|n",
            "dir;!dir/keep|dir/keep|n",
            "dir;!dir/keep|dir/other|y",
            "dir;!dir/keep|dir/keep/below|n",
            ".|a|n",
            "/|a|n",
            "#a|a|n",
            " #a|#a|y",
            "  a  |a|y",
            "! a|a|n",
            "a;! a|a|n",
            "\\#a|#a|y",
            "[a-c]|b|y",
            "[^a-c]|b|n",
            "a\\*|a*|y",
            "a\\*|ab|n",
            "a.c|abc|n",
            "a$|a$|y",
            "ü*|ürx|y",
            "a?b|aüb|y",
            "a**b|ab|y",
            "a**b|ax/b|y",
            "..|a|n",
            "../a|a|n",
            "**/x/**|a/x/b|y",
            "**/x/**|x/b|y",
            "**/x/**|x|n",
            "a;;b|b|y",
            "a\r;b|a|y",
            "**/.git|.git/config|y",
            "*;!src;src/*.o|src/main.c|n",
            "*;!src;src/*.o|src/main.o|y",
        ] {
            let fields: Vec<&str> = line.split('|').collect();
            assert_eq!(ignores(&fields[0].replace(';', "\n"), fields[1]), fields[2] == "y", "{line}");
        }
        assert!(ignores("\u{feff}a", "a"), "a byte order mark is not part of the first pattern");
    }

    #[test]
    fn bad_patterns_are_found_with_their_places() {
        let bad = Matcher::from_file(b"ok\n  [a\n!\n#[\nx\\\n", Default::default()).unwrap_err();
        let places: Vec<_> = bad.iter().map(|b| (b.pattern.as_str(), b.span.unwrap().start, b.span.unwrap().end)).collect();
        assert_eq!(places, [("[a", 5, 7), ("!", 8, 9), ("x\\", 13, 15)]);
    }

    #[test]
    fn the_deciding_pattern_has_a_place() {
        let matcher = Matcher::from_file(b"*.log\n!keep.log\n", Default::default()).unwrap();
        assert_eq!(matcher.reason(b"a.log").map(|s| (s.start, s.end)), Some((0, 5)));
        assert_eq!(matcher.reason(b"keep.log"), None);
        assert!(!matcher.is_empty());
        // The file | an excluded directory | whether to look into it.
        for line in [
            "a;!a/b|a|y",
            "a;!a/b|c|n",
            "a;!b/c|a|n",
            "a;!**/x|a|y",
            "a;!*/x|a|y",
            "a;!*/x|a/b|n",
            "a;!a|a|n",
            "a|a|n",
            "*;!a/b/c|a/b|y",
            "*;!a*/c|abc|y",
        ] {
            let fields: Vec<&str> = line.split('|').collect();
            let matcher = Matcher::from_file(fields[0].replace(';', "\n").as_bytes(), Default::default()).unwrap();
            assert_eq!(matcher.has_exceptions_below(fields[1].as_bytes()), fields[2] == "y", "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_panic_and_spans_inside(file in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'*'), Just(b'['), Just(b'\\'), Just(b'\n'), Just(b'/')], 0..60), path in "[a-c/]{0,12}") {
            match Matcher::from_file(&file, Default::default()) {
                Ok(matcher) => {
                    if let Some(span) = matcher.reason(path.as_bytes()) {
                        prop_assert!(span.start < span.end && span.end as usize <= file.len());
                    }
                }
                Err(bad) => prop_assert!(bad.iter().all(|b| b.span.is_some_and(|s| s.end as usize <= file.len()))),
            }
        }

        /// Without `**` and parents, a pattern means what `filepath.Match` says.
        #[test]
        fn agrees_with_match(pattern in "[a-b?*]{1,6}", name in "[a-b]{1,6}") {
            prop_assume!(!pattern.contains("**"));
            prop_assert_eq!(ignores(&pattern, &name), pattern::matches(pattern.as_bytes(), name.as_bytes()).unwrap());
        }
    }
}
