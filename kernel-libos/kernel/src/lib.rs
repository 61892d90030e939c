//! The static library that carries the kernel's fixed part into the module archive: `libos-core`, what it depends on, and Rust's own `core` and
//! `alloc`. Modules and drivers are not in here: `runtimes/libos/build.rs` adds every crate it finds in their folders.
#![cfg_attr(ukc_kernel, no_std)]

extern crate libos_core as _;
