//! `/etc/ld.so.cache` (glibc `sysdeps/generic/dl-cache.h`).
//!
//! ```text
//! optional old table: "ld.so-1.7.0", count, 12 bytes per entry
//! +0   "glibc-ld.so.cache1.1"
//! +20  u32 count, u32 length of strings, u8 flags, padding to 48
//! +48  entries of 24 bytes: u32 flags, u32 offset of the soname, u32 offset of the path, u32 OS version, u64 hwcap
//!      strings; offsets count from the magic
//! ```

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const X86_64: u32 = 0x303;

/// Returns soname and path of every x86-64 entry, those that need no processor feature first; empty when this is not such a cache.
pub fn entries(data: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Some(start) = data.windows(MAGIC.len()).position(|w| w == MAGIC) else { return Vec::new() };
    let data = &data[start..];
    let word = |at: usize| data.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
    let string = |at: u32| data.get(at as usize..).and_then(|s| s.split(|&b| b == 0).next()).map(<[u8]>::to_vec);
    let mut out = Vec::new();
    let count = word(20).unwrap_or(0) as usize;
    for i in 0..count.min(data.len() / 24) {
        let at = 48 + 24 * i;
        let (Some(flags), Some(key), Some(value), Some(low), Some(high)) =
            (word(at), word(at + 4), word(at + 8), word(at + 16), word(at + 20))
        else {
            break;
        };
        if flags == X86_64
            && let (Some(key), Some(value)) = (string(key), string(value))
        {
            out.push((low | high != 0, key, value));
        }
    }
    // Stable: entries keep the file's order otherwise.
    out.sort_by_key(|e| e.0);
    out.into_iter().map(|(_, key, value)| (key, value)).collect()
}
