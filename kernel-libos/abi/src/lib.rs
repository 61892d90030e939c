//! Linux numbers, structures and error numbers as plain data: the vocabulary that the kernel, its modules and the compiler share.
//!
//! Numbers and structures come from the kernel's headers by way of `linux-raw-sys`, re-exported here, so that a constant is never copied by hand.
//! What is absent: any behaviour.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod errno;
pub mod syscall;

pub use errno::{Errno, Result};
pub use linux_raw_sys::{auxvec, ctypes, errno as errno_numbers, general, ioctl, net, prctl, system};
