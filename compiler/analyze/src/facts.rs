//! The result of the analysis, as data.
//!
//! Paths are strings: those that are not UTF-8 are escaped byte by byte (`\xff`), since they are for reading, not for opening.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ukc_diagnostics::Diagnostic;

/// What the image's program is and needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// What is started.
    pub program: Program,
    /// As whom.
    pub user: User,
    /// Every ELF file that may be executed or loaded, the program first, then in the order in which it was found.
    pub objects: Vec<Object>,
    /// System calls by number.
    pub syscalls: BTreeMap<u32, Syscall>,
    /// Places whose number was not found; when there are any, every call must be counted as possible.
    pub unknown: Vec<Place>,
    /// Occurrences of `syscall` that cannot be reached.
    pub dropped: Vec<Place>,
    /// Further facts.
    pub features: Features,
    /// Rules that added objects, each with how many.
    pub rules: Vec<Rule>,
    /// Trouble that need not stop the build.
    #[serde(skip)]
    pub warnings: Vec<Diagnostic>,
}

/// The program that the image starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path to execute, as PATH lookup found it: it may be a symbolic link, by whose name a multi-call program goes, or a script.
    pub path: String,
    /// Arguments as the image gives them.
    pub argv: Vec<String>,
    /// Working directory.
    pub directory: String,
    /// The chain of `#!` scripts, the started one first.
    pub scripts: Vec<String>,
    /// The ELF file that runs in the end, without symbolic links.
    pub executable: String,
}

/// Numeric identity (credentials(7)) that `USER` means in this image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, ascending.
    pub groups: Vec<u32>,
    /// Home directory of the passwd entry, `/` when there is none.
    pub home: String,
}

/// Why an object counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is what the image starts.
    Program,
    /// It runs this script.
    ScriptInterpreter(String),
    /// An argument of the program names it.
    Argument,
    /// A word of this script names it.
    ScriptWord(String),
    /// The dynamic loader of this program.
    Loader(String),
    /// `DT_NEEDED` of this object.
    Needed(String),
    /// `LD_PRELOAD` or `/etc/ld.so.preload`.
    Preload,
    /// The variant of this library for newer processors (`glibc-hwcaps`).
    Hwcaps(String),
    /// A rule says that it may be loaded: the rule's name and what made it apply.
    Plugin(String, String),
    /// It lies in a directory of `PATH`, and the image starts a shell.
    PathDirectory,
    /// It lies in a directory of libraries, and the image starts a shell.
    LibraryDirectory,
}

/// An ELF file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Path without symbolic links.
    pub path: String,
    /// Why it counts: the first reason found.
    pub reason: Reason,
    /// BLAKE3 hash of its bytes.
    pub hash: String,
    /// Bytes of code.
    pub code_bytes: u64,
}

/// A system call with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syscall {
    /// Name as in syscalls(2), or `syscall_N`.
    pub name: String,
    /// Places that make it, in order of objects and offsets.
    pub sites: Vec<Place>,
}

/// A place in an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Index in [`Facts::objects`].
    pub object: usize,
    /// Offset in the file.
    pub offset: u64,
    /// The function around it, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The wrapper or pattern for calls; the reason for unknown and dropped places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Further facts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// `glibc`, `musl`, `go`, `static`: what the programs are built on, ascending.
    pub runtimes: Vec<String>,
    /// Objects with a segment that is writable and executable.
    pub writable_code: Vec<String>,
    /// Objects that ask for an executable stack.
    pub executable_stack: Vec<String>,
    /// Objects outside the C library that start threads.
    pub threads: Vec<String>,
    /// Objects outside the C library that use sockets or resolve names.
    pub network: Vec<String>,
    /// Places that use the 32-bit system call entry.
    pub legacy_entries: Vec<Place>,
}

/// A rule that added objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it did, in one sentence.
    pub effect: String,
}

/// Returns a path for reading.
pub fn shown(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(s) => s.to_owned(),
        Err(_) => path.escape_ascii().to_string(),
    }
}
