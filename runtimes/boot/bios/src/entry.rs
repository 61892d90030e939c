//! Loads the kernel and enters it, or says why not and stops.

use core::fmt::Write as _;
use core::panic::PanicInfo;

use ukc_boot_load::{Loaded, Problem, load};

use crate::bios::{Bios, Console, rsdp};

/// Entered from stage 2 in long mode, interrupts off, with the number of the drive that the BIOS started.
#[unsafe(no_mangle)]
extern "C" fn bios_main(drive: u32) -> ! {
    match boot(drive) {
        Ok(kernel) => enter(&kernel),
        Err(problem) => stop(format_args!("{problem}")),
    }
}

fn boot(drive: u32) -> Result<Loaded, Problem> {
    let mut bios = Bios::new(drive)?;
    let mut kernel = load(&mut bios)?;
    bios.describe_memory(&mut kernel.zero_page);
    if let Some(rsdp) = rsdp() {
        kernel.zero_page.set_rsdp(rsdp);
    }
    Ok(kernel)
}

fn enter(kernel: &Loaded) -> ! {
    // SAFETY: the 64-bit boot protocol's terms hold: low 4 GiB mapped one to one, flat segments 0x10 and 0x18, interrupts off, rsi = zero page. The kernel
    // takes the machine over and does not return.
    unsafe {
        core::arch::asm!("cli", "cld", "jmp {entry}", entry = in(reg) kernel.entry, in("rsi") kernel.zero_page.addr(), options(noreturn));
    }
}

fn stop(sentence: core::fmt::Arguments<'_>) -> ! {
    // Writing to the console cannot fail.
    let _ = writeln!(Console::new(), "{sentence}");
    loop {
        // SAFETY: interrupts are off, so the processor sleeps for good.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => stop(format_args!("ukc: the boot loader has a fault: {}:{}", at.file(), at.line())),
        None => stop(format_args!("ukc: the boot loader has a fault")),
    }
}
