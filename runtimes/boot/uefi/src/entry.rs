//! Loads the kernel and enters it, or says why not and stops.

use core::fmt::Write as _;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, Ordering};

use r_efi::efi;
use ukc_boot_load::{Problem, load};

use crate::firmware::{Console, Firmware};
use crate::handover;

core::arch::global_asm!(
    r#"
    // First in the image, where the file's header says the entry is.
    .section .boot.text, "ax", @progbits
    .globl uefi_start
uefi_start:
    jmp uefi_main
    .text
"#
);

/// For the panic handler.
static TABLE: AtomicPtr<efi::SystemTable> = AtomicPtr::new(core::ptr::null_mut());

/// The program's entry (UEFI 2.10, 4.1).
#[unsafe(no_mangle)]
extern "efiapi" fn uefi_main(image: efi::Handle, table: *mut efi::SystemTable) -> efi::Status {
    TABLE.store(table, Ordering::Relaxed);
    match boot(image, table) {
        Err(problem) => stop(table, format_args!("{problem}")),
    }
}

fn boot(image: efi::Handle, table: *mut efi::SystemTable) -> Result<core::convert::Infallible, Problem> {
    let mut firmware = Firmware::new(image, table)?;
    let mut kernel = load(&mut firmware)?;
    if let Some(rsdp) = firmware.rsdp() {
        kernel.zero_page.set_rsdp(rsdp);
    }
    let handover = handover::Prepared::new(&mut firmware, &kernel)?;
    firmware.exit(&mut kernel.zero_page)?;
    handover.enter()
}

fn stop(table: *mut efi::SystemTable, sentence: core::fmt::Arguments<'_>) -> ! {
    // Writing to the console cannot fail.
    let _ = writeln!(Console(table), "{sentence}");
    loop {
        // SAFETY: waiting changes nothing.
        unsafe { core::arch::asm!("pause", options(nomem, nostack)) };
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let table = TABLE.load(Ordering::Relaxed);
    match info.location() {
        Some(at) => stop(table, format_args!("ukc: the boot loader has a fault: {}:{}", at.file(), at.line())),
        None => stop(table, format_args!("ukc: the boot loader has a fault")),
    }
}
