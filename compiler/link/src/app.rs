//! The per-application object: the tables through which the kernel's fixed part reaches what was chosen for one application.
//!
//! | symbol | content |
//! |---|---|
//! | `ukc_syscall_table` | [`SYSCALL_TABLE_LEN`] addresses: the handler of each chosen system call, the stub's everywhere else |
//! | `ukc_module_inits` | addresses of the modules' init functions in calling order, then 0 |
//! | `ukc_boot_record` | the boot record's bytes |
//! | `ukc_boot_record_len` | their number, u64 |
//!
//! Each is in a section of its own below `.rodata`, so a kernel that uses only some keeps only those.

use std::fmt;

use object::write::{Object, Relocation, Symbol, SymbolId, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope, elf};

/// Entries of the dispatch table: x86-64 numbers end below 470 today; the next power of two.
pub const SYSCALL_TABLE_LEN: u32 = 512;

/// Symbol of the kernel's answer to calls that no module handles.
pub const ENOSYS_SYMBOL: &str = "ukc_sys_enosys";

/// What the object holds.
#[derive(Debug, Clone, Copy)]
pub struct AppObject<'a> {
    /// System call numbers and the symbols of their handlers, in any order.
    pub handlers: &'a [(u32, String)],
    /// Symbol that all other numbers go to: [`ENOSYS_SYMBOL`].
    pub stub: &'a str,
    /// Symbols of the modules' init functions, in calling order.
    pub module_inits: &'a [String],
    /// The boot record.
    pub boot_record: &'a [u8],
}

/// Why an application object cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppObjectError {
    /// The number is beyond the table.
    NumberTooLarge {
        /// The number.
        number: u32,
        /// Its handler.
        handler: String,
    },
    /// Two handlers for one number.
    TwoHandlers {
        /// The number.
        number: u32,
        /// Both.
        handlers: (String, String),
    },
    /// The object could not be encoded.
    Encoding {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for AppObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppObjectError::NumberTooLarge { number, handler } => {
                write!(f, "system call {number} (`{handler}`) is beyond the table of {SYSCALL_TABLE_LEN}")
            }
            AppObjectError::TwoHandlers { number, handlers: (a, b) } => write!(f, "system call {number} has two handlers, `{a}` and `{b}`"),
            AppObjectError::Encoding { reason } => write!(f, "cannot encode the application object: {reason}"),
        }
    }
}

impl std::error::Error for AppObjectError {}

/// Returns the object as ELF bytes, for [`crate::LinkInput::extra_objects`]. Equal inputs give equal bytes.
///
/// # Errors
/// [`AppObjectError`] for a number beyond the table or given two different handlers.
pub fn app_object(app: &AppObject<'_>) -> Result<Vec<u8>, AppObjectError> {
    let mut table: Vec<&str> = vec![app.stub; SYSCALL_TABLE_LEN as usize];
    let mut is_set = vec![false; SYSCALL_TABLE_LEN as usize];
    for (number, handler) in app.handlers {
        let Some(entry) = table.get_mut(*number as usize) else {
            return Err(AppObjectError::NumberTooLarge { number: *number, handler: handler.clone() });
        };
        if std::mem::replace(&mut is_set[*number as usize], true) && *entry != handler {
            return Err(AppObjectError::TwoHandlers { number: *number, handlers: ((*entry).to_owned(), handler.clone()) });
        }
        *entry = handler;
    }
    let mut writer = Writer { object: Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little), references: Vec::new() };
    writer.pointers("ukc_syscall_table", table.into_iter().map(Some))?;
    writer.pointers("ukc_module_inits", app.module_inits.iter().map(|s| Some(s.as_str())).chain([None]))?;
    writer.bytes("ukc_boot_record", app.boot_record);
    writer.bytes("ukc_boot_record_len", &(app.boot_record.len() as u64).to_le_bytes());
    writer.object.write().map_err(|e| AppObjectError::Encoding { reason: e.to_string() })
}

struct Writer<'a> {
    object: Object<'a>,
    /// Undefined symbols made so far, sorted by name.
    references: Vec<(String, SymbolId)>,
}

impl Writer<'_> {
    fn reference(&mut self, name: &str) -> SymbolId {
        match self.references.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) => self.references[at].1,
            Err(at) => {
                let id = self.object.add_symbol(Symbol {
                    name: name.as_bytes().to_vec(),
                    value: 0,
                    size: 0,
                    kind: SymbolKind::Text,
                    scope: SymbolScope::Unknown,
                    weak: false,
                    section: SymbolSection::Undefined,
                    flags: SymbolFlags::None,
                });
                self.references.insert(at, (name.to_owned(), id));
                id
            }
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> object::write::SectionId {
        let segment = self.object.segment_name(object::write::StandardSegment::Data).to_vec();
        let section = self.object.add_section(segment, format!(".rodata.{name}").into_bytes(), SectionKind::ReadOnlyData);
        let at = self.object.append_section_data(section, bytes, 8);
        self.object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: at,
            size: bytes.len() as u64,
            kind: SymbolKind::Data,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
        section
    }

    /// Adds an array of addresses; `None` is 0.
    fn pointers<'s>(&mut self, name: &str, targets: impl Iterator<Item = Option<&'s str>>) -> Result<(), AppObjectError> {
        let targets: Vec<_> = targets.collect();
        let section = self.bytes(name, &vec![0; 8 * targets.len()]);
        for (i, target) in targets.into_iter().enumerate() {
            let Some(target) = target else { continue };
            let symbol = self.reference(target);
            let flags = RelocationFlags::Elf { r_type: elf::R_X86_64_64 };
            let relocation = Relocation { offset: 8 * i as u64, symbol, addend: 0, flags };
            self.object.add_relocation(section, relocation).map_err(|e| AppObjectError::Encoding { reason: e.to_string() })?;
        }
        Ok(())
    }
}
