//! Address spaces on the host: real page tables, real frames, no processor that walks them. Accesses go through `read_bytes` and `write_bytes`, which
//! fault as a program would.

use alloc::sync::Arc;
use std::sync::Mutex;

use libos_abi::{Errno, Result};

use super::address_space::MIN_ADDR;
use super::*;

const RW: Protection = Protection::READ.union(Protection::WRITE);
const KIB: usize = 1024;

/// A file in memory, `pages` long, whose page `n` starts with byte `n`.
struct File {
    pages: Mutex<Vec<Frame>>,
    writes: Mutex<Vec<u64>>,
}

impl File {
    fn new(pages: u8) -> Arc<File> {
        let frames = (0..pages).map(|n| {
            let frame = Frame::alloc_zeroed().unwrap();
            frame.write(0, &[n]);
            frame
        });
        Arc::new(File { pages: Mutex::new(frames.collect()), writes: Mutex::new(Vec::new()) })
    }

    fn byte(&self, page: usize, offset: usize) -> u8 {
        let mut byte = [0];
        self.pages.lock().unwrap()[page].read(offset, &mut byte);
        byte[0]
    }
}

impl PageSource for File {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        if write {
            self.writes.lock().unwrap().push(index);
        }
        self.pages.lock().unwrap().get(index as usize).cloned().ok_or(Errno::ENXIO)
    }

    fn cached(&self, first: u64, count: usize, give: &mut dyn FnMut(u64, Frame)) {
        for (i, frame) in self.pages.lock().unwrap().iter().enumerate().skip(first as usize).take(count) {
            give(i as u64, frame.clone());
        }
    }

    fn len_bytes(&self) -> u64 {
        (self.pages.lock().unwrap().len() * PAGE_SIZE) as u64
    }

    fn describe(&self) -> SourceName {
        SourceName { dev: 1, ino: 2, path: b"/file".to_vec() }
    }
}

fn file_request(file: &Arc<File>, offset: u64, len: usize, protection: Protection, shared: bool) -> MapRequest {
    let mut request = MapRequest::anonymous(len, protection);
    request.source = Some((file.clone(), offset));
    request.flags.set(VmaFlags::SHARED, shared);
    request
}

fn fixed(addr: usize, len: usize, protection: Protection) -> MapRequest {
    MapRequest { placement: Placement::Fixed(addr), ..MapRequest::anonymous(len, protection) }
}

fn read(space: &AddressSpace, addr: usize) -> Result<u8> {
    let mut byte = [0];
    space.read_bytes(addr, &mut byte)?;
    Ok(byte[0])
}

fn resident(space: &AddressSpace) -> usize {
    space.usage().resident / PAGE_SIZE
}

#[test]
fn anonymous_memory_is_zero_and_comes_when_touched() {
    let space = AddressSpace::new().unwrap();
    let addr = space.map(MapRequest::anonymous(64 * KIB, RW)).unwrap();
    assert_eq!(resident(&space), 0);
    assert_eq!(read(&space, addr + 5), Ok(0));
    space.write_bytes(addr + 4094, b"abcd").unwrap();
    assert_eq!(read(&space, addr + 4097), Ok(b'd'));
    assert_eq!(resident(&space), 2);
    space.unmap(addr, 64 * KIB).unwrap();
    assert_eq!((resident(&space), read(&space, addr)), (0, Err(Errno::EFAULT)));
    assert_eq!(space.fault(addr, Access::Read, &Limits::NONE), Err(FaultError::NotMapped));
}

#[test]
fn large_areas_share_the_zero_page_until_written() {
    let space = AddressSpace::new().unwrap();
    let addr = space.map(MapRequest::anonymous(4096 * KIB, RW)).unwrap();
    assert_eq!(read(&space, addr), Ok(0));
    assert_eq!(read(&space, addr + PAGE_SIZE), Ok(0));
    space.write_bytes(addr, b"x").unwrap();
    assert_eq!((read(&space, addr), read(&space, addr + PAGE_SIZE)), (Ok(b'x'), Ok(0)));
}

#[test]
fn fork_copies_on_write_and_only_then() {
    let parent = AddressSpace::new().unwrap();
    let addr = parent.map(MapRequest::anonymous(16 * KIB, RW)).unwrap();
    parent.write_bytes(addr, b"parent").unwrap();
    let child = parent.fork().unwrap();
    assert_eq!(read(&child, addr), Ok(b'p'));
    child.write_bytes(addr, b"child!").unwrap();
    assert_eq!((read(&parent, addr), read(&child, addr)), (Ok(b'p'), Ok(b'c')));
    // The parent is alone with its page now: writing makes no copy.
    let before = parent.lock().pages.get(addr).unwrap().frame().phys();
    parent.write_bytes(addr, b"P").unwrap();
    assert!(parent.lock().pages.get(addr).unwrap().frame().phys() == before);
    assert!(parent.lock().pages.get(addr).unwrap().protection == RW);
}

#[test]
fn fork_shares_what_is_shared_and_obeys_madvise() {
    let parent = AddressSpace::new().unwrap();
    let mut request = MapRequest::anonymous(16 * KIB, RW);
    request.flags |= VmaFlags::SHARED;
    let shared = parent.map(request).unwrap();
    let wiped = parent.map(MapRequest::anonymous(16 * KIB, RW)).unwrap();
    let missing = parent.map(MapRequest::anonymous(16 * KIB, RW)).unwrap();
    for addr in [shared, wiped, missing] {
        parent.write_bytes(addr, b"x").unwrap();
    }
    let set = |flag| Advice::Flags { set: flag, clear: VmaFlags::empty() };
    parent.advise(wiped, 16 * KIB, set(VmaFlags::WIPE_ON_FORK)).unwrap();
    parent.advise(missing, 16 * KIB, set(VmaFlags::DONT_FORK)).unwrap();
    assert_eq!(parent.advise(shared, 4096, set(VmaFlags::WIPE_ON_FORK)), Err(Errno::EINVAL));
    let child = parent.fork().unwrap();
    assert_eq!((read(&child, shared), read(&child, wiped), read(&child, missing)), (Ok(b'x'), Ok(0), Err(Errno::EFAULT)));
    child.write_bytes(shared + 4096, b"c").unwrap();
    assert_eq!(read(&parent, shared + 4096), Ok(b'c'));
}

#[test]
fn private_file_pages_are_the_files_own_until_written() {
    let (space, file) = (AddressSpace::new().unwrap(), File::new(40));
    let addr = space.map(file_request(&file, 0, 40 * PAGE_SIZE, RW, false)).unwrap();
    assert_eq!(read(&space, addr + 3 * PAGE_SIZE), Ok(3));
    // The neighbours came along, the rest did not.
    assert!((8..=16).contains(&resident(&space)), "{}", resident(&space));
    assert!(space.lock().pages.get(addr + 3 * PAGE_SIZE).unwrap().frame() == file.pages.lock().unwrap()[3]);
    space.write_bytes(addr + 3 * PAGE_SIZE, &[99]).unwrap();
    assert_eq!((read(&space, addr + 3 * PAGE_SIZE), file.byte(3, 0)), (Ok(99), 3));
    // Straight to a copy, where nothing was mapped.
    space.write_bytes(addr + 39 * PAGE_SIZE + 1, &[98]).unwrap();
    assert_eq!((read(&space, addr + 39 * PAGE_SIZE), file.byte(39, 1)), (Ok(39), 0));
    assert!(file.writes.lock().unwrap().is_empty());
    // MADV_DONTNEED brings the file's contents back.
    space.advise(addr, 40 * PAGE_SIZE, Advice::Drop).unwrap();
    assert_eq!(read(&space, addr + 3 * PAGE_SIZE), Ok(3));
}

#[test]
fn shared_file_pages_tell_of_the_first_write() {
    let (space, file) = (AddressSpace::new().unwrap(), File::new(4));
    let addr = space.map(file_request(&file, PAGE_SIZE as u64, 2 * PAGE_SIZE, RW, true)).unwrap();
    assert_eq!(read(&space, addr), Ok(1));
    assert!(file.writes.lock().unwrap().is_empty());
    space.write_bytes(addr, &[7]).unwrap();
    space.write_bytes(addr + 1, &[8]).unwrap();
    assert_eq!((file.byte(1, 0), file.byte(1, 1)), (7, 8));
    assert_eq!(*file.writes.lock().unwrap(), [1]);
}

#[test]
fn behind_the_end_of_a_file_is_a_bus_error() {
    let (space, file) = (AddressSpace::new().unwrap(), File::new(3));
    let addr = space.map(file_request(&file, 0, 8 * PAGE_SIZE, RW, false)).unwrap();
    assert_eq!(space.fault(addr + 2 * PAGE_SIZE, Access::Read, &Limits::NONE), Ok(()));
    assert_eq!(space.fault(addr + 3 * PAGE_SIZE, Access::Read, &Limits::NONE), Err(FaultError::Bus));
    // The file shrinks under the mapping.
    file.pages.lock().unwrap().truncate(1);
    invalidate(&*file, 1, u64::MAX);
    assert_eq!(space.fault(addr, Access::Read, &Limits::NONE), Ok(()));
    assert_eq!(space.fault(addr + 2 * PAGE_SIZE, Access::Write, &Limits::NONE), Err(FaultError::Bus));
}

#[test]
fn access_is_checked_and_mprotect_splits() {
    let space = AddressSpace::new().unwrap();
    let addr = space.map(MapRequest::anonymous(4 * PAGE_SIZE, RW)).unwrap();
    space.write_bytes(addr, &[1; 4 * PAGE_SIZE]).unwrap();
    space.protect(addr + PAGE_SIZE, PAGE_SIZE, Protection::READ, &Limits::NONE).unwrap();
    space.protect(addr + 2 * PAGE_SIZE, PAGE_SIZE, Protection::empty(), &Limits::NONE).unwrap();
    let fault = |page: usize, access| space.fault(addr + page * PAGE_SIZE, access, &Limits::NONE);
    assert_eq!((fault(0, Access::Write), fault(1, Access::Write)), (Ok(()), Err(FaultError::NotAllowed)));
    assert_eq!((fault(1, Access::Read), fault(2, Access::Read)), (Ok(()), Err(FaultError::NotAllowed)));
    assert_eq!((fault(3, Access::Write), fault(3, Access::Exec)), (Ok(()), Err(FaultError::NotAllowed)));
    // What was written is still there when access comes back.
    space.protect(addr, 4 * PAGE_SIZE, RW, &Limits::NONE).unwrap();
    assert_eq!(read(&space, addr + 2 * PAGE_SIZE), Ok(1));
    let mut lines = 0;
    space.maps(&mut |_| lines += 1);
    assert_eq!(lines, 1);
    // Holes: what comes before them changes (mprotect(2), ENOMEM).
    space.unmap(addr + 2 * PAGE_SIZE, PAGE_SIZE).unwrap();
    assert_eq!(space.protect(addr, 4 * PAGE_SIZE, Protection::READ, &Limits::NONE), Err(Errno::ENOMEM));
    assert_eq!((fault(1, Access::Write), fault(3, Access::Write)), (Err(FaultError::NotAllowed), Ok(())));
    assert_eq!(space.protect(addr + 1, PAGE_SIZE, RW, &Limits::NONE), Err(Errno::EINVAL));
}

#[test]
fn a_mapping_of_a_read_only_file_cannot_become_writable() {
    let (space, file) = (AddressSpace::new().unwrap(), File::new(1));
    let mut request = file_request(&file, 0, PAGE_SIZE, Protection::READ, true);
    request.flags -= VmaFlags::MAY_WRITE;
    let addr = space.map(request).unwrap();
    assert_eq!(space.protect(addr, PAGE_SIZE, RW, &Limits::NONE), Err(Errno::EACCES));
}

#[test]
fn placement() {
    let space = AddressSpace::new().unwrap();
    let (a, page) = (0x10_0000, PAGE_SIZE);
    assert_eq!(space.map(fixed(a, 4 * page, RW)), Ok(a));
    space.write_bytes(a, b"x").unwrap();
    let hinted = |at| MapRequest { placement: Placement::Hint(at), ..MapRequest::anonymous(page, RW) };
    assert_eq!(space.map(hinted(a + 4 * page + 7)), Ok(a + 4 * page), "a free hint is taken, rounded down");
    assert_ne!(space.map(hinted(a)).unwrap(), a, "a taken one is not");
    let no_replace = |at| MapRequest { placement: Placement::FixedNoReplace(at), ..MapRequest::anonymous(page, RW) };
    assert_eq!(space.map(no_replace(a + page)), Err(Errno::EEXIST));
    assert_eq!(space.map(no_replace(a - page)), Ok(a - page));
    assert_eq!(space.map(fixed(a, page, RW)), Ok(a));
    assert_eq!(read(&space, a), Ok(0), "replaced");
    assert_eq!(space.map(fixed(MIN_ADDR - page, page, RW)), Err(Errno::EPERM));
    assert_eq!(space.map(fixed(a + 1, page, RW)), Err(Errno::EINVAL));
    assert_eq!(space.map(fixed(crate::arch::addr::USER_END - page, 2 * page, RW)), Err(Errno::ENOMEM));
    assert_eq!(space.map(MapRequest::anonymous(0, RW)), Err(Errno::EINVAL));
    assert_eq!(space.map(MapRequest::anonymous(usize::MAX, RW)), Err(Errno::ENOMEM));
    let low = space.map(MapRequest { placement: Placement::Low, ..MapRequest::anonymous(page, RW) }).unwrap();
    assert!(low < 1 << 31);
    // Top-down: the second lies below the first.
    let first = space.map(MapRequest::anonymous(page, Protection::READ)).unwrap();
    let second = space.map(MapRequest::anonymous(3 * page, RW)).unwrap();
    assert_eq!(second, first - 3 * page);
}

#[test]
fn the_program_break_moves_both_ways() {
    let space = AddressSpace::new().unwrap();
    let start = 0x60_0000;
    space.set_layout(0x7000_0000_0000, start);
    let brk = |to| space.brk(to, &Limits::NONE);
    assert_eq!(brk(0), start);
    assert_eq!(brk(start - 1), start);
    assert_eq!(brk(start + 10), start + 10);
    space.write_bytes(start, b"heap").unwrap();
    assert_eq!(brk(start + 100 * PAGE_SIZE), start + 100 * PAGE_SIZE);
    assert_eq!(read(&space, start), Ok(b'h'));
    space.write_bytes(start + 99 * PAGE_SIZE, b"x").unwrap();
    assert_eq!(brk(start + 50 * PAGE_SIZE), start + 50 * PAGE_SIZE);
    assert_eq!(read(&space, start + 99 * PAGE_SIZE), Err(Errno::EFAULT));
    assert_eq!(brk(start + 100 * PAGE_SIZE), start + 100 * PAGE_SIZE);
    assert_eq!(read(&space, start + 99 * PAGE_SIZE), Ok(0), "fresh again");
    // Something in the way, and a limit.
    space.map(fixed(start + 200 * PAGE_SIZE, PAGE_SIZE, RW)).unwrap();
    assert_eq!(brk(start + 300 * PAGE_SIZE), start + 100 * PAGE_SIZE);
    let limits = Limits { data_bytes: 120 * PAGE_SIZE as u64, ..Limits::NONE };
    assert_eq!(space.brk(start + 121 * PAGE_SIZE, &limits), start + 100 * PAGE_SIZE);
}

#[test]
fn remap_grows_shrinks_and_moves_with_contents() {
    let space = AddressSpace::new().unwrap();
    let page = PAGE_SIZE;
    let a = space.map(fixed(0x20_0000, 2 * page, RW)).unwrap();
    space.write_bytes(a, b"first").unwrap();
    space.write_bytes(a + page, b"second").unwrap();
    let remap = |at, old, new, flags, to| space.remap(at, old, new, flags, to, &Limits::NONE);
    let none = RemapFlags::empty();
    assert_eq!(remap(a, 2 * page, 4 * page, none, 0), Ok(a));
    space.map(fixed(a + 4 * page, page, Protection::READ)).unwrap();
    assert_eq!(remap(a, 4 * page, 5 * page, none, 0), Err(Errno::ENOMEM));
    let b = remap(a, 4 * page, 5 * page, RemapFlags::MAY_MOVE, 0).unwrap();
    assert_eq!((read(&space, b), read(&space, b + page), read(&space, b + 4 * page)), (Ok(b'f'), Ok(b's'), Ok(0)));
    assert_eq!(read(&space, a), Err(Errno::EFAULT));
    assert_eq!(remap(b, 5 * page, page, none, 0), Ok(b));
    assert_eq!(read(&space, b + page), Err(Errno::EFAULT));
    let to = 0x4000_0000;
    assert_eq!(remap(b, page, 2 * page, RemapFlags::MAY_MOVE | RemapFlags::FIXED, to), Ok(to));
    assert_eq!(read(&space, to), Ok(b'f'));
    // DONTUNMAP leaves an empty mapping behind.
    let c = remap(to, 2 * page, 2 * page, RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP, 0).unwrap();
    assert_eq!((read(&space, c), read(&space, to)), (Ok(b'f'), Ok(0)));
    for (at, old, new, flags, to, errno) in [
        (c + 1, page, page, none, 0, Errno::EINVAL),
        (c, page, 0, none, 0, Errno::EINVAL),
        (c, page, page, RemapFlags::FIXED, to, Errno::EINVAL),
        (c, 2 * page, 2 * page, RemapFlags::MAY_MOVE | RemapFlags::FIXED, c + page, Errno::EINVAL),
        (c, 0, page, RemapFlags::MAY_MOVE, 0, Errno::EINVAL),
        (c, 3 * page, 4 * page, RemapFlags::MAY_MOVE, 0, Errno::EFAULT),
        (0x9000_0000, page, page, none, 0, Errno::EFAULT),
    ] {
        assert_eq!(remap(at, old, new, flags, to), Err(errno), "{at:#x} {old} {new} {flags:?} {to:#x}");
    }
}

#[test]
fn a_stack_grows_to_its_limit_and_no_further() {
    let space = AddressSpace::new().unwrap();
    let top = 0x7000_0000;
    let mut request = fixed(top - PAGE_SIZE, PAGE_SIZE, RW);
    request.flags |= VmaFlags::GROWS_DOWN | VmaFlags::STACK;
    space.map(request).unwrap();
    let limits = Limits { stack_bytes: 64 * PAGE_SIZE as u64, ..Limits::NONE };
    assert_eq!(space.fault(top - 60 * PAGE_SIZE, Access::Write, &limits), Ok(()));
    assert_eq!(space.usage().stack, 60 * PAGE_SIZE);
    assert_eq!(space.fault(top - 65 * PAGE_SIZE, Access::Write, &limits), Err(FaultError::NotMapped));
    // A neighbour keeps it at a distance.
    space.map(fixed(top - 400 * PAGE_SIZE, PAGE_SIZE, RW)).unwrap();
    assert_eq!(space.fault(top - 140 * PAGE_SIZE, Access::Write, &Limits::NONE), Ok(()));
    assert_eq!(space.fault(top - 150 * PAGE_SIZE, Access::Write, &Limits::NONE), Err(FaultError::NotMapped));
}

#[test]
fn limits_are_kept() {
    let space = AddressSpace::new().unwrap();
    let limited = |limits| MapRequest { limits, ..MapRequest::anonymous(8 * PAGE_SIZE, RW) };
    assert_eq!(space.map(limited(Limits { total_bytes: 4 * PAGE_SIZE as u64, ..Limits::NONE })), Err(Errno::ENOMEM));
    assert_eq!(space.map(limited(Limits { data_bytes: 4 * PAGE_SIZE as u64, ..Limits::NONE })), Err(Errno::ENOMEM));
    let mut locked = limited(Limits { locked_bytes: 4 * PAGE_SIZE as u64, ..Limits::NONE });
    locked.flags |= VmaFlags::LOCKED;
    assert_eq!(space.map(locked), Err(Errno::EAGAIN));
    // More than the machine has, unless the program says that it does not mean it.
    let huge = frame::count().1 * PAGE_SIZE * 2;
    assert_eq!(space.map(MapRequest::anonymous(huge, RW)), Err(Errno::ENOMEM));
    let mut lazy = MapRequest::anonymous(huge, RW);
    lazy.flags |= VmaFlags::NO_RESERVE;
    assert!(space.map(lazy).is_ok());
    assert!(space.map(MapRequest::anonymous(huge, Protection::empty())).is_ok());
}

#[test]
fn locking_counts_and_brings_in() {
    let space = AddressSpace::new().unwrap();
    let page = PAGE_SIZE;
    let addr = space.map(MapRequest::anonymous(8 * page, RW)).unwrap();
    let limits = Limits { locked_bytes: 4 * page as u64, ..Limits::NONE };
    assert_eq!(space.set_locked(addr, 5 * page, Some(VmaFlags::LOCKED), &limits), Err(Errno::ENOMEM));
    space.set_locked(addr + 1, 3 * page, Some(VmaFlags::LOCKED), &limits).unwrap();
    assert_eq!((space.usage().locked, resident(&space)), (4 * page, 4));
    space.set_locked(addr, page, None, &limits).unwrap();
    assert_eq!(space.usage().locked, 3 * page);
    assert_eq!(space.residency(addr, 8).unwrap(), [1, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(space.residency(addr - page, 1), Err(Errno::ENOMEM));
    space.unmap(addr, 8 * page).unwrap();
    assert_eq!(space.usage().locked, 0);
    assert_eq!(space.set_locked(addr, page, Some(VmaFlags::LOCKED), &limits), Err(Errno::ENOMEM));
}

#[test]
fn everything_is_freed() {
    let file = File::new(8);
    let space = AddressSpace::new().unwrap();
    let a = space.map(MapRequest::anonymous(64 * PAGE_SIZE, RW)).unwrap();
    let b = space.map(file_request(&file, 0, 8 * PAGE_SIZE, RW, false)).unwrap();
    space.write_bytes(a, &[1; 64 * PAGE_SIZE]).unwrap();
    space.write_bytes(b, &[1]).unwrap();
    assert_eq!(read(&space, b + PAGE_SIZE), Ok(1));
    let frame = space.lock().pages.get(a).unwrap().frame();
    let child = space.fork().unwrap();
    drop(space);
    assert!(!frame.is_unique());
    drop(child);
    assert!(frame.is_unique());
    assert!(file.pages.lock().unwrap().iter().all(Frame::is_unique));
}

#[test]
fn shared_memory_can_be_punched() {
    let space = AddressSpace::new().unwrap();
    let mut request = MapRequest::anonymous(4 * PAGE_SIZE, RW);
    request.flags |= VmaFlags::SHARED;
    let addr = space.map(request).unwrap();
    space.write_bytes(addr, &[5; 2 * PAGE_SIZE]).unwrap();
    space.advise(addr, PAGE_SIZE, Advice::Discard).unwrap();
    assert_eq!((read(&space, addr), read(&space, addr + PAGE_SIZE)), (Ok(0), Ok(5)));
    // MADV_DONTNEED forgets mappings, not shared contents.
    space.advise(addr, 4 * PAGE_SIZE, Advice::Drop).unwrap();
    assert_eq!(read(&space, addr + PAGE_SIZE), Ok(5));
    assert!(space.shared_key(addr).is_some());
}
