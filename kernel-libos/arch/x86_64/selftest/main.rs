//! A kernel whose only program is the test of `libos-arch`: `selftest/run` boots it on several machines.
//!
//! Each test prints `ok NAME`; the first failure panics, which ends the machine with status 255. All passed is status 42. On the host the file is empty.
#![cfg_attr(ukc_kernel, no_std)]

#[cfg(ukc_kernel)]
mod heap;
#[cfg(ukc_kernel)]
mod hooks;
#[cfg(ukc_kernel)]
mod programs;
#[cfg(ukc_kernel)]
mod tests;
