//! Where everything goes.
//!
//! Order inside a segment: `.boot*` first, then by object and section number, with sections whose bounds are asked for side by side. Nothing depends on
//! hashing, so equal inputs give equal images.

use object::elf;
use rustc_hash::FxHashMap;

use crate::input::Objects;
use crate::mark::Live;
use crate::reloc::{is_got, relaxation};
use crate::symbols::{Symbols, Target};
use crate::{LinkError, Problem};

/// Virtual minus physical address of the image: -2 GiB, where the `kernel` code model expects code to be (psABI, "Code models").
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// Physical address of the first byte: 2 MiB, above everything that firmware and monitors use, on a boundary of 2 MiB pages.
pub const PHYSICAL_START: u64 = 0x20_0000;

/// Where the image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Physical address of the first byte, a multiple of 4096.
    pub physical_start: u64,
    /// What is added to a physical address to get the virtual one, modulo 2^64.
    pub virtual_offset: u64,
}

impl Default for Base {
    /// A kernel's.
    fn default() -> Base {
        Base { physical_start: PHYSICAL_START, virtual_offset: KERNEL_BASE }
    }
}

impl Base {
    fn start(self) -> u64 {
        self.physical_start.wrapping_add(self.virtual_offset)
    }
}

/// Unit in which segments get their own access rights.
pub(crate) const PAGE: u64 = 4096;

/// Displacements are 32 bits and signed; half of that reach is kept free for addends.
const MAX_IMAGE: u64 = 1 << 30;

/// The parts of the image with access rights of their own; `Bss` shares a program header with `Data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Code: read and execute.
    Text,
    /// Notes, constants, constants with addresses in them, the global offset table: read.
    Rodata,
    /// Initialised data: read and write.
    Data,
    /// Zeroed data: read and write.
    Bss,
}

impl Segment {
    /// All, in the order of addresses.
    pub const ALL: [Segment; 4] = [Segment::Text, Segment::Rodata, Segment::Data, Segment::Bss];

    /// The output section's name.
    pub const fn name(self) -> &'static str {
        match self {
            Segment::Text => ".text",
            Segment::Rodata => ".rodata",
            Segment::Data => ".data",
            Segment::Bss => ".bss",
        }
    }
}

/// A symbol that the linker defines. The bounds of what gets access rights of its own are page-aligned: all starts but that of zeroed data, the ends of
/// code and constants, and the end of the kernel; the ends of data and zeroed data are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LinkerSymbol {
    KernelStart,
    KernelEnd,
    Start(Segment),
    End(Segment),
}

impl LinkerSymbol {
    pub const ALL: [(&'static str, LinkerSymbol); 10] = [
        ("__kernel_start", LinkerSymbol::KernelStart),
        ("__kernel_end", LinkerSymbol::KernelEnd),
        ("__text_start", LinkerSymbol::Start(Segment::Text)),
        ("__text_end", LinkerSymbol::End(Segment::Text)),
        ("__rodata_start", LinkerSymbol::Start(Segment::Rodata)),
        ("__rodata_end", LinkerSymbol::End(Segment::Rodata)),
        ("__data_start", LinkerSymbol::Start(Segment::Data)),
        ("__data_end", LinkerSymbol::End(Segment::Data)),
        ("__bss_start", LinkerSymbol::Start(Segment::Bss)),
        ("__bss_end", LinkerSymbol::End(Segment::Bss)),
    ];

    pub fn by_name(name: &[u8]) -> Option<LinkerSymbol> {
        if !name.starts_with(b"__") {
            return None;
        }
        Self::ALL.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, s)| *s)
    }
}

#[derive(Debug)]
pub(crate) struct Layout {
    /// Virtual address by section number; 0 for what is not live.
    pub address: Vec<u64>,
    /// Live sections by address.
    pub order: Vec<u32>,
    /// Half-open ranges of the segments.
    pub ranges: [(u64, u64); 4],
    /// The notes inside the read-only segment.
    pub notes: (u64, u64),
    /// What the slots of the global offset table hold.
    pub got: Vec<Target>,
    pub got_start: u64,
    got_slot: FxHashMap<Target, u32>,
    bounds: Vec<(u64, u64)>,
}

/// What the sort puts side by side inside a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    First,
    Other,
    /// Sections with bounds, by number of the name.
    Bounded(u32),
}

pub(crate) fn lay_out(base: Base, objects: &Objects<'_>, symbols: &Symbols<'_>, live: &Live) -> Result<Layout, LinkError> {
    let mut keyed: Vec<(Segment, Rank, u32)> = live.order.iter().map(|&s| key(objects, symbols, s)).collect();
    keyed.sort_unstable();

    let mut layout = Layout {
        address: vec![0; objects.section_object.len()],
        order: keyed.iter().map(|k| k.2).collect(),
        ranges: [(0, 0); 4],
        notes: (0, 0),
        got: Vec::new(),
        got_start: 0,
        got_slot: FxHashMap::default(),
        bounds: vec![(0, 0); symbols.bounds.len()],
    };
    layout.collect_got(objects, symbols, live);

    let start = base.start();
    // Relative to the start, so that nothing can wrap before the size check.
    let mut at = 0u64;
    let mut rest = keyed.as_slice();
    for segment in Segment::ALL {
        let mine = rest.partition_point(|k| k.0 == segment);
        let (sections, tail) = rest.split_at(mine);
        rest = tail;
        // Zeroed data follows the initialised data at once; its range begins where its first section can.
        let align = if segment == Segment::Bss { sections.iter().map(|k| objects.section(k.2).align).max().unwrap_or(1) } else { PAGE };
        at = at.next_multiple_of(align);
        let segment_start = at;
        for &(_, rank, number) in sections {
            let section = objects.section(number);
            at = at.next_multiple_of(section.align);
            layout.address[number as usize] = start + at;
            let begin = start + at;
            at = at.saturating_add(section.size);
            if at > MAX_IMAGE {
                return Err(Problem::TooLarge { len_bytes: at }.into());
            }
            if segment == Segment::Rodata && rank == Rank::First {
                layout.notes = (if layout.notes.0 == 0 { begin } else { layout.notes.0 }, start + at);
            }
            if let Rank::Bounded(name) = rank {
                let bound = &mut layout.bounds[name as usize];
                *bound = (if bound.0 == 0 { begin } else { bound.0 }, start + at);
            }
        }
        if segment == Segment::Rodata && !layout.got.is_empty() {
            at = at.next_multiple_of(8);
            layout.got_start = start + at;
            at += 8 * layout.got.len() as u64;
        }
        layout.ranges[segment as usize] = (start + segment_start, start + at);
    }
    // A name without sections has equal bounds, in the image rather than at 0.
    for bound in layout.bounds.iter_mut().filter(|b| b.0 == 0) {
        *bound = (layout.ranges[Segment::Rodata as usize].0, layout.ranges[Segment::Rodata as usize].0);
    }
    Ok(layout)
}

fn key(objects: &Objects<'_>, symbols: &Symbols<'_>, number: u32) -> (Segment, Rank, u32) {
    let section = objects.section(number);
    let has = |flag: u32| section.flags & u64::from(flag) != 0;
    let segment = if section.kind == elf::SHT_NOBITS {
        Segment::Bss
    } else if has(elf::SHF_EXECINSTR) {
        Segment::Text
    } else if has(elf::SHF_WRITE) && !section.name.starts_with(b".data.rel.ro") {
        Segment::Data
    } else {
        Segment::Rodata
    };
    let is_note = section.kind == elf::SHT_NOTE || section.name.starts_with(b".note");
    let rank = if let Some(name) = symbols.bounds.iter().position(|b| *b == section.name) {
        Rank::Bounded(name as u32)
    } else if section.name.starts_with(b".boot") || (segment == Segment::Rodata && is_note) {
        Rank::First
    } else {
        Rank::Other
    };
    // Only notes may come first among constants: PT_NOTE covers what does.
    let rank = if segment == Segment::Rodata && !is_note && rank == Rank::First { Rank::Other } else { rank };
    (segment, rank, number)
}

impl Layout {
    fn collect_got(&mut self, objects: &Objects<'_>, symbols: &Symbols<'_>, live: &Live) {
        for &number in &self.order {
            let object = objects.section_object[number as usize];
            let section = objects.section(number);
            for reloc in section.relocs().filter(|r| is_got(r.kind)) {
                let Some(target) = effective(symbols.resolved(objects, object, reloc.symbol), live) else { continue };
                if relaxation(section, &reloc, target).is_none() && !self.got_slot.contains_key(&target) {
                    self.got_slot.insert(target, self.got.len() as u32);
                    self.got.push(target);
                }
            }
        }
    }

    /// Returns the virtual address (or the number) that a target stands for.
    pub fn value(&self, target: Target) -> u64 {
        match target {
            Target::Section { section, offset } => self.address[section as usize].wrapping_add(offset),
            Target::Absolute(value) => value,
            Target::Linker(LinkerSymbol::KernelStart) => self.ranges[0].0,
            Target::Linker(LinkerSymbol::KernelEnd) => self.ranges[3].1.next_multiple_of(PAGE),
            Target::Linker(LinkerSymbol::Start(segment)) => self.ranges[segment as usize].0,
            Target::Linker(LinkerSymbol::End(segment @ (Segment::Text | Segment::Rodata))) => {
                self.ranges[segment as usize].1.next_multiple_of(PAGE)
            }
            Target::Linker(LinkerSymbol::End(segment)) => self.ranges[segment as usize].1,
            Target::Start(name) => self.bounds[name as usize].0,
            Target::Stop(name) => self.bounds[name as usize].1,
        }
    }

    /// Returns the address of the slot that holds a target's address.
    pub fn slot(&self, target: Target) -> Option<u64> {
        self.got_slot.get(&target).map(|&slot| self.got_start + 8 * u64::from(slot))
    }

    pub fn segment_len(&self, segment: Segment) -> u64 {
        let (start, end) = self.ranges[segment as usize];
        end - start
    }
}

/// A weak reference to something that nothing else kept is 0.
pub(crate) fn effective(target: Option<Target>, live: &Live) -> Option<Target> {
    match target? {
        Target::Section { section, .. } if !live.is_live(section) => Some(Target::Absolute(0)),
        target => Some(target),
    }
}
