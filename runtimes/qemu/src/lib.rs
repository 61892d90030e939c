//! Starts an image in QEMU: the command line, the accelerator, the program's output, its exit status, and signals to it.
//!
//! In: the artefacts of an image and what `ukc run` was asked for ([`Machine`]). Out: the status of the guest's program, as if it had run here.
//!
//! Two serial ports connect the guest: the first is its console (our standard output), the second a control channel of text lines, described in
//! [`control`]. A guest that is not ours ignores the second.
//!
//! What is absent: this crate does not know how images are stored or named.
#![forbid(unsafe_code)]

pub mod accelerator;
pub mod command;
pub mod control;
pub mod supervise;

pub use accelerator::Accelerator;
pub use command::{Board, Disk, Machine, PortForward, Protocol, RootMedium};
pub use supervise::{Console, Outcome, Request, RunError, Stop, run};
