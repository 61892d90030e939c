//! Which definition a name means.
//!
//! Every global name of every object is in one table from the start: strong definitions beat weak ones, among equals the first object wins (extra
//! objects come first). A second strong definition is remembered and is an error only when live code refers to the name.

use rustc_hash::FxHashMap;

use crate::input::{At, Objects};
use crate::layout::LinkerSymbol;

/// What a reference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// Bytes from the start of a section, by the section's number.
    Section { section: u32, offset: u64 },
    /// A number.
    Absolute(u64),
    /// A symbol that the linker defines.
    Linker(LinkerSymbol),
    /// `__start_NAME` and `__stop_NAME`, by number of the name in [`Symbols::bounds`].
    Start(u32),
    /// See above.
    Stop(u32),
}

/// Why a reference means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unresolved {
    Undefined,
    Common,
    /// A local symbol of a section that another object's COMDAT group replaced.
    Discarded,
    /// The relocation's symbol index is beyond the table.
    NoSymbol,
    /// A symbol whose address is computed at run time.
    Indirect,
}

#[derive(Debug, Clone, Copy)]
struct Definition {
    object: u32,
    symbol: u32,
    is_weak: bool,
}

#[derive(Debug)]
pub(crate) struct Symbols<'a> {
    table: FxHashMap<&'a [u8], Definition>,
    /// Further strong definitions, in the order of objects.
    duplicates: FxHashMap<&'a [u8], Vec<(u32, u32)>>,
    /// Answers by the symbol's number.
    cache: Vec<Option<Result<Target, Unresolved>>>,
    /// Section names whose bounds live code asks for, in the order of asking.
    pub bounds: Vec<&'a [u8]>,
}

impl<'a> Symbols<'a> {
    pub fn new(objects: &Objects<'a>) -> Symbols<'a> {
        let mut table: FxHashMap<&[u8], Definition> = FxHashMap::default();
        let mut duplicates: FxHashMap<&[u8], Vec<(u32, u32)>> = FxHashMap::default();
        for (o, object) in objects.list.iter().enumerate() {
            for (s, symbol) in object.symbols.iter().enumerate() {
                if symbol.is_local() || symbol.at == At::Undefined || symbol.name.is_empty() {
                    continue;
                }
                let new = Definition { object: o as u32, symbol: s as u32, is_weak: symbol.is_weak() };
                table
                    .entry(symbol.name)
                    .and_modify(|old| match (old.is_weak, new.is_weak) {
                        (true, false) => *old = new,
                        (false, false) => duplicates.entry(symbol.name).or_default().push((new.object, new.symbol)),
                        (_, true) => {}
                    })
                    .or_insert(new);
            }
        }
        Symbols { table, duplicates, cache: vec![None; objects.symbol_count], bounds: Vec::new() }
    }

    /// Returns the sections and offsets of all strong definitions of a name that has more than one.
    pub fn duplicates(&self, name: &[u8]) -> Option<Vec<(u32, u32)>> {
        let more = self.duplicates.get(name)?;
        let first = self.table.get(name)?;
        Some(std::iter::once((first.object, first.symbol)).chain(more.iter().copied()).collect())
    }

    /// Resolves a symbol of an object; the answer is remembered. `is_new` says whether it was asked for the first time.
    pub fn resolve(&mut self, objects: &Objects<'a>, object: u32, symbol: u32) -> (Result<Target, Unresolved>, bool) {
        let o = &objects.list[object as usize];
        if symbol as usize >= o.symbols.len() {
            return (Err(Unresolved::NoSymbol), false);
        }
        let number = (o.first_symbol + symbol) as usize;
        if let Some(answer) = self.cache[number] {
            return (answer, false);
        }
        let s = &o.symbols[symbol as usize];
        let answer = if symbol == 0 {
            // The psABI's reserved symbol: value 0.
            Ok(Target::Absolute(0))
        } else if s.is_local() {
            self.definition(objects, object, symbol)
        } else {
            self.global(objects, s.name, s.is_weak())
        };
        self.cache[number] = Some(answer);
        (answer, true)
    }

    /// Returns the remembered answer of a symbol that live code refers to.
    pub fn resolved(&self, objects: &Objects<'a>, object: u32, symbol: u32) -> Option<Target> {
        let number = objects.list[object as usize].first_symbol as usize + symbol as usize;
        self.cache.get(number).copied().flatten().and_then(Result::ok)
    }

    /// Resolves a global name; an undefined weak one is 0.
    pub fn global(&mut self, objects: &Objects<'a>, name: &'a [u8], is_weak: bool) -> Result<Target, Unresolved> {
        match self.known(objects, name) {
            Some(answer) => answer,
            None => match self.bound(name) {
                Some(target) => Ok(target),
                None if is_weak => Ok(Target::Absolute(0)),
                None => Err(Unresolved::Undefined),
            },
        }
    }

    /// Resolves a name that an object or the linker defines.
    pub fn known(&self, objects: &Objects<'a>, name: &[u8]) -> Option<Result<Target, Unresolved>> {
        if let Some(symbol) = LinkerSymbol::by_name(name) {
            return Some(Ok(Target::Linker(symbol)));
        }
        self.table.get(name).map(|d| self.definition(objects, d.object, d.symbol))
    }

    fn definition(&self, objects: &Objects<'a>, object: u32, symbol: u32) -> Result<Target, Unresolved> {
        let o = &objects.list[object as usize];
        let s = &o.symbols[symbol as usize];
        if s.kind == object::elf::STT_GNU_IFUNC {
            return Err(Unresolved::Indirect);
        }
        match s.at {
            At::Section(index) if o.sections[index as usize].is_discarded => Err(Unresolved::Discarded),
            At::Section(index) => Ok(Target::Section { section: o.first_section + index, offset: s.value }),
            At::Absolute => Ok(Target::Absolute(s.value)),
            At::Common => Err(Unresolved::Common),
            At::Undefined => Err(Unresolved::Undefined),
        }
    }

    /// `__start_NAME` and `__stop_NAME` of a section name that is a C identifier.
    fn bound(&mut self, name: &'a [u8]) -> Option<Target> {
        let (section, is_start) = match name.strip_prefix(b"__start_") {
            Some(section) => (section, true),
            None => (name.strip_prefix(b"__stop_")?, false),
        };
        let is_identifier = section.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
            && section.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if !is_identifier {
            return None;
        }
        let number = self.bounds.iter().position(|b| *b == section).unwrap_or_else(|| {
            self.bounds.push(section);
            self.bounds.len() - 1
        }) as u32;
        Some(if is_start { Target::Start(number) } else { Target::Stop(number) })
    }
}
