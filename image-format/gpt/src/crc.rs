//! CRC-32 as in Ethernet and zlib (reflected polynomial 0xedb88320), half a byte at a time: sixteen table entries, because boot loaders are small.

const TABLE: [u32; 16] = table();

const fn table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 4 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

/// A checksum that is being computed.
#[derive(Debug, Clone, Copy)]
pub struct Crc32(u32);

impl Default for Crc32 {
    fn default() -> Crc32 {
        Crc32(!0)
    }
}

impl Crc32 {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |crc, &b| {
            let crc = crc ^ u32::from(b);
            let crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
            crc >> 4 ^ TABLE[(crc & 15) as usize]
        });
    }

    /// Returns the checksum.
    pub fn finish(self) -> u32 {
        !self.0
    }

    /// Returns the checksum of bytes.
    pub fn of(bytes: &[u8]) -> u32 {
        let mut crc = Crc32::default();
        crc.update(bytes);
        crc.finish()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_is_the_published_one() {
        assert_eq!(super::Crc32::of(b"123456789"), 0xcbf4_3926);
    }
}
