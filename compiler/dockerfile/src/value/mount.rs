//! `RUN --mount=`: a comma-separated list of `key=value`, one type of mount each.
//!
//! ```text
//! --mount=type=cache,target=/root/.cache,sharing=locked
//! --mount=from=build,source=/out,target=/in        (type=bind is the default)
//! --mount=type=secret,id=token,env=TOKEN,required
//! ```
//!
//! The list is one record of CSV (RFC 4180), so a value with a comma is written `"target=/a,b"`. Keys are case-insensitive; each key belongs to certain types.

use crate::ast::Word;
use crate::expand::part_of;
use std::ops::Range;
use ukc_diagnostics::{Diagnostic, Span, suggest};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; relative to WORKDIR. Without it: WORKDIR itself, or for secrets and agents the default place of its kind.
    pub target: Option<String>,
    /// The whole value.
    pub span: Span,
}

/// What is mounted, with the options of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// `type=bind`: a directory or file of a stage, image or the build context.
    Bind {
        /// Stage, context or image; the build context if absent.
        from: Option<String>,
        /// Path in it; `/` if absent.
        source: Option<String>,
        /// If not, writes are allowed and thrown away.
        read_only: bool,
    },
    /// `type=cache`: a directory that outlives the build.
    Cache {
        /// Its identity; the target if absent.
        id: Option<String>,
        /// Where its first content comes from; empty if absent.
        from: Option<String>,
        /// Path in it.
        source: Option<String>,
        /// What happens when two steps use it at once.
        sharing: Sharing,
        /// Mounted read-only.
        read_only: bool,
        /// Owner and mode of the directory when it is new.
        access: Access,
    },
    /// `type=tmpfs`.
    Tmpfs {
        /// Upper limit.
        size_bytes: Option<u64>,
    },
    /// `type=secret`.
    Secret {
        /// Its identity: `id`, else `source`, else the last part of the target.
        id: String,
        /// Environment variable that holds it; then there is a file only if a target is named too.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Owner and mode of the file (0400 by default).
        access: Access,
    },
    /// `type=ssh`: the socket of an agent.
    Ssh {
        /// Its identity; `default` if absent.
        id: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Owner and mode of the socket (0600 by default).
        access: Access,
    },
}

/// Owner and mode, as far as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User number.
    pub uid: Option<u32>,
    /// Group number.
    pub gid: Option<u32>,
}

/// `sharing=` of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Several steps at once.
    #[default]
    Shared,
    /// A new one for each step that comes while it is in use.
    Private,
    /// The second waits.
    Locked,
}

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// Keys, their canonical names, and the types they belong to.
const KEYS: [(&str, &str, &[&str]); 19] = [
    ("type", "type", &TYPES),
    ("from", "from", &["bind", "cache"]),
    ("source", "source", &["bind", "cache", "secret"]),
    ("src", "source", &["bind", "cache", "secret"]),
    ("target", "target", &TYPES),
    ("dst", "target", &TYPES),
    ("destination", "target", &TYPES),
    ("readonly", "readonly", &TYPES),
    ("ro", "readonly", &TYPES),
    ("readwrite", "readwrite", &TYPES),
    ("rw", "readwrite", &TYPES),
    ("id", "id", &["cache", "secret", "ssh"]),
    ("sharing", "sharing", &["cache"]),
    ("size", "size", &["tmpfs"]),
    ("required", "required", &["secret", "ssh"]),
    ("env", "env", &["secret"]),
    ("mode", "mode", &["cache", "secret", "ssh"]),
    ("uid", "uid", &["cache", "secret", "ssh"]),
    ("gid", "gid", &["cache", "secret", "ssh"]),
];

/// Parses the value of a `--mount`. `expand` turns each value into its expansion (`from` is not expanded).
///
/// # Errors
/// Everything that is wrong, each at its field, and the diagnostics of `expand`.
pub fn parse(word: &Word, expand: &mut dyn FnMut(&Word) -> Result<String, Diagnostic>) -> Result<Mount, Vec<Diagnostic>> {
    let mut reader = Reader { word, problems: vec![], deferred: false, escape: '\\' };
    let mount = reader.mount(Some(expand));
    if reader.problems.is_empty() { Ok(mount) } else { Err(reader.problems) }
}

/// Checks a `--mount` before its variables are known: values with a `$` need only be well-formed.
pub fn check(word: &Word, escape: char) -> Vec<Diagnostic> {
    let mut reader = Reader { word, problems: vec![], deferred: false, escape };
    reader.mount(None);
    reader.problems
}

type Expander<'a> = Option<&'a mut dyn FnMut(&Word) -> Result<String, Diagnostic>>;

struct Reader<'a> {
    word: &'a Word,
    problems: Vec<Diagnostic>,
    /// A value could not be known; conclusions from absence are off.
    deferred: bool,
    /// For [`check`] only.
    escape: char,
}

/// A known key with its value, if it has one and it is known.
struct Field {
    key: &'static str,
    types: &'static [&'static str],
    written: String,
    value: Option<String>,
    range: Range<usize>,
}

impl Reader<'_> {
    fn problem(&mut self, range: Range<usize>, message: impl Into<String>) -> &mut Diagnostic {
        let span = part_of(self.word, range);
        self.problems.push(Diagnostic::error("invalid-mount", message).at(span, ""));
        self.problems.last_mut().expect("just pushed")
    }

    fn mount(&mut self, expand: Expander) -> Mount {
        let fields = self.fields(expand);
        let kind = self.kind_name(&fields);
        for field in &fields {
            if kind.is_some_and(|kind| !field.types.contains(&kind)) {
                let message = format!("`{}` does not belong to a mount of type `{}`", field.written, kind.unwrap_or_default());
                let help = format!("`{}` is for: {}", field.key, field.types.join(", "));
                self.problem(field.range.clone(), message).help.push(help);
            }
        }
        let text = |key: &str| fields.iter().rfind(|f| f.key == key).and_then(|f| f.value.clone());
        let (from, source, target, id) = (text("from"), text("source"), text("target"), text("id"));
        let read_only = self.read_only(&fields);
        let access =
            Access { mode: self.number(&fields, "mode", 8), uid: self.number(&fields, "uid", 10), gid: self.number(&fields, "gid", 10) };
        let kind = match kind {
            Some("cache") => {
                let sharing = self.sharing(&fields);
                MountKind::Cache { id, from, source, sharing, read_only: read_only.unwrap_or(false), access }
            }
            Some("tmpfs") => MountKind::Tmpfs { size_bytes: self.size(&fields) },
            Some("secret") => {
                if id.is_some() && source.is_some() {
                    self.problem(0..self.word.value.len(), "a secret has either an `id` or a `source`, not both");
                }
                let last_part = target.as_deref().and_then(|t| t.trim_end_matches('/').rsplit('/').next()).filter(|n| !n.is_empty());
                let id = id.or(source).or(last_part.map(str::to_string));
                if id.is_none() && !self.deferred {
                    self.problem(0..self.word.value.len(), "a secret needs an `id`");
                }
                MountKind::Secret {
                    id: id.unwrap_or_default(),
                    env: text("env"),
                    required: self.boolean(&fields, "required").unwrap_or(false),
                    access,
                }
            }
            Some("ssh") => MountKind::Ssh { id, required: self.boolean(&fields, "required").unwrap_or(false), access },
            _ => MountKind::Bind { from, source, read_only: read_only.unwrap_or(true) },
        };
        Mount { kind, target, span: self.word.span }
    }

    fn fields(&mut self, mut expand: Expander) -> Vec<Field> {
        let mut fields: Vec<Field> = vec![];
        for (text, range) in self.csv() {
            let (written, value) = match text.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (text.as_str(), None),
            };
            let lower = written.to_lowercase();
            let Some(&(_, key, types)) = KEYS.iter().find(|(name, ..)| *name == lower) else {
                let message =
                    if text.is_empty() { "empty option in a mount".to_string() } else { format!("unknown mount option `{written}`") };
                let close = suggest::closest(&lower, KEYS.iter().map(|(name, ..)| *name));
                let help = close.map(|close| format!("did you mean `{close}`?"));
                self.problem(range, message).help.extend(help);
                continue;
            };
            let is_switch = matches!(key, "readonly" | "readwrite" | "required");
            if value.is_none() && !is_switch {
                self.problem(range, format!("`{written}` needs a value: `{written}=...`"));
                continue;
            }
            let mut field = Field { key, types, written: written.to_string(), value: value.map(str::to_string), range };
            if let Some(value) = &mut field.value {
                if key == "from" {
                    if value.contains('$') {
                        let problem = self.problem(field.range.clone(), "`from` does not take variables");
                        problem.help.push("give the image a stage of its own, `FROM $image AS name`, and use that name".to_string());
                    }
                } else if let Some(expand) = &mut expand {
                    match expand(&Word { value: value.clone(), span: part_of(self.word, field.range.clone()) }) {
                        Ok(expanded) => *value = expanded,
                        Err(problem) => self.problems.push(problem),
                    }
                } else if value.contains('$') {
                    self.deferred = true;
                    let value = Word { value: value.clone(), span: part_of(self.word, field.range.clone()) };
                    self.problems.extend(crate::expand::check(&value, self.escape));
                    continue;
                }
            }
            fields.push(field);
        }
        fields
    }

    /// Splits the value at commas outside double quotes; `""` inside quotes is a quote.
    fn csv(&mut self) -> Vec<(String, Range<usize>)> {
        let text = self.word.value.clone();
        let mut fields = vec![];
        let (mut field, mut start, mut quoted) = (String::new(), 0, false);
        let mut chars = text.char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' if quoted && chars.next_if(|(_, c)| *c == '"').is_some() => field.push('"'),
                '"' if quoted => quoted = false,
                '"' if i == start => quoted = true,
                ',' if !quoted => {
                    fields.push((std::mem::take(&mut field), start..i));
                    start = i + 1;
                }
                c => field.push(c),
            }
        }
        if quoted {
            self.problem(start..text.len(), "the closing double quote of a mount option is missing");
        }
        fields.push((field, start..text.len()));
        fields
    }

    /// The type's name, or `None` if it is unknown or not yet known.
    fn kind_name(&mut self, fields: &[Field]) -> Option<&'static str> {
        let Some(field) = fields.iter().rfind(|f| f.key == "type") else {
            return if self.deferred { None } else { Some("bind") };
        };
        let value = field.value.clone().unwrap_or_default();
        let lower = value.to_lowercase();
        let known = TYPES.into_iter().find(|t| *t == lower);
        if known.is_none() {
            let help = match suggest::closest(&lower, TYPES) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("the types are {}", TYPES.join(", ")),
            };
            self.problem(field.range.clone(), format!("unknown mount type `{value}`")).help.push(help);
        }
        known
    }

    fn boolean(&mut self, fields: &[Field], key: &str) -> Option<bool> {
        let field = fields.iter().rfind(|f| f.key == key)?;
        // The spellings of Go's strconv.ParseBool.
        match field.value.as_deref() {
            None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Some(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Some(false),
            Some(other) => {
                self.problem(field.range.clone(), format!("`{other}` is neither `true` nor `false`"));
                None
            }
        }
    }

    /// The last of `readonly` and `readwrite` counts.
    fn read_only(&mut self, fields: &[Field]) -> Option<bool> {
        let last = fields.iter().rfind(|f| matches!(f.key, "readonly" | "readwrite"))?;
        let value = self.boolean(fields, last.key)?;
        Some(if last.key == "readonly" { value } else { !value })
    }

    fn number(&mut self, fields: &[Field], key: &str, radix: u32) -> Option<u32> {
        let field = fields.iter().rfind(|f| f.key == key)?;
        let value = field.value.as_deref().unwrap_or_default();
        let parsed = if value.starts_with('+') { None } else { u32::from_str_radix(value, radix).ok() };
        let limit = if key == "mode" { 0o7777 } else { u32::MAX - 1 };
        if parsed.is_none_or(|n| n > limit) {
            let what = if radix == 8 { "an octal mode such as `0755`" } else { "a number" };
            self.problem(field.range.clone(), format!("`{value}` is not {what}"));
            return None;
        }
        parsed
    }

    fn sharing(&mut self, fields: &[Field]) -> Sharing {
        let Some(field) = fields.iter().rfind(|f| f.key == "sharing") else { return Sharing::default() };
        let value = field.value.clone().unwrap_or_default();
        match value.to_lowercase().as_str() {
            "shared" => Sharing::Shared,
            "private" => Sharing::Private,
            "locked" => Sharing::Locked,
            lower => {
                let help = suggest::closest(lower, ["shared", "private", "locked"]).map(|close| format!("did you mean `{close}`?"));
                let problem = self.problem(field.range.clone(), format!("`{value}` is not one of `shared`, `private`, `locked`"));
                problem.help.extend(help);
                Sharing::default()
            }
        }
    }

    fn size(&mut self, fields: &[Field]) -> Option<u64> {
        let field = fields.iter().rfind(|f| f.key == "size")?;
        match super::size::parse(field.value.as_deref().unwrap_or_default()) {
            Ok(bytes) => Some(bytes),
            Err(message) => {
                self.problem(field.range.clone(), message);
                None
            }
        }
    }
}
