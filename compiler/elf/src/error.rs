//! What is wrong with a file that should be a program.

use std::fmt;

/// Why a file cannot be viewed as an x86-64 program or shared object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElfError {
    /// The file does not start with the ELF magic.
    NotElf,
    /// The file ends before a part that its header announces.
    Truncated {
        /// Which part.
        what: &'static str,
        /// Where that part would end.
        end: u64,
        /// How long the file is.
        len_bytes: u64,
    },
    /// `ELFCLASS32`; the number is `e_machine`.
    Not64Bit(u16),
    /// `ELFDATA2MSB`; the number is `e_machine`.
    BigEndian(u16),
    /// Another architecture; the number is `e_machine`.
    ForeignArch(u16),
    /// `e_type` is neither `ET_EXEC` nor `ET_DYN`.
    NotLoadable(u16),
    /// A value in the file contradicts the format.
    Malformed(&'static str),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ElfError::NotElf => write!(f, "not an ELF file"),
            ElfError::Truncated { what, end, len_bytes } => {
                write!(f, "truncated: the {what} ends at byte {end}, but the file has {len_bytes} bytes")
            }
            ElfError::Not64Bit(machine) => write!(f, "a 32-bit program ({})", machine_name(*machine)),
            ElfError::BigEndian(machine) => write!(f, "a big-endian program ({})", machine_name(*machine)),
            ElfError::ForeignArch(machine) => write!(f, "a program for {}, not x86-64", machine_name(*machine)),
            ElfError::NotLoadable(1) => write!(f, "a relocatable object file (`ET_REL`), not a program"),
            ElfError::NotLoadable(4) => write!(f, "a core dump (`ET_CORE`), not a program"),
            ElfError::NotLoadable(kind) => write!(f, "an ELF file of unknown type {kind}"),
            ElfError::Malformed(what) => write!(f, "malformed: {what}"),
        }
    }
}

impl std::error::Error for ElfError {}

/// Returns the usual name of an architecture by its `e_machine` number (gABI, "Machine Information"; elf.h).
pub fn machine_name(machine: u16) -> String {
    let name = match machine {
        2 => "SPARC",
        3 => "i386",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC64",
        22 => "s390x",
        40 => "ARM",
        43 => "SPARC V9",
        50 => "IA-64",
        62 => "x86-64",
        183 => "aarch64",
        243 => "RISC-V",
        247 => "BPF",
        258 => "LoongArch",
        other => return format!("machine {other}"),
    };
    name.to_owned()
}
