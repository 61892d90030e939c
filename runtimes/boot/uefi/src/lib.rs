//! The boot loader for machines that start by UEFI: `EFI/BOOT/BOOTX64.EFI` on the disk's EFI system partition.
//!
//! | file | what it is for |
//! |---|---|
//! | `firmware` | UEFI's services as functions: sectors, memory, text |
//! | `handover` | the last steps, when the firmware is gone: own page tables, then the kernel |
//! | `entry` | puts them together: `ukc-boot-load` loads, then the kernel is entered |
//!
//! UEFI starts a program (a PE file; `runtimes/boot/build` makes it) in long mode with memory mapped one to one, and hands it a table of functions. The
//! loader uses a handful of them, ends the firmware's reign (`ExitBootServices`) and enters the kernel with nothing of the firmware in use: its own page
//! tables, descriptor table and stack, so that the kernel may use all of the firmware's memory.
//!
//! What is absent: runtime services (the kernel gets ACPI tables and a memory map, as from a BIOS), and a signature for Secure Boot.
#![cfg_attr(ukc_loader, no_std)]

#[cfg(ukc_loader)]
extern crate ukc_boot_mem as _;

#[cfg(ukc_loader)]
mod entry;
#[cfg(ukc_loader)]
mod firmware;
#[cfg(ukc_loader)]
mod handover;
