//! The ELF file: headers, segments, section headers for the output sections, and the symbol table when it is asked for.
//!
//! ```text
//! 0       ELF header, program headers (NOTE, LOAD R E, LOAD R, LOAD RW; without those that are empty)
//!         text, constants, data, without gaps
//!         section names, [symbols, symbol names,] section headers
//! ```
//!
//! Monitors read segments to where they belong and do not map the file, so nothing in it is aligned to pages (`p_align` 1 in the gABI's words): three
//! pages less of zeros.

use object::LittleEndian as LE;
use object::elf;
use object::endian::{U16, U32, U64};
use object::pod::bytes_of;

use crate::input::{At, Objects};
use crate::layout::{Layout, LinkerSymbol, Segment};
use crate::mark::Live;
use crate::reloc::Image;
use crate::symbols::{Symbols, Target};
use crate::{ENTRY_SYMBOL, LinkInput};

const HEADER: u64 = size_of::<elf::FileHeader64<LE>>() as u64;
const PROGRAM_HEADER: u64 = size_of::<elf::ProgramHeader64<LE>>() as u64;

/// A note and three segments.
const PROGRAM_HEADERS_MAX: u64 = 4;

/// Names of the output sections, and where each begins in it.
struct Strings {
    bytes: Vec<u8>,
}

impl Strings {
    fn new() -> Strings {
        Strings { bytes: vec![0] }
    }

    fn add(&mut self, name: &[u8]) -> u32 {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        at
    }
}

/// Returns the physical address of the entry symbol, 0 when there is none in the image.
pub(crate) fn entry(input: &LinkInput<'_>, objects: &Objects<'_>, symbols: &Symbols<'_>, live: &Live, layout: &Layout) -> u64 {
    match symbols.known(objects, ENTRY_SYMBOL.as_bytes()) {
        Some(Ok(target @ Target::Section { section, .. })) if live.is_live(section) => {
            layout.value(target).wrapping_sub(input.base.virtual_offset)
        }
        _ => 0,
    }
}

/// Returns the executable.
pub(crate) fn elf(input: &LinkInput<'_>, objects: &Objects<'_>, live: &Live, layout: &Layout, image: &Image, entry: u64) -> Vec<u8> {
    let parts = [
        (Segment::Text, &image.text, elf::PF_R | elf::PF_X),
        (Segment::Rodata, &image.rodata, elf::PF_R),
        (Segment::Data, &image.data, elf::PF_R | elf::PF_W),
    ];
    let mut out = vec![0; (HEADER + PROGRAM_HEADERS_MAX * PROGRAM_HEADER) as usize];
    let mut program_headers = Vec::new();
    let mut offsets = [0u64; 4];
    for (segment, bytes, flags) in parts {
        let offset = pad(&mut out);
        offsets[segment as usize] = offset;
        out.extend_from_slice(bytes);
        let (start, end) = layout.ranges[segment as usize];
        let memory_end = if segment == Segment::Data { layout.ranges[Segment::Bss as usize].1 } else { end };
        if memory_end > start {
            program_headers.push(program_header(input, elf::PT_LOAD, flags, offset, start, end - start, memory_end - start, 1));
        }
    }
    offsets[Segment::Bss as usize] = out.len() as u64;
    let (notes_start, notes_end) = layout.notes;
    if notes_end > notes_start {
        let offset = offsets[Segment::Rodata as usize] + (notes_start - layout.ranges[Segment::Rodata as usize].0);
        let len = notes_end - notes_start;
        program_headers.insert(0, program_header(input, elf::PT_NOTE, elf::PF_R, offset, notes_start, len, len, 4));
    }

    let mut names = Strings::new();
    let mut headers = vec![section_header(0, elf::SHT_NULL, 0, 0, 0, 0, 0)];
    for segment in Segment::ALL {
        let (start, end) = layout.ranges[segment as usize];
        let kind = if segment == Segment::Bss { elf::SHT_NOBITS } else { elf::SHT_PROGBITS };
        let flags = elf::SHF_ALLOC
            | match segment {
                Segment::Text => elf::SHF_EXECINSTR,
                Segment::Rodata => 0,
                Segment::Data | Segment::Bss => elf::SHF_WRITE,
            };
        let name = names.add(segment.name().as_bytes());
        headers.push(section_header(name, kind, flags, start, offsets[segment as usize], end - start, 1));
    }
    if input.has_symbol_table {
        let (symbols, local_count, strings) = symbol_table(objects, live, layout);
        let mut header = section_header(names.add(b".symtab"), elf::SHT_SYMTAB, 0, 0, pad(&mut out), symbols.len() as u64, 8);
        out.extend_from_slice(&symbols);
        header.sh_link = U32::new(LE, headers.len() as u32 + 1);
        header.sh_info = U32::new(LE, local_count);
        header.sh_entsize = U64::new(LE, size_of::<elf::Sym64<LE>>() as u64);
        headers.push(header);
        headers.push(section_header(names.add(b".strtab"), elf::SHT_STRTAB, 0, 0, out.len() as u64, strings.len() as u64, 1));
        out.extend_from_slice(&strings);
    }
    let name = names.add(b".shstrtab");
    headers.push(section_header(name, elf::SHT_STRTAB, 0, 0, out.len() as u64, names.bytes.len() as u64, 1));
    out.extend_from_slice(&names.bytes);
    let section_headers_at = pad(&mut out);
    headers.iter().for_each(|h| out.extend_from_slice(bytes_of(h)));

    let mut head = bytes_of(&file_header(entry, program_headers.len(), section_headers_at, headers.len())).to_vec();
    program_headers.iter().for_each(|h| head.extend_from_slice(bytes_of(h)));
    out[..head.len()].copy_from_slice(&head);
    out
}

/// Pads to 8 bytes and returns the length.
fn pad(out: &mut Vec<u8>) -> u64 {
    out.resize(out.len().next_multiple_of(8), 0);
    out.len() as u64
}

fn file_header(entry: u64, program_headers: usize, section_headers_at: u64, section_headers: usize) -> elf::FileHeader64<LE> {
    elf::FileHeader64 {
        e_ident: elf::Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_SYSV,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, elf::ET_EXEC),
        e_machine: U16::new(LE, elf::EM_X86_64),
        e_version: U32::new(LE, u32::from(elf::EV_CURRENT)),
        e_entry: U64::new(LE, entry),
        e_phoff: U64::new(LE, HEADER),
        e_shoff: U64::new(LE, section_headers_at),
        e_flags: U32::new(LE, 0),
        e_ehsize: U16::new(LE, HEADER as u16),
        e_phentsize: U16::new(LE, PROGRAM_HEADER as u16),
        e_phnum: U16::new(LE, program_headers as u16),
        e_shentsize: U16::new(LE, size_of::<elf::SectionHeader64<LE>>() as u16),
        e_shnum: U16::new(LE, section_headers as u16),
        e_shstrndx: U16::new(LE, section_headers as u16 - 1),
    }
}

#[expect(clippy::too_many_arguments, reason = "they are the fields, in their order")]
fn program_header(
    input: &LinkInput<'_>,
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
) -> elf::ProgramHeader64<LE> {
    elf::ProgramHeader64 {
        p_type: U32::new(LE, kind),
        p_flags: U32::new(LE, flags),
        p_offset: U64::new(LE, offset),
        p_vaddr: U64::new(LE, address),
        p_paddr: U64::new(LE, address.wrapping_sub(input.base.virtual_offset)),
        p_filesz: U64::new(LE, in_file),
        p_memsz: U64::new(LE, in_memory),
        p_align: U64::new(LE, align),
    }
}

fn section_header(name: u32, kind: u32, flags: u32, address: u64, offset: u64, len: u64, align: u64) -> elf::SectionHeader64<LE> {
    elf::SectionHeader64 {
        sh_name: U32::new(LE, name),
        sh_type: U32::new(LE, kind),
        sh_flags: U64::new(LE, u64::from(flags)),
        sh_addr: U64::new(LE, address),
        sh_offset: U64::new(LE, offset),
        sh_size: U64::new(LE, len),
        sh_link: U32::new(LE, 0),
        sh_info: U32::new(LE, 0),
        sh_addralign: U64::new(LE, align),
        sh_entsize: U64::new(LE, 0),
    }
}

/// Is global, address, name, size, type, segment: sorts as the table does.
type TableEntry<'a> = (bool, u64, &'a [u8], u64, u8, usize);

/// Returns the symbol table, the number of local symbols in it, and its names: every named symbol of a live section, by binding, address and name.
fn symbol_table(objects: &Objects<'_>, live: &Live, layout: &Layout) -> (Vec<u8>, u32, Vec<u8>) {
    let mut list: Vec<TableEntry<'_>> = Vec::new();
    for object in &objects.list {
        for symbol in &object.symbols {
            let At::Section(index) = symbol.at else { continue };
            let number = object.first_section + index;
            let is_named = !symbol.name.is_empty() && !symbol.name.starts_with(b".L");
            if !is_named || symbol.kind == elf::STT_SECTION || symbol.kind == elf::STT_FILE || !live.is_live(number) {
                continue;
            }
            let address = layout.address[number as usize].wrapping_add(symbol.value);
            let segment = layout.ranges.iter().rposition(|r| r.0 <= layout.address[number as usize]).unwrap_or(0);
            list.push((!symbol.is_local(), address, symbol.name, symbol.size, symbol.kind, segment));
        }
    }
    for (name, symbol) in LinkerSymbol::ALL {
        let segment = match symbol {
            LinkerSymbol::KernelStart => 0,
            LinkerSymbol::KernelEnd => 3,
            LinkerSymbol::Start(segment) | LinkerSymbol::End(segment) => segment as usize,
        };
        list.push((true, layout.value(Target::Linker(symbol)), name.as_bytes(), 0, elf::STT_NOTYPE, segment));
    }
    list.sort_unstable();
    let mut strings = Strings::new();
    let mut bytes = vec![0; size_of::<elf::Sym64<LE>>()];
    for &(is_global, address, name, size, kind, segment) in &list {
        let binding = if is_global { elf::STB_GLOBAL } else { elf::STB_LOCAL };
        bytes.extend_from_slice(bytes_of(&elf::Sym64 {
            st_name: U32::new(LE, strings.add(name)),
            st_info: binding << 4 | kind & 0xf,
            st_other: elf::STV_DEFAULT,
            st_shndx: U16::new(LE, segment as u16 + 1),
            st_value: U64::new(LE, address),
            st_size: U64::new(LE, size),
        }));
    }
    let local_count = 1 + list.iter().filter(|s| !s.0).count() as u32;
    (bytes, local_count, strings.bytes)
}
