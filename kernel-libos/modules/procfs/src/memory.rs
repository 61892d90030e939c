//! Files about the memory of a process: arguments, environment, mappings.

use core::ops::Range;

use libos_core::mm::{AddressSpace, PAGE_SIZE, Protection};
use libos_core::task::Task;
use libos_core::vfs::registry::{major, minor};

use crate::text::Text;

/// Bytes of arguments or environment that are shown at most; execve(2) takes no more (a quarter of the stack limit is the usual bound).
const STRINGS_MAX: usize = 2 << 20;

fn strings(mm: &AddressSpace, range: Range<usize>, text: &mut Text) {
    let mut at = range.start;
    let end = range.end.min(range.start.saturating_add(STRINGS_MAX));
    let mut chunk = [0; 256];
    while at < end {
        let count = chunk.len().min(end - at);
        if mm.read_bytes(at, &mut chunk[..count]).is_err() {
            break;
        }
        text.bytes(&chunk[..count]);
        at += count;
    }
}

pub fn cmdline(task: &Task, text: &mut Text) {
    if let Some(mm) = task.mm_opt() {
        strings(&mm, mm.program().args, text);
    }
}

pub fn environ(task: &Task, text: &mut Text) {
    if let Some(mm) = task.mm_opt() {
        strings(&mm, mm.program().env, text);
    }
}

pub fn auxv(task: &Task, text: &mut Text) {
    let Some(mm) = task.mm_opt() else { return };
    for (kind, value) in mm.program().auxv {
        text.bytes(&kind.to_le_bytes());
        text.bytes(&value.to_le_bytes());
    }
}

/// The first line of an area: addresses, access, offset, device, inode, name.
fn area(text: &mut Text, line: &libos_core::mm::address_space::MapLine) {
    let flag = |protection: Protection, letter: char| if line.protection.contains(protection) { letter } else { '-' };
    let before = text.0.len();
    text.part(format_args!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        line.range.start,
        line.range.end,
        flag(Protection::READ, 'r'),
        flag(Protection::WRITE, 'w'),
        flag(Protection::EXEC, 'x'),
        if line.shared { 's' } else { 'p' },
        line.offset,
        major(line.name.dev),
        minor(line.name.dev),
        line.name.ino,
    ));
    if !line.name.path.is_empty() {
        // Names start in column 73.
        while text.0.len() - before < 73 {
            text.bytes(b" ");
        }
        text.escaped(&line.name.path, b"\n");
    }
    text.bytes(b"\n");
}

pub fn maps(task: &Task, text: &mut Text) {
    if let Some(mm) = task.mm_opt() {
        mm.maps(&mut |line| area(text, &line));
    }
}

/// Resident pages of an area; the walk asks for a piece at a time.
fn resident(mm: &AddressSpace, range: &Range<usize>) -> usize {
    const PIECE: usize = 512;
    let mut at = range.start;
    let mut count = 0;
    while at < range.end {
        let pages = ((range.end - at) / PAGE_SIZE).min(PIECE);
        count += mm.residency(at, pages).map_or(0, |bits| bits.iter().filter(|bit| **bit & 1 == 1).count());
        at += pages * PAGE_SIZE;
    }
    count
}

/// The lines that follow an area in smaps. Which pages are shared with whom is not counted: all that is resident is called private.
fn details(text: &mut Text, size: usize, rss: usize, is_writable: bool) {
    let (clean, dirty) = if is_writable { (0, rss) } else { (rss, 0) };
    for (name, kib) in [
        ("Size", size),
        ("KernelPageSize", 4),
        ("MMUPageSize", 4),
        ("Rss", rss),
        ("Pss", rss),
        ("Shared_Clean", 0),
        ("Shared_Dirty", 0),
        ("Private_Clean", clean),
        ("Private_Dirty", dirty),
        ("Referenced", rss),
        ("Anonymous", dirty),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", 0),
    ] {
        let width = 23usize.saturating_sub(name.len());
        text.line(format_args!("{name}:{kib:>width$} kB"));
    }
}

pub fn smaps(task: &Task, text: &mut Text) {
    let Some(mm) = task.mm_opt() else { return };
    mm.maps(&mut |line| {
        area(text, &line);
        let rss = resident(&mm, &line.range) * PAGE_SIZE / 1024;
        details(text, line.range.len() / 1024, rss, line.protection.contains(Protection::WRITE));
        text.line(format_args!("THPeligible:    0\nVmFlags: "));
    });
}

pub fn smaps_rollup(task: &Task, text: &mut Text) {
    let Some(mm) = task.mm_opt() else { return };
    let usage = mm.usage();
    text.line(format_args!("00000000-7fffffffffff ---p 00000000 00:00 0                          [rollup]"));
    details(text, usage.total / 1024, usage.resident / 1024, true);
}
