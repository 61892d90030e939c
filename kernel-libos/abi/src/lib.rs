//! Linux numbers, structs and errno as plain data.
#![cfg_attr(not(test), no_std)]
