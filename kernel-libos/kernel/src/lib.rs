//! The staticlib that holds the kernel's fixed part.
#![cfg_attr(ukc_kernel, no_std)]
