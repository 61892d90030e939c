//! The module notes of an archive: the section that each `module!` of the kernel leaves, of all objects, one after the other.

use object::read::archive::ArchiveFile;
use object::{Object as _, ObjectSection as _};

/// The section with the notes.
const SECTION: &str = ".note.ukc.module";

/// Returns the notes, with a NUL byte after each object's.
///
/// # Errors
/// A sentence about the first member that cannot be read.
pub fn module_notes(archive: &[u8]) -> Result<Vec<u8>, String> {
    let broken = |what: &str, e: object::Error| format!("cannot read {what} of the module archive: {e}");
    let file = ArchiveFile::parse(archive).map_err(|e| broken("the header", e))?;
    let mut notes = Vec::new();
    for member in file.members() {
        let member = member.map_err(|e| broken("a member", e))?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        let bytes = member.data(archive).map_err(|e| broken(&name, e))?;
        let object = object::File::parse(bytes).map_err(|e| broken(&name, e))?;
        for section in object.sections().filter(|s| s.name() == Ok(SECTION)) {
            notes.extend_from_slice(section.data().map_err(|e| broken(&name, e))?);
            notes.push(0);
        }
    }
    Ok(notes)
}
