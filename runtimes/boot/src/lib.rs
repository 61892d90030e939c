//! The boot loaders of disks, built by this crate's build script and embedded.
//!
//! A disk carries them where firmware looks: BIOS in sector 0 and a partition of its own, UEFI in a file of the EFI system partition. They are the same
//! for every image. What is absent: where on a disk they go, which is `compiler/image`'s business.
#![forbid(unsafe_code)]

/// Boot code of sector 0, 440 bytes, with empty fields; see [`stage1`].
const STAGE1: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stage1.bin"));

/// The BIOS loader behind sector 0, in whole sectors.
pub const STAGE2: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stage2.bin"));

/// The UEFI loader, a PE file.
pub const BOOTX64_EFI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bootx64.efi"));

/// Returns the boot code of sector 0 for a disk that has [`STAGE2`] from the sector `lba` on.
pub fn stage1(lba: u64) -> Vec<u8> {
    let mut code = STAGE1.to_vec();
    let words = STAGE2.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    code[420..424].copy_from_slice(&words.fold(0, u32::wrapping_add).to_le_bytes());
    code[426..428].copy_from_slice(&((STAGE2.len() / 512) as u16).to_le_bytes());
    code[432..440].copy_from_slice(&lba.to_le_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_stage_1_are_where_they_should_be() {
        assert_eq!(STAGE1.len(), 440);
        assert_eq!(STAGE1[420..], [0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0], "checksum, request");
        let code = stage1(0x1234);
        assert_eq!(code[432..440], 0x1234u64.to_le_bytes());
        assert_eq!(usize::from(u16::from_le_bytes([code[426], code[427]])) * 512, STAGE2.len());
    }

    #[test]
    fn the_loaders_are_small() {
        assert!(STAGE2.len() <= 32 << 10, "{}", STAGE2.len());
        assert!(BOOTX64_EFI.len() <= 48 << 10, "{}", BOOTX64_EFI.len());
    }

    #[test]
    fn the_efi_program_is_one() {
        assert_eq!(&BOOTX64_EFI[..2], b"MZ");
        assert_eq!(&BOOTX64_EFI[0x40..0x46], b"PE\0\0\x64\x86");
    }
}
