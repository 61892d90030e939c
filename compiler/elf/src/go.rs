//! Function names and starts from Go's `.gopclntab`, which the Go runtime needs and which therefore survives stripping
//! (Go sources, `internal/abi` and `debug/gosym/pclntab.go`).
//!
//! ```text
//! +0   u32 magic: 0xfffffff1 (Go 1.20), 0xfffffff0 (1.18), 0xfffffffa (1.16)
//! +4   0, 0, instruction quantum, pointer size (8)
//! +8   number of functions; +16 number of files; since 1.18: +24 start of text
//!      then offsets of: function names, compilation units, file names, pc tables, functab
//! functab: since 1.18 pairs of u32 (start - text start, offset of the function's record in functab), before pairs of u64
//! ```

use crate::bytes::{cstr_at, u32_at, u64_at};
use crate::{Elf, r_x86_64};

/// A function of a Go program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoFunction<'d> {
    /// First address.
    pub start: u64,
    /// Address of the next function.
    pub end: u64,
    /// `runtime.main`, ...
    pub name: &'d [u8],
}

impl<'d> Elf<'d> {
    /// Returns the functions of a Go program, empty for anything else.
    pub fn go_functions(&self) -> Vec<GoFunction<'d>> {
        [&b".gopclntab"[..], b".data.rel.ro.gopclntab"]
            .iter()
            .find_map(|name| self.section(name))
            .and_then(|s| self.parse_pclntab(self.section_bytes(s)?, s.vaddr))
            .unwrap_or_default()
    }

    fn parse_pclntab(&self, table: &'d [u8], vaddr: u64) -> Option<Vec<GoFunction<'d>>> {
        if *table.get(7)? != 8 {
            return None;
        }
        let word = |i: usize| u64_at(table, 8 + 8 * i);
        let count = usize::try_from(word(0)?).ok()?;
        let (text, names, functab, wide) = match u32_at(table, 0)? {
            0xffff_fff0 | 0xffff_fff1 => {
                (word(2).filter(|&t| t != 0).or_else(|| self.relocated_text(vaddr + 24))?, word(3)?, word(7)?, false)
            }
            0xffff_fffa => (0, word(2)?, word(6)?, true),
            _ => return None,
        };
        let names = table.get(usize::try_from(names).ok()?..)?;
        let functab = table.get(usize::try_from(functab).ok()?..)?;
        let entry_len = if wide { 16 } else { 8 };
        // The last entry is only an end address.
        let count = count.min(functab.len() / entry_len);
        let start = |i: usize| {
            if wide { u64_at(functab, 16 * i) } else { u32_at(functab, 8 * i).map(|o| text.wrapping_add(u64::from(o))) }
        };
        let record = |i: usize| if wide { u64_at(functab, 16 * i + 8) } else { u32_at(functab, 8 * i + 4).map(u64::from) };
        let mut out = Vec::with_capacity(count);
        for i in 0..count {
            let (Some(from), Some(to), Some(record)) = (start(i), start(i + 1), record(i)) else { break };
            // A function's record starts with its start address, then the offset of its name.
            let name_at = usize::try_from(record).ok()?.checked_add(if wide { 8 } else { 4 })?;
            let name = u32_at(functab, name_at).and_then(|o| cstr_at(names, u64::from(o))).unwrap_or(b"");
            if to > from {
                out.push(GoFunction { start: from, end: to, name });
            }
        }
        Some(out)
    }

    /// In a position-independent program the start of text is a relocation and the file has 0. Where no relocation tells, it is the start of `.text`, as
    /// Go's own linker lays programs out (C code linked in by others comes before it).
    fn relocated_text(&self, field: u64) -> Option<u64> {
        let dynamic = self.dynamic().ok()?;
        let mut found = None;
        self.relocations(dynamic.as_ref(), &mut |r| {
            if r.vaddr == field && r.kind == r_x86_64::RELATIVE {
                found = Some(r.addend as u64);
            }
        });
        found.or_else(|| self.section(b".text").map(|s| s.vaddr))
    }
}
