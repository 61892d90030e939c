//! Inodes.

/// File types in the upper four bits of an inode's mode (inode(7)).
pub mod mode {
    /// Mask of the type.
    pub const TYPE: u16 = 0o170_000;
    /// Named pipe.
    pub const FIFO: u16 = 0o010_000;
    /// Character device.
    pub const CHAR_DEVICE: u16 = 0o020_000;
    /// Directory.
    pub const DIRECTORY: u16 = 0o040_000;
    /// Block device.
    pub const BLOCK_DEVICE: u16 = 0o060_000;
    /// Regular file.
    pub const REGULAR: u16 = 0o100_000;
    /// Symbolic link.
    pub const SYMLINK: u16 = 0o120_000;
    /// Socket.
    pub const SOCKET: u16 = 0o140_000;
}

/// Flags of an inode.
pub mod inode_flags {
    /// A directory with an index.
    pub const INDEX: u32 = 0x1000;
    /// `block` holds the root of an extent tree.
    pub const EXTENTS: u32 = 0x8_0000;
    /// The file's contents are in the inode.
    pub const INLINE_DATA: u32 = 0x1000_0000;
}

view! {
    /// An inode (`struct ext4_inode`): 128 bytes, and in images of 256-byte inodes the fields beyond, which read as 0 where they are missing.
    pub struct Inode(128) {
        /// Type and permissions.
        mode / set_mode: u16 @ 0x00,
        /// Low half of the owner.
        uid_lo / set_uid_lo: u16 @ 0x02,
        /// Low half of the size in bytes.
        size_lo / set_size_lo: u32 @ 0x04,
        /// Last access: seconds.
        atime / set_atime: u32 @ 0x08,
        /// Last change of the inode: seconds.
        ctime / set_ctime: u32 @ 0x0c,
        /// Last change of the contents: seconds.
        mtime / set_mtime: u32 @ 0x10,
        /// Deletion: seconds; 0 while it exists.
        dtime / set_dtime: u32 @ 0x14,
        /// Low half of the group.
        gid_lo / set_gid_lo: u16 @ 0x18,
        /// Names of this inode.
        links_count / set_links_count: u16 @ 0x1a,
        /// Low half of the number of 512-byte units in use.
        sectors_lo / set_sectors_lo: u32 @ 0x1c,
        /// See [`inode_flags`].
        flags / set_flags: u32 @ 0x20,
        /// Part of every checksum of the inode.
        generation / set_generation: u32 @ 0x64,
        /// Low half of the block of extended attributes, 0 for none.
        xattr_block_lo / set_xattr_block_lo: u32 @ 0x68,
        /// High half of the size.
        size_hi / set_size_hi: u32 @ 0x6c,
        /// High part of the number of 512-byte units.
        sectors_hi / set_sectors_hi: u16 @ 0x74,
        /// High half of the block of extended attributes.
        xattr_block_hi / set_xattr_block_hi: u16 @ 0x76,
        /// High half of the owner.
        uid_hi / set_uid_hi: u16 @ 0x78,
        /// High half of the group.
        gid_hi / set_gid_hi: u16 @ 0x7a,
        /// Low half of the checksum.
        checksum_lo / set_checksum_lo: u16 @ 0x7c,
        /// Bytes beyond 128 that are fields; attributes follow them.
        extra_isize / set_extra_isize: u16 @ 0x80,
        /// High half of the checksum.
        checksum_hi / set_checksum_hi: u16 @ 0x82,
        /// Nanoseconds and upper seconds of `ctime`.
        ctime_extra / set_ctime_extra: u32 @ 0x84,
        /// The same of `mtime`.
        mtime_extra / set_mtime_extra: u32 @ 0x88,
        /// The same of `atime`.
        atime_extra / set_atime_extra: u32 @ 0x8c,
        /// Creation: seconds.
        crtime / set_crtime: u32 @ 0x90,
        /// Nanoseconds and upper seconds of `crtime`.
        crtime_extra / set_crtime_extra: u32 @ 0x94,
    }
}

impl<B: AsRef<[u8]>> Inode<B> {
    /// Returns the owner.
    pub fn uid(&self) -> u32 {
        u32::from(self.uid_hi()) << 16 | u32::from(self.uid_lo())
    }

    /// Returns the group.
    pub fn gid(&self) -> u32 {
        u32::from(self.gid_hi()) << 16 | u32::from(self.gid_lo())
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.size_hi()) << 32 | u64::from(self.size_lo())
    }

    /// Returns the number of 512-byte units in use.
    pub fn sectors(&self) -> u64 {
        u64::from(self.sectors_hi()) << 32 | u64::from(self.sectors_lo())
    }

    /// Returns the block of extended attributes, 0 for none.
    pub fn xattr_block(&self) -> u64 {
        u64::from(self.xattr_block_hi()) << 32 | u64::from(self.xattr_block_lo())
    }

    /// Returns the 60 bytes that hold a short symbolic link, a device number, or the root of the extent tree.
    pub fn block(&self) -> &[u8] {
        self.bytes().get(0x28..0x64).unwrap_or_default()
    }

    /// Returns the device number (major, minor) of a device.
    pub fn device(&self) -> (u32, u32) {
        decode_device(crate::view::get_u32(self.bytes(), 0x28), crate::view::get_u32(self.bytes(), 0x2c))
    }

    /// Returns the time of the last change of the contents.
    pub fn modified(&self) -> Timestamp {
        Timestamp::decode(self.mtime(), self.mtime_extra())
    }

    /// Returns the bytes of the attributes inside the inode, with their magic number, for [`crate::xattr::inode_entries`].
    pub fn xattr_bytes(&self) -> &[u8] {
        if self.bytes().len() <= 128 {
            return &[];
        }
        self.bytes().get(128 + usize::from(self.extra_isize())..).unwrap_or_default()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Inode<B> {
    /// Sets the owner.
    pub fn set_uid(&mut self, uid: u32) {
        self.set_uid_lo(uid as u16);
        self.set_uid_hi((uid >> 16) as u16);
    }

    /// Sets the group.
    pub fn set_gid(&mut self, gid: u32) {
        self.set_gid_lo(gid as u16);
        self.set_gid_hi((gid >> 16) as u16);
    }

    /// Sets the size in bytes.
    pub fn set_size(&mut self, size: u64) {
        self.set_size_lo(size as u32);
        self.set_size_hi((size >> 32) as u32);
    }

    /// Sets the number of 512-byte units in use; 48 bits are kept.
    pub fn set_sectors(&mut self, sectors: u64) {
        self.set_sectors_lo(sectors as u32);
        self.set_sectors_hi((sectors >> 32) as u16);
    }

    /// Sets the block of extended attributes; 48 bits are kept.
    pub fn set_xattr_block(&mut self, block: u64) {
        self.set_xattr_block_lo(block as u32);
        self.set_xattr_block_hi((block >> 32) as u16);
    }

    /// Sets the first bytes of the 60 that [`Inode::block`] returns; bytes over 60 are cut.
    pub fn set_block(&mut self, bytes: &[u8]) {
        crate::view::put(self.bytes_mut(), 0x28, bytes.get(..60).unwrap_or(bytes));
    }

    /// Sets all four times.
    pub fn set_times(&mut self, time: Timestamp) {
        let (seconds, extra) = time.encode();
        self.set_atime(seconds);
        self.set_ctime(seconds);
        self.set_mtime(seconds);
        self.set_crtime(seconds);
        self.set_atime_extra(extra);
        self.set_ctime_extra(extra);
        self.set_mtime_extra(extra);
        self.set_crtime_extra(extra);
    }
}

/// A time: seconds since the epoch, and nanoseconds below 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after them.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Earliest: 1901-12-13.
    pub const MIN: Timestamp = Timestamp { seconds: i32::MIN as i64, nanoseconds: 0 };
    /// Latest: 2446-05-10.
    pub const MAX: Timestamp = Timestamp { seconds: i32::MIN as i64 + (1 << 34) - 1, nanoseconds: 0 };

    /// Returns the two fields: the low 32 bits of the seconds; and nanoseconds << 2 with, in the two low bits, what the sign extension of the first
    /// lacks (`ext4.h`, `ext4_encode_extra_time`). Times outside the range become its ends, as Linux does it (`timestamp_truncate`).
    pub fn encode(self) -> (u32, u32) {
        let t = self.clamp(Timestamp::MIN, Timestamp::MAX);
        let low = t.seconds as u32;
        let epoch = (t.seconds - i64::from(low as i32)) >> 32;
        (low, t.nanoseconds << 2 | (epoch as u32 & 3))
    }

    /// Reads the two fields.
    pub fn decode(seconds: u32, extra: u32) -> Timestamp {
        Timestamp { seconds: i64::from(seconds as i32) + (i64::from(extra & 3) << 32), nanoseconds: extra >> 2 }
    }
}

/// Returns the first two words of `block` for a device: the old form for numbers below 256, else the new one in the second word
/// (`fs/ext4/inode.c`; `include/linux/kdev_t.h`). `None` when the major number has more than 12 bits or the minor more than 20.
pub fn encode_device(major: u32, minor: u32) -> Option<(u32, u32)> {
    match (major, minor) {
        (0..=0xff, 0..=0xff) => Some((major << 8 | minor, 0)),
        (0..=0xfff, 0..=0xf_ffff) => Some((0, minor & 0xff | major << 8 | (minor & !0xff) << 12)),
        _ => None,
    }
}

/// Returns major and minor number from the first two words of `block`.
pub fn decode_device(old: u32, new: u32) -> (u32, u32) {
    if old != 0 { (old >> 8 & 0xff, old & 0xff) } else { (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_where_the_format_has_room() {
        for seconds in [0, 1, -1, i64::from(i32::MIN), i64::from(i32::MAX), 1 << 31, 1 << 32, 1 << 33, Timestamp::MAX.seconds] {
            let time = Timestamp { seconds, nanoseconds: 999_999_999.min(if seconds == Timestamp::MAX.seconds { 0 } else { u32::MAX }) };
            let (low, extra) = time.encode();
            assert_eq!(Timestamp::decode(low, extra), time);
        }
        let late = Timestamp { seconds: i64::MAX, nanoseconds: 5 };
        let (low, extra) = late.encode();
        assert_eq!(Timestamp::decode(low, extra), Timestamp::MAX);
    }

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(0, 0), (1, 3), (255, 255), (256, 0), (8, 256), (4095, 0xf_ffff), (0, 0x12345)] {
            let (old, new) = encode_device(major, minor).unwrap();
            assert_eq!(decode_device(old, new), (major, minor));
        }
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }
}
