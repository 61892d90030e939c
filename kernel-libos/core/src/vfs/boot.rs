//! The mounts of the boot record: the root, the volumes, and what every container finds (/proc, /sys, /dev).

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::general as linux;
use libos_abi::{Errno, Result};
use ukc_boot_record as record;

use super::mount::{self, MountFlags, PathRef};
use super::volume::{DiskVolume, RamVolume, Volume};
use super::{Attributes, FileSystem, FsContext, NewNode, dentry, registry};
use crate::arch::addr::PhysAddr;
use crate::arch::kprintln;
use crate::device::DEVICES;

/// Mounts what a record asks for and returns the context of the first process, with `/` as its working directory.
///
/// `initrd` is where the monitor put one: physical address and length in bytes.
///
/// # Errors
/// For the root: `ENXIO` when there is neither initrd nor disk, `EINVAL` when no linked file system knows its format, `EIO` and `EUCLEAN` when it is
/// damaged. For other mounts the same, unless they are optional.
pub fn mount_all<'a>(mounts: impl Iterator<Item = record::Mount<'a>> + Clone, initrd: Option<(PhysAddr, u64)>) -> Result<Arc<FsContext>> {
    let root_spec = mounts.clone().find(|m| m.target == b"/").unwrap_or(record::Mount::ROOT);
    let (fs, source) = file_system(&root_spec, initrd)?;
    if let (Some((base, len)), record::MountSource::Auto | record::MountSource::Initrd) = (initrd, &root_spec.source) {
        let initrd: Arc<dyn Volume> = Arc::new(RamVolume::new(base, len));
        registry::unpack_appendix(&initrd, &fs.root());
    }
    let root = mount::mount_root(fs, &source, flags_of(&root_spec))?;
    let own = MountFlags::NOSUID | MountFlags::NOEXEC;
    let is_given = |name: &[u8]| mounts.clone().any(|m| m.target.strip_prefix(b"/") == Some(name));
    for (name, fs_type, flags) in [
        (&b"proc"[..], "proc", own | MountFlags::NODEV),
        (b"sys", "sysfs", own | MountFlags::NODEV | MountFlags::RDONLY),
        (b"dev", "devtmpfs", MountFlags::NOSUID),
    ] {
        if !is_given(name) && registry::types().iter().any(|t| t.name == fs_type) {
            mount::promise(name, fs_type, flags);
        }
    }
    for spec in mounts.filter(|m| m.target != b"/") {
        if let Err(errno) = mount_one(&root, &spec, initrd)
            && !spec.flags.contains(record::MountFlags::OPTIONAL)
        {
            return Err(errno);
        }
    }
    Ok(Arc::new(FsContext::new(root)))
}

fn flags_of(spec: &record::Mount<'_>) -> MountFlags {
    let is_read_only = spec.flags.contains(record::MountFlags::READ_ONLY) && !spec.flags.contains(record::MountFlags::RAM_OVERLAY);
    if is_read_only { MountFlags::RDONLY } else { MountFlags::empty() }
}

fn mount_one(root: &PathRef, spec: &record::Mount<'_>, initrd: Option<(PhysAddr, u64)>) -> Result<()> {
    let place = make_dirs(root, spec.target)?;
    let (fs, source) = file_system(spec, initrd)?;
    if spec.flags.contains(record::MountFlags::INITIAL_CONTENT) {
        registry::fill_volume(place.inode(), &fs.root())?;
    }
    mount::mount(&place, fs, &source, flags_of(spec))?;
    Ok(())
}

/// Mounts what the command line asks for: `DISK:PATH:OPTIONS` (see `command_line`).
///
/// # Errors
/// `EINVAL` for another form, `ENXIO` when there is no such disk, and as [`mount_all`].
pub fn mount_named(fs: &FsContext, text: &[u8]) -> Result<()> {
    let mut parts = text.splitn(2, |b| *b == b':');
    let (disk, rest) = (parts.next().unwrap_or_default(), parts.next().ok_or(Errno::EINVAL)?);
    // A path may have colons; the options have none.
    let end = rest.iter().rposition(|b| *b == b':').ok_or(Errno::EINVAL)?;
    let (target, options) = (&rest[..end], &rest[end + 1..]);
    let has = |name: &[u8]| options.split(|b| *b == b',').any(|option| option == name);
    let disks = DEVICES.lock().block.clone();
    let index = disks.iter().position(|d| d.serial().is_some_and(|serial| serial == disk));
    let number = core::str::from_utf8(disk).ok().and_then(|text| text.parse().ok());
    let index = index.map(|i| i as u32).or(number).ok_or(Errno::ENXIO)?;
    let flags = match (has(b"ro"), has(b"nocopy")) {
        (true, _) => record::MountFlags::READ_ONLY,
        (false, true) => record::MountFlags::default(),
        (false, false) => record::MountFlags::INITIAL_CONTENT,
    };
    let spec = record::Mount { source: record::MountSource::Disk(index), target, fstype: b"", options: b"", flags };
    mount_one(&fs.root(), &spec, None)
}

/// The directory at an absolute path without links; what is missing of it is made, as container runtimes do for volumes.
pub(crate) fn make_dirs(root: &PathRef, path: &[u8]) -> Result<PathRef> {
    let mut at = root.clone();
    for name in path.split(|&b| b == b'/').filter(|n| !n.is_empty() && *n != b".") {
        let mut entry = super::walk::child(&at, name)?;
        if entry.inode().is_none() {
            let node = NewNode { mode: linux::S_IFDIR | 0o755, uid: 0, gid: 0, rdev: 0, target: b"" };
            let _guard = at.dentry.lock();
            entry = dentry::instantiate(&entry, at.inode().create(name, &node)?)?;
        }
        at = PathRef { mount: at.mount, dentry: entry }.cross();
        if !at.inode().attributes().is_ok_and(Attributes::is_dir) {
            return Err(Errno::ENOTDIR);
        }
    }
    Ok(at)
}

fn file_system(spec: &record::Mount<'_>, initrd: Option<(PhysAddr, u64)>) -> Result<(Arc<dyn FileSystem>, Vec<u8>)> {
    let fs_type = core::str::from_utf8(spec.fstype).map_err(|_| Errno::ENODEV)?;
    let volume = volume(&spec.source, initrd)?;
    let source = match (&volume, &spec.source) {
        (Some(volume), _) => volume.name(),
        (None, record::MountSource::Named(name)) if !name.is_empty() => name.to_vec(),
        _ => spec.fstype.to_vec(),
    };
    let is_written = !spec.flags.contains(record::MountFlags::READ_ONLY) && !spec.flags.contains(record::MountFlags::RAM_OVERLAY);
    let fs = match volume {
        // Whatever is on it, only one file system can be written to.
        Some(volume) if is_written => registry::mount(registry::WRITABLE_EXT4, Some(volume), spec.options)?,
        Some(volume) if fs_type.is_empty() => registry::mount_probed(volume, spec.options)?,
        volume => registry::mount(fs_type, volume, spec.options)?,
    };
    let fs = if spec.flags.contains(record::MountFlags::RAM_OVERLAY) { registry::overlay(fs)? } else { fs };
    Ok((fs, source))
}

fn volume(source: &record::MountSource<'_>, initrd: Option<(PhysAddr, u64)>) -> Result<Option<Arc<dyn Volume>>> {
    let ram = || -> Option<Arc<dyn Volume>> { initrd.map(|(base, len)| Arc::new(RamVolume::new(base, len)) as Arc<dyn Volume>) };
    Ok(match source {
        record::MountSource::Named(_) => None,
        record::MountSource::Initrd => Some(ram().ok_or(Errno::ENXIO)?),
        record::MountSource::Disk(index) => Some(disk(*index)?),
        record::MountSource::Auto => Some(match ram() {
            Some(volume) => volume,
            None => disk(0)?,
        }),
    })
}

/// The disk of this number; on one with a partition table, its root partition.
fn disk(index: u32) -> Result<Arc<dyn Volume>> {
    let disk = DEVICES.lock().block.get(index as usize).cloned().ok_or(Errno::ENXIO)?;
    let whole = DiskVolume::new(disk, index);
    let sector_bytes = ukc_gpt::SECTOR as u64;
    let found = ukc_gpt::find(ukc_gpt::TYPE_ROOT_X86_64, &mut |lba, sector| whole.read(lba.saturating_mul(sector_bytes), sector));
    Ok(Arc::new(match found {
        Ok(Some(sectors)) => whole.part(sectors.start * sector_bytes..sectors.end * sector_bytes),
        // The disk is one file system, or nothing that we know; who mounts it will see.
        Ok(None) | Err(ukc_gpt::Error::Read(_) | ukc_gpt::Error::Table(ukc_gpt::Problem::Signature)) => whole,
        Err(ukc_gpt::Error::Table(problem)) => {
            kprintln!("ukc: disk {index}: {problem}");
            return Err(Errno::EUCLEAN);
        }
    }))
}
