//! The zero page, `struct boot_params`: what a kernel is told (Linux, Documentation/arch/x86/zero-page.rst).
//!
//! ```text
//! 0x070 ACPI RSDP, 8 bytes | 0x0c0 .. 0x0c8 high halves of initrd address, its size, command line | 0x1e8 entries of the memory map
//! 0x1f1 the kernel's own header: 0x210 type of loader, 0x218 initrd address, 0x21c its size, 0x228 command line
//! 0x2d0 memory map: 128 entries of 20 bytes: address, length, type
//! ```

use crate::{Ram, u32_at, u64_at};

/// Bytes of the page; the command line follows it.
pub const ZERO_PAGE_BYTES: usize = 4096;

const MAP_COUNT: usize = 0x1e8;
const MAP: usize = 0x2d0;
const MAP_ENTRY: usize = 20;
const MAP_MAX: usize = 128;
const HEADER: usize = 0x1f1;
/// "Undefined": a loader without a number of its own.
const LOADER_TYPE: u8 = 0xff;

/// What a range of memory is; the numbers of E820.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM for the kernel.
    Ram = 1,
    /// Not to be touched.
    Reserved = 2,
    /// ACPI tables, RAM once they are read.
    Acpi = 3,
    /// ACPI's own memory.
    AcpiNvs = 4,
    /// RAM that is broken.
    Bad = 5,
}

/// A zero page with its command line.
#[derive(Debug)]
pub struct ZeroPage {
    addr: u64,
    page: &'static mut [u8],
}

impl ZeroPage {
    /// Makes a page in memory of [`ZERO_PAGE_BYTES`], the command line's length and one more.
    pub(crate) fn new(ram: Ram, command_line: &[u8]) -> ZeroPage {
        let (page, line) = ram.bytes.split_at_mut(ZERO_PAGE_BYTES);
        page.fill(0);
        line[..command_line.len()].copy_from_slice(command_line);
        line[command_line.len()..].fill(0);
        let mut zero_page = ZeroPage { addr: ram.addr, page };
        zero_page.put(0x1fe, &[0x55, 0xaa]);
        zero_page.put(0x202, b"HdrS");
        zero_page.put(0x206, &0x20cu16.to_le_bytes());
        zero_page.own_fields();
        zero_page
    }

    /// Its address.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// The fields of the header that the loader fills in.
    fn own_fields(&mut self) {
        self.put(0x210, &[LOADER_TYPE]);
        // Below 4 GiB, so the high half at 0xc8 stays 0.
        let line = (self.addr + ZERO_PAGE_BYTES as u64) as u32;
        self.put(0x228, &line.to_le_bytes());
    }

    /// Passes the kernel's own header on; it must end before the memory map.
    pub(crate) fn set_header(&mut self, header: &[u8]) {
        let len = header.len().min(MAP - HEADER);
        self.put(HEADER, &header[..len]);
        self.own_fields();
    }

    pub(crate) fn set_initrd(&mut self, addr: u64, len_bytes: u64) {
        for (low, high, value) in [(0x218, 0xc0, addr), (0x21c, 0xc4, len_bytes)] {
            self.put(low, &(value as u32).to_le_bytes());
            self.put(high, &((value >> 32) as u32).to_le_bytes());
        }
    }

    /// Says where the ACPI tables are.
    pub fn set_rsdp(&mut self, addr: u64) {
        self.put(0x70, &addr.to_le_bytes());
    }

    /// Adds a range to the memory map; one that continues the last one is joined to it. What does not fit is left out: the kernel then does not use it.
    pub fn add_memory(&mut self, start: u64, len_bytes: u64, kind: MemoryKind) {
        let count = usize::from(self.page[MAP_COUNT]);
        if let Some(last) = count.checked_sub(1).map(|i| MAP + i * MAP_ENTRY) {
            let (last_start, last_len) = (u64_at(self.page, last), u64_at(self.page, last + 8));
            if last_start + last_len == start && u32_at(self.page, last + 16) == kind as u32 {
                self.put(last + 8, &(last_len + len_bytes).to_le_bytes());
                return;
            }
        }
        if count < MAP_MAX && len_bytes != 0 {
            let at = MAP + count * MAP_ENTRY;
            self.put(at, &start.to_le_bytes());
            self.put(at + 8, &len_bytes.to_le_bytes());
            self.put(at + 16, &(kind as u32).to_le_bytes());
            self.page[MAP_COUNT] = count as u8 + 1;
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.page[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
