//! Dynamic relocations: RELA, the PLT's RELA, and RELR (x86-64 psABI, "Relocation Types"; gABI, "Relative Relocation Table").

use crate::bytes::{u32_at, u64_at};
use crate::{Dynamic, Elf};

/// The x86-64 relocation types that place an address.
pub mod r_x86_64 {
    /// `S + A`.
    pub const R64: u32 = 1;
    /// The bytes of an imported data symbol, copied into the program.
    pub const COPY: u32 = 5;
    /// `S`, in the global offset table.
    pub const GLOB_DAT: u32 = 6;
    /// `S`, in the PLT's part of the global offset table.
    pub const JUMP_SLOT: u32 = 7;
    /// `B + A`.
    pub const RELATIVE: u32 = 8;
    /// What the function at `B + A` returns.
    pub const IRELATIVE: u32 = 37;
}

/// A relocation with addend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Address of the word it changes.
    pub vaddr: u64,
    /// Type, see [`r_x86_64`].
    pub kind: u32,
    /// Index in the dynamic symbols, 0 for none.
    pub symbol: u32,
    /// Addend.
    pub addend: i64,
}

impl<'d> Elf<'d> {
    /// Calls `visit` with every dynamic relocation; those of RELR come as `RELATIVE` with the addend that lies in the file. Tables are cut to what the
    /// file holds. A static program's `IRELATIVE` relocations are found through its `.rela.plt` section.
    pub fn relocations(&self, dynamic: Option<&Dynamic<'d>>, visit: &mut dyn FnMut(Relocation)) {
        let Some(dynamic) = dynamic else {
            for section in self.sections().iter().filter(|s| s.kind == 4 && s.vaddr != 0) {
                rela(self.section_bytes(section).unwrap_or(&[]), visit);
            }
            return;
        };
        for (vaddr, size) in [dynamic.rela, dynamic.jmprel] {
            rela(self.cut(vaddr, size), visit);
        }
        self.relr(dynamic, visit);
    }

    fn cut(&self, vaddr: u64, size: u64) -> &'d [u8] {
        let rest = if size == 0 { &[] } else { self.bytes_from(vaddr).unwrap_or(&[]) };
        &rest[..rest.len().min(usize::try_from(size).unwrap_or(usize::MAX))]
    }

    /// RELR: an even word is the address of a word to relocate; an odd word is a bitmap of the 63 words that follow the last address.
    fn relr(&self, dynamic: &Dynamic<'d>, visit: &mut dyn FnMut(Relocation)) {
        let mut base = 0u64;
        let mut relative = |vaddr: u64| {
            if let Some(addend) = self.u64_at(vaddr) {
                visit(Relocation { vaddr, kind: r_x86_64::RELATIVE, symbol: 0, addend: addend as i64 });
            }
        };
        for word in self.cut(dynamic.relr.0, dynamic.relr.1).chunks_exact(8).filter_map(|w| u64_at(w, 0)) {
            if word & 1 == 0 {
                relative(word);
                base = word.wrapping_add(8);
            } else {
                for bit in 0..63u64 {
                    if word >> (bit + 1) & 1 != 0 {
                        relative(base.wrapping_add(8 * bit));
                    }
                }
                base = base.wrapping_add(63 * 8);
            }
        }
    }
}

/// Size of `Elf64_Rela`.
const RELA: usize = 24;

fn rela(table: &[u8], visit: &mut dyn FnMut(Relocation)) {
    for raw in table.chunks_exact(RELA) {
        let word = |at| u64_at(raw, at).unwrap_or(0);
        visit(Relocation {
            vaddr: word(0),
            kind: u32_at(raw, 8).unwrap_or(0),
            symbol: u32_at(raw, 12).unwrap_or(0),
            addend: word(16) as i64,
        });
    }
}
