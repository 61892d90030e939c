//! Makes objects and archives in memory, so that the tests need no compiler.
#![allow(dead_code)]

use object::write::{Comdat, Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, ComdatKind, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    elf,
};
use ukc_link::{LinkInput, Linked, link};

/// Offset, relocation type, symbol, addend.
pub type Ref<'a> = (u64, u32, &'a str, i64);

/// Binding of a defined symbol.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Global,
    Weak,
    Local,
}

/// An object under construction.
pub struct Obj(Object<'static>, SectionId);

impl Obj {
    pub fn new() -> Obj {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let first = object.add_section(Vec::new(), b".comment".to_vec(), SectionKind::OtherString);
        Obj(object, first)
    }

    /// Adds a section with one global symbol at its start.
    pub fn def(mut self, section: &str, kind: SectionKind, symbol: &str, bytes: &[u8], refs: &[Ref<'_>]) -> Obj {
        self.add(section, kind, symbol, bytes, refs, How::Global);
        self
    }

    pub fn text(self, symbol: &str, bytes: &[u8], refs: &[Ref<'_>]) -> Obj {
        self.def(&format!(".text.{symbol}"), SectionKind::Text, symbol, bytes, refs)
    }

    pub fn weak(mut self, symbol: &str, bytes: &[u8]) -> Obj {
        self.add(&format!(".text.{symbol}"), SectionKind::Text, symbol, bytes, &[], How::Weak);
        self
    }

    pub fn local(mut self, symbol: &str, bytes: &[u8]) -> Obj {
        self.add(&format!(".text.{symbol}"), SectionKind::Text, symbol, bytes, &[], How::Local);
        self
    }

    pub fn bss(mut self, symbol: &str, len: u64, align: u64) -> Obj {
        let section = self.0.add_section(Vec::new(), b".bss".to_vec(), SectionKind::UninitializedData);
        let at = self.0.append_section_bss(section, len, align);
        self.symbol(symbol, section, (at, len), How::Global);
        self
    }

    /// A weak reference to `symbol` can then be made with [`Obj::text`].
    pub fn weak_reference(mut self, symbol: &str) -> Obj {
        self.undefined(symbol, true);
        self
    }

    pub fn comdat(mut self, symbol: &str, bytes: &[u8]) -> Obj {
        let (section, id) = self.add(&format!(".text.{symbol}"), SectionKind::Text, symbol, bytes, &[], How::Weak);
        self.0.add_comdat(Comdat { kind: ComdatKind::Any, symbol: id, sections: vec![section] });
        self
    }

    /// Sets the flags of the section added last.
    pub fn flags(mut self, flags: u32) -> Obj {
        self.0.section_mut(self.1).flags = SectionFlags::Elf { sh_flags: u64::from(flags) };
        self
    }

    pub fn build(self) -> Vec<u8> {
        self.0.write().unwrap()
    }

    fn add(&mut self, section: &str, kind: SectionKind, symbol: &str, bytes: &[u8], refs: &[Ref<'_>], how: How) -> (SectionId, SymbolId) {
        let id = self.0.add_section(Vec::new(), section.as_bytes().to_vec(), kind);
        let at = self.0.append_section_data(id, bytes, 16);
        self.1 = id;
        let symbol = self.symbol(symbol, id, (at, bytes.len() as u64), how);
        for &(offset, r_type, target, addend) in refs {
            let target = match self.0.symbol_id(target.as_bytes()) {
                Some(id) => id,
                None => self.undefined(target, false),
            };
            let flags = RelocationFlags::Elf { r_type };
            self.0.add_relocation(id, Relocation { offset: at + offset, symbol: target, addend, flags }).unwrap();
        }
        (id, symbol)
    }

    fn symbol(&mut self, name: &str, section: SectionId, (value, size): (u64, u64), how: How) -> SymbolId {
        self.0.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size,
            kind: SymbolKind::Text,
            scope: if how == How::Local { SymbolScope::Compilation } else { SymbolScope::Linkage },
            weak: how == How::Weak,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    }

    fn undefined(&mut self, name: &str, weak: bool) -> SymbolId {
        self.0.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Unknown,
            weak,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        })
    }
}

/// Packs objects into an archive: `!<arch>`, then per member a 60-byte header and the bytes, padded to 2 (ar(5)).
pub fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        out.extend_from_slice(format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", format!("{name}/"), 0, 0, 0, 644, data.len()).as_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

pub fn input<'a>(archive: &'a [u8], roots: &[&str]) -> LinkInput<'a> {
    LinkInput { archive, roots: roots.iter().map(|r| (*r).to_owned()).collect(), ..LinkInput::default() }
}

/// Links members with roots and returns the image.
pub fn linked(members: &[(&str, Vec<u8>)], roots: &[&str]) -> Linked {
    link(&input(&archive(members), roots)).unwrap_or_else(|e| panic!("{e}"))
}

/// Links members with roots and returns the error's text.
pub fn errors(members: &[(&str, Vec<u8>)], roots: &[&str]) -> String {
    link(&input(&archive(members), roots)).unwrap_err().to_string()
}

/// Returns the address of the only live section with this name.
pub fn address(linked: &Linked, section: &str) -> u64 {
    let found: Vec<_> = linked.sections.iter().filter(|s| s.name == section).collect();
    assert_eq!(found.len(), 1, "{section} in\n{}", linked.map);
    found[0].address
}

/// Returns `len` bytes of the image at a virtual address.
pub fn at(linked: &Linked, address: u64, len: usize) -> Vec<u8> {
    use object::{Object as _, ObjectSegment as _};
    let file = object::File::parse(&*linked.elf).unwrap();
    let segment = file.segments().find(|s| s.address() <= address && address < s.address() + s.size()).unwrap();
    let from = (address - segment.address()) as usize;
    segment.data().unwrap()[from..from + len].to_vec()
}

pub const PC32: u32 = elf::R_X86_64_PC32;
pub const PLT32: u32 = elf::R_X86_64_PLT32;
pub const ABS64: u32 = elf::R_X86_64_64;
