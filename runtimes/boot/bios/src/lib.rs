//! The boot loader for PCs that start by BIOS: from the first instruction after the firmware to the kernel's entry.
//!
//! | file | what it is for |
//! |---|---|
//! | `stage1` | the 440 bytes of boot code in sector 0: load stage 2, check it, jump to it |
//! | `stage2` | 16-bit code that switches to 64-bit mode, and back for each call of the BIOS |
//! | `bios` | the BIOS's services as functions: sectors, memory map, text |
//! | `entry` | puts them together: `ukc-boot-load` loads, then the kernel is entered |
//!
//! A PC's processor starts in real mode: 16-bit code, addresses `segment * 16 + offset` below 1 MiB. The BIOS works only there, the kernel only in long
//! mode, so the loader's Rust code runs in long mode and goes down to real mode and up again whenever it asks the BIOS for something.
//!
//! ```text
//! 0x00000  interrupt vectors and data of the BIOS          0x60000  page tables: the first 4 GiB, one to one
//! 0x07c00  stage 1; below it, the real-mode stack          0x7fff0  long-mode stack, downwards
//! 0x08000  stage 2 (at most 64 KiB)                        0x9fc00  the BIOS's again, up to 1 MiB
//! 0x40000  64 KiB that sectors are read into               0x100000 the rest of the memory: kernel, zero page, initrd
//! ```
//!
//! What is absent: disks that only cylinders and heads can address, and everything that is not the disk the BIOS started.
#![cfg_attr(ukc_loader, no_std)]

#[cfg(ukc_loader)]
extern crate ukc_boot_mem as _;

#[cfg(ukc_loader)]
mod bios;
#[cfg(ukc_loader)]
mod entry;
#[cfg(ukc_loader)]
mod stage1;
#[cfg(ukc_loader)]
mod stage2;
