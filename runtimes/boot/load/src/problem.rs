//! What can go wrong before a kernel runs, each as the sentence that the console shows.

use core::fmt;

/// Why there is no boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The firmware cannot read a sector; its own code for the reason.
    Read {
        /// The sector.
        lba: u64,
        /// AH of int 13h, or the low half of an EFI status.
        code: u32,
    },
    /// The partition table.
    Table(ukc_gpt::Problem),
    /// No partition has the kernel's type.
    NoKernel,
    /// A field of the load table.
    Field(&'static str),
    /// The disk has become shorter.
    Truncated {
        /// Sectors that it has.
        is: u64,
        /// Sectors that it had.
        was: u64,
    },
    /// The kernel's bytes are not those that were written.
    Checksum,
    /// A field of the kernel's own file.
    Kernel(&'static str),
    /// There is no such free memory.
    Memory {
        /// Bytes wanted.
        len_bytes: u64,
        /// From this address on, or 0 for anywhere.
        at: u64,
    },
    /// What firmware or machine lack.
    Machine(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ukc: cannot boot: ")?;
        match self {
            Problem::Read { lba, code } => write!(f, "the firmware cannot read sector {lba} of the disk (error {code:#x})"),
            Problem::Table(problem) => problem.fmt(f),
            Problem::NoKernel => f.write_str("no partition of this disk holds a kernel"),
            Problem::Field(field) => write!(f, "the load table is damaged: {field}"),
            Problem::Truncated { is, was } => write!(f, "the disk is cut short: it has {is} sectors and was written with {was}"),
            Problem::Checksum => f.write_str("the kernel on this disk is damaged: its checksum is wrong"),
            Problem::Kernel(field) => write!(f, "the kernel on this disk is damaged: {field}"),
            Problem::Memory { len_bytes, at: 0 } => {
                write!(f, "this machine has too little memory: {} KiB more are needed in one piece", len_bytes.div_ceil(1024))
            }
            Problem::Memory { len_bytes, at } => {
                write!(f, "{} KiB of memory at {at:#x}, where the kernel goes, are not free", len_bytes.div_ceil(1024))
            }
            Problem::Machine(what) => f.write_str(what),
        }
    }
}
