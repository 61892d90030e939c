//! x86-64: entry, traps, page tables, timers. All the assembly of the kernel is in this crate.
//!
//! `arch` knows nothing of what lies above it. It calls upwards through the functions of [`hooks`], which `core` defines.
//!
//! | module | what it is for |
//! |---|---|
//! | `boot` | the two entry points (PVH, 64-bit Linux protocol), the memory map, the final kernel page tables |
//! | `trap`, `frame` | interrupts, exceptions, system calls; the registers of a program |
//! | `context`, `fpu` | kernel-mode context switch; x87/SSE/AVX state |
//! | `cpu` | interrupt flag, per-CPU data, features, segment bases |
//! | `addr`, `paging`, `mmio` | addresses, page tables, device memory |
//! | `user` | copies that survive bad user addresses |
//! | `vdso` | the code that programs call for the time |
//! | `time`, `irq` | clocks and the one-shot timer; interrupt controllers |
//! | `console`, `power`, `rng`, `io` | serial port, ending the machine, entropy, ports |
//! | `mem` | memcpy and friends, which the host toolchain's compiler_builtins lacks |
//!
//! Under `cfg(ukc_kernel)` this is the bottom of the kernel. Otherwise (host builds, `cargo test`) the same API compiles without assembly: page tables,
//! boot information and clock arithmetic are real and tested; what needs ring 0 does nothing or fails.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
#[cfg(all(not(ukc_kernel), not(test)))]
extern crate std;

pub mod addr;
pub mod boot;
pub mod console;
pub mod context;
pub mod cpu;
pub mod fpu;
pub mod frame;
pub mod hooks;
pub mod io;
pub mod irq;
#[cfg(ukc_kernel)]
mod mem;
pub mod mmio;
pub mod paging;
pub mod panic;
pub mod power;
pub mod rng;
mod segments;
pub mod time;
pub mod trap;
pub mod user;
pub mod vdso;

pub use addr::{PAGE_SIZE, PhysAddr, VirtAddr};
pub use boot::BootInfo;
pub use frame::UserFrame;
pub use irq::Irq;
pub use trap::Fault;
