//! The libOS as the compiler carries it: one archive with every kernel module, built by this crate's build script and embedded, compressed.
//!
//! The archive is a GNU `ar` of x86-64 ELF objects with function sections. `compiler/select` reads the module notes in it, `compiler/link` links a
//! kernel from it. What is absent: any knowledge of which modules exist.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/modules.a.zst"));

/// Returns the module archive.
///
/// # Panics
/// Never in a binary that was built whole: the archive was compressed by the build script of the same build.
pub fn archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| zstd::decode_all(COMPRESSED).expect("the embedded module archive is intact"))
}

/// Returns the size in bytes of the archive as it is embedded.
pub fn embedded_len_bytes() -> usize {
    COMPRESSED.len()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_archive_holds_the_kernel_and_its_notes() {
        let archive = super::archive();
        assert!(archive.starts_with(b"!<arch>\n"));
        let contains = |needle: &[u8]| archive.windows(needle.len()).any(|w| w == needle);
        assert!(contains(b"linux64_start"), "the boot entry is in the archive");
        assert!(contains(b"UKCMOD1\nname="), "module notes are in the archive");
        assert!(archive.len() < 64 << 20, "the archive is {} bytes", archive.len());
    }
}
