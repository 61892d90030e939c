//! The end of the kernel: a report on the console, then power off with status 255.

use core::fmt;

use crate::console::{Hex, Print as _};
use crate::frame::UserFrame;

/// Prints `kernel panic: `, what happened and a backtrace, and ends the machine.
#[cold]
pub fn kernel_panic(what: &str) -> ! {
    crate::cpu::interrupts_disable();
    begin();
    crate::report!("kernel panic: ", what);
    backtrace(stack_pointer());
    crate::power::exit(255)
}

/// The same with a text that has to be formatted, which costs 10 KB of code: for kernels with messages, and for tests.
pub fn kernel_panic_fmt(message: fmt::Arguments<'_>) -> ! {
    crate::cpu::interrupts_disable();
    begin();
    crate::kprintln!("kernel panic: {message}");
    backtrace(stack_pointer());
    crate::power::exit(255)
}

/// An exception in kernel mode.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
pub(crate) fn trap(frame: &UserFrame, vector: u64, code: u64, cr2: usize) -> ! {
    begin();
    crate::report!("kernel panic: exception ", vector, " (", name(vector), "), error code ", Hex(code), ", cr2 ", Hex(cr2 as u64));
    let f = frame;
    let registers = [
        ("rip ", f.rip),
        (" rsp ", f.rsp),
        (" rflags ", f.rflags),
        (" rax ", f.rax),
        (" rbx ", f.rbx),
        (" rcx ", f.rcx),
        (" rdx ", f.rdx),
        (" rsi ", f.rsi),
        (" rdi ", f.rdi),
        (" rbp ", f.rbp),
        (" r8 ", f.r8),
        (" r9 ", f.r9),
        (" r10 ", f.r10),
        (" r11 ", f.r11),
        (" r12 ", f.r12),
        (" r13 ", f.r13),
        (" r14 ", f.r14),
        (" r15 ", f.r15),
    ];
    for (name, value) in registers {
        name.print();
        Hex(value).print();
    }
    crate::report!("");
    backtrace(frame.rsp as usize);
    crate::power::exit(255)
}

/// #DF, NMI, #MC.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
pub(crate) fn fatal(vector: u64, words: &[u64; 5], rbp: u64) -> ! {
    begin();
    let [rip, cs, rflags, rsp, _] = *words;
    crate::report!("kernel panic: exception ", vector, " (", name(vector), ") at ", Hex(rip), ", cs ", Hex(cs));
    crate::report!("rflags ", Hex(rflags), " rsp ", Hex(rsp), " rbp ", Hex(rbp));
    backtrace(rsp as usize);
    crate::power::exit(255)
}

/// Ends a panic within a panic at once, by leaving the report short.
fn begin() {
    use core::sync::atomic::{AtomicU32, Ordering};
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    if DEPTH.fetch_add(1, Ordering::Relaxed) > 0 {
        crate::console::write_bytes(b"\nkernel panic during a panic\n");
        crate::power::exit(255);
    }
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        2 => "NMI",
        3 => "breakpoint",
        6 => "invalid opcode",
        7 => "no FPU",
        8 => "double fault",
        12 => "stack",
        13 => "general protection",
        14 => "page fault",
        18 => "machine check",
        19 => "SIMD",
        _ => "?",
    }
}

fn stack_pointer() -> usize {
    let here = 0u8;
    (&raw const here) as usize & !7
}

/// Prints the words of the stack that may be return addresses: up to 16 that point into kernel text. There are no frame pointers to follow.
fn backtrace(rsp: usize) {
    let text = crate::boot::image::text_range();
    let rsp = (rsp + 7) & !7;
    // Kernel stacks lie in the direct map or in the image, and are at least 16 KiB aligned pieces of mapped memory; stay within 16 KiB.
    if rsp < crate::addr::DIRECT_MAP || !cfg!(ukc_kernel) {
        return;
    }
    let end = (rsp & !0x3fff) + 0x4000;
    let mut shown = 0;
    let mut at = rsp;
    while at < end && shown < 16 {
        // SAFETY: see above; a fault in here ends in `begin` and only shortens the report.
        let word = unsafe { (at as *const usize).read_volatile() };
        if text.contains(&word) {
            crate::report!("  at ", Hex(word as u64));
            shown += 1;
        }
        at += 8;
    }
}
