//! Facts and module catalogue to a plan: which kernel modules are linked, with which system call handlers, and why.
//!
//! ```text
//! Facts (which calls, where)  ─┐
//! Catalogue (module notes)    ─┼─ select ─▶ Plan: modules with reasons, handlers with evidence, missing calls, init order
//! Options (features asked for) ┘
//! ```
//!
//! A module is linked when one of its calls is in the set, when a module that is linked needs it, when a feature asks for it, or when its declaration
//! says `always`. Inside a module only the chosen handlers are linked: the linker's garbage collection drops the rest. When the analysis
//! met a number that it could not find, every handler is chosen, and the plan says so.
//!
//! A call of the set that no module has is *missing*: it answers ENOSYS and is listed with its evidence.
//!
//! What is absent: `select` never opens a file, and it does not link. The plan is always for the libOS; whether that is the right guest is a verdict of
//! its own ([`choose`]).
#![forbid(unsafe_code)]

mod catalogue;
mod guest;
mod plan;
mod text;

pub use catalogue::{Catalogue, CatalogueError, Handler, Module, State};
pub use guest::{Recommended, Verdict, choose};
pub use plan::{Chosen, Guest, Missing, ModuleReason, Options, Plan, PlannedModule, select};
