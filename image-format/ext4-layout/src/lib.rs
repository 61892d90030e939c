//! On-disk structures of ext4, shared by the writer and the kernel's reader.
#![cfg_attr(not(test), no_std)]
