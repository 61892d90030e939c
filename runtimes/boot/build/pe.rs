//! PE32+ files, which UEFI runs (Microsoft, "PE Format"; UEFI 2.10, 2.1.1).
//!
//! ```text
//! 0x000  MS-DOS header, whose only use is to say at 0x3c where the next one is
//! 0x040  "PE\0\0", COFF header, optional header with directories, one header per section
//! 0x1000 sections as they lie in memory, each on a page boundary: .text, .rdata, .data, .reloc
//! ```
//!
//! Firmware loads the file wherever there is room and then adds the difference to the addresses that `.reloc` lists. Our linker does not say where it put
//! addresses, so the program is linked twice at different places: what differs, by just that difference, is an address.

use object::elf::PF_W;
use object::elf::PF_X;
use object::read::elf::{ElfFile64, ProgramHeader as _};

const IMAGE_BASE: u64 = 0x40_0000;
const OTHER_BASE: u64 = 0x80_0000;
const PAGE: u64 = 4096;
/// The optional header of PE32+ with sixteen directories.
const OPTIONAL_HEADER_BYTES: u16 = 112 + 16 * 8;

/// A loaded segment of an ELF file.
pub struct Segment {
    pub addr: u64,
    pub bytes: Vec<u8>,
    pub memory_bytes: u64,
    pub flags: u32,
}

/// Name, kind, address from the start of the program, bytes, bytes in memory.
type Section = (&'static [u8; 8], u32, u64, Vec<u8>, u64);

/// Returns the loaded segments of an ELF file in the order of addresses.
pub fn segments(elf: &[u8]) -> Vec<Segment> {
    let file = ElfFile64::<object::LittleEndian>::parse(elf).expect("our linker writes ELF");
    let e = object::LittleEndian;
    let loads = file.elf_program_headers().iter().filter(|h| h.p_type(e) == object::elf::PT_LOAD);
    let segment = |h: &object::elf::ProgramHeader64<_>| Segment {
        addr: h.p_vaddr(e),
        bytes: h.data(e, elf).expect("a segment has bytes").to_vec(),
        memory_bytes: h.p_memsz(e),
        flags: h.p_flags(e),
    };
    loads.map(segment).collect()
}

/// Returns the file of a program that `link` links at an address; its entry is its first byte.
pub fn write(link: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let program = segments(&link(IMAGE_BASE + PAGE));
    let moved = segments(&link(OTHER_BASE + PAGE));
    let mut sections: Vec<Section> = Vec::new();
    let mut addresses = Vec::new();
    for (segment, moved) in program.iter().zip(&moved) {
        let rva = segment.addr - IMAGE_BASE;
        addresses.extend(differences(&segment.bytes, &moved.bytes).into_iter().map(|at| rva + at as u64));
        // Code 0x20, initialised 0x40; execute, read, write.
        let (name, kind) = match segment.flags & (PF_X | PF_W) {
            PF_X => (b".text\0\0\0", 0x6000_0020),
            0 => (b".rdata\0\0", 0x4000_0040),
            PF_W => (b".data\0\0\0", 0xc000_0040),
            _ => panic!("a segment is writable and executable"),
        };
        sections.push((name, kind, rva, segment.bytes.clone(), segment.memory_bytes));
    }
    let end = |sections: &[Section]| sections.last().map_or(PAGE, |s| (s.2 + s.4).next_multiple_of(PAGE));
    let relocations = relocations(&addresses);
    let (reloc_rva, reloc_len) = (end(&sections), relocations.len() as u64);
    sections.push((b".reloc\0\0", 0x4200_0040, reloc_rva, relocations, reloc_len));

    let mut out = vec![0; 0x40];
    out[..2].copy_from_slice(b"MZ");
    out[0x3c] = 0x40;
    out.extend_from_slice(b"PE\0\0");
    // COFF header: x86-64, sections, no time, no symbols; executable, large addresses.
    put16(&mut out, &[0x8664, sections.len() as u16]);
    put32(&mut out, &[0, 0, 0]);
    put16(&mut out, &[OPTIONAL_HEADER_BYTES, 0x0022]);
    // Optional header: PE32+; sizes of code and data; entry, start of code, base; alignments of memory and file.
    put16(&mut out, &[0x020b, 0]);
    put32(&mut out, &[sections[0].3.len() as u32, 0, 0, PAGE as u32, PAGE as u32]);
    out.extend_from_slice(&IMAGE_BASE.to_le_bytes());
    put32(&mut out, &[PAGE as u32, 512]);
    // Versions; size of the image and of the headers, no checksum; an EFI application whose data is never executed (NX_COMPAT).
    put16(&mut out, &[0, 0, 0, 0, 0, 0]);
    put32(&mut out, &[0, end(&sections) as u32, PAGE as u32, 0]);
    put16(&mut out, &[10, 0x0100]);
    // Stack and heap, which UEFI does not look at.
    out.extend_from_slice(&[0; 32]);
    put32(&mut out, &[0, 16]);
    for directory in 0..16 {
        put32(&mut out, &if directory == 5 { [reloc_rva as u32, reloc_len as u32] } else { [0, 0] });
    }
    let mut offset = PAGE;
    for (name, kind, rva, bytes, memory_bytes) in &sections {
        let len = (bytes.len() as u64).next_multiple_of(512);
        out.extend_from_slice(*name);
        put32(&mut out, &[*memory_bytes as u32, *rva as u32, len as u32, offset as u32, 0, 0, 0, *kind]);
        offset += len;
    }
    assert!(out.len() <= PAGE as usize);
    out.resize(PAGE as usize, 0);
    for (_, _, _, bytes, _) in &sections {
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

fn put16(out: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}

fn put32(out: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}

/// Returns where two links of one program hold addresses.
fn differences(one: &[u8], other: &[u8]) -> Vec<usize> {
    assert_eq!(one.len(), other.len(), "a program is as long wherever it is linked");
    let mut found = Vec::new();
    let mut at = 0;
    while at < one.len() {
        if one[at] == other[at] {
            at += 1;
            continue;
        }
        // The two bases differ in the third byte of an address.
        let start = at.checked_sub(2).expect("an address begins in its section");
        let word = |bytes: &[u8]| bytes.get(start..).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b));
        let difference = word(other).zip(word(one)).map(|(b, a)| b.wrapping_sub(a));
        assert_eq!(difference, Some(OTHER_BASE - IMAGE_BASE), "at {start:#x}: only 64-bit addresses can be relocated");
        found.push(start);
        at = start + 8;
    }
    found
}

/// Returns the section `.reloc`: per page its address, the length of the block, and 16 bits per address: 10 (64-bit) and the offset in the page.
fn relocations(addresses: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for page in addresses.chunk_by(|a, b| a / PAGE == b / PAGE) {
        // Blocks are multiples of four bytes; an entry of type 0 fills.
        let entries = page.len().next_multiple_of(2);
        put32(&mut out, &[(page[0] / PAGE * PAGE) as u32, 8 + 2 * entries as u32]);
        let mut values: Vec<u16> = page.iter().map(|a| 0xa000 | (a % PAGE) as u16).collect();
        values.resize(entries, 0);
        put16(&mut out, &values);
    }
    // Firmware may refuse a program without relocations as one that cannot be moved; an empty block says that there are none.
    if out.is_empty() {
        put32(&mut out, &[0, 8]);
    }
    out
}
