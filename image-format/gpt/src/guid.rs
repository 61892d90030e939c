//! GUIDs as EFI stores them: the first three numbers little-endian, the rest byte by byte (UEFI 2.10, appendix A).

use core::fmt;

/// A GUID in its stored form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID that is written `aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee`.
    pub const fn new(a: u32, b: u16, c: u16, d: u16, e: u64) -> Guid {
        let (a, b, c, d, e) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes(), e.to_be_bytes());
        Guid([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], e[2], e[3], e[4], e[5], e[6], e[7]])
    }

    /// A GUID of version 8 (RFC 9562, 5.8) from bytes that are as good as random.
    pub const fn from_hash(mut bytes: [u8; 16]) -> Guid {
        bytes[7] = bytes[7] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, at) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].into_iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[at])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    #[test]
    fn the_stored_form_is_the_published_one() {
        // UEFI 2.10, 5.3.3: the ESP's type; and GRUB's, whose bytes spell "Hah!IdontNeedEFI".
        assert_eq!(crate::TYPE_ESP.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(crate::TYPE_ESP.0[..4], [0x28, 0x73, 0x2a, 0xc1]);
        assert_eq!(&crate::TYPE_BIOS_BOOT.0, b"Hah!IdontNeedEFI");
    }
}
