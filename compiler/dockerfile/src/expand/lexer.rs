//! The expansion itself: one pass over the text with a stack of `${...}` operands.

use super::pattern::Pattern;
use super::{ExpandError, Expansion, Lookup, Mode};

/// How deep `${a:-${b:-...}}` may nest; deeper input is refused instead of exhausting the stack.
const MAX_DEPTH: usize = 100;

pub(super) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    depth: usize,
    mode: Mode,
    lookup: Lookup<'a>,
    out: Expansion,
}

/// Text and words that grow together.
#[derive(Default)]
struct Words {
    text: String,
    word: String,
    words: Vec<String>,
}

impl Words {
    /// A character outside quotes: white space ends a word.
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.push_to_word(c);
    }

    fn push_to_word(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    /// A quoted or escaped character: part of the word whatever it is.
    fn push_raw(&mut self, c: char) {
        self.text.push(c);
        self.word.push(c);
    }

    fn finish(mut self) -> (String, Vec<String>) {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        (self.text, self.words)
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, mode: Mode, lookup: Lookup<'a>) -> Lexer<'a> {
        Lexer { text, pos: 0, depth: 0, mode, lookup, out: Expansion::default() }
    }

    pub(super) fn run(mut self) -> Result<Expansion, ExpandError> {
        let (text, words) = self.until(None, self.mode.raw_escapes)?;
        self.out.text = text;
        self.out.words = words;
        Ok(self.out)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.pos..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn error<T>(&self, start: usize, message: impl Into<String>) -> Result<T, ExpandError> {
        Err(ExpandError { message: message.into(), is_required_variable: false, range: start..self.pos.max(start) })
    }

    /// Reads up to an unquoted `stop`, which is consumed, or to the end if there is none.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), ExpandError> {
        let start = self.pos;
        let outer = std::mem::replace(&mut self.mode.raw_escapes, raw_escapes);
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                self.mode.raw_escapes = outer;
                return Ok(words.finish());
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    words.text.push_str(&value);
                    value.chars().for_each(|c| words.push_to_word(c));
                }
                '\'' | '"' if !self.mode.ignore_quotes => {
                    let value = if c == '"' { self.double_quotes()? } else { self.single_quotes()? };
                    words.text.push_str(&value);
                    words.word.push_str(&value);
                }
                _ => {
                    self.next();
                    if c != self.mode.escape {
                        words.push(c);
                        continue;
                    }
                    if self.mode.raw_escapes {
                        words.push_raw(c);
                    }
                    // An escape character at the very end vanishes.
                    let Some(escaped) = self.next() else { break };
                    words.push_raw(escaped);
                }
            }
        }
        self.mode.raw_escapes = outer;
        match stop {
            Some(stop) => self.error(start, format!("the closing `{stop}` is missing")),
            None => Ok(words.finish()),
        }
    }

    fn single_quotes(&mut self) -> Result<String, ExpandError> {
        let start = self.pos;
        let quote = self.next();
        let mut value = String::new();
        if self.mode.raw_quotes {
            value.extend(quote);
        }
        loop {
            match self.next() {
                None => return self.error(start, "the closing single quote is missing"),
                Some('\'') => {
                    if self.mode.raw_quotes {
                        value.push('\'');
                    }
                    return Ok(value);
                }
                Some(c) => value.push(c),
            }
        }
    }

    fn double_quotes(&mut self) -> Result<String, ExpandError> {
        let start = self.pos;
        let quote = self.next();
        let mut value = String::new();
        if self.mode.raw_quotes {
            value.extend(quote);
        }
        loop {
            match self.peek() {
                None => return self.error(start, "the closing double quote is missing"),
                Some('"') => {
                    self.next();
                    if self.mode.raw_quotes {
                        value.push('"');
                    }
                    return Ok(value);
                }
                Some('$') => value.push_str(&self.dollar()?),
                Some(c) => {
                    self.next();
                    if c != self.mode.escape {
                        value.push(c);
                        continue;
                    }
                    if self.mode.raw_escapes {
                        value.push(c);
                    }
                    // Only these can be escaped inside double quotes; before anything else the escape character is itself.
                    match self.peek() {
                        None => {}
                        Some(e) if e == '"' || e == '$' || e == self.mode.escape => {
                            self.next();
                            value.push(e);
                        }
                        Some(_) => value.push(c),
                    }
                }
            }
        }
    }

    /// At a `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.pos;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_string());
            }
            return Ok(match self.value(&name) {
                None if self.mode.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        if self.depth >= MAX_DEPTH {
            return self.error(start, format!("more than {MAX_DEPTH} nested `${{`"));
        }
        self.depth += 1;
        let value = self.braces(start);
        self.depth -= 1;
        value
    }

    /// After `${`.
    fn braces(&mut self, start: usize) -> Result<String, ExpandError> {
        if let Some('{' | '}' | ':') = self.peek() {
            self.next();
            return self.error(start, format!("bad substitution `{}`", &self.text[start..self.pos]));
        }
        let name = self.name();
        let Some(mut operator) = self.next() else {
            return self.error(start, "the closing `}` is missing");
        };
        let empty_is_unset = operator == ':';
        if empty_is_unset {
            operator = match self.next() {
                Some(c) => c,
                None => return self.error(start, "the closing `}` is missing"),
            };
        }
        match operator {
            '}' if !empty_is_unset => Ok(match self.value(&name) {
                None if self.mode.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            '-' | '+' | '?' | '#' | '%' => self.operand(start, &name, operator, empty_is_unset),
            '/' if !empty_is_unset => self.replacement(start, &name),
            other => {
                let colon = if empty_is_unset { ":" } else { "" };
                self.error(start, format!("unsupported operator `{colon}{other}` in `{}`", &self.text[start..self.pos]))
            }
        }
    }

    /// After one of the operators with one operand.
    fn operand(&mut self, start: usize, name: &str, operator: char, empty_is_unset: bool) -> Result<String, ExpandError> {
        let is_pattern = operator == '#' || operator == '%';
        let word = self.operand_text(start, '}', is_pattern)?;
        let value = if is_pattern { self.value(name) } else { self.value_or_unset(name) };
        if value.is_none() && self.mode.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let has_value = value.as_ref().is_some_and(|v| !(empty_is_unset && v.is_empty()));
        match operator {
            '-' => Ok(if has_value { value.unwrap_or_default() } else { word }),
            '+' => Ok(if has_value { word } else { String::new() }),
            '?' if has_value => Ok(value.unwrap_or_default()),
            '?' => {
                let state = if value.is_none() { "unset" } else { "empty" };
                let message =
                    if word.is_empty() { format!("`{name}` must not be {state}") } else { format!("`{name}` is {state}: {word}") };
                Err(ExpandError { message, is_required_variable: true, range: start..self.pos })
            }
            _ => {
                let longest = word.starts_with(operator);
                let text = if longest { &word[1..] } else { &word[..] };
                let pattern = match Pattern::parse(text) {
                    Ok(pattern) => pattern,
                    Err(message) => return self.error(start, message),
                };
                let value = value.unwrap_or_default();
                Ok(if operator == '#' { pattern.strip_prefix(&value, longest) } else { pattern.strip_suffix(&value, longest) })
            }
        }
    }

    /// After `${name/`.
    fn replacement(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.operand_text(start, '/', true)?;
        let word = self.operand_text(start, '}', true)?;
        let value = self.value(name);
        if value.is_none() && self.mode.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{word}}}"));
        }
        match Pattern::parse(&pattern) {
            Ok(pattern) => Ok(pattern.replace(&value.unwrap_or_default(), &word, all)),
            Err(message) => self.error(start, message),
        }
    }

    /// Reads an operand up to `stop`; if the end comes first, the message is about the braces.
    fn operand_text(&mut self, start: usize, stop: char, raw_escapes: bool) -> Result<String, ExpandError> {
        match self.until(Some(stop), raw_escapes) {
            Ok((text, _)) => Ok(text),
            Err(error) if self.peek().is_none() && !error.is_required_variable => {
                self.error(start, format!("the `{stop}` of `{}` is missing", &self.text[start..]))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a name: letters, digits and `_`; or digits only; or one special character (POSIX XCU 2.5.2).
    fn name(&mut self) -> String {
        let start = self.pos;
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while self.peek().is_some_and(char::is_numeric) {
                    self.next();
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.next();
            }
            _ => {
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.next();
                }
            }
        }
        self.text[start..self.pos].to_string()
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let seen = if value.is_some() { &mut self.out.used } else { &mut self.out.unset };
        seen.insert(name.to_string());
        value
    }

    /// The same where the text says what happens if it is unset.
    fn value_or_unset(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let seen = if value.is_some() { &mut self.out.used } else { &mut self.out.unset_allowed };
        seen.insert(name.to_string());
        value
    }
}
