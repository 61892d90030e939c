//! Registries for tests: Debian's `docker-registry` on a port of the loopback, open, with passwords, or with tokens; and a proxy that does to the traffic
//! what the internet does.
//!
//! - [`Registry`]: a registry that lives as long as the value, in a directory that goes with it.
//! - [`Faults`]: stands before a registry; a function decides for each request what goes wrong.
//!
//! A program that is missing makes the test fail with a sentence: a test that passes because it did nothing is worse than none.
#![forbid(unsafe_code)]

mod faults;
mod server;
mod token;

pub use faults::{Fault, Faults, Seen};
pub use server::{Access, Registry, free_port, need, run};
