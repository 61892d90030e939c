//! ELF header, program headers and section headers.

use crate::ElfError;
use crate::bytes::{cstr_at, slice, u16_at, u32_at, u64_at};

/// `e_type` of a file that can be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfType {
    /// `ET_EXEC`: a program with fixed addresses.
    Exec,
    /// `ET_DYN`: a position-independent program or a shared object.
    Dyn,
}

/// A program header (gABI, "Program Header").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// `p_type`, one of the `PT_` constants of [`Segment`].
    pub kind: u32,
    /// `p_flags`.
    pub flags: u32,
    /// First byte in the file.
    pub offset: u64,
    /// First address, before relocation.
    pub vaddr: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory; what exceeds `file_size` is zero.
    pub mem_size: u64,
    /// Alignment of `vaddr`, 0 or a power of two.
    pub align: u64,
}

impl Segment {
    /// Mapped into memory.
    pub const LOAD: u32 = 1;
    /// The dynamic table.
    pub const DYNAMIC: u32 = 2;
    /// Path of the dynamic loader.
    pub const INTERP: u32 = 3;
    /// Notes.
    pub const NOTE: u32 = 4;
    /// Thread-local storage template.
    pub const TLS: u32 = 7;
    /// Binary search table of `.eh_frame`.
    pub const GNU_EH_FRAME: u32 = 0x6474_e550;
    /// Flags of the stack.
    pub const GNU_STACK: u32 = 0x6474_e551;

    /// Whether this is mapped.
    pub fn is_load(&self) -> bool {
        self.kind == Segment::LOAD
    }

    /// `PF_X`.
    pub fn is_executable(&self) -> bool {
        self.flags & 1 != 0
    }

    /// `PF_W`.
    pub fn is_writable(&self) -> bool {
        self.flags & 2 != 0
    }
}

/// A section header with its name resolved (gABI, "Section Header").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'d> {
    /// Name; empty when the string table does not hold it.
    pub name: &'d [u8],
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Address, 0 when not mapped.
    pub vaddr: u64,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes (in the file, unless `SHT_NOBITS`).
    pub size: u64,
    /// `sh_link`.
    pub link: u32,
    /// Size of one entry of a table.
    pub entry_size: u64,
}

/// A view of an ELF64 little-endian x86-64 file that can be mapped.
#[derive(Debug, Clone)]
pub struct Elf<'d> {
    pub(crate) data: &'d [u8],
    kind: ElfType,
    entry: u64,
    segments: Vec<Segment>,
    sections: Vec<Section<'d>>,
}

impl<'d> Elf<'d> {
    /// Views `data` as an ELF file.
    ///
    /// Checks in the order in which a reader wants to hear of trouble: magic, class, byte order, architecture, type, then that the file holds the
    /// program header table and all it maps. Damaged section headers are ignored, as the kernel and ld.so ignore them.
    ///
    /// # Errors
    /// [`ElfError`] says what is wrong.
    pub fn parse(data: &'d [u8]) -> Result<Elf<'d>, ElfError> {
        if !data.starts_with(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        let truncated = |end| ElfError::Truncated { what: "ELF header", end, len_bytes: data.len() as u64 };
        let class = *data.get(4).ok_or(truncated(64))?;
        let order = *data.get(5).ok_or(truncated(64))?;
        // e_type and e_machine lie at the same place in both classes, in the file's own byte order.
        let machine = u16_at(data, 18).ok_or(truncated(64))?;
        let machine = if order == 2 { machine.swap_bytes() } else { machine };
        match (class, order) {
            (1, _) => return Err(ElfError::Not64Bit(machine)),
            (2, 2) => return Err(ElfError::BigEndian(machine)),
            (2, 1) => {}
            (2, _) => return Err(ElfError::Malformed("the byte order in the ELF header is neither little nor big")),
            _ => return Err(ElfError::Malformed("the class in the ELF header is neither 32-bit nor 64-bit")),
        }
        if machine != 62 {
            return Err(ElfError::ForeignArch(machine));
        }
        let header = slice(data, 0, 64, "ELF header")?;
        let kind = match u16_at(header, 16).unwrap_or(0) {
            2 => ElfType::Exec,
            3 => ElfType::Dyn,
            other => return Err(ElfError::NotLoadable(other)),
        };
        let entry = u64_at(header, 24).unwrap_or(0);
        let segments = parse_segments(data, header)?;
        let sections = parse_sections(data, header).unwrap_or_default();
        Ok(Elf { data, kind, entry, segments, sections })
    }

    /// Returns the bytes this is a view of.
    pub fn data(&self) -> &'d [u8] {
        self.data
    }

    /// Returns `e_type`.
    pub fn kind(&self) -> ElfType {
        self.kind
    }

    /// Returns `e_entry`: 0 in most shared objects.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Returns all program headers in their order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns all section headers; empty when the file has none.
    pub fn sections(&self) -> &[Section<'d>] {
        &self.sections
    }

    /// Returns the first section of this name.
    pub fn section(&self, name: &[u8]) -> Option<&Section<'d>> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// Returns the bytes of a section; `None` for `SHT_NOBITS` and for a range outside the file.
    pub fn section_bytes(&self, section: &Section<'d>) -> Option<&'d [u8]> {
        if section.kind == 8 { None } else { slice(self.data, section.offset, section.size, "section").ok() }
    }

    /// Returns the mapped bytes of a segment.
    pub fn segment_bytes(&self, segment: &Segment) -> &'d [u8] {
        // `parse` checked the range of every LOAD, the others are checked here.
        slice(self.data, segment.offset, segment.file_size, "segment").unwrap_or(&[])
    }

    /// Returns the path in `PT_INTERP`, without its NUL.
    pub fn interpreter(&self) -> Option<&'d [u8]> {
        let segment = self.segments.iter().find(|s| s.kind == Segment::INTERP)?;
        let bytes = self.segment_bytes(segment);
        Some(bytes.split(|&b| b == 0).next().unwrap_or(bytes))
    }

    /// Returns the LOAD segment whose file contents hold `vaddr`.
    pub fn segment_at(&self, vaddr: u64) -> Option<&Segment> {
        self.segments.iter().find(|s| s.is_load() && vaddr.checked_sub(s.vaddr).is_some_and(|d| d < s.file_size))
    }

    /// Returns the file offset of an address.
    pub fn offset_of(&self, vaddr: u64) -> Option<u64> {
        let s = self.segment_at(vaddr)?;
        s.offset.checked_add(vaddr - s.vaddr)
    }

    /// Returns the file bytes from `vaddr` to the end of its segment.
    pub fn bytes_from(&self, vaddr: u64) -> Option<&'d [u8]> {
        let s = self.segment_at(vaddr)?;
        self.segment_bytes(s).get(usize::try_from(vaddr - s.vaddr).ok()?..)
    }

    /// Returns `len` file bytes at `vaddr`, all in one segment.
    pub fn bytes_at(&self, vaddr: u64, len: u64) -> Option<&'d [u8]> {
        self.bytes_from(vaddr)?.get(..usize::try_from(len).ok()?)
    }

    /// Returns the little-endian word of 8 bytes at `vaddr`.
    pub fn u64_at(&self, vaddr: u64) -> Option<u64> {
        u64_at(self.bytes_at(vaddr, 8)?, 0)
    }

    /// Whether a thread's stack must be executable: `PT_GNU_STACK` with `PF_X`, or no such header at all (Linux, fs/binfmt_elf.c:
    /// `EXSTACK_DEFAULT`; on x86-64 a file without the header gets a stack that is not executable since Linux 5.8, so only the flag counts here).
    pub fn wants_executable_stack(&self) -> bool {
        self.segments.iter().any(|s| s.kind == Segment::GNU_STACK && s.is_executable())
    }

    /// Whether a LOAD segment is writable and executable at once.
    pub fn has_writable_code(&self) -> bool {
        self.segments.iter().any(|s| s.is_load() && s.is_writable() && s.is_executable())
    }
}

/// Size of `Elf64_Phdr`.
const PHDR: usize = 56;
/// Size of `Elf64_Shdr`.
const SHDR: usize = 64;

fn parse_segments(data: &[u8], header: &[u8]) -> Result<Vec<Segment>, ElfError> {
    let (offset, size, count) = (u64_at(header, 32), u16_at(header, 54), u16_at(header, 56));
    let (Some(offset), Some(size), Some(count)) = (offset, size, count) else { return Err(ElfError::Malformed("no ELF header")) };
    if count == 0 {
        return Err(ElfError::Malformed("there are no program headers, so nothing can be mapped"));
    }
    if usize::from(size) != PHDR {
        return Err(ElfError::Malformed("a program header has a size other than 56 bytes"));
    }
    let table = slice(data, offset, PHDR as u64 * u64::from(count), "program header table")?;
    let mut out = Vec::with_capacity(usize::from(count));
    for h in table.chunks_exact(PHDR) {
        let w = |at| u64_at(h, at).unwrap_or(0);
        let s = Segment {
            kind: u32_at(h, 0).unwrap_or(0),
            flags: u32_at(h, 4).unwrap_or(0),
            offset: w(8),
            vaddr: w(16),
            file_size: w(32),
            mem_size: w(40),
            align: w(48),
        };
        if s.is_load() || s.kind == Segment::INTERP {
            slice(data, s.offset, s.file_size, if s.is_load() { "contents of a LOAD segment" } else { "path of the dynamic loader" })?;
        }
        if s.is_load() {
            if s.file_size > s.mem_size {
                return Err(ElfError::Malformed("a LOAD segment is larger in the file than in memory"));
            }
            if s.vaddr.checked_add(s.mem_size).is_none() {
                return Err(ElfError::Malformed("a LOAD segment wraps around the address space"));
            }
        }
        out.push(s);
    }
    Ok(out)
}

fn parse_sections<'d>(data: &'d [u8], header: &[u8]) -> Option<Vec<Section<'d>>> {
    let (offset, size, count, names) = (u64_at(header, 40)?, u16_at(header, 58)?, u16_at(header, 60)?, u16_at(header, 62)?);
    if count == 0 || usize::from(size) != SHDR {
        return None;
    }
    let table = slice(data, offset, SHDR as u64 * u64::from(count), "section header table").ok()?;
    let raw = |h: &[u8], at| u64_at(h, at).unwrap_or(0);
    let names = table.chunks_exact(SHDR).nth(usize::from(names)).and_then(|h| slice(data, raw(h, 24), raw(h, 32), "section names").ok());
    let section = |h: &'d [u8]| Section {
        name: names.and_then(|n| cstr_at(n, u64::from(u32_at(h, 0)?))).unwrap_or(b""),
        kind: u32_at(h, 4).unwrap_or(0),
        flags: raw(h, 8),
        vaddr: raw(h, 16),
        offset: raw(h, 24),
        size: raw(h, 32),
        link: u32_at(h, 40).unwrap_or(0),
        entry_size: raw(h, 56),
    };
    Some(table.chunks_exact(SHDR).map(section).collect())
}
