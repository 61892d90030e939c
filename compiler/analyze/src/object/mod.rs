//! The summary of one ELF object: every place that enters the kernel, with the system call numbers that can be there.
//!
//! A summary is a pure function of the file's bytes (and of the names of imported functions to treat as wrappers), so it is cached by content.
//!
//! How: the bytes of `syscall` are searched in the code (`scan`); the function around each occurrence is decoded and data flow finds what `rax` may hold
//! (`flow`, `machine`, `value`). When that is a parameter of the function, the function is a *wrapper* (`syscall(2)`, musl's `__syscall_cp`, Go's
//! `RawSyscall6`), and the parameter's values at all its callers are wanted, and so on upwards (`resolve`). An exported wrapper is completed by
//! the callers in other objects, see `compose`.

mod flow;
mod graph;
mod image;
mod machine;
mod patterns;
mod resolve;
mod scan;
mod sweep;
mod value;

pub use graph::Graph;
pub use resolve::summarize;

use serde::{Deserialize, Serialize};

/// Changes whenever summaries of equal bytes may differ from what an earlier version made.
pub const VERSION: u32 = 6;

/// A place and the numbers that can be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Site {
    /// Offset in the file of the `syscall` instruction, or of the call to a wrapper.
    pub offset: u64,
    /// The function that holds it, when a symbol tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The wrapper that is called, or the pattern that was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Numbers, ascending.
    pub numbers: Vec<u32>,
}

/// A place whose number was not found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unknown {
    /// Offset in the file.
    pub offset: u64,
    /// The function that holds it, when a symbol tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Why.
    pub reason: String,
}

/// An exported function that makes the system call whose number one of its parameters is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wrapper {
    /// Its names.
    pub names: Vec<String>,
    /// Which parameter: register number, or 16 and up for the stack.
    pub param: u8,
}

/// What one object does to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Sites with numbers, by offset.
    pub sites: Vec<Site>,
    /// Sites whose number was not found.
    pub unknown: Vec<Unknown>,
    /// Occurrences that cannot be reached: in data between functions, or in functions that nothing calls.
    pub dropped: Vec<Unknown>,
    /// `int 0x80` and `sysenter`: system calls in the 32-bit numbering.
    pub legacy: Vec<Unknown>,
    /// Exported wrappers.
    pub wrappers: Vec<Wrapper>,
    /// Bytes of code.
    pub code_bytes: u64,
    /// Which code leads to which; none where all of it counts. Made only when no wrappers are given: it does not depend on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
}
