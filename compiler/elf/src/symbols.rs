//! Symbol tables: `.dynsym` (through the dynamic table, for files without section headers) and `.symtab`.

use crate::bytes::{cstr_at, u16_at, u32_at, u64_at};
use crate::{Dynamic, Elf};

/// `st_info`'s type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolKind {
    /// `STT_FUNC`.
    Function,
    /// `STT_GNU_IFUNC`: the value is a resolver that returns the function.
    IndirectFunction,
    /// `STT_OBJECT`, `STT_TLS`, `STT_COMMON`.
    Data,
    /// Anything else.
    Other,
}

/// A symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'d> {
    /// Name without version; empty when the string table does not hold it.
    pub name: &'d [u8],
    /// Address, before relocation.
    pub value: u64,
    /// Size in bytes, 0 when unknown.
    pub size: u64,
    /// Type.
    pub kind: SymbolKind,
    /// Not `STB_LOCAL`.
    pub is_global: bool,
    /// Defined here, not imported.
    pub is_defined: bool,
}

/// Size of `Elf64_Sym`.
const SYM: usize = 24;

fn symbol<'d>(raw: &[u8], strings: &'d [u8]) -> Symbol<'d> {
    let info = raw[4];
    Symbol {
        name: cstr_at(strings, u64::from(u32_at(raw, 0).unwrap_or(0))).unwrap_or(b""),
        value: u64_at(raw, 8).unwrap_or(0),
        size: u64_at(raw, 16).unwrap_or(0),
        kind: match info & 15 {
            2 => SymbolKind::Function,
            10 => SymbolKind::IndirectFunction,
            1 | 5 | 6 => SymbolKind::Data,
            _ => SymbolKind::Other,
        },
        is_global: info >> 4 != 0,
        is_defined: u16_at(raw, 6).unwrap_or(0) != 0,
    }
}

impl<'d> Elf<'d> {
    /// Returns the dynamic symbols; index 0 is the null symbol, so that the index in a relocation can be used as it is.
    pub fn dynamic_symbols(&self, dynamic: &Dynamic<'d>) -> Vec<Symbol<'d>> {
        let strings = self.strings(dynamic);
        let table = self.bytes_from(dynamic.symtab).unwrap_or(&[]);
        let count = self.dynamic_symbol_count(dynamic, table).min(table.len() / SYM);
        table.chunks_exact(SYM).take(count).map(|raw| symbol(raw, strings)).collect()
    }

    /// Returns the symbols of `.symtab`; empty in a stripped file.
    pub fn symbols(&self) -> Vec<Symbol<'d>> {
        let Some(section) = self.sections().iter().find(|s| s.kind == 2) else { return Vec::new() };
        let strings = self.sections().get(section.link as usize).and_then(|s| self.section_bytes(s)).unwrap_or(&[]);
        self.section_bytes(section).unwrap_or(&[]).chunks_exact(SYM).map(|raw| symbol(raw, strings)).collect()
    }

    /// The dynamic table gives no count: the classic hash table does, the GNU hash table ends with the last symbol's chain, and the usual layout has
    /// the string table right behind the symbols.
    fn dynamic_symbol_count(&self, dynamic: &Dynamic<'_>, table: &[u8]) -> usize {
        if let Some(section) = self.sections().iter().find(|s| s.kind == 11 && s.vaddr == dynamic.symtab) {
            return usize::try_from(section.size).unwrap_or(0) / SYM;
        }
        if dynamic.hash != 0
            && let Some(n) = self.bytes_from(dynamic.hash).and_then(|h| u32_at(h, 4))
        {
            return n as usize;
        }
        if dynamic.gnu_hash != 0
            && let Some(n) = self.bytes_from(dynamic.gnu_hash).and_then(gnu_hash_count)
        {
            return n;
        }
        match dynamic.strtab.0.checked_sub(dynamic.symtab) {
            Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX) / SYM,
            None => table.len() / SYM,
        }
    }
}

/// Returns the number of symbols a GNU hash table covers: one past the end of the chain that the highest bucket starts.
fn gnu_hash_count(table: &[u8]) -> Option<usize> {
    let (buckets, first, bloom) = (u32_at(table, 0)? as usize, u32_at(table, 4)? as usize, u32_at(table, 8)? as usize);
    let bucket_at = bloom.checked_mul(8)?.checked_add(16)?;
    let chain_at = buckets.checked_mul(4)?.checked_add(bucket_at)?;
    let words = table.get(bucket_at..chain_at)?;
    let mut index = words.chunks_exact(4).filter_map(|w| u32_at(w, 0)).max()? as usize;
    if index < first {
        return Some(first);
    }
    loop {
        let hash = u32_at(table, (index - first).checked_mul(4)?.checked_add(chain_at)?)?;
        index += 1;
        if hash & 1 != 0 {
            return Some(index);
        }
    }
}
