//! The linker: an archive of kernel modules and the application's own object → a kernel ELF with only what that application reaches.
//!
//! Input is a GNU `ar` archive of x86-64 relocatable objects (ELF, `ET_REL`) and any number of further objects in memory; output is a static executable
//! in memory. No external tool, no script language, no file access. The passes, one file each:
//!
//! ```text
//! input    bytes   → objects with sections, symbols, relocations; everything checked once
//! symbols  objects → which definition a name means (strong over weak, first COMDAT group wins)
//! mark     roots   → live sections, each with the reason that made it live; nothing else is looked at again
//! layout   live    → addresses, GOT slots, addresses of the linker's own symbols
//! reloc    layout  → section bytes with relocations applied
//! write    bytes   → ELF file; map → the text that explains it
//! ```
//!
//! The image is one block: physical `0x200000`, virtual = physical + `0xffffffff80000000`, for the PVH and the 64-bit Linux entry alike:
//!
//! ```text
//! NOTE  notes that a keep rule names (the PVH note)   R     inside the second LOAD
//! LOAD  .boot.* text, other text                      R E   __kernel_start __text_start .. __text_end
//! LOAD  notes, .rodata, .data.rel.ro, GOT             R     __rodata_start .. __rodata_end
//! LOAD  .data | .bss                                  RW    __data_start .. __data_end | __bss_start .. __bss_end, __kernel_end
//! ```
//!
//! How it differs from ld(1): a name is looked up in the whole archive at once, so a strong definition in any member beats a weak one, whatever the order;
//! a weak *reference* makes nothing live and is 0 unless something else keeps its target; errors are collected and reported together, and undefined or
//! duplicate names matter only when live code refers to them. Facts about ELF come from the System V gABI and the x86-64 psABI.
//!
//! [`app_object`] makes the per-application object: dispatch table, module order, boot record.
#![forbid(unsafe_code)]

mod app;
mod error;
mod input;
mod layout;
mod map;
mod mark;
mod reloc;
mod symbols;
mod write;

pub use app::{AppObject, AppObjectError, ENOSYS_SYMBOL, SYSCALL_TABLE_LEN, app_object};
pub use error::{LinkError, Place, Problem};
pub use layout::{Base, KERNEL_BASE, PHYSICAL_START, Segment};
pub use map::LiveSection;

/// The 64-bit entry that becomes `e_entry`, as a physical address, when it is defined and live.
pub const ENTRY_SYMBOL: &str = "linux64_start";

/// What a kernel needs whatever the application: its two entries (64-bit Linux, PVH).
pub const KERNEL_ROOTS: [&str; 2] = [ENTRY_SYMBOL, "pvh_start32"];

/// The note that monitors find the PVH entry by.
pub const KERNEL_KEEP: [&str; 1] = [".note.pvh"];

/// What to link.
#[derive(Debug, Clone, Default)]
pub struct LinkInput<'a> {
    /// A GNU archive of ELF objects.
    pub archive: &'a [u8],
    /// Further objects; they count as loaded from the start, archive members once one of their sections is live.
    pub extra_objects: Vec<Vec<u8>>,
    /// Symbols that must be in the image.
    pub roots: Vec<String>,
    /// Section names that are kept in every loaded object: exact, or a prefix followed by `*`.
    pub keep: Vec<String>,
    /// Whether to write `.symtab` (debuggers, back traces).
    pub has_symbol_table: bool,
    /// Where the image goes; a kernel's place unless said otherwise. Boot loaders have other places.
    pub base: Base,
}

impl<'a> LinkInput<'a> {
    /// Returns the input for a kernel: the module archive and the application's object, with [`KERNEL_ROOTS`] and [`KERNEL_KEEP`].
    pub fn kernel(archive: &'a [u8], app_object: Vec<u8>) -> LinkInput<'a> {
        LinkInput {
            archive,
            extra_objects: vec![app_object],
            roots: KERNEL_ROOTS.map(str::to_owned).into(),
            keep: KERNEL_KEEP.map(str::to_owned).into(),
            has_symbol_table: false,
            base: Base::default(),
        }
    }
}

/// A linked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The executable.
    pub elf: Vec<u8>,
    /// The map as text: segments, sections by address with the object they come from and the chain of references that keeps them.
    pub map: String,
    /// The same as data, by address.
    pub sections: Vec<LiveSection>,
    /// Figures.
    pub stats: Stats,
}

/// Figures of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Objects in the archive and beside it, and those with a live section.
    pub objects: (usize, usize),
    /// Allocated sections of all objects, and the live ones.
    pub sections: (usize, usize),
    /// Relocations applied.
    pub relocations: usize,
    /// Slots of the global offset table.
    pub got_slots: usize,
    /// Loads through the table that became address computations or direct branches.
    pub relaxed: usize,
    /// Bytes of code.
    pub text_bytes: u64,
    /// Bytes of constant data with notes and the global offset table.
    pub rodata_bytes: u64,
    /// Bytes of initialised writable data.
    pub data_bytes: u64,
    /// Bytes of zeroed data.
    pub bss_bytes: u64,
}

/// Links.
///
/// # Errors
/// [`LinkError`] holds every problem found, in a fixed order; nothing is written unless there is none.
pub fn link(input: &LinkInput<'_>) -> Result<Linked, LinkError> {
    let objects = input::read(input)?;
    let mut symbols = symbols::Symbols::new(&objects);
    let live = mark::mark(input, &objects, &mut symbols)?;
    // From here on no section becomes live and every reference of live code is resolved.
    let layout = layout::lay_out(input.base, &objects, &symbols, &live)?;
    let (image, relocations, relaxed) = reloc::apply(&objects, &symbols, &live, &layout)?;
    let entry = write::entry(input, &objects, &symbols, &live, &layout);
    let elf = write::elf(input, &objects, &live, &layout, &image, entry);
    let sections = map::sections(&objects, &live, &layout);
    let stats = Stats {
        objects: (objects.list.len(), live.loaded.iter().filter(|l| **l).count()),
        sections: (objects.allocated(), live.order.len()),
        relocations,
        got_slots: layout.got.len(),
        relaxed,
        text_bytes: layout.segment_len(Segment::Text),
        rodata_bytes: layout.segment_len(Segment::Rodata),
        data_bytes: layout.segment_len(Segment::Data),
        bss_bytes: layout.segment_len(Segment::Bss),
    };
    let map = map::text(input.base, &sections, &map::beginnings(input, &live, &layout), &layout, &stats, entry);
    Ok(Linked { elf, map, sections, stats })
}
