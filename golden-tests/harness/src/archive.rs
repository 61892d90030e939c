//! A module archive without code: `cases/catalogue` as the note of one object. The real kernel's grows with every module, and `plan` must not change with it.

use object::write::Object;
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

/// The notes.
const CATALOGUE: &str = include_str!("../../cases/catalogue");

/// Returns the archive.
pub fn archive() -> &'static [u8] {
    static ARCHIVE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let section = object.add_section(vec![], b".note.ukc.module".to_vec(), SectionKind::Note);
        object.append_section_data(section, CATALOGUE.as_bytes(), 1);
        let member = object.write().expect("an object with one section can be written");
        // ar(5): the magic, then a header of 60 bytes in decimal ASCII, and the member, padded to an even length.
        let mut out = b"!<arch>\n".to_vec();
        out.extend_from_slice(format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", "notes.o/", 0, 0, 0, "644", member.len()).as_bytes());
        out.extend_from_slice(&member);
        out.resize(out.len().next_multiple_of(2), b'\n');
        out
    })
}
