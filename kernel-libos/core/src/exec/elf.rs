//! Reading the headers of an ELF program.
//!
//! An ELF file starts with a header that says for which machine it is, where execution starts, and where the *program headers* lie. Those describe
//! *segments*: `PT_LOAD` is a piece of the file and where it goes in memory (`p_memsz` beyond `p_filesz` is zeros: bss), `PT_INTERP` names the dynamic
//! linker, `PT_GNU_STACK` says whether the stack must be executable (System V gABI, chapters 4 and 5).
//!
//! Everything here is checked against what the loader does with it later; a file is data from outside.

use alloc::vec::Vec;
use core::ops::Range;

use libos_abi::{Errno, Result};

use crate::arch::addr::USER_END;
use crate::mm::{PAGE_SIZE, Protection};

/// Bytes of the file header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a program header.
pub const PROGRAM_HEADER_BYTES: usize = 56;

/// Most bytes of program headers that Linux reads (`ELF_MIN_ALIGN`, 64 KiB).
const PROGRAM_HEADERS_MAX: usize = 65536;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// The file header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// `ET_DYN`: goes anywhere.
    pub is_position_independent: bool,
    /// Address of the first instruction, before relocation.
    pub entry: usize,
    /// Byte offset of the program headers.
    pub program_headers: u64,
    /// Their number.
    pub count: usize,
}

/// One `PT_LOAD` segment, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Addresses before relocation; not empty.
    pub memory: Range<usize>,
    /// Byte offset in the file of the first address.
    pub offset: u64,
    /// Bytes that come from the file.
    pub file_bytes: usize,
    /// Access.
    pub protection: Protection,
}

/// What the program headers say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// `PT_LOAD` segments, by address. May be none; the loader refuses that, but only after it looked at the interpreter.
    pub segments: Vec<Segment>,
    /// Where the interpreter's path lies in the file.
    pub interpreter: Option<Range<u64>>,
    /// `PT_GNU_STACK` asks for an executable stack.
    pub executable_stack: bool,
    /// Address of the program headers in memory, before relocation (`AT_PHDR`); 0 when no segment has them.
    pub headers_addr: usize,
    /// Largest alignment that a segment wants, at least a page.
    pub align: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Header {
    /// Reads the first bytes of a file. `None` when it is no ELF program for this machine.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        // Magic number, 64-bit, little-endian (gABI, "ELF Identification").
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let kind = u16_at(bytes, 16)?;
        if kind != ET_EXEC && kind != ET_DYN || u16_at(bytes, 18)? != EM_X86_64 {
            return None;
        }
        let (size, count) = (u16_at(bytes, 54)? as usize, u16_at(bytes, 56)? as usize);
        if size != PROGRAM_HEADER_BYTES || count == 0 || count * PROGRAM_HEADER_BYTES > PROGRAM_HEADERS_MAX {
            return None;
        }
        Some(Header {
            is_position_independent: kind == ET_DYN,
            entry: u64_at(bytes, 24)? as usize,
            program_headers: u64_at(bytes, 32)?,
            count,
        })
    }

    /// Bytes of all program headers.
    pub fn program_headers_bytes(&self) -> usize {
        self.count * PROGRAM_HEADER_BYTES
    }
}

impl Program {
    /// Reads the program headers, [`Header::program_headers_bytes`] bytes.
    ///
    /// # Errors
    /// `ENOEXEC` for a malformed interpreter entry, `EINVAL` for segments that cannot be mapped, `ENOMEM`.
    pub fn parse(header: &Header, bytes: &[u8]) -> Result<Program> {
        let mut program = Program { align: PAGE_SIZE, ..Program::default() };
        program.segments.try_reserve_exact(header.count).map_err(|_| Errno::ENOMEM)?;
        let mut declared_headers = None;
        for raw in bytes.chunks_exact(PROGRAM_HEADER_BYTES) {
            let field32 = |at| u32_at(raw, at).ok_or(Errno::ENOEXEC);
            let field = |at| u64_at(raw, at).ok_or(Errno::ENOEXEC);
            let (kind, flags, offset, addr) = (field32(0)?, field32(4)?, field(8)?, field(16)?);
            let (file_bytes, memory_bytes, align) = (field(32)?, field(40)?, field(48)?);
            match kind {
                PT_LOAD => {
                    if memory_bytes == 0 {
                        continue;
                    }
                    let segment = Segment::new(flags, offset, addr, file_bytes, memory_bytes).ok_or(Errno::EINVAL)?;
                    if program.segments.last().is_some_and(|last| segment.memory.start < last.memory.end) {
                        // The gABI wants them in ascending order.
                        return Err(Errno::EINVAL);
                    }
                    if (align as usize).is_power_of_two() && align < USER_END as u64 {
                        program.align = program.align.max(align as usize);
                    }
                    if offset <= header.program_headers && header.program_headers < offset + file_bytes {
                        program.headers_addr = segment.memory.start + (header.program_headers - offset) as usize;
                    }
                    program.segments.push(segment);
                }
                PT_INTERP if program.interpreter.is_none() => {
                    // A path of at least one character and its NUL, at most PATH_MAX (Linux, `load_elf_binary`).
                    if !(2..=4096).contains(&file_bytes) {
                        return Err(Errno::ENOEXEC);
                    }
                    program.interpreter = Some(offset..offset.checked_add(file_bytes).ok_or(Errno::ENOEXEC)?);
                }
                PT_PHDR => declared_headers = Some(addr as usize),
                PT_GNU_STACK => program.executable_stack = flags & PF_X != 0,
                _ => {}
            }
        }
        if let Some(addr) = declared_headers {
            program.headers_addr = addr;
        }
        Ok(program)
    }

    /// Lowest address and the one behind the highest, in whole pages.
    pub fn span(&self) -> Range<usize> {
        let start = self.segments.first().map_or(0, |s| s.memory.start);
        let end = self.segments.last().map_or(0, |s| s.memory.end);
        start & !(PAGE_SIZE - 1)..end.next_multiple_of(PAGE_SIZE)
    }
}

impl Segment {
    fn new(flags: u32, offset: u64, addr: u64, file_bytes: u64, memory_bytes: u64) -> Option<Segment> {
        let end = addr.checked_add(memory_bytes)?;
        let is_congruent = offset % PAGE_SIZE as u64 == addr % PAGE_SIZE as u64;
        let file_end = offset.checked_add(file_bytes)?;
        if end > USER_END as u64 || file_bytes > memory_bytes || !is_congruent || file_end > i64::MAX as u64 {
            return None;
        }
        let mut protection = Protection::empty();
        protection.set(Protection::READ, flags & PF_R != 0);
        protection.set(Protection::WRITE, flags & PF_W != 0);
        protection.set(Protection::EXEC, flags & PF_X != 0);
        Some(Segment { memory: addr as usize..end as usize, offset, file_bytes: file_bytes as usize, protection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: u16, machine: u16, count: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x401000u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&count.to_le_bytes());
        bytes
    }

    fn segment(kind: u32, flags: u32, fields: [u64; 5]) -> Vec<u8> {
        let [offset, addr, file_bytes, memory_bytes, align] = fields;
        let mut bytes = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
        for field in [offset, addr, addr, file_bytes, memory_bytes, align] {
            bytes.extend(field.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn reads_what_a_static_program_says() {
        let parsed = Header::parse(&header(ET_EXEC, EM_X86_64, 3)).unwrap();
        assert_eq!(parsed, Header { is_position_independent: false, entry: 0x401000, program_headers: 64, count: 3 });
        let headers = [
            segment(PT_LOAD, PF_R | PF_X, [0, 0x400000, 0x1234, 0x1234, 0x1000]),
            segment(PT_LOAD, PF_R | PF_W, [0x1ff0, 0x402ff0, 0x20, 0x3000, 0x20_0000]),
            segment(PT_GNU_STACK, PF_R | PF_W, [0, 0, 0, 0, 16]),
        ]
        .concat();
        let program = Program::parse(&parsed, &headers).unwrap();
        assert_eq!(program.segments.len(), 2);
        assert_eq!(program.segments[1].memory, 0x402ff0..0x405ff0);
        assert_eq!((program.headers_addr, program.align, program.executable_stack), (0x400040, 0x20_0000, false));
        assert_eq!(program.span(), 0x400000..0x406000);
    }

    #[test]
    fn refuses_what_is_not_ours() {
        assert!(Header::parse(b"#!/bin/sh\n").is_none());
        assert!(Header::parse(b"\x7fELF").is_none());
        assert!(Header::parse(&header(1, EM_X86_64, 1)).is_none(), "relocatable object");
        assert!(Header::parse(&header(ET_EXEC, 183, 1)).is_none(), "aarch64");
        assert!(Header::parse(&header(ET_EXEC, EM_X86_64, 0)).is_none(), "no program headers");
        assert!(Header::parse(&header(ET_EXEC, EM_X86_64, 1171)).is_none(), "more than 64 KiB of them");
        let mut wrong_class = header(ET_EXEC, EM_X86_64, 1);
        wrong_class[4] = 1;
        assert!(Header::parse(&wrong_class).is_none(), "32-bit");
    }

    #[test]
    fn refuses_segments_that_cannot_be_mapped() {
        let parsed = Header::parse(&header(ET_EXEC, EM_X86_64, 1)).unwrap();
        let errno = |bytes: Vec<u8>| Program::parse(&parsed, &bytes).unwrap_err();
        assert_eq!(errno(segment(PT_LOAD, PF_R, [0, u64::MAX - 4, 8, 8, 0])), Errno::EINVAL, "wraps around");
        assert_eq!(errno(segment(PT_LOAD, PF_R, [0, USER_END as u64, 8, 8, 0])), Errno::EINVAL, "kernel half");
        assert_eq!(errno(segment(PT_LOAD, PF_R, [0, 0x400000, 9, 8, 0])), Errno::EINVAL, "more file than memory");
        assert_eq!(errno(segment(PT_LOAD, PF_R, [1, 0x400000, 8, 8, 0])), Errno::EINVAL, "not congruent");
        assert_eq!(errno(segment(PT_INTERP, PF_R, [0, 0, 1, 1, 1])), Errno::ENOEXEC, "interpreter too short");
        assert_eq!(errno(segment(PT_INTERP, PF_R, [0, 0, 5000, 1, 1])), Errno::ENOEXEC, "interpreter too long");
        assert!(Program::parse(&parsed, &segment(PT_GNU_STACK, PF_R, [0; 5])).unwrap().segments.is_empty());
        let reversed = [segment(PT_LOAD, PF_R, [0, 0x500000, 8, 8, 0]), segment(PT_LOAD, PF_R, [0, 0x400000, 8, 8, 0])].concat();
        assert_eq!(errno(reversed), Errno::EINVAL);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), headers in prop::collection::vec(any::<u8>(), 0..400), fix in any::<bool>()) {
            if fix {
                let good = header(ET_DYN, EM_X86_64, 7);
                bytes.resize(64, 0);
                bytes[..20].copy_from_slice(&good[..20]);
                bytes[54..].copy_from_slice(&good[54..]);
            }
            if let Some(header) = Header::parse(&bytes)
                && let Ok(program) = Program::parse(&header, &headers)
            {
                prop_assert!(program.span().end <= USER_END.next_multiple_of(PAGE_SIZE));
                for segment in &program.segments {
                    prop_assert!(segment.file_bytes <= segment.memory.len());
                }
            }
        }

        #[test]
        fn no_segment_panics(kind in prop::sample::select(vec![PT_LOAD, PT_INTERP, PT_PHDR]), flags in any::<u32>(), fields in prop::collection::vec(prop_oneof![0u64..0x10000, any::<u64>()], 5)) {
            let parsed = Header::parse(&header(ET_DYN, EM_X86_64, 1)).unwrap();
            if let Ok(program) = Program::parse(&parsed, &segment(kind, flags, fields.try_into().unwrap())) {
                prop_assert!(program.segments.is_empty() || !program.span().is_empty());
            }
        }
    }
}
