//! The dynamic table: what ld.so reads to load an object (gABI, "Dynamic Section").

use crate::bytes::{cstr_at, u64_at};
use crate::{Elf, ElfError, Segment};

/// The entries of the dynamic table that matter for loading; addresses are those of the file, before relocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dynamic<'d> {
    /// `DT_NEEDED`, in order.
    pub needed: Vec<&'d [u8]>,
    /// `DT_SONAME`.
    pub soname: Option<&'d [u8]>,
    /// `DT_RPATH`, directories with colons between.
    pub rpath: Option<&'d [u8]>,
    /// `DT_RUNPATH`; when present, ld.so ignores `DT_RPATH`.
    pub runpath: Option<&'d [u8]>,
    /// `DT_FLAGS`.
    pub flags: u64,
    /// `DT_FLAGS_1`.
    pub flags_1: u64,
    /// `DT_INIT`, `DT_FINI` and 0 when absent.
    pub init: u64,
    /// See `init`.
    pub fini: u64,
    /// `DT_RELA` and `DT_RELASZ`.
    pub rela: (u64, u64),
    /// `DT_JMPREL` and `DT_PLTRELSZ`.
    pub jmprel: (u64, u64),
    /// `DT_RELR` and `DT_RELRSZ`.
    pub relr: (u64, u64),
    /// `DT_SYMTAB`.
    pub symtab: u64,
    /// `DT_STRTAB` and `DT_STRSZ`.
    pub strtab: (u64, u64),
    /// `DT_HASH`.
    pub hash: u64,
    /// `DT_GNU_HASH`.
    pub gnu_hash: u64,
}

/// Bit of `DT_FLAGS_1`: the default library directories and ld.so.cache are not searched for this object's needs.
const DF_1_NODEFLIB: u64 = 0x800;
/// Bit of `DT_FLAGS_1`: position-independent program.
const DF_1_PIE: u64 = 0x0800_0000;

impl Dynamic<'_> {
    /// `DF_1_NODEFLIB`.
    pub fn ignores_default_directories(&self) -> bool {
        self.flags_1 & DF_1_NODEFLIB != 0
    }

    /// `DF_1_PIE`: the linker made a program, not a library.
    pub fn is_pie(&self) -> bool {
        self.flags_1 & DF_1_PIE != 0
    }
}

impl<'d> Elf<'d> {
    /// Reads the dynamic table; `None` when the file has none (a static program).
    ///
    /// # Errors
    /// When a name that ld.so would need (`DT_NEEDED`, `DT_SONAME`, search paths) lies outside the string table.
    pub fn dynamic(&self) -> Result<Option<Dynamic<'d>>, ElfError> {
        let Some(segment) = self.segments().iter().find(|s| s.kind == Segment::DYNAMIC) else { return Ok(None) };
        // The address counts, as for ld.so; the offset is the same place in files that were not tampered with.
        let table = self.bytes_at(segment.vaddr, segment.file_size).unwrap_or_else(|| self.segment_bytes(segment));
        let mut out = Dynamic::default();
        let (mut needed, mut soname, mut rpath, mut runpath) = (vec![], None, None, None);
        for entry in table.chunks_exact(16) {
            let (tag, value) = (u64_at(entry, 0).unwrap_or(0), u64_at(entry, 8).unwrap_or(0));
            match tag {
                0 => break,
                1 => needed.push(value),
                2 => out.jmprel.1 = value,
                4 => out.hash = value,
                5 => out.strtab.0 = value,
                6 => out.symtab = value,
                7 => out.rela.0 = value,
                8 => out.rela.1 = value,
                10 => out.strtab.1 = value,
                12 => out.init = value,
                13 => out.fini = value,
                14 => soname = Some(value),
                15 => rpath = Some(value),
                23 => out.jmprel.0 = value,
                29 => runpath = Some(value),
                30 => out.flags = value,
                35 => out.relr.1 = value,
                36 => out.relr.0 = value,
                0x6fff_fef5 => out.gnu_hash = value,
                0x6fff_fffb => out.flags_1 = value,
                _ => {}
            }
        }
        let strings = self.strings(&out);
        let name = |at: u64| cstr_at(strings, at).ok_or(ElfError::Malformed("a name in the dynamic table lies outside its string table"));
        out.needed = needed.into_iter().map(name).collect::<Result<_, _>>()?;
        out.soname = soname.map(name).transpose()?;
        out.rpath = rpath.map(name).transpose()?;
        out.runpath = runpath.map(name).transpose()?;
        Ok(Some(out))
    }

    /// Returns the dynamic string table, cut to what the file holds.
    pub(crate) fn strings(&self, dynamic: &Dynamic<'_>) -> &'d [u8] {
        let rest = self.bytes_from(dynamic.strtab.0).unwrap_or(&[]);
        &rest[..rest.len().min(usize::try_from(dynamic.strtab.1).unwrap_or(usize::MAX))]
    }
}
