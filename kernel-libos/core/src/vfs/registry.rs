//! What file-system modules offer: types of file systems by name, and devices by number.

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use super::inode::FileSystem;
use super::volume::Volume;
use crate::file::{FileOps, OpenFlags};
use crate::sync::SpinLock;

/// Mounts: a volume if the type needs one, and mount(2)'s option string.
pub type MountFn = fn(Option<Arc<dyn Volume>>, &[u8]) -> Result<Arc<dyn FileSystem>>;

/// A type of file system, registered by its module's init function.
pub struct FileSystemType {
    /// Name for mount(2) and /proc/filesystems.
    pub name: &'static str,
    /// Whether it needs a volume (a disk, the initrd) to mount.
    pub needs_volume: bool,
    /// Whether a volume looks like this file system; never for those without volume.
    pub probe: fn(&Arc<dyn Volume>) -> bool,
    /// Mounts.
    pub mount: MountFn,
}

static TYPES: SpinLock<Vec<&'static FileSystemType>> = SpinLock::new(Vec::new());

/// Adds a type.
pub fn register(fs_type: &'static FileSystemType) {
    TYPES.lock().push(fs_type);
}

/// All types, for /proc/filesystems.
pub fn types() -> Vec<&'static FileSystemType> {
    TYPES.lock().clone()
}

/// Makes a file system of a named type.
///
/// # Errors
/// `ENODEV` when there is no such type, `ENOTBLK` when it needs a volume and there is none; what the type answers.
pub fn mount(name: &str, volume: Option<Arc<dyn Volume>>, options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let fs_type = types().into_iter().find(|t| t.name == name).ok_or(Errno::ENODEV)?;
    if fs_type.needs_volume && volume.is_none() {
        return Err(Errno::ENOTBLK);
    }
    (fs_type.mount)(volume, options)
}

/// Makes a file system of whatever type the volume looks like.
///
/// # Errors
/// `EINVAL` when no type knows it.
pub fn mount_probed(volume: Arc<dyn Volume>, options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let fs_type = types().into_iter().find(|t| t.needs_volume && (t.probe)(&volume)).ok_or(Errno::EINVAL)?;
    (fs_type.mount)(Some(volume), options)
}

/// Puts a writable layer in memory above a read-only file system.
pub type Overlay = fn(Arc<dyn FileSystem>) -> Result<Arc<dyn FileSystem>>;

static OVERLAY: SpinLock<Option<Overlay>> = SpinLock::new(None);

/// Offers the layer; without one the root is read-only.
pub fn set_overlay(overlay: Overlay) {
    *OVERLAY.lock() = Some(overlay);
}

/// Puts a writable layer above `lower` when a module offers one, and returns `lower` itself otherwise.
///
/// # Errors
/// `ENOMEM`.
pub fn overlay(lower: Arc<dyn FileSystem>) -> Result<Arc<dyn FileSystem>> {
    let overlay = *OVERLAY.lock();
    match overlay {
        Some(overlay) => overlay(lower),
        None => Ok(lower),
    }
}

/// Name under which the ext4 that is written to is registered; programs see `ext4`.
pub const WRITABLE_EXT4: &str = "ext4rw";

/// Copies the contents of a directory (first) into the root of a volume (second) that is empty.
pub type VolumeFiller = fn(&Arc<dyn super::Inode>, &Arc<dyn super::Inode>) -> Result<()>;

static FILLER: SpinLock<Option<VolumeFiller>> = SpinLock::new(None);

/// Offers to fill empty volumes.
pub fn set_volume_filler(filler: VolumeFiller) {
    *FILLER.lock() = Some(filler);
}

/// Fills an empty volume when a module can.
///
/// # Errors
/// What reading the directory or writing the volume answers.
pub fn fill_volume(from: &Arc<dyn super::Inode>, to: &Arc<dyn super::Inode>) -> Result<()> {
    let filler = *FILLER.lock();
    filler.map_or(Ok(()), |filler| filler(from, to))
}

/// Unpacks what others appended to the initrd (first) into the root that it holds (second).
pub type Appendix = fn(&Arc<dyn Volume>, &Arc<dyn super::Inode>);

static APPENDIX: SpinLock<Option<Appendix>> = SpinLock::new(None);

/// Offers to unpack what is appended to the initrd.
pub fn set_appendix(unpack: Appendix) {
    *APPENDIX.lock() = Some(unpack);
}

/// Unpacks what is appended to the initrd when a module can.
pub fn unpack_appendix(initrd: &Arc<dyn Volume>, root: &Arc<dyn super::Inode>) {
    let unpack = *APPENDIX.lock();
    if let Some(unpack) = unpack {
        unpack(initrd, root);
    }
}

/// Opens a device node: gets its `st_rdev`.
pub type OpenDevice = fn(u64, OpenFlags) -> Result<Arc<dyn FileOps>>;

/// Character devices by major number.
static DEVICES: SpinLock<Vec<(u32, OpenDevice)>> = SpinLock::new(Vec::new());

/// Offers the character devices of a major number.
pub fn register_devices(major: u32, open: OpenDevice) {
    DEVICES.lock().push((major, open));
}

/// Opens a character device.
///
/// # Errors
/// `ENXIO` when nobody offers it.
pub fn open_device(rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    let open = DEVICES.lock().iter().find(|(m, _)| *m == major(rdev)).map(|(_, open)| *open);
    open.ok_or(Errno::ENXIO)?(rdev, flags)
}

/// Opens a FIFO: gets the inode's attachment, where the pipe lives, and may block until the other side opens it (fifo(7)).
pub type OpenFifo = fn(&Arc<dyn super::Inode>, OpenFlags) -> Result<Arc<dyn FileOps>>;

static FIFO: SpinLock<Option<OpenFifo>> = SpinLock::new(None);

/// Offers FIFOs.
pub fn set_fifo(open: OpenFifo) {
    *FIFO.lock() = Some(open);
}

/// Opens a FIFO.
///
/// # Errors
/// `ENXIO` when no module offers pipes, and as fifo(7) says.
pub fn open_fifo(inode: &Arc<dyn super::Inode>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    let open = *FIFO.lock();
    open.ok_or(Errno::ENXIO)?(inode, flags)
}

/// Composes a device number as glibc's `makedev` does.
pub const fn make_dev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | (minor & 0xff) | (minor & !0xff) << 12
}

/// Major number of a device number.
pub const fn major(dev: u64) -> u32 {
    ((dev >> 8 & 0xfff) | (dev >> 32 & !0xfff)) as u32
}

/// Minor number of a device number.
pub const fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | (dev >> 12 & 0xffff_ff00)) as u32
}

/// Returns a device number for a file system that has no device (major 0), a new one each time.
pub fn anonymous_dev() -> u64 {
    static NEXT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0x20);
    make_dev(0, NEXT.fetch_add(1, core::sync::atomic::Ordering::Relaxed))
}
