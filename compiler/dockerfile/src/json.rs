//! The exec form: a JSON array of strings (RFC 8259), with the place of each string.
//!
//! The whole of JSON is checked, not only arrays of strings, because the three outcomes differ: a broken array is a shell command that starts with `[`,
//! while a well-formed one with, say, a number in it is a mistake to report.

use std::ops::Range;

/// What an argument text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    /// Not a JSON array.
    No,
    /// A JSON array with something else than strings; the place of the first such element.
    NotStrings(Range<usize>),
    /// Each string, decoded, and the range of its characters without the quotes.
    Strings(Vec<(String, Range<usize>)>),
}

/// Deeper nesting is not an exec form anyone means.
const MAX_DEPTH: usize = 64;

/// Reads a text.
pub(crate) fn parse(text: &str) -> Json {
    let mut reader = Reader { text, pos: 0 };
    reader.space();
    match reader.top() {
        Some(json) => json,
        None => Json::No,
    }
}

struct Reader<'a> {
    text: &'a str,
    pos: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.pos += 1)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.pos += 1;
        }
    }

    fn top(&mut self) -> Option<Json> {
        self.eat(b'[')?;
        let mut strings = vec![];
        let mut other = None;
        self.list(b']', |r| {
            let start = r.pos;
            if r.peek() == Some(b'"') {
                let value = r.string()?;
                strings.push((value, start + 1..r.pos - 1));
            } else {
                r.value(0)?;
                other.get_or_insert(start..r.pos);
            }
            Some(())
        })?;
        self.space();
        if self.pos != self.text.len() {
            return None;
        }
        Some(match other {
            Some(range) => Json::NotStrings(range),
            None => Json::Strings(strings),
        })
    }

    /// Items separated by commas up to `close`, after the opening bracket.
    fn list(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.space();
        if self.eat(close).is_some() {
            return Some(());
        }
        loop {
            self.space();
            item(self)?;
            self.space();
            if self.eat(close).is_some() {
                return Some(());
            }
            self.eat(b',')?;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'[' => {
                self.pos += 1;
                self.list(b']', |r| r.value(depth + 1))
            }
            b'{' => {
                self.pos += 1;
                self.list(b'}', |r| {
                    r.string()?;
                    r.space();
                    r.eat(b':')?;
                    r.space();
                    r.value(depth + 1)
                })
            }
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number(),
        }
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.text[self.pos..].starts_with(word).then(|| self.pos += word.len())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.pos;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.pos += 1;
        }
        (self.pos > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.pos += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.pos += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut value = String::new();
        loop {
            let c = self.text[self.pos..].chars().next()?;
            self.pos += c.len_utf8();
            match c {
                '"' => return Some(value),
                '\\' => value.push(self.escape()?),
                c if c < ' ' => return None,
                c => value.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += 1;
        Some(match c {
            b'"' | b'\\' | b'/' => char::from(c),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                if (0xd800..0xdc00).contains(&high) && self.text[self.pos..].starts_with("\\u") {
                    let before = self.pos;
                    self.pos += 2;
                    let low = self.hex4()?;
                    if (0xdc00..0xe000).contains(&low) {
                        // RFC 8259, section 7: a surrogate pair.
                        return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                    }
                    self.pos = before;
                }
                // A lone surrogate is U+FFFD, as Go decodes it.
                char::from_u32(high).unwrap_or('\u{fffd}')
            }
            _ => return None,
        })
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.pos..self.pos + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        self.pos += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let strings = |text: &str| match parse(text) {
            Json::Strings(all) => format!("{:?}", all.into_iter().map(|(s, _)| s).collect::<Vec<_>>()),
            Json::NotStrings(range) => format!("not a string: {}", &text[range]),
            Json::No => "no".to_string(),
        };
        let table = r#"
            [] | []
            [ ] | []
            ["a"] | ["a"]
            [ "a" , "b c" ] | ["a", "b c"]
            ["\u00e9\ud83d\ude00\ud800x\t\/"] | ["é😀�x\t/"]
            ["a", 1] | not a string: 1
            [null, "a"] | not a string: null
            [["a"]] | not a string: ["a"]
            [{"a": [true, -1.5e3]}] | not a string: {"a": [true, -1.5e3]}
            ['a'] | no
            ["a",] | no
            [,] | no
            ["a" "b"] | no
            ["a"] x | no
            ["a | no
            ["\x"] | no
            [01] | no
            [ -f x ] | no
            ["a", | no"#;
        for line in table.lines().skip(1) {
            let (input, expected) = line.trim().split_once(" | ").unwrap();
            assert_eq!(strings(input), expected, "{input}");
        }
        assert_eq!(parse(r#"[ "ab" ]"#), Json::Strings(vec![("ab".to_string(), 3..5)]));
        assert_eq!(strings(&"[".repeat(100_000)), "no");
    }
}
