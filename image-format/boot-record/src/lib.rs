//! The boot record: what the kernel is told to run.
#![cfg_attr(not(test), no_std)]
