//! Terminals: the console (`/dev/console`), pseudo-terminals (`/dev/ptmx`, `/dev/pts/N`), and `/dev/tty`.
//!
//! The console is a terminal only when somebody sits at the other end (`ukc.tty` on the kernel command line). Otherwise it is the plain device of core: what a
//! program writes comes out byte for byte, as through a pipe, and there is nothing to read.
//!
//! Output goes straight to the device. Input comes by interrupt, goes through the line discipline and waits there to be read; the interrupt is turned on by
//! the first who reads, so a program that only prints pays nothing.
//!
//! Differences from Linux: output is not stopped by `^S`; `SIGTTOU` is never sent; pseudo-terminals have no packet mode and no `TIOCGPTPEER`, and input
//! beyond 4096 bytes that nobody reads is dropped.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod console;
mod line;
mod pty;
mod terminal;
mod termios;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use libos_core::file::{FileOps, OpenFlags};
use libos_core::vfs::registry::{self, minor};
use libos_core::{Errno, Result, command_line, start};

libos_core::module! {
    name: tty,
    needs: [devfs],
    init: init,
    syscalls: {},
}

/// Major number of `/dev/tty` (minor 0), `/dev/console` (1) and `/dev/ptmx` (2) (Documentation/admin-guide/devices.txt).
const MAJOR: u32 = 5;

fn init() {
    registry::register_devices(MAJOR, open);
    registry::register_devices(pty::MAJOR, |rdev, flags| pty::open_terminal(minor(rdev), flags));
}

fn open(rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    let is_terminal = command_line::words(start::command_line()).any(|word| word == b"ukc.tty");
    let own = || libos_core::task::with_current(|task| pty::of_session(task.process.session()));
    if minor(rdev) == 0
        && let Some(pty) = own()
    {
        return Ok(pty::Slave::open(pty));
    }
    match minor(rdev) {
        2 => pty::open_master(),
        0 if is_terminal => console::open(true, flags),
        1 if is_terminal => console::open(false, flags),
        1 => Ok(libos_core::console::plain()),
        // Without a terminal nobody has a controlling one (tty(4)).
        _ => Err(Errno::ENXIO),
    }
}

/// Whether a session has a controlling terminal.
fn has_terminal(session: i32) -> bool {
    console::TERMINAL.session.load(Ordering::Relaxed) == session || pty::of_session(session).is_some()
}
