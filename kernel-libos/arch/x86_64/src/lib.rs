//! x86-64: entry, traps, page tables, timers.
#![cfg_attr(not(test), no_std)]
