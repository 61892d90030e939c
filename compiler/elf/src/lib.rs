//! Read-only views of the ELF files that Linux runs on x86-64: facts, no policy.
//!
//! An ELF file (System V gABI; x86-64 psABI) is described twice. *Program headers* say what the kernel and ld.so map into memory (segments); they are
//! always there. *Section headers* say what the linker put where; `strip` and some packers drop them, so nothing in here needs them, though they
//! are used where they help.
//!
//! ```text
//! 0x000  7f 'E' 'L' 'F' 02 01 01 ..   ELF header: class 2 (64-bit), data 1 (little-endian), type, machine, entry, where the tables are
//! 0x040  program headers              LOAD R-X, LOAD RW-, INTERP, DYNAMIC, NOTE, GNU_EH_FRAME, GNU_STACK, ...
//!        contents of the segments
//!        section headers              (optional)
//! ```
//!
//! [`Elf::parse`] reads header and tables; everything else ([`Elf::dynamic`], [`Elf::symbols`], [`Elf::relocations`], [`Elf::fdes`],
//! [`Elf::go_functions`]) is read when asked for. Every access is checked against the length of the file; numbers in the file never decide how much
//! memory is allocated.
//!
//! What is absent: `elf` does not search libraries, does not disassemble, and knows neither images nor system calls.
#![forbid(unsafe_code)]

mod bytes;
mod dynamic;
mod eh_frame;
mod error;
pub mod fixture;
mod go;
mod header;
mod notes;
mod relocations;
mod symbols;

pub use dynamic::Dynamic;
pub use eh_frame::Fde;
pub use error::{ElfError, machine_name};
pub use go::GoFunction;
pub use header::{Elf, ElfType, Section, Segment};
pub use relocations::{Relocation, r_x86_64};
pub use symbols::{Symbol, SymbolKind};
