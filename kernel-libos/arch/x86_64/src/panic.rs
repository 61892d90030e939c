//! The end of the kernel: a report on the console, then power off with status 255.

use core::fmt;

use crate::console::Console;
use crate::frame::UserFrame;

/// Prints `kernel panic: ` and the message with a backtrace, and ends the machine.
pub fn kernel_panic(message: fmt::Arguments<'_>) -> ! {
    crate::cpu::interrupts_disable();
    begin();
    let _ = fmt::Write::write_fmt(&mut Console, format_args!("kernel panic: {message}\n"));
    backtrace(stack_pointer());
    crate::power::exit(255)
}

/// An exception in kernel mode.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
pub(crate) fn trap(frame: &UserFrame, vector: u64, code: u64, cr2: usize) -> ! {
    begin();
    crate::kprintln!("kernel panic: exception {vector} ({}), error code {code:#x}, cr2 {cr2:#x}", name(vector));
    crate::kprintln!("rip {:016x} rsp {:016x} rflags {:08x}", frame.rip, frame.rsp, frame.rflags);
    crate::kprintln!("rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", frame.rax, frame.rbx, frame.rcx, frame.rdx);
    crate::kprintln!("rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", frame.rsi, frame.rdi, frame.rbp, frame.r8);
    crate::kprintln!("r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", frame.r9, frame.r10, frame.r11, frame.r12);
    crate::kprintln!("r13 {:016x} r14 {:016x} r15 {:016x}", frame.r13, frame.r14, frame.r15);
    backtrace(frame.rsp as usize);
    crate::power::exit(255)
}

/// #DF, NMI, #MC.
#[cfg_attr(not(ukc_kernel), allow(dead_code))]
pub(crate) fn fatal(vector: u64, words: &[u64; 5], rbp: u64) -> ! {
    begin();
    let [rip, cs, rflags, rsp, _] = words;
    crate::kprintln!(
        "kernel panic: exception {vector} ({}) at {rip:016x}, cs {cs:x} rflags {rflags:x} rsp {rsp:016x} rbp {rbp:016x}",
        name(vector)
    );
    backtrace(*rsp as usize);
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
            crate::kprintln!("  at {word:016x}");
            shown += 1;
        }
        at += 8;
    }
}
