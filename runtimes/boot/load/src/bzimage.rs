//! Linux kernels as distributions ship them (Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
//!
//! ```text
//! 0x1f1 sectors of the real-mode part less one | 0x202 "HdrS" | 0x206 version | 0x211 flags | 0x230 alignment | 0x234 relocatable | 0x236 xloadflags
//! 0x258 preferred address | 0x260 memory needed while it unpacks itself
//! ```
//!
//! The real-mode part is left out; what follows it goes to the preferred address and is entered 512 bytes into it.

use crate::{Machine, Place, Problem, SECTOR, ZeroPage, u16_at, u32_at, u64_at};

/// The first version with `xloadflags` (2.12, Linux 3.8).
const VERSION_MIN: u16 = 0x20c;
/// `XLF_KERNEL_64`.
const HAS_64_BIT_ENTRY: u16 = 1;
const ENTRY_64: u64 = 0x200;
/// Where the header that is passed on begins.
const HEADER_AT: usize = 0x1f1;

/// Puts the kernel where it belongs, its header into the zero page, and returns its entry.
pub(crate) fn place(machine: &mut impl Machine, file: &[u8], zero_page: &mut ZeroPage) -> Result<u64, Problem> {
    if file.get(0x202..0x206) != Some(b"HdrS") || u16_at(file, 0x1fe) != 0xaa55 {
        return Err(Problem::Kernel("it is no Linux kernel"));
    }
    if u16_at(file, 0x206) < VERSION_MIN || u16_at(file, 0x236) & HAS_64_BIT_ENTRY == 0 {
        return Err(Problem::Kernel("it has no 64-bit entry"));
    }
    let header_end = 0x202 + usize::from(file[0x201]);
    let header = file.get(HEADER_AT..header_end).ok_or(Problem::Kernel("the length of its header"))?;
    let setup_sectors = match file[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let code =
        file.get((setup_sectors + 1) * SECTOR..).filter(|c| !c.is_empty()).ok_or(Problem::Kernel("the length of its real-mode part"))?;
    let (preferred, align) = (u64_at(file, 0x258), u64::from(u32_at(file, 0x230)));
    let len = u64::from(u32_at(file, 0x260)).max(code.len() as u64);
    if !align.is_power_of_two() || preferred.checked_add(len).is_none_or(|end| end > 1 << 32) {
        return Err(Problem::Kernel("where it wants to be loaded"));
    }
    let ram = match machine.claim(Place::At(preferred), len) {
        Err(Problem::Memory { .. }) if file[0x234] != 0 => machine.claim(Place::Aligned(align), len)?,
        claimed => claimed?,
    };
    ram.bytes[..code.len()].copy_from_slice(code);
    zero_page.set_header(header);
    Ok(ram.addr + ENTRY_64)
}
