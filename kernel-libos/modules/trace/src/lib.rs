//! Prints system calls on the console as strace(1) does, one line each, when the boot record or the command line (`ukc.trace`) asks for it.
//!
//! ```text
//! [1] openat(AT_FDCWD, "/etc/passwd", 0x80000, 00) = 3
//! [1] read(3, "root:x:0:0:root:/root:/bin/sh\n"..., 4096) = 1024
//! [7] --- SIGCHLD {si_code=1, si_pid=8} ---
//! ```
//!
//! A line is printed when a call has answered, because only then its buffers are filled; calls that do not return are printed when they are made. Flags are
//! numbers, structures are addresses: this is for seeing what a program does, not for parsing.
//!
//! To describe one more call, add a line to `format::CALLS`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod format;

use libos_core::abi::general as linux;
use libos_core::arch::kprintln;
use libos_core::command_line::Overrides;
use libos_core::hooks::{self, Tracer};
use libos_core::task::signal::SigInfo;
use libos_core::{Task, start};

libos_core::module! {
    name: trace,
    needs: [],
    init: init,
    syscalls: {},
}

fn init() {
    let by_record = start::boot_record().is_some_and(|r| r.flags.contains(ukc_boot_record::Flags::TRACE));
    if by_record || Overrides::parse(start::command_line()).trace {
        hooks::set_tracer(&Console);
    }
}

struct Console;

impl Console {
    /// Calls that do not come back to the program that made them.
    fn does_not_return(number: u64) -> bool {
        [linux::__NR_exit, linux::__NR_exit_group, linux::__NR_rt_sigreturn].map(u64::from).contains(&number)
    }
}

impl Tracer for Console {
    fn enter(&self, task: &Task, number: u64, args: &[u64; 6]) {
        if Console::does_not_return(number) {
            kprintln!("[{}] {} = ?", task.tid(), format::call(number, args, None));
        } else if number == u64::from(linux::__NR_execve) {
            // Its arguments are gone with the old program afterwards.
            kprintln!("[{}] {} ...", task.tid(), format::call(number, args, None));
        }
    }

    fn leave(&self, task: &Task, number: u64, args: &[u64; 6], result: i64) {
        if Console::does_not_return(number) {
            return;
        }
        let answer = format::result(number, result);
        if number == u64::from(linux::__NR_execve) {
            kprintln!("[{}] execve(...) = {answer}", task.tid());
        } else {
            kprintln!("[{}] {} = {answer}", task.tid(), format::call(number, args, Some(result)));
        }
    }

    fn signal(&self, task: &Task, info: &SigInfo) {
        let name = format::signal_name(info.signo as u32);
        kprintln!("[{}] --- {name} {{si_code={}, si_pid={}}} ---", task.tid(), info.code, info.pid());
    }
}
