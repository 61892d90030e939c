//! What the boot loaders for BIOS and UEFI have in common: partition table → load table → kernel in memory → the page that tells the kernel where it is.
//!
//! How a PC starts from a disk: the firmware brings a loader to memory, and the loader brings the kernel. The loader knows how to ask the firmware for
//! sectors and for a map of the memory ([`Machine`]); everything else is here, without `unsafe`, and tested on the host:
//!
//! ```text
//! 1. the partition table names the kernel's partition           ukc-gpt
//! 2. its first 2 KiB say what to load and what it must hash to  ukc-load-table
//! 3. the kernel's file comes to memory and is checked
//! 4. its segments go where they belong                          elf, bzimage
//! 5. the zero page says what a Linux kernel wants to know       zero_page
//! ```
//!
//! Both kinds of kernel are entered in the same way, by Linux's 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): long
//! mode, low memory mapped one to one, interrupts off, `rsi` = address of the zero page.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod bzimage;
mod elf;
mod problem;
mod zero_page;

use ukc_gpt::SECTOR;
use ukc_load_table::{KernelFormat, LoadTable, TABLE_BYTES, xxh64};

pub use problem::Problem;
pub use zero_page::{MemoryKind, ZERO_PAGE_BYTES, ZeroPage};

/// Memory that belongs to the loader alone.
#[derive(Debug)]
pub struct Ram {
    /// Where the kernel will find it.
    pub addr: u64,
    /// Its bytes now.
    pub bytes: &'static mut [u8],
}

/// Where memory is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// From this address on.
    At(u64),
    /// Anywhere below 4 GiB, at a multiple of this power of two.
    Aligned(u64),
    /// Below 1 GiB, which every kernel can read before it has tables of its own.
    Low,
}

/// What a loader asks of the firmware.
pub trait Machine {
    /// Number of sectors of the disk.
    fn disk_sectors(&self) -> u64;

    /// Fills `dst`, a multiple of 512 bytes, from the sector `lba` on.
    ///
    /// # Errors
    /// [`Problem::Read`].
    fn read(&mut self, lba: u64, dst: &mut [u8]) -> Result<(), Problem>;

    /// Takes memory that nobody uses; its contents are anything.
    ///
    /// # Errors
    /// [`Problem::Memory`].
    fn claim(&mut self, place: Place, len_bytes: u64) -> Result<Ram, Problem>;
}

/// A kernel that is ready to be entered.
#[derive(Debug)]
pub struct Loaded {
    /// Address of its 64-bit entry.
    pub entry: u64,
    /// What `rsi` points to; the memory map is still to be filled in.
    pub zero_page: ZeroPage,
}

/// Brings the kernel to memory.
///
/// # Errors
/// The first [`Problem`].
pub fn load(machine: &mut impl Machine) -> Result<Loaded, Problem> {
    let found = ukc_gpt::find(ukc_gpt::TYPE_KERNEL, &mut |lba, sector: &mut [u8; SECTOR]| machine.read(lba, sector));
    let partition = match found {
        Ok(Some(partition)) => partition,
        Ok(None) => return Err(Problem::NoKernel),
        Err(ukc_gpt::Error::Read(problem)) => return Err(problem),
        Err(ukc_gpt::Error::Table(problem)) => return Err(Problem::Table(problem)),
    };
    let mut bytes = [0; TABLE_BYTES];
    machine.read(partition.start, &mut bytes)?;
    let table = LoadTable::parse(&bytes).map_err(|bad| Problem::Field(bad.0))?;
    if machine.disk_sectors() < table.disk_sectors {
        return Err(Problem::Truncated { is: machine.disk_sectors(), was: table.disk_sectors });
    }
    let file = kernel_file(machine, &table, partition)?;
    let zero_page = machine.claim(Place::Low, (ZERO_PAGE_BYTES + table.command_line.len() + 1) as u64)?;
    let mut zero_page = ZeroPage::new(zero_page, table.command_line);
    let entry = match table.format {
        KernelFormat::Elf => elf::place(machine, file)?,
        KernelFormat::BzImage => bzimage::place(machine, file, &mut zero_page)?,
    };
    if table.initrd_len_bytes != 0 {
        let len = table.initrd_len_bytes.next_multiple_of(SECTOR as u64);
        // On a page boundary: the kernel uses it in place.
        let ram = machine.claim(Place::Aligned(4096), len)?;
        machine.read(table.initrd_lba, ram.bytes)?;
        zero_page.set_initrd(ram.addr, table.initrd_len_bytes);
    }
    Ok(Loaded { entry, zero_page })
}

/// Reads the kernel's file and checks it.
fn kernel_file(machine: &mut impl Machine, table: &LoadTable<'_>, partition: core::ops::Range<u64>) -> Result<&'static [u8], Problem> {
    let len = table.kernel_len_bytes;
    let first = partition.start + table.kernel_offset / SECTOR as u64;
    if first + len.div_ceil(SECTOR as u64) > partition.end {
        return Err(Problem::Field("length of the kernel"));
    }
    let ram = machine.claim(Place::Aligned(4096), len.next_multiple_of(SECTOR as u64))?;
    let file = ram.bytes;
    machine.read(first, file)?;
    let file = &file[..len as usize];
    if xxh64(file) != table.kernel_hash {
        return Err(Problem::Checksum);
    }
    Ok(file)
}

/// Little-endian numbers of a file; what lies behind its end reads as 0, and every number is checked where it is used.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
