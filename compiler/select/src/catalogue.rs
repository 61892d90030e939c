//! The module catalogue: what the kernel's modules declare about themselves, from the notes in their objects.
//!
//! Every `module!` declaration of the kernel leaves a text record in the section `.note.ukc.module`:
//!
//! ```text
//! UKCMOD1
//! name=pipe
//! needs=fd,wait,
//! always=false
//! init=ukc_init_pipe
//! syscall=pipe2:ukc_sys_pipe2:partial:O_DIRECT is refused
//! (empty line)
//! ```
//!
//! Records of several objects are one after another, with NUL bytes between them where sections were padded. Lines with a key that is not known are
//! passed over, so that a newer kernel can say more.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of a call a handler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All that programs use.
    Full,
    /// Part; the reason says what is left out.
    Partial,
    /// It answers without doing; the reason says what.
    Stub,
}

impl State {
    /// Returns the word in notes and plans.
    pub fn word(self) -> &'static str {
        match self {
            State::Full => "full",
            State::Partial => "partial",
            State::Stub => "stub",
        }
    }
}

/// A system call that a module handles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler {
    /// Number.
    pub nr: u32,
    /// Name as in syscalls(2).
    pub name: String,
    /// Link symbol.
    pub symbol: String,
    /// How much it does.
    pub state: State,
    /// What is left out; empty for a full handler.
    pub reason: String,
}

/// A kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Module {
    /// Name.
    pub name: String,
    /// Modules that must be linked with it, and are initialised before it.
    pub needs: Vec<String>,
    /// Features it stands for, besides its own name.
    pub provides: Vec<String>,
    /// Linked into every kernel.
    pub always: bool,
    /// Symbol of its init function.
    pub init: Option<String>,
    /// Its calls, by number.
    pub handlers: Vec<Handler>,
}

/// All modules of a kernel archive, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    modules: BTreeMap<String, Module>,
}

/// Why notes make no catalogue. These are mistakes in the kernel's sources, not in a user's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueError {
    /// A record that is not in the form above: the record's place among the records, and what is wrong.
    Record(usize, String),
    /// Two modules of one name.
    DuplicateModule(String),
    /// Two modules handle one call: call, both modules.
    DuplicateCall(String, String, String),
    /// A module needs one that is not there.
    MissingNeed(String, String),
    /// Modules need each other in a circle.
    Cycle(Vec<String>),
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogueError::Record(n, what) => write!(f, "kernel module note {n}: {what}"),
            CatalogueError::DuplicateModule(name) => write!(f, "two kernel modules are called `{name}`"),
            CatalogueError::DuplicateCall(call, a, b) => write!(f, "the kernel modules `{a}` and `{b}` both handle `{call}`"),
            CatalogueError::MissingNeed(module, need) => write!(f, "the kernel module `{module}` needs `{need}`, which does not exist"),
            CatalogueError::Cycle(names) => write!(f, "kernel modules need each other in a circle: {}", names.join(" -> ")),
        }
    }
}

impl std::error::Error for CatalogueError {}

/// The first line of a record.
const MAGIC: &str = "UKCMOD1";

impl Catalogue {
    /// Parses the concatenated notes of all objects.
    ///
    /// # Errors
    /// See [`CatalogueError`]; needs and cycles are checked here, so that a broken kernel is found when it is built, not when a program happens to
    /// select the module.
    pub fn from_notes(bytes: &[u8]) -> Result<Catalogue, CatalogueError> {
        let mut out = Catalogue::default();
        for (n, record) in records(bytes).enumerate() {
            let module = parse(n, &record)?;
            if let Some(old) = out.modules.insert(module.name.clone(), module) {
                return Err(CatalogueError::DuplicateModule(old.name));
            }
        }
        out.check()?;
        Ok(out)
    }

    /// Returns the catalogue of these modules.
    ///
    /// # Errors
    /// As [`Catalogue::from_notes`].
    pub fn from_modules(modules: impl IntoIterator<Item = Module>) -> Result<Catalogue, CatalogueError> {
        let mut out = Catalogue::default();
        for module in modules {
            if let Some(old) = out.modules.insert(module.name.clone(), module) {
                return Err(CatalogueError::DuplicateModule(old.name));
            }
        }
        out.check()?;
        Ok(out)
    }

    /// Returns all modules by name.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.values()
    }

    /// Returns the module of this name, or else the first one that provides it.
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.get(name).or_else(|| self.modules.values().find(|m| m.provides.iter().any(|p| p == name)))
    }

    /// Returns the module and handler of a call.
    pub fn handler(&self, nr: u32) -> Option<(&Module, &Handler)> {
        self.modules.values().find_map(|m| m.handlers.iter().find(|h| h.nr == nr).map(|h| (m, h)))
    }

    fn check(&self) -> Result<(), CatalogueError> {
        let mut calls: BTreeMap<u32, &str> = BTreeMap::new();
        for m in self.modules.values() {
            for h in &m.handlers {
                if let Some(other) = calls.insert(h.nr, &m.name) {
                    return Err(CatalogueError::DuplicateCall(h.name.clone(), other.to_owned(), m.name.clone()));
                }
            }
            if let Some(need) = m.needs.iter().find(|n| self.module(n).is_none()) {
                return Err(CatalogueError::MissingNeed(m.name.clone(), need.clone()));
            }
        }
        self.in_order(&self.modules.keys().map(String::as_str).collect::<Vec<_>>()).map(|_| ())
    }

    /// Returns the modules `names` and everything they need, what is needed before what needs it; otherwise by name.
    ///
    /// # Errors
    /// [`CatalogueError::Cycle`].
    pub(crate) fn in_order(&self, names: &[&str]) -> Result<Vec<&Module>, CatalogueError> {
        let mut sorted: Vec<&str> = names.to_vec();
        sorted.sort_unstable();
        let (mut out, mut path) = (Vec::new(), Vec::new());
        for name in sorted {
            self.visit(name, &mut path, &mut out)?;
        }
        Ok(out)
    }

    fn visit<'a>(&'a self, name: &str, path: &mut Vec<&'a str>, out: &mut Vec<&'a Module>) -> Result<(), CatalogueError> {
        let Some(module) = self.module(name) else { return Ok(()) };
        if out.iter().any(|m| m.name == module.name) {
            return Ok(());
        }
        if let Some(at) = path.iter().position(|p| *p == module.name) {
            let circle = path[at..].iter().chain([&module.name.as_str()]).map(|s| s.to_string()).collect();
            return Err(CatalogueError::Cycle(circle));
        }
        path.push(&module.name);
        for need in &module.needs {
            self.visit(need, path, out)?;
        }
        path.pop();
        out.push(module);
        Ok(())
    }
}

/// Splits notes into records; padding is dropped.
fn records(bytes: &[u8]) -> impl Iterator<Item = String> {
    // NUL only ever stands between records.
    let text: String = bytes.split(|&b| b == 0).filter(|p| !p.is_empty()).map(|p| String::from_utf8_lossy(p) + "\n\n").collect();
    let mut out: Vec<String> = Vec::new();
    let mut current = String::new();
    for line in text.lines() {
        if line.trim().is_empty() || line == MAGIC && !current.is_empty() {
            if !current.is_empty() {
                out.push(std::mem::take(&mut current));
            }
            if line.trim().is_empty() {
                continue;
            }
        }
        current.push_str(line);
        current.push('\n');
    }
    if !current.is_empty() {
        out.push(current);
    }
    out.into_iter()
}

fn parse(n: usize, record: &str) -> Result<Module, CatalogueError> {
    let wrong = |what: String| CatalogueError::Record(n, what);
    let mut lines = record.lines();
    if lines.next() != Some(MAGIC) {
        return Err(wrong(format!("it does not start with `{MAGIC}`")));
    }
    let list = |value: &str| value.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let mut m = Module::default();
    for line in lines {
        let (key, value) = line.split_once('=').ok_or_else(|| wrong(format!("`{line}` is not of the form key=value")))?;
        match key {
            "name" => m.name = value.to_owned(),
            "needs" => m.needs.extend(list(value)),
            "provides" => m.provides.extend(list(value)),
            "always" => m.always = value == "true",
            "init" => m.init = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "syscall" => m.handlers.push(handler(value).map_err(&wrong)?),
            _ => {}
        }
    }
    if m.name.is_empty() {
        return Err(wrong("it has no name".to_owned()));
    }
    m.handlers.sort_by_key(|h| h.nr);
    Ok(m)
}

/// Parses `pipe2:ukc_sys_pipe2:partial:O_DIRECT is refused`.
fn handler(value: &str) -> Result<Handler, String> {
    let mut parts = value.splitn(4, ':');
    let (name, symbol) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (state, reason) = (parts.next().unwrap_or("full"), parts.next().unwrap_or(""));
    if symbol.is_empty() {
        return Err(format!("the call `{name}` has no handler symbol"));
    }
    let state = match state {
        "full" | "" => State::Full,
        "partial" => State::Partial,
        "stub" => State::Stub,
        other => return Err(format!("the call `{name}` has the unknown state `{other}`")),
    };
    let nr = libos_abi::syscall::number(name).ok_or_else(|| format!("`{name}` is no system call of x86-64"))?;
    Ok(Handler { nr: nr as u32, name: name.to_owned(), symbol: symbol.to_owned(), state, reason: reason.to_owned() })
}
