//! The header in front of every packet (virtio 1.2, 5.1.6).

use libos_core::device::TxChecksum;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// What of the header matters without segmentation offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    flags: u8,
    start: u16,
    offset: u16,
    /// Buffers that a received packet covers.
    pub buffers: u16,
}

impl Header {
    /// Reads 10 or 12 bytes.
    pub fn parse(bytes: &[u8]) -> Header {
        let word = |at: usize| bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        Header { flags: bytes.first().copied().unwrap_or(0), start: word(6), offset: word(8), buffers: word(10) }
    }

    /// Whether the device vouches for the checksum: it verified it, or the packet never was on a wire and has none yet.
    pub fn is_good(&self) -> bool {
        self.flags & (NEEDS_CHECKSUM | DATA_VALID) != 0
    }

    /// The header of a packet to send.
    pub fn for_transmit(checksum: TxChecksum) -> Header {
        match checksum {
            TxChecksum::Done => Header { flags: 0, start: 0, offset: 0, buffers: 0 },
            TxChecksum::Device { start, offset } => Header { flags: NEEDS_CHECKSUM, start, offset, buffers: 0 },
        }
    }

    /// All 12 bytes; the shorter form leaves out the last two.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0] = self.flags;
        bytes[6..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.offset.to_le_bytes());
        bytes[10..].copy_from_slice(&self.buffers.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let sent = Header::for_transmit(TxChecksum::Device { start: 34, offset: 16 });
        assert_eq!(sent.to_bytes(), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert!(!Header::for_transmit(TxChecksum::Done).is_good());
        let received = Header::parse(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert!(received.is_good());
        assert_eq!(received.buffers, 1);
        assert_eq!(Header::parse(&[0; 10]).buffers, 0);
    }
}
