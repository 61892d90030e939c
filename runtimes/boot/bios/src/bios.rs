//! The BIOS's services: sectors (int 13h, EDD), the memory map (int 15h, E820), text (int 10h), and the first serial port, which has no service.

use core::fmt;

use ukc_boot_load::{Machine, MemoryKind, Place, Problem, Ram, ZeroPage};

use crate::stage2::{Registers, bios_interrupt};

const SECTOR: usize = 512;

/// Where sectors are read into: 64 KiB that nothing else uses, on a 64 KiB boundary (old controllers cannot cross one), outside the 16-bit code's segment.
const BOUNCE: u64 = 0x4_0000;
/// EDD allows 127 sectors at a time.
const BOUNCE_SECTORS: usize = 127;
/// Memory above this is the loader's to give out.
const FREE_START: u64 = 0x10_0000;
/// The page tables end here.
const MAPPED_END: u64 = 1 << 32;
const LOW_END: u64 = 1 << 30;

/// Where the BIOS leaves small answers: below the real-mode stack, above its own data.
const SCRATCH: u64 = 0x600;

/// A range of memory with the number that E820 gives it.
#[derive(Debug, Clone, Copy, Default)]
struct Range {
    start: u64,
    end: u64,
    kind: u32,
}

/// The machine as the BIOS shows it.
pub struct Bios {
    drive: u32,
    sectors: u64,
    /// The memory map and how much of it is filled.
    map: [Range; 64],
    map_len: usize,
    /// What was given out.
    claimed: [Range; 8],
    claimed_len: usize,
}

fn call(number: u32, registers: Registers) -> Registers {
    let mut registers = registers;
    // SAFETY: (1) every caller in this file points the BIOS at SCRATCH or BOUNCE, if anywhere, which are no Rust objects; (2) the thunk saves what the ABI
    // wants saved.
    unsafe { bios_interrupt(number, &raw mut registers) };
    registers
}

/// Reads a number that the BIOS left in SCRATCH.
fn answer(offset: u64) -> u64 {
    // SAFETY: SCRATCH is RAM, mapped, and no Rust object.
    unsafe { ((SCRATCH + offset) as *const u64).read_unaligned() }
}

fn prepare(offset: u64, value: u64) {
    // SAFETY: as in `answer`; nothing of the BIOS lies there.
    unsafe { ((SCRATCH + offset) as *mut u64).write_unaligned(value) }
}

impl Bios {
    /// Asks for disk and memory.
    ///
    /// # Errors
    /// [`Problem::Machine`].
    pub fn new(drive: u32) -> Result<Bios, Problem> {
        let mut bios = Bios { drive, sectors: 0, map: [Range::default(); 64], map_len: 0, claimed: [Range::default(); 8], claimed_len: 0 };
        bios.read_parameters()?;
        bios.read_map()?;
        Ok(bios)
    }

    /// EDD, function 48h: 16 sectors u64, 24 bytes of a sector u16.
    fn read_parameters(&mut self) -> Result<(), Problem> {
        prepare(0, 30);
        let done = call(0x13, Registers { eax: 0x4800, edx: self.drive, esi: SCRATCH as u32, ..Registers::default() });
        if done.is_carry() {
            return Err(Problem::Machine("the BIOS does not say how large the disk is"));
        }
        if answer(24) & 0xffff != SECTOR as u64 {
            return Err(Problem::Machine("the sectors of this disk are not of 512 bytes"));
        }
        self.sectors = answer(16);
        Ok(())
    }

    /// ACPI 6.5, 15.1: one range per call, `ebx` says where to go on; 0 start, 8 length, 16 type.
    fn read_map(&mut self) -> Result<(), Problem> {
        const SMAP: u32 = 0x534d_4150;
        let mut next = 0;
        loop {
            let ask = Registers { eax: 0xe820, ebx: next, ecx: 20, edx: SMAP, edi: SCRATCH as u32, ..Registers::default() };
            let done = call(0x15, ask);
            if done.is_carry() || done.eax != SMAP || self.map_len == self.map.len() {
                break;
            }
            let (start, len) = (answer(0), answer(8));
            self.map[self.map_len] = Range { start, end: start.saturating_add(len), kind: answer(16) as u32 };
            self.map_len += 1;
            next = done.ebx;
            if next == 0 {
                break;
            }
        }
        if self.map_len == 0 { Err(Problem::Machine("the BIOS gives no memory map")) } else { Ok(()) }
    }

    /// Writes the memory map.
    pub fn describe_memory(&self, zero_page: &mut ZeroPage) {
        for range in &self.map[..self.map_len] {
            let kind = match range.kind {
                1 => MemoryKind::Ram,
                3 => MemoryKind::Acpi,
                4 => MemoryKind::AcpiNvs,
                5 => MemoryKind::Bad,
                _ => MemoryKind::Reserved,
            };
            zero_page.add_memory(range.start, range.end - range.start, kind);
        }
    }

    /// Whether a range is RAM of ours.
    fn is_free(&self, start: u64, end: u64) -> bool {
        let overlaps = |r: &Range| r.start < end && start < r.end;
        let is_ram = self.map[..self.map_len].iter().any(|r| r.kind == 1 && r.start <= start && end <= r.end);
        let is_other = self.map[..self.map_len].iter().any(|r| r.kind != 1 && overlaps(r));
        is_ram && !is_other && start >= FREE_START && end <= MAPPED_END && !self.claimed[..self.claimed_len].iter().any(overlaps)
    }

    /// The highest free range of a length that ends at or below `limit`.
    fn highest(&self, len: u64, align: u64, limit: u64) -> Option<u64> {
        // A range that is as high as can be ends where RAM, the limit, or free RAM before something given out ends.
        let ends = self.map[..self.map_len].iter().map(|r| r.end).chain(self.claimed[..self.claimed_len].iter().map(|r| r.start));
        let starts = ends.chain([limit]).filter_map(|end| Some(end.min(limit).checked_sub(len)? & !(align - 1)));
        starts.filter(|&start| self.is_free(start, start + len)).max()
    }
}

impl Machine for Bios {
    fn disk_sectors(&self) -> u64 {
        self.sectors
    }

    fn read(&mut self, lba: u64, dst: &mut [u8]) -> Result<(), Problem> {
        for (i, piece) in dst.chunks_mut(BOUNCE_SECTORS * SECTOR).enumerate() {
            let lba = lba + (i * BOUNCE_SECTORS) as u64;
            // The request: 16, 0, count u16, offset u16, segment u16, first sector u64.
            prepare(0, 16 | ((piece.len() / SECTOR) as u64) << 16 | (BOUNCE >> 4) << 48);
            prepare(8, lba);
            let done = call(0x13, Registers { eax: 0x4200, edx: self.drive, esi: SCRATCH as u32, ..Registers::default() });
            if done.is_carry() {
                return Err(Problem::Read { lba, code: done.eax >> 8 & 0xff });
            }
            // SAFETY: BOUNCE is RAM, mapped, no Rust object, and at least as long as a piece; `dst` was given out by `claim` or is a local.
            unsafe { core::ptr::copy_nonoverlapping(BOUNCE as *const u8, piece.as_mut_ptr(), piece.len()) };
        }
        Ok(())
    }

    fn claim(&mut self, place: Place, len_bytes: u64) -> Result<Ram, Problem> {
        let len = len_bytes.next_multiple_of(4096);
        let (start, at) = match place {
            Place::At(addr) => (Some(addr).filter(|a| a.checked_add(len).is_some_and(|end| self.is_free(*a, end))), addr),
            Place::Aligned(align) => (self.highest(len, align.max(4096), MAPPED_END), 0),
            Place::Low => (self.highest(len, 4096, LOW_END), 0),
        };
        let problem = Problem::Memory { len_bytes, at };
        let addr = start.filter(|_| self.claimed_len < self.claimed.len()).ok_or(problem)?;
        self.claimed[self.claimed_len] = Range { start: addr, end: addr + len, kind: 1 };
        self.claimed_len += 1;
        // SAFETY: (1) the BIOS says it is RAM that it does not use, above everything the loader itself uses; (2) it is mapped one to one; (3) the list of
        // what was given out makes this the only reference.
        let bytes = unsafe { core::slice::from_raw_parts_mut(addr as *mut u8, len_bytes as usize) };
        Ok(Ram { addr, bytes })
    }
}

/// Returns where the ACPI tables are: "RSD PTR " on a 16-byte boundary in the first KiB of the BIOS's extended data or below 1 MiB (ACPI 6.5, 5.2.5.1).
pub fn rsdp() -> Option<u64> {
    // SAFETY: the BIOS keeps the segment of its extended data at 0x40e; that page is mapped RAM.
    let extended = u64::from(unsafe { (0x40e as *const u16).read_unaligned() }) << 4;
    let candidates = (extended..extended + 1024).step_by(16).chain((0xe_0000..0x10_0000).step_by(16));
    // SAFETY: below 1 MiB everything is mapped, and reading RAM or ROM there changes nothing.
    candidates.filter(|at| *at >= 0x8_0000).find(|&at| unsafe { (at as *const [u8; 8]).read() } == *b"RSD PTR ")
}

/// Screen and first serial port.
pub struct Console;

fn port_out(port: u16, value: u8) {
    // SAFETY: only used for the registers of the first serial port, which touch no memory.
    unsafe { core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

fn port_in(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { core::arch::asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

impl Console {
    /// Prepares the serial port: 115200 baud, 8 bits, no parity (16550).
    pub fn new() -> Console {
        for (register, value) in [(3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7)] {
            port_out(0x3f8 + register, value);
        }
        Console
    }

    fn put(&self, byte: u8) {
        // Teletype output of int 10h.
        call(0x10, Registers { eax: 0x0e00 | u32::from(byte), ebx: 7, ..Registers::default() });
        // A port that never gets ready does not exist.
        if (0..100_000).any(|_| port_in(0x3fd) & 0x20 != 0) {
            port_out(0x3f8, byte);
        }
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}
