//! Tar archives: reading the entries of a file in place, and writing a tree.
//!
//! A tar file is a sequence of 512-byte headers, each followed by its data rounded up to 512 bytes, ended by two blocks of zeros (POSIX pax(1),
//! "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"):
//!
//! ```text
//! offset  0 name[100]  100 mode[8]  108 uid[8]  116 gid[8]  124 size[12]  136 mtime[12]  148 checksum[8]  156 type[1]  157 linkname[100]
//!       257 magic[8]   329 devmajor[8]  337 devminor[8]  345 prefix[155]
//! ```
//!
//! Numbers are octal text, or binary when the first bit is set (GNU). What does not fit stands in a PAX header before (`x`: lines `len key=value`) or in
//! a GNU one (`L` long name, `K` long link). The reader does not copy file data: it reports where in the archive the bytes are.
//!
//! The `tar` crate is not used because it reads neither PAX sparse files nor times before 1970.

mod layer;
mod read;
mod sparse;
mod write;

pub use layer::{Whiteouts, changes_of_file};
pub use read::{Entry, EntryKind, Reader, TarError, is_header};
pub use write::{write_changes, write_files, write_tree};

/// Header and data unit.
pub(crate) const BLOCK: u64 = 512;
