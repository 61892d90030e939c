//! Bytes → objects. Everything later passes index is checked here, so that a malformed archive is an error and never a panic.
//!
//! Members without the ELF magic are passed over, as ld passes over what it cannot link in an archive of mixed content (rustc's `lib.rmeta`).

use object::LittleEndian as LE;
use object::elf;
use object::read::archive::ArchiveFile;
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};
use rustc_hash::FxHashMap;

use crate::{LinkError, LinkInput, Place, Problem};

type Elf = elf::FileHeader64<LE>;
type RelaEntry = elf::Rela64<LE>;

/// The image starts on such a boundary, so greater alignments cannot be kept.
const MAX_ALIGN: u64 = crate::PHYSICAL_START;

/// All objects, extra ones first. Sections and symbols also have a number across all objects: `first_section + index`, `first_symbol + index`.
#[derive(Debug)]
pub(crate) struct Objects<'a> {
    pub list: Vec<Object<'a>>,
    /// Object of each section, by the section's number.
    pub section_object: Vec<u32>,
    pub symbol_count: usize,
    pub extra_count: usize,
}

#[derive(Debug)]
pub(crate) struct Object<'a> {
    pub name: String,
    pub sections: Vec<Section<'a>>,
    pub symbols: Vec<Symbol<'a>>,
    pub first_section: u32,
    pub first_symbol: u32,
    groups: Vec<Group<'a>>,
}

/// A COMDAT group: one of the objects with the same signature provides its sections.
#[derive(Debug)]
struct Group<'a> {
    signature: &'a [u8],
    members: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub name: &'a [u8],
    pub flags: u64,
    pub kind: u32,
    pub align: u64,
    pub size: u64,
    /// Empty for `SHT_NOBITS`, else `size` bytes.
    pub data: &'a [u8],
    pub relocations: &'a [RelaEntry],
    /// Another object provides this section's COMDAT group.
    pub is_discarded: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    pub name: &'a [u8],
    pub value: u64,
    pub size: u64,
    pub at: At,
    pub binding: u8,
    pub kind: u8,
}

/// Where a symbol table entry points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Undefined,
    Absolute,
    Common,
    /// Index in the object's sections.
    Section(u32),
}

/// One relocation, decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reloc {
    pub offset: u64,
    pub kind: u32,
    /// Index in the object's symbols, not yet checked.
    pub symbol: u32,
    pub addend: i64,
}

impl Section<'_> {
    pub fn is_allocated(&self) -> bool {
        self.flags & u64::from(elf::SHF_ALLOC) != 0
    }

    pub fn relocs(&self) -> impl Iterator<Item = Reloc> + '_ {
        self.relocations.iter().map(|r| Reloc {
            offset: r.r_offset(LE),
            kind: r.r_type(LE, false),
            symbol: r.r_sym(LE, false),
            addend: r.r_addend(LE),
        })
    }
}

impl Symbol<'_> {
    pub fn is_local(&self) -> bool {
        self.binding == elf::STB_LOCAL
    }

    pub fn is_weak(&self) -> bool {
        self.binding == elf::STB_WEAK
    }
}

impl<'a> Objects<'a> {
    pub fn object_of(&self, section: u32) -> &Object<'a> {
        &self.list[self.section_object[section as usize] as usize]
    }

    pub fn section(&self, section: u32) -> &Section<'a> {
        let object = self.object_of(section);
        &object.sections[(section - object.first_section) as usize]
    }

    pub fn allocated(&self) -> usize {
        self.list.iter().flat_map(|o| &o.sections).filter(|s| s.is_allocated()).count()
    }

    /// Describes a place for an error text; looks for the covering symbol only here, where time does not matter.
    pub fn place(&self, section: u32, offset: u64) -> Place {
        let object = self.object_of(section);
        let index = section - object.first_section;
        let covers = |s: &&Symbol<'_>| {
            s.at == At::Section(index)
                && matches!(s.kind, elf::STT_FUNC | elf::STT_OBJECT | elf::STT_NOTYPE)
                && !s.name.is_empty()
                && s.value <= offset
                && (s.size == 0 || offset - s.value < s.size)
        };
        let function = object.symbols.iter().filter(covers).max_by_key(|s| (s.value, s.size)).map(|s| lossy(s.name));
        Place { object: object.name.clone(), section: lossy(self.section(section).name), function, offset }
    }
}

pub(crate) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Reads all objects of a link and decides the COMDAT groups.
pub(crate) fn read<'a>(input: &'a LinkInput<'_>) -> Result<Objects<'a>, LinkError> {
    let mut objects = Objects { list: Vec::new(), section_object: Vec::new(), symbol_count: 0, extra_count: input.extra_objects.len() };
    let mut problems = Vec::new();
    for (i, data) in input.extra_objects.iter().enumerate() {
        objects.add(format!("extra object {i}"), data, &mut problems);
    }
    match members(input.archive) {
        Ok(members) => {
            for (name, data) in members {
                if data.starts_with(&elf::ELFMAG) {
                    objects.add(lossy(name), data, &mut problems);
                }
            }
        }
        Err(reason) => problems.push(Problem::Archive { reason }),
    }
    if !problems.is_empty() {
        return Err(LinkError { problems });
    }
    objects.decide_groups();
    Ok(objects)
}

/// Name and contents of an archive member.
type Member<'a> = (&'a [u8], &'a [u8]);

fn members(archive: &[u8]) -> Result<Vec<Member<'_>>, String> {
    if archive.is_empty() {
        return Ok(Vec::new());
    }
    let file = ArchiveFile::parse(archive).map_err(|e| e.to_string())?;
    if file.is_thin() {
        return Err("thin archives have no contents".to_owned());
    }
    let mut members = Vec::new();
    for member in file.members() {
        let member = member.map_err(|e| e.to_string())?;
        members.push((member.name(), member.data(archive).map_err(|e| e.to_string())?));
    }
    Ok(members)
}

impl<'a> Objects<'a> {
    fn add(&mut self, name: String, data: &'a [u8], problems: &mut Vec<Problem>) {
        let (Ok(first_section), Ok(first_symbol)) = (u32::try_from(self.section_object.len()), u32::try_from(self.symbol_count)) else {
            problems.push(Problem::Archive { reason: "more than 4 G sections or symbols".to_owned() });
            return;
        };
        match read_object(data) {
            Ok((sections, symbols, groups)) => {
                self.section_object.resize(self.section_object.len() + sections.len(), self.list.len() as u32);
                self.symbol_count += symbols.len();
                self.list.push(Object { name, sections, symbols, first_section, first_symbol, groups });
            }
            Err(reason) => problems.push(Problem::Object { object: name, reason }),
        }
    }

    /// The first object with a signature provides the group's sections; the symbols of all others become references to it.
    fn decide_groups(&mut self) {
        let mut providers: FxHashMap<&[u8], usize> = FxHashMap::default();
        for (index, object) in self.list.iter_mut().enumerate() {
            let mut has_discarded = false;
            for group in &object.groups {
                if *providers.entry(group.signature).or_insert(index) != index {
                    for &member in &group.members {
                        object.sections[member as usize].is_discarded = true;
                        has_discarded = true;
                    }
                }
            }
            if has_discarded {
                for symbol in &mut object.symbols {
                    if let At::Section(section) = symbol.at
                        && object.sections[section as usize].is_discarded
                        && symbol.binding != elf::STB_LOCAL
                    {
                        symbol.at = At::Undefined;
                    }
                }
            }
        }
    }
}

type Parts<'a> = (Vec<Section<'a>>, Vec<Symbol<'a>>, Vec<Group<'a>>);

fn read_object(data: &[u8]) -> Result<Parts<'_>, String> {
    let text = |e: object::read::Error| e.to_string();
    let header = Elf::parse(data).map_err(text)?;
    if !header.is_little_endian() || header.e_machine.get(LE) != elf::EM_X86_64 || header.e_type.get(LE) != elf::ET_REL {
        return Err("not a relocatable object for x86-64".to_owned());
    }
    let table = header.sections(LE, data).map_err(text)?;
    let mut sections = Vec::with_capacity(table.len());
    for header in table.iter() {
        let name = table.section_name(LE, header).map_err(text)?;
        let size = header.sh_size(LE);
        let flags = header.sh_flags(LE);
        let is_needed = flags & u64::from(elf::SHF_ALLOC) != 0;
        let bytes = if is_needed { header.data(LE, data).map_err(text)? } else { &[] };
        let align = header.sh_addralign(LE).max(1);
        if is_needed && (!align.is_power_of_two() || align > MAX_ALIGN) {
            return Err(format!("section `{}` has alignment {align}", lossy(name)));
        }
        sections.push(Section { name, flags, kind: header.sh_type(LE), align, size, data: bytes, relocations: &[], is_discarded: false });
    }
    let table_of_symbols = table.symbols(LE, data, elf::SHT_SYMTAB).map_err(text)?;
    let mut symbols = Vec::with_capacity(table_of_symbols.len());
    for (index, symbol) in table_of_symbols.enumerate() {
        let at = match symbol.st_shndx(LE) {
            elf::SHN_UNDEF => At::Undefined,
            elf::SHN_ABS => At::Absolute,
            elf::SHN_COMMON => At::Common,
            _ => match table_of_symbols.symbol_section(LE, symbol, index).map_err(text)? {
                Some(section) if section.0 < sections.len() => At::Section(section.0 as u32),
                _ => return Err(format!("symbol {} is in no section", index.0)),
            },
        };
        let name = table_of_symbols.symbol_name(LE, symbol).map_err(text)?;
        symbols.push(Symbol {
            name,
            value: symbol.st_value(LE),
            size: symbol.st_size(LE),
            at,
            binding: symbol.st_bind(),
            kind: symbol.st_type(),
        });
    }
    let mut groups = Vec::new();
    for header in table.iter() {
        match header.sh_type(LE) {
            elf::SHT_REL => return Err("relocations without addends".to_owned()),
            elf::SHT_RELA => {
                let target = header.sh_info(LE) as usize;
                let Some(section) = sections.get_mut(target).filter(|s| s.is_allocated()) else { continue };
                if !section.relocations.is_empty() {
                    return Err(format!("two relocation sections for `{}`", lossy(section.name)));
                }
                section.relocations = header.rela(LE, data).map_err(text)?.map_or(&[][..], |(entries, _)| entries);
            }
            elf::SHT_GROUP => {
                let Some((flags, entries)) = header.group(LE, data).map_err(text)? else { continue };
                if flags & elf::GRP_COMDAT == 0 {
                    continue;
                }
                let signature = symbols.get(header.sh_info(LE) as usize).ok_or("a group without signature")?;
                let signature = match signature.at {
                    // The assembler names a group by a section symbol, which has no name of its own.
                    At::Section(section) if signature.name.is_empty() => sections[section as usize].name,
                    _ => signature.name,
                };
                let members: Vec<u32> = entries.iter().map(|e| e.get(LE)).filter(|&e| (e as usize) < sections.len()).collect();
                groups.push(Group { signature, members });
            }
            _ => {}
        }
    }
    Ok((sections, symbols, groups))
}
