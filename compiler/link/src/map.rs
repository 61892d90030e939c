//! The map: every live section with its address, its size, its object, and the chain of references that keeps it.
//!
//! ```text
//! entry 0x200010, 45272 bytes in 174 of 1222 sections of 5 of 93 objects
//!
//! .text 0xffffffff80200000 14032 bytes
//! ffffffff80200000    123 .boot.text               boot.o: root `linux64_start`
//! ffffffff80200080     97 .text.kmain              kernel.o: `kmain` in .boot.text of boot.o; root `linux64_start`
//! ```

use std::fmt::Write as _;

use crate::input::{Objects, lossy};
use crate::layout::{Base, Layout, Segment};
use crate::mark::{Live, Reason};
use crate::{LinkInput, Stats};

/// A section of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSection {
    /// Virtual address.
    pub address: u64,
    /// Size in bytes.
    pub len_bytes: u64,
    /// Which part of the image it is in.
    pub segment: Segment,
    /// Its name in the object.
    pub name: String,
    /// The archive member, or the number of the extra object.
    pub object: String,
    /// What refers to it, as an index into the same list, and by which symbol; `None` for roots and kept sections.
    pub parent: Option<(usize, String)>,
}

/// Returns the live sections by address.
pub(crate) fn sections(objects: &Objects<'_>, live: &Live, layout: &Layout) -> Vec<LiveSection> {
    let mut position = vec![0; objects.section_object.len()];
    for (i, &number) in layout.order.iter().enumerate() {
        position[number as usize] = i;
    }
    let describe = |&number: &u32| {
        let section = objects.section(number);
        let address = layout.address[number as usize];
        let parent = match live.reason[number as usize] {
            Some(Reason::Reference { section, symbol }) => {
                let object = objects.object_of(section);
                let name = object.symbols.get(symbol as usize).map_or(String::new(), |s| lossy(s.name));
                Some((position[section as usize], name))
            }
            _ => None,
        };
        let segment = match () {
            () if section.kind == object::elf::SHT_NOBITS => Segment::Bss,
            () if address < layout.ranges[Segment::Rodata as usize].0 => Segment::Text,
            () if address < layout.ranges[Segment::Data as usize].0 => Segment::Rodata,
            () => Segment::Data,
        };
        LiveSection {
            address,
            len_bytes: section.size,
            segment,
            name: lossy(section.name),
            object: objects.object_of(number).name.clone(),
            parent,
        }
    };
    layout.order.iter().map(describe).collect()
}

/// Returns how each chain of references begins, by index in the list of live sections: what is said of a section without a parent.
pub(crate) fn beginnings(input: &LinkInput<'_>, live: &Live, layout: &Layout) -> Vec<Option<String>> {
    let text = |&number: &u32| match live.reason[number as usize]? {
        Reason::Root(i) => Some(format!("root `{}`", input.roots[i as usize])),
        Reason::Keep(i) => Some(format!("keep rule `{}`", input.keep[i as usize])),
        Reason::Bounds => Some("its bounds are asked for".to_owned()),
        Reason::Reference { .. } => None,
    };
    layout.order.iter().map(text).collect()
}

/// Returns the map as text.
pub(crate) fn text(
    base: Base,
    sections: &[LiveSection],
    beginnings: &[Option<String>],
    layout: &Layout,
    stats: &Stats,
    entry: u64,
) -> String {
    let mut out = String::with_capacity(sections.len() * 160);
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "entry {entry:#x}, {} bytes in {} of {} sections of {} of {} objects",
        stats.text_bytes + stats.rodata_bytes + stats.data_bytes,
        stats.sections.1,
        stats.sections.0,
        stats.objects.1,
        stats.objects.0
    );
    for segment in Segment::ALL {
        let (start, end) = layout.ranges[segment as usize];
        let _ =
            writeln!(out, "\n{} {start:#x} physical {:#x} {} bytes", segment.name(), start.wrapping_sub(base.virtual_offset), end - start);
        for (i, section) in sections.iter().enumerate().filter(|(_, s)| s.segment == segment) {
            let _ = write!(out, "{:016x} {:6} {:<32} {}: ", section.address, section.len_bytes, section.name, section.object);
            chain(&mut out, sections, beginnings, i);
        }
        if segment == Segment::Rodata && !layout.got.is_empty() {
            let _ = writeln!(out, "{:016x} {:6} global offset table", layout.got_start, 8 * layout.got.len());
        }
    }
    out
}

/// Writes the nearest reference, how many stand between it and the beginning, and the beginning.
fn chain(out: &mut String, sections: &[LiveSection], beginnings: &[Option<String>], index: usize) {
    let mut at = index;
    let mut hops = 0;
    while let Some((parent, symbol)) = &sections[at].parent {
        if hops == 0 {
            let what = if symbol.is_empty() { &sections[index].name } else { symbol };
            let _ = write!(out, "`{what}` in {} of {}; ", sections[*parent].name, sections[*parent].object);
        }
        at = *parent;
        hops += 1;
    }
    if hops > 1 {
        let _ = write!(out, "{} more; ", hops - 1);
    }
    let _ = writeln!(out, "{}", beginnings[at].as_deref().unwrap_or(""));
}
