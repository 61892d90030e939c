//! Section bytes with relocations applied (psABI, "Relocation Types" and "Optimize GOTPCRELX Relocations").
//!
//! In the formulas below S is the symbol's address, A the addend, P the address of the place, G the address of the symbol's slot in the global offset table.

use object::elf;

use crate::input::{Objects, Reloc, Section, lossy};
use crate::layout::{Layout, Segment, effective};
use crate::mark::Live;
use crate::symbols::{Symbols, Target};
use crate::{LinkError, Problem};

/// Filling between functions: `int3`, so that a stray jump traps.
const TEXT_FILL: u8 = 0xcc;

/// The bytes of the three loaded parts.
#[derive(Debug)]
pub(crate) struct Image {
    pub text: Vec<u8>,
    pub rodata: Vec<u8>,
    pub data: Vec<u8>,
}

pub(crate) fn is_got(kind: u32) -> bool {
    matches!(kind, elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX)
}

/// How an instruction that goes through the table can do without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relaxation {
    /// `mov foo@GOTPCREL(%rip), %reg` becomes `lea foo(%rip), %reg`.
    Lea,
    /// `call *foo@GOTPCREL(%rip)` becomes `addr32 call foo`.
    Call,
    /// `jmp *foo@GOTPCREL(%rip)` becomes `jmp foo; nop`.
    Jump,
}

/// Returns how a reference through the table can be made direct. Only the X forms promise that the instruction is one of the known ones, and only
/// an address inside the image is always within reach.
pub(crate) fn relaxation(section: &Section<'_>, reloc: &Reloc, target: Target) -> Option<Relaxation> {
    if reloc.kind == elf::R_X86_64_GOTPCREL || reloc.addend != -4 || matches!(target, Target::Absolute(_)) {
        return None;
    }
    let at = usize::try_from(reloc.offset).ok()?;
    section.data.get(at..at.checked_add(4)?)?;
    match *section.data.get(at.checked_sub(2)?..at)? {
        [0x8b, modrm] if modrm & 0xc7 == 0x05 => Some(Relaxation::Lea),
        [0xff, 0x15] if reloc.kind == elf::R_X86_64_GOTPCRELX => Some(Relaxation::Call),
        [0xff, 0x25] if reloc.kind == elf::R_X86_64_GOTPCRELX => Some(Relaxation::Jump),
        _ => None,
    }
}

/// How a value is stored.
#[derive(Debug, Clone, Copy)]
enum Fit {
    /// All 64 bits.
    Whole,
    /// 32 bits that zero-extend to the value.
    Unsigned32,
    /// So many bytes that sign-extend to the value.
    Signed(usize),
    /// So many bytes that extend to the value one way or the other.
    Either(usize),
}

/// Returns the bytes of all segments, and how many relocations were applied and relaxed.
pub(crate) fn apply(
    objects: &Objects<'_>,
    symbols: &Symbols<'_>,
    live: &Live,
    layout: &Layout,
) -> Result<(Image, usize, usize), LinkError> {
    let segment_len = |s| layout.segment_len(s) as usize;
    let mut image = Image {
        text: vec![TEXT_FILL; segment_len(Segment::Text)],
        rodata: vec![0; segment_len(Segment::Rodata)],
        data: vec![0; segment_len(Segment::Data)],
    };
    let (mut applied, mut relaxed) = (0, 0);
    let mut problems = Vec::new();
    for &number in &layout.order {
        let section = objects.section(number);
        let address = layout.address[number as usize];
        let Some((bytes, start)) = part(&mut image, layout, address, section) else {
            if !section.relocations.is_empty() {
                let reason = "a relocation in zeroed data".to_owned();
                problems.push(Problem::Relocation { reason, place: objects.place(number, 0) });
            }
            continue;
        };
        let from = (address - start) as usize;
        let bytes = &mut bytes[from..from + section.data.len()];
        bytes.copy_from_slice(section.data);
        let object = objects.section_object[number as usize];
        for reloc in section.relocs().filter(|r| r.kind != elf::R_X86_64_NONE) {
            let Some(target) = effective(symbols.resolved(objects, object, reloc.symbol), live) else { continue };
            match one(section, bytes, address, &reloc, target, layout) {
                Ok(is_relaxed) => {
                    applied += 1;
                    relaxed += usize::from(is_relaxed);
                }
                Err(Fault::Reason(reason)) => {
                    problems.push(Problem::Relocation { reason, place: objects.place(number, reloc.offset) });
                }
                Err(Fault::Overflow(value)) => problems.push(Problem::Overflow {
                    symbol: target_name(objects, object, reloc.symbol),
                    value,
                    relocation: kind_name(reloc.kind),
                    place: objects.place(number, reloc.offset),
                }),
            }
        }
    }
    for (slot, &target) in layout.got.iter().enumerate() {
        let at = (layout.got_start - layout.ranges[Segment::Rodata as usize].0) as usize + 8 * slot;
        image.rodata[at..at + 8].copy_from_slice(&layout.value(target).to_le_bytes());
    }
    if problems.is_empty() { Ok((image, applied, relaxed)) } else { Err(LinkError { problems }) }
}

/// Returns the part of the image that holds a section, and the address of the part; `None` for zeroed data.
fn part<'i>(image: &'i mut Image, layout: &Layout, address: u64, section: &Section<'_>) -> Option<(&'i mut Vec<u8>, u64)> {
    if section.kind == elf::SHT_NOBITS {
        return None;
    }
    let start = |s: Segment| layout.ranges[s as usize].0;
    Some(if address < start(Segment::Rodata) {
        (&mut image.text, start(Segment::Text))
    } else if address < start(Segment::Data) {
        (&mut image.rodata, start(Segment::Rodata))
    } else {
        (&mut image.data, start(Segment::Data))
    })
}

enum Fault {
    Reason(String),
    Overflow(i128),
}

/// Applies one relocation to a section's bytes; returns whether an instruction was relaxed.
fn one(section: &Section<'_>, bytes: &mut [u8], address: u64, reloc: &Reloc, target: Target, layout: &Layout) -> Result<bool, Fault> {
    let s = layout.value(target);
    let place = address.wrapping_add(reloc.offset);
    let absolute = s.wrapping_add_signed(reloc.addend);
    let relative = absolute.wrapping_sub(place);
    let (fit, value) = match reloc.kind {
        elf::R_X86_64_64 => (Fit::Whole, absolute),
        elf::R_X86_64_PC64 => (Fit::Whole, relative),
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => (Fit::Signed(4), relative),
        elf::R_X86_64_32 => (Fit::Unsigned32, absolute),
        elf::R_X86_64_32S => (Fit::Signed(4), absolute),
        elf::R_X86_64_16 => (Fit::Either(2), absolute),
        elf::R_X86_64_PC16 => (Fit::Signed(2), relative),
        elf::R_X86_64_8 => (Fit::Either(1), absolute),
        elf::R_X86_64_PC8 => (Fit::Signed(1), relative),
        kind if is_got(kind) => match relaxation(section, reloc, target) {
            Some(relaxation) => {
                relax(bytes, reloc, relaxation, relative)?;
                return Ok(true);
            }
            None => {
                let slot = layout.slot(target).ok_or_else(|| Fault::Reason("no slot in the global offset table".to_owned()))?;
                (Fit::Signed(4), slot.wrapping_add_signed(reloc.addend).wrapping_sub(place))
            }
        },
        kind => return Err(Fault::Reason(format!("unsupported relocation {}", kind_name(kind)))),
    };
    store(bytes, reloc.offset, fit, value)?;
    Ok(false)
}

fn relax(bytes: &mut [u8], reloc: &Reloc, relaxation: Relaxation, relative: u64) -> Result<(), Fault> {
    // `relaxation` saw two bytes before the place and four at it.
    let at = reloc.offset as usize;
    match relaxation {
        Relaxation::Lea => bytes[at - 2] = 0x8d,
        Relaxation::Call => bytes[at - 2..at].copy_from_slice(&[0x67, 0xe8]),
        Relaxation::Jump => {
            // The displacement moves one byte down and is counted from its own end, which moves with it.
            bytes[at - 2] = 0xe9;
            store(bytes, reloc.offset - 1, Fit::Signed(4), relative.wrapping_add(1))?;
            bytes[at + 3] = 0x90;
            return Ok(());
        }
    }
    store(bytes, reloc.offset, Fit::Signed(4), relative)
}

fn store(bytes: &mut [u8], offset: u64, fit: Fit, value: u64) -> Result<(), Fault> {
    let signed = value as i64;
    let (len, fits) = match fit {
        Fit::Whole => (8, true),
        Fit::Unsigned32 => (4, value >> 32 == 0),
        Fit::Signed(len) => (len, fits_signed(signed, len)),
        Fit::Either(len) => (len, fits_signed(signed, len) || value >> (8 * len) == 0),
    };
    if !fits {
        let is_signed = !matches!(fit, Fit::Unsigned32);
        return Err(Fault::Overflow(if is_signed { i128::from(signed) } else { i128::from(value) }));
    }
    let place = usize::try_from(offset).ok().and_then(|at| bytes.get_mut(at..at.checked_add(len)?));
    let place = place.ok_or_else(|| Fault::Reason("a relocation outside its section".to_owned()))?;
    place.copy_from_slice(&value.to_le_bytes()[..len]);
    Ok(())
}

fn fits_signed(value: i64, len: usize) -> bool {
    let spare = 64 - 8 * len as u32;
    value << spare >> spare == value
}

fn target_name(objects: &Objects<'_>, object: u32, symbol: u32) -> String {
    let o = &objects.list[object as usize];
    match o.symbols.get(symbol as usize) {
        Some(s) if !s.name.is_empty() => lossy(s.name),
        Some(s) => match s.at {
            crate::input::At::Section(section) => lossy(o.sections[section as usize].name),
            _ => String::new(),
        },
        None => String::new(),
    }
}

fn kind_name(kind: u32) -> String {
    let name = match kind {
        elf::R_X86_64_64 => "R_X86_64_64",
        elf::R_X86_64_PC64 => "R_X86_64_PC64",
        elf::R_X86_64_PC32 => "R_X86_64_PC32",
        elf::R_X86_64_PLT32 => "R_X86_64_PLT32",
        elf::R_X86_64_32 => "R_X86_64_32",
        elf::R_X86_64_32S => "R_X86_64_32S",
        elf::R_X86_64_16 => "R_X86_64_16",
        elf::R_X86_64_PC16 => "R_X86_64_PC16",
        elf::R_X86_64_8 => "R_X86_64_8",
        elf::R_X86_64_PC8 => "R_X86_64_PC8",
        elf::R_X86_64_GOTPCREL => "R_X86_64_GOTPCREL",
        elf::R_X86_64_GOTPCRELX => "R_X86_64_GOTPCRELX",
        elf::R_X86_64_REX_GOTPCRELX => "R_X86_64_REX_GOTPCRELX",
        elf::R_X86_64_TLSGD | elf::R_X86_64_TLSLD | elf::R_X86_64_GOTTPOFF | elf::R_X86_64_TPOFF32 => "of thread-local storage",
        other => return format!("type {other}"),
    };
    name.to_owned()
}
