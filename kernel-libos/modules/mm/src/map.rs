//! mmap(2), munmap(2), mprotect(2), mremap(2), brk(2).

use alloc::sync::Arc;

use bitflags::bitflags;
use libos_core::abi::general as linux;
use libos_core::file::{OpenFile, RawFd};
use libos_core::mm::{Limits, MapRequest, PAGE_SIZE, PageSource, Placement, Protection, RemapFlags, VmaFlags};
use libos_core::vfs::mount::MountFlags;
use libos_core::{Errno, Result, Task};

bitflags! {
    /// `MAP_*`, apart from the type in the low four bits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct MapFlags: u32 {
        const FIXED = linux::MAP_FIXED;
        const ANONYMOUS = linux::MAP_ANONYMOUS;
        const LOW_32BIT = linux::MAP_32BIT;
        const GROWSDOWN = linux::MAP_GROWSDOWN;
        const DENYWRITE = linux::MAP_DENYWRITE;
        const EXECUTABLE = linux::MAP_EXECUTABLE;
        const LOCKED = linux::MAP_LOCKED;
        const NORESERVE = linux::MAP_NORESERVE;
        const POPULATE = linux::MAP_POPULATE;
        const NONBLOCK = linux::MAP_NONBLOCK;
        const STACK = linux::MAP_STACK;
        const HUGETLB = linux::MAP_HUGETLB;
        const FIXED_NOREPLACE = linux::MAP_FIXED_NOREPLACE;
    }
}

/// Sharing: the low four bits of the flags.
const TYPE_MASK: u32 = 0xf;

/// The bits of `prot` that mean access; others are ignored by mmap(2).
fn protection(prot: u32) -> Protection {
    Protection::from_bits_truncate(prot)
}

pub(crate) fn sys_mmap(task: &Task, addr: usize, len: usize, prot: u32, raw_flags: u32, fd: RawFd, offset: u64) -> Result<usize> {
    if !offset.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::EINVAL);
    }
    let flags = MapFlags::from_bits_retain(raw_flags & !TYPE_MASK);
    let kind = raw_flags & TYPE_MASK;
    // The descriptor is looked at first, whatever else is wrong.
    let file = if flags.contains(MapFlags::ANONYMOUS) { None } else { Some(task.files().get(fd)?) };
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    if flags.contains(MapFlags::HUGETLB) {
        return Err(if file.is_some() { Errno::EINVAL } else { Errno::ENOMEM });
    }
    let limits = Limits::of(task);
    let protection = protection(prot);
    let mut vma_flags = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXEC;
    let is_shared = match kind {
        linux::MAP_SHARED => true,
        linux::MAP_SHARED_VALIDATE if file.is_some() => {
            // This type exists to refuse what is not known (mmap(2)).
            MapFlags::from_bits(flags.bits()).ok_or(Errno::EOPNOTSUPP)?;
            true
        }
        linux::MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL),
    };
    vma_flags.set(VmaFlags::SHARED, is_shared);
    if flags.contains(MapFlags::GROWSDOWN) {
        if file.is_some() || is_shared {
            return Err(Errno::EINVAL);
        }
        vma_flags |= VmaFlags::GROWS_DOWN;
    }
    vma_flags.set(VmaFlags::NO_RESERVE, flags.contains(MapFlags::NORESERVE));
    if flags.contains(MapFlags::LOCKED) {
        if limits.locked_bytes == 0 {
            return Err(Errno::EPERM);
        }
        vma_flags |= VmaFlags::LOCKED;
    }
    let source = match &file {
        Some(file) => Some((source_of(file, is_shared, protection, &mut vma_flags)?, offset)),
        None => None,
    };
    task.mm().map(MapRequest {
        placement: placement(addr, flags),
        len_bytes: len,
        protection,
        flags: vma_flags,
        source,
        file,
        limits,
        populate: flags.contains(MapFlags::POPULATE) && !flags.contains(MapFlags::NONBLOCK),
    })
}

fn placement(addr: usize, flags: MapFlags) -> Placement {
    if flags.contains(MapFlags::FIXED_NOREPLACE) {
        Placement::FixedNoReplace(addr)
    } else if flags.contains(MapFlags::FIXED) {
        Placement::Fixed(addr)
    } else if flags.contains(MapFlags::LOW_32BIT) && addr == 0 {
        Placement::Low
    } else {
        Placement::Hint(addr)
    }
}

/// Checks that a file may be mapped so, and returns its pages.
fn source_of(file: &Arc<OpenFile>, is_shared: bool, protection: Protection, flags: &mut VmaFlags) -> Result<Arc<dyn PageSource>> {
    let access = file.flags();
    if access.contains(libos_core::file::OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if is_shared && !access.can_write() {
        if protection.contains(Protection::WRITE) {
            return Err(Errno::EACCES);
        }
        *flags -= VmaFlags::MAY_WRITE;
    }
    if !access.can_read() {
        return Err(Errno::EACCES);
    }
    if file.path.as_ref().is_some_and(|place| place.mount.flags().contains(MountFlags::NOEXEC)) {
        if protection.contains(Protection::EXEC) {
            return Err(Errno::EPERM);
        }
        *flags -= VmaFlags::MAY_EXEC;
    }
    file.ops.page_source(file)
}

pub(crate) fn sys_munmap(task: &Task, addr: usize, len: usize) -> Result<usize> {
    task.mm().unmap(addr, len).map(|()| 0)
}

pub(crate) fn sys_mprotect(task: &Task, addr: usize, len: usize, prot: u32) -> Result<usize> {
    const GROWS: u32 = linux::PROT_GROWSDOWN | linux::PROT_GROWSUP;
    const KNOWN: u32 = linux::PROT_READ | linux::PROT_WRITE | linux::PROT_EXEC | linux::PROT_SEM;
    let grows = prot & GROWS;
    if grows == GROWS || !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    if prot & !(GROWS | KNOWN) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    let (mut addr, mut len) = (addr, len);
    if grows != 0 {
        // PROT_GROWSDOWN: from the beginning of the area, which must be one that grows (mprotect(2)). None grows upwards on x86.
        let start = mm.growing_area_start(addr).filter(|_| grows == linux::PROT_GROWSDOWN).ok_or(Errno::EINVAL)?;
        len = len.checked_add(addr - start).ok_or(Errno::ENOMEM)?;
        addr = start;
    }
    mm.protect(addr, len, protection(prot), &Limits::of(task)).map(|()| 0)
}

pub(crate) fn sys_mremap(task: &Task, old_addr: usize, old_len: usize, new_len: usize, flags: u32, new_addr: usize) -> Result<usize> {
    let flags = RemapFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    task.mm().remap(old_addr, old_len, new_len, flags, new_addr, &Limits::of(task))
}

pub(crate) fn sys_brk(task: &Task, addr: usize) -> Result<usize> {
    Ok(task.mm().brk(addr, &Limits::of(task)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_decide_where_a_mapping_goes() {
        assert_eq!(placement(5, MapFlags::FIXED | MapFlags::FIXED_NOREPLACE), Placement::FixedNoReplace(5));
        assert_eq!(placement(5, MapFlags::FIXED), Placement::Fixed(5));
        assert_eq!(placement(0, MapFlags::LOW_32BIT), Placement::Low);
        assert_eq!(placement(5, MapFlags::empty()), Placement::Hint(5));
    }

    #[test]
    fn only_access_bits_are_access() {
        assert_eq!(protection(linux::PROT_READ | linux::PROT_SEM | 0x100), Protection::READ);
    }
}
