//! Fixed VHD images: the disk's bytes, and a footer of 512 bytes (Microsoft, "Virtual Hard Disk Image Format Specification", 1.0).
//!
//! All numbers are big-endian:
//!
//! ```text
//! 0 "conectix" | 8 features: 2 | 12 version: 1.0 | 16 all ones: no dynamic header | 24 seconds since 2000-01-01 | 28 creator | 32 its version | 36 its system
//! 40 size when made | 48 size now | 56 cylinders u16, heads u8, sectors u8 | 60 kind: 2 fixed | 64 checksum | 68 UUID | 84 0
//! ```
//!
//! Azure wants sizes in whole MiB ([`ALIGN`]). Some readers, QEMU among them, believe the size only if the creator is one they know, and compute it from
//! cylinders, heads and sectors, which is less, for others; so the creator is `win `. What is absent: dynamic and differencing disks, and a date: it is 0,
//! because equal disks give equal bytes.
#![forbid(unsafe_code)]

/// Bytes of the footer.
pub const FOOTER: usize = 512;

/// What the size of a disk should be a multiple of.
pub const ALIGN: u64 = 1 << 20;

/// Returns the footer of a disk.
pub fn footer(len_bytes: u64, uuid: [u8; 16]) -> [u8; FOOTER] {
    let mut out = [0; FOOTER];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"conectix");
    put(8, &2u32.to_be_bytes());
    put(12, &0x1_0000u32.to_be_bytes());
    put(16, &[0xff; 8]);
    put(28, b"win ");
    put(32, &0xa_0000u32.to_be_bytes());
    put(36, b"Wi2k");
    put(40, &len_bytes.to_be_bytes());
    put(48, &len_bytes.to_be_bytes());
    let (cylinders, heads, sectors) = geometry(len_bytes / 512);
    put(56, &cylinders.to_be_bytes());
    put(58, &[heads, sectors]);
    put(60, &2u32.to_be_bytes());
    put(68, &uuid);
    let checksum = checksum(&out);
    out[64..68].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// The complement of the sum of all bytes but the checksum's own.
fn checksum(footer: &[u8; FOOTER]) -> u32 {
    !footer.iter().enumerate().filter(|(at, _)| !(64..68).contains(at)).map(|(_, b)| u32::from(*b)).sum::<u32>()
}

/// Cylinders, heads and sectors per track of a disk (appendix "CHS Calculation").
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65535 * 16 * 255) as u32;
    if total >= 65535 * 16 * 63 {
        return ((total / 255 / 16) as u16, 16, 255);
    }
    let mut per_track = 17;
    let mut tracks = total / per_track;
    let mut heads = tracks.div_ceil(1024).max(4);
    if tracks >= heads * 1024 || heads > 16 {
        per_track = 31;
        heads = 16;
        tracks = total / per_track;
    }
    if tracks >= heads * 1024 {
        per_track = 63;
        heads = 16;
        tracks = total / per_track;
    }
    ((tracks / heads) as u16, heads as u8, per_track as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_makes_the_bytes_sum_up() {
        let footer = footer(64 << 20, [7; 16]);
        let stored = u32::from_be_bytes(footer[64..68].try_into().unwrap());
        let sum: u32 = footer.iter().map(|b| u32::from(*b)).sum::<u32>() - footer[64..68].iter().map(|b| u32::from(*b)).sum::<u32>();
        assert_eq!(stored, !sum);
        assert_eq!(footer[48..56], (64u64 << 20).to_be_bytes());
    }

    #[test]
    fn geometry_never_says_more_than_there_is() {
        // The values for 64 MiB and 1 GiB, by the calculation of the appendix on paper.
        assert_eq!(geometry((64 << 20) / 512), (963, 8, 17));
        assert_eq!(geometry((1 << 30) / 512), (2080, 16, 63));
        for mib in [1, 2, 10, 100, 500, 1000, 5000, 50_000, 127_000, 2_000_000] {
            let (cylinders, heads, sectors) = geometry(mib << 11);
            assert!(u64::from(cylinders) * u64::from(heads) * u64::from(sectors) <= mib << 11, "{mib}");
        }
    }
}
