//! From the monitor's jump to [`ukc_main`](crate::hooks): entry, memory map, final kernel page tables.
//!
//! Two protocols lead here, and the same kernel file serves both:
//!
//! - PVH (QEMU, Cloud Hypervisor, Xen): 32-bit protected mode without paging at the address in the note `.note.pvh`, ebx = `hvm_start_info`;
//! - the 64-bit Linux protocol (Firecracker): long mode with an identity map at the ELF entry `linux64_start`, rsi = `boot_params`.
//!
//! Memory behind the file's segments (.bss) must be zero, as the ELF specification asks of loaders and all of these monitors do; it is not cleared again.

pub mod image;
pub mod memory;
pub mod protocol;

#[cfg(ukc_kernel)]
mod entry;
#[cfg(ukc_kernel)]
mod start;

use crate::addr::PhysAddr;

pub use memory::Region;

/// How the kernel was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// PVH.
    Pvh,
    /// 64-bit Linux boot protocol.
    Linux64,
}

/// What the monitor told.
#[derive(Debug)]
pub struct BootInfo {
    /// Physical memory in ascending order, page aligned. Usable regions are RAM that nobody uses: kernel image, initrd, command line, page tables and page
    /// 0 are already cut out of them and listed as not usable.
    pub memory: &'static [Region],
    /// The initrd: address and bytes.
    pub initrd: Option<(PhysAddr, usize)>,
    /// Command line without its NUL.
    pub cmdline: &'static [u8],
    /// The kernel image with its .bss: first byte and the byte behind the last.
    pub kernel: (PhysAddr, PhysAddr),
    /// Protocol.
    pub entry: Entry,
    /// ACPI's root pointer, if the monitor gave it.
    pub rsdp: Option<PhysAddr>,
}

/// The table at a physical address that a present entry of the kernel's tables holds.
#[cfg(ukc_kernel)]
pub(crate) fn table_page(phys: u64) -> &'static entry::Page {
    // SAFETY: kernel tables lie in RAM and are never freed.
    unsafe { entry::Page::at(phys) }
}
