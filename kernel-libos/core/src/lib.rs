//! Module registry, dispatch, tasks, memory, and the traits modules meet through.
#![cfg_attr(not(test), no_std)]
