//! The part of the libOS that every kernel has, and the traits that modules meet through.
//!
//! Below it lies `arch` (traps, page tables, context switch); above it lie drivers and modules, each a crate with one `module!{}` declaration. When code
//! in here needs something from above, it defines the trait and the upper crate provides it. Modules never depend on each other's insides, only on what
//! is public here.
//!
//! | file | what it is for |
//! |---|---|
//! | `module`, `dispatch` | the declaration of a module; registers to typed arguments |
//! | `user`, `io` | claims about user memory; scatter and gather |
//! | `sync`, `task::wait` | locks; sleeping and waking |
//! | `mm` | frames, heap, address spaces, page faults |
//! | `task` | processes, scheduler, signals |
//! | `file`, `poll`, `vfs` | descriptors, readiness, path lookup, the inode trait |
//! | `device`, `interfaces`, `time`, `random` | what drivers offer; network interfaces as programs see them; clocks and timers; random bytes |
//! | `exec` | from an ELF file to a runnable address space |
//! | `start`, `command_line`, `control` | boot record to first process; who may change it and watch it |
//! | `hooks`, `irq`, `enosys` | what the architecture calls |
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub use libos_abi as abi;
pub use libos_arch as arch;

pub mod command_line;
pub mod console;
mod control;
pub mod device;
pub mod dispatch;
pub mod enosys;
pub mod exec;
pub mod file;
pub mod hooks;
pub mod interfaces;
pub mod io;
pub mod irq;
pub mod mm;
pub mod module;
pub mod poll;
pub mod random;
pub mod socket;
pub mod start;
pub mod sync;
pub mod task;
pub mod time;
pub mod user;
pub mod vfs;

pub use abi::{Errno, Result};
pub use task::Task;
