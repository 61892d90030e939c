//! Which sections are live, and why.
//!
//! Starts at the roots and follows relocations. The first live section of an archive member loads the member: its sections that a keep rule or an asked-for
//! `__start_NAME` names become live as well. Members that nothing reaches are never looked at.

use std::collections::BTreeMap;

use object::elf;

use crate::input::{Objects, lossy};
use crate::symbols::{Symbols, Target, Unresolved};
use crate::{LinkError, LinkInput, Problem};

/// How many referrers of an undefined symbol an error names.
const REFERRERS_SHOWN: usize = 3;

/// Why a section is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It defines a root, by index in the input.
    Root(u32),
    /// A keep rule names it, by index in the input, in a loaded object.
    Keep(u32),
    /// Live code asks for the bounds of sections of this name.
    Bounds,
    /// A relocation of `section` refers to it by `symbol` (index in the object of `section`).
    Reference { section: u32, symbol: u32 },
}

/// The result: reasons by section number, and the live sections in the order of finding.
#[derive(Debug)]
pub(crate) struct Live {
    pub reason: Vec<Option<Reason>>,
    pub order: Vec<u32>,
    /// By object.
    pub loaded: Vec<bool>,
}

impl Live {
    pub fn is_live(&self, section: u32) -> bool {
        self.reason[section as usize].is_some()
    }
}

struct Marker<'m, 'a> {
    input: &'m LinkInput<'m>,
    objects: &'m Objects<'a>,
    symbols: &'m mut Symbols<'a>,
    live: Live,
    problems: Vec<Problem>,
    undefined: BTreeMap<&'a [u8], Vec<(u32, u64)>>,
    duplicate: BTreeMap<&'a [u8], Vec<(u32, u32)>>,
    bounds_done: usize,
}

/// Marks everything that the roots reach.
pub(crate) fn mark<'a>(input: &LinkInput<'_>, objects: &Objects<'a>, symbols: &mut Symbols<'a>) -> Result<Live, LinkError> {
    let sections = objects.section_object.len();
    let live = Live { reason: vec![None; sections], order: Vec::new(), loaded: vec![false; objects.list.len()] };
    let mut marker = Marker {
        input,
        objects,
        symbols,
        live,
        problems: Vec::new(),
        undefined: BTreeMap::new(),
        duplicate: BTreeMap::new(),
        bounds_done: 0,
    };
    marker.run();
    marker.finish()
}

impl<'a> Marker<'_, 'a> {
    fn run(&mut self) {
        for object in 0..self.objects.extra_count {
            self.load(object as u32);
        }
        for (i, root) in self.input.roots.iter().enumerate() {
            match self.symbols.known(self.objects, root.as_bytes()) {
                Some(Ok(Target::Section { section, .. })) => self.mark(section, Reason::Root(i as u32)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.problems.push(Problem::UndefinedRoot { symbol: root.clone() }),
            }
            if let Some(definitions) = self.symbols.duplicates(root.as_bytes()) {
                self.report_duplicate(root.clone(), &definitions);
            }
        }
        let mut next = 0;
        while let Some(&section) = self.live.order.get(next) {
            next += 1;
            self.follow(section);
        }
    }

    fn mark(&mut self, section: u32, reason: Reason) {
        let slot = &mut self.live.reason[section as usize];
        if slot.is_some() {
            return;
        }
        *slot = Some(reason);
        self.live.order.push(section);
        let s = self.objects.section(section);
        let flags = s.flags;
        let has = |flag: u32| flags & u64::from(flag) != 0;
        if !has(elf::SHF_ALLOC) {
            let reason = "a reference to a section that is not part of the image".to_owned();
            self.problems.push(Problem::Relocation { reason, place: self.objects.place(section, 0) });
        }
        if has(elf::SHF_TLS) {
            self.problems.push(Problem::ThreadLocal { place: self.objects.place(section, 0) });
        }
        if has(elf::SHF_WRITE) && has(elf::SHF_EXECINSTR) {
            self.problems.push(Problem::WritableCode { place: self.objects.place(section, 0) });
        }
        if has(elf::SHF_COMPRESSED) {
            let reason = "a compressed section in the image".to_owned();
            self.problems.push(Problem::Relocation { reason, place: self.objects.place(section, 0) });
        }
        self.load(self.objects.section_object[section as usize]);
    }

    /// Makes the kept sections of a newly loaded object live.
    fn load(&mut self, object: u32) {
        if std::mem::replace(&mut self.live.loaded[object as usize], true) {
            return;
        }
        let o = &self.objects.list[object as usize];
        for (i, section) in o.sections.iter().enumerate() {
            if !section.is_allocated() || section.is_discarded {
                continue;
            }
            let number = o.first_section + i as u32;
            if let Some(rule) = self.input.keep.iter().position(|rule| matches(rule, section.name)) {
                self.mark(number, Reason::Keep(rule as u32));
            } else if self.symbols.bounds[..self.bounds_done].contains(&section.name) {
                self.mark(number, Reason::Bounds);
            }
        }
    }

    fn follow(&mut self, section: u32) {
        let object = self.objects.section_object[section as usize];
        for reloc in self.objects.section(section).relocs() {
            if reloc.kind == elf::R_X86_64_NONE {
                continue;
            }
            let (answer, is_new) = self.symbols.resolve(self.objects, object, reloc.symbol);
            let symbol = self.objects.list[object as usize].symbols.get(reloc.symbol as usize);
            match answer {
                // A weak reference keeps nothing; whether its target is live is known after marking.
                Ok(Target::Section { .. }) if symbol.is_some_and(|s| s.is_weak() && s.at == crate::input::At::Undefined) => {}
                Ok(Target::Section { section: to, .. }) => self.mark(to, Reason::Reference { section, symbol: reloc.symbol }),
                Ok(Target::Start(_) | Target::Stop(_)) => self.keep_bounded(),
                Ok(_) => {}
                Err(why) => self.unresolved(why, symbol.map_or(&[][..], |s| s.name), section, reloc.offset),
            }
            if is_new
                && let Some(symbol) = symbol
                && !symbol.is_local()
                && let Some(definitions) = self.symbols.duplicates(symbol.name)
            {
                self.duplicate.insert(symbol.name, definitions);
            }
        }
    }

    /// Marks the sections of newly asked-for bounds in the objects loaded so far.
    fn keep_bounded(&mut self) {
        while self.bounds_done < self.symbols.bounds.len() {
            let name = self.symbols.bounds[self.bounds_done];
            self.bounds_done += 1;
            for (o, object) in self.objects.list.iter().enumerate() {
                if !self.live.loaded[o] {
                    continue;
                }
                for (i, section) in object.sections.iter().enumerate() {
                    if section.name == name && section.is_allocated() && !section.is_discarded {
                        self.mark(object.first_section + i as u32, Reason::Bounds);
                    }
                }
            }
        }
    }

    fn unresolved(&mut self, why: Unresolved, name: &'a [u8], section: u32, offset: u64) {
        let reason = match why {
            Unresolved::Undefined => {
                self.undefined.entry(name).or_default().push((section, offset));
                return;
            }
            Unresolved::Common => format!("common symbol `{}` (compile with -fno-common)", lossy(name)),
            Unresolved::Discarded => "a reference to a local symbol of a discarded section group".to_owned(),
            Unresolved::NoSymbol => "a relocation against a symbol that does not exist".to_owned(),
            Unresolved::Indirect => format!("`{}` is an indirect function", lossy(name)),
        };
        self.problems.push(Problem::Relocation { reason, place: self.objects.place(section, offset) });
    }

    fn report_duplicate(&mut self, symbol: String, definitions: &[(u32, u32)]) {
        let definitions = definitions
            .iter()
            .map(|&(object, symbol)| {
                let o = &self.objects.list[object as usize];
                let s = &o.symbols[symbol as usize];
                match s.at {
                    crate::input::At::Section(index) => self.objects.place(o.first_section + index, s.value),
                    _ => crate::Place { object: o.name.clone(), section: "absolute".to_owned(), function: None, offset: s.value },
                }
            })
            .collect();
        self.problems.push(Problem::Duplicate { symbol, definitions });
    }

    fn finish(mut self) -> Result<Live, LinkError> {
        for (name, referrers) in std::mem::take(&mut self.undefined) {
            let shown = referrers.iter().take(REFERRERS_SHOWN).map(|&(section, offset)| self.objects.place(section, offset)).collect();
            self.problems.push(Problem::Undefined { symbol: lossy(name), referrers: shown, count: referrers.len() });
        }
        for (name, definitions) in std::mem::take(&mut self.duplicate) {
            if !self.input.roots.iter().any(|r| r.as_bytes() == name) {
                self.report_duplicate(lossy(name), &definitions);
            }
        }
        if self.problems.is_empty() { Ok(self.live) } else { Err(LinkError { problems: self.problems }) }
    }
}

/// A rule is a section name, or a prefix followed by `*`.
fn matches(rule: &str, name: &[u8]) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == rule.as_bytes(),
    }
}
