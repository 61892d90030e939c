//! Patterns of `${a#p}`, `${a%p}` and `${a/p/w}`: `*`, `?` and `\` escapes, no bracket expressions (POSIX XCU 2.13 without them, as BuildKit has it).

/// A parsed pattern.
pub(super) struct Pattern(Vec<Item>);

enum Item {
    /// `*`
    Any,
    /// `?`
    One,
    /// Anything else.
    Char(char),
}

impl Pattern {
    /// Parses a pattern. `\` may stand before `*`, `?`, `\`, and before `}` and `/`, which only needed it to get past the `${}` around them.
    ///
    /// # Errors
    /// Any other escape, as a sentence.
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        let mut items = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            items.push(match c {
                '*' => Item::Any,
                '?' => Item::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Item::Char(c),
                    Some(c) => return Err(format!("invalid escape `\\{c}` in the pattern `{text}`")),
                    None => return Err(format!("nothing follows the last `\\` of the pattern `{text}`")),
                },
                c => Item::Char(c),
            });
        }
        Ok(Pattern(items))
    }

    /// Returns every length `n` for which the first `n` characters of `text` match, ascending. Newlines do not match wildcards (Go's `.`).
    fn prefix_lengths(&self, text: &[char], reversed: bool) -> Vec<usize> {
        // `reached[i]`: the items so far match exactly the first `i` characters.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        let step = |reached: &mut Vec<bool>, item: &Item| match item {
            Item::Any => {
                for i in 1..=text.len() {
                    reached[i] |= reached[i - 1] && text[i - 1] != '\n';
                }
            }
            Item::One => shift(reached, |c| c != '\n', text),
            Item::Char(want) => shift(reached, |c| c == *want, text),
        };
        if reversed {
            self.0.iter().rev().for_each(|item| step(&mut reached, item));
        } else {
            self.0.iter().for_each(|item| step(&mut reached, item));
        }
        (0..=text.len()).filter(|&i| reached[i]).collect()
    }

    /// Returns `value` without the shortest or longest prefix that matches.
    pub(super) fn strip_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let lengths = self.prefix_lengths(&chars, false);
        let cut = if longest { lengths.last() } else { lengths.first() };
        chars[cut.copied().unwrap_or(0)..].iter().collect()
    }

    /// Returns `value` without the shortest or longest suffix that matches.
    pub(super) fn strip_suffix(&self, value: &str, longest: bool) -> String {
        let mut chars: Vec<char> = value.chars().collect();
        chars.reverse();
        let lengths = self.prefix_lengths(&chars, true);
        let cut = if longest { lengths.last() } else { lengths.first() };
        chars[cut.copied().unwrap_or(0)..].iter().rev().collect()
    }

    /// Returns `value` with the first or every longest match, from the left, replaced. An empty match replaces nothing away but inserts, as Go's regexp
    /// does: once after every character that is not part of a match.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let (mut i, mut after_match, mut done) = (0, false, false);
        while i <= chars.len() {
            let longest = if done { None } else { self.prefix_lengths(&chars[i..], false).last().copied() };
            match longest {
                // An empty match right after another match does not count.
                Some(n) if n > 0 || !after_match => {
                    out.push_str(replacement);
                    done = !all;
                    i += n;
                    after_match = n > 0;
                    if n > 0 {
                        continue;
                    }
                }
                _ => after_match = false,
            }
            if let Some(&c) = chars.get(i) {
                out.push(c);
            }
            i += 1;
        }
        out
    }
}

/// Moves every reached position over one character that `fits`.
fn shift(reached: &mut [bool], fits: impl Fn(char) -> bool, text: &[char]) {
    for i in (1..reached.len()).rev() {
        reached[i] = reached[i - 1] && fits(text[i - 1]);
    }
    reached[0] = false;
}
