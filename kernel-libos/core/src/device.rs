//! What drivers offer to the rest of the kernel.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::Result;

use crate::mm::Frame;
use crate::sync::SpinLock;

/// A disk. Offsets and lengths are in bytes and multiples of [`BlockDevice::sector_bytes`].
pub trait BlockDevice: Send + Sync {
    /// Reads into `dst`, sleeping until it is there.
    ///
    /// # Errors
    /// `EIO`; `ENXIO` beyond the end.
    fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()>;

    /// Reads whole pages, which lie in a row on the disk, into frames.
    ///
    /// # Errors
    /// As [`BlockDevice::read`].
    fn read_frames(&self, offset: u64, frames: &[Frame]) -> Result<()>;

    /// Writes `src`, sleeping until the device has it.
    ///
    /// # Errors
    /// `EIO`, `EROFS`; `ENXIO` beyond the end.
    fn write(&self, offset: u64, src: &[u8]) -> Result<()>;

    /// Writes whole pages, which lie in a row on the disk.
    ///
    /// # Errors
    /// As [`BlockDevice::write`].
    fn write_frames(&self, offset: u64, frames: &[Frame]) -> Result<()>;

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// `EIO`.
    fn flush(&self) -> Result<()>;

    /// The serial number that the machine gave it, if any.
    fn serial(&self) -> Option<Vec<u8>> {
        None
    }

    /// Size in bytes.
    fn len_bytes(&self) -> u64;

    /// Bytes of a sector: 512 or 4096.
    fn sector_bytes(&self) -> u32;

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;
}

/// A network card. Packets are Ethernet frames without checksum trailer.
pub trait NetDevice: Send + Sync {
    /// Hardware address.
    fn mac(&self) -> [u8; 6];

    /// Largest IP packet in bytes.
    fn mtu(&self) -> usize;

    /// Takes the next received packet: calls `f` with its bytes and whether the device vouches for its checksums. Returns false when there is none.
    fn receive(&self, f: &mut dyn FnMut(&[u8], bool)) -> bool;

    /// Queues a packet of `len_bytes` that `fill` writes; it also says who completes the checksum. Returns false when the ring is full, without having
    /// called `fill`.
    fn transmit(&self, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8]) -> TxChecksum) -> bool;

    /// Tells the device about everything queued since the last call; one notification for many packets.
    fn flush(&self);

    /// Sets what is called, in interrupt context, when packets arrived or the transmit ring has room again.
    fn set_handler(&self, handler: Arc<dyn Fn() + Send + Sync>);

    /// Whether the device computes TCP and UDP checksums of packets it sends.
    fn can_checksum(&self) -> bool;
}

/// Who fills in the TCP or UDP checksum of a packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxChecksum {
    /// It is in the packet.
    Done,
    /// The device: sum from `start` to the end, stored at `start + offset` (virtio 1.2, 5.1.6.2).
    Device {
        /// First byte summed.
        start: u16,
        /// Where the sum goes, from `start`.
        offset: u16,
    },
}

/// A source of random bytes.
pub trait EntropyDevice: Send + Sync {
    /// Fills `dst` as far as it can now; returns the count.
    fn read(&self, dst: &mut [u8]) -> usize;
}

/// The devices that drivers found, in the order they found them; drivers add to it in their init functions, file systems and the network take from it.
#[derive(Default)]
pub struct Devices {
    /// Disks; the first is `/dev/vda`.
    pub block: Vec<Arc<dyn BlockDevice>>,
    /// Network cards; the first is `eth0`.
    pub net: Vec<Arc<dyn NetDevice>>,
    /// Entropy.
    pub entropy: Vec<Arc<dyn EntropyDevice>>,
}

/// All devices.
pub static DEVICES: SpinLock<Devices> = SpinLock::new(Devices { block: Vec::new(), net: Vec::new(), entropy: Vec::new() });
