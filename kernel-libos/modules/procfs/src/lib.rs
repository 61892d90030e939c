//! The process file system (proc(5)): what programs are seen to read.
//!
//! Nothing is stored: names are looked up among the tasks that exist now, and a file's text is made when it is opened, so that a reader sees one moment. The
//! tables in `system` and `process` are the lists of files; a new one is a line there and a function that writes its text.
//!
//! | file | what it is for |
//! |---|---|
//! | `tree` | inodes: directories, files and links by their place |
//! | `system` | files about the machine and /proc/sys |
//! | `process` | files about a process: the table, small ones |
//! | `stat`, `memory` | the long ones: stat, status, limits; maps, smaps |
//! | `text` | formatting into bytes |
//!
//! Differences from Linux: /proc/sys is read-only, as container runtimes mount it; memory statistics know only what is in use and what is free.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod memory;
mod net;
mod process;
mod stat;
mod system;
mod text;
mod tree;

use libos_core::vfs::registry::{self, FileSystemType};

libos_core::module! {
    name: procfs,
    needs: [],
    init: init,
    syscalls: {},
}

static TYPE: FileSystemType = FileSystemType { name: "proc", needs_volume: false, probe: |_| false, mount: tree::mount };

fn init() {
    registry::register(&TYPE);
}
