//! Read-only views of ELF files.
