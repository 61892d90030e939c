//! ELF kernels: the loaded segments go to their physical addresses (System V gABI, "Program Header").
//!
//! ```text
//! header:  24 entry, 32 offset of the program headers, 54 size of one, 56 count
//! program: 0 type (1: load), 8 offset in the file, 24 physical address, 32 bytes in the file, 40 bytes in memory (the rest is zero)
//! ```

use crate::{Machine, Place, Problem, u16_at, u32_at, u64_at};

const LOAD: u32 = 1;
const PROGRAM_HEADER_BYTES: usize = 56;

/// A loaded segment.
struct Segment<'a> {
    addr: u64,
    file: &'a [u8],
    memory_bytes: u64,
}

/// Returns the loaded segments of a file.
fn segments(file: &[u8]) -> impl Iterator<Item = Result<Segment<'_>, Problem>> {
    let first = u64_at(file, 32) as usize;
    (0..usize::from(u16_at(file, 56))).filter_map(move |i| {
        let at = first.checked_add(i * PROGRAM_HEADER_BYTES)?;
        let header = file.get(at..at.checked_add(PROGRAM_HEADER_BYTES)?)?;
        (u32_at(header, 0) == LOAD && u64_at(header, 40) != 0).then(|| segment(file, header))
    })
}

fn segment<'a>(file: &'a [u8], header: &[u8]) -> Result<Segment<'a>, Problem> {
    let (offset, len, memory_bytes) = (u64_at(header, 8), u64_at(header, 32), u64_at(header, 40));
    let bytes = offset.checked_add(len).and_then(|end| file.get(offset as usize..end as usize));
    let bytes = bytes.ok_or(Problem::Kernel("a segment lies outside the file"))?;
    let addr = u64_at(header, 24);
    // Below 4 GiB, where the loader's page tables reach.
    let is_sound = len <= memory_bytes && addr.checked_add(memory_bytes).is_some_and(|end| end <= 1 << 32);
    if is_sound { Ok(Segment { addr, file: bytes, memory_bytes }) } else { Err(Problem::Kernel("the size of a segment")) }
}

/// Puts the kernel where it belongs and returns its entry.
pub(crate) fn place(machine: &mut impl Machine, file: &[u8]) -> Result<u64, Problem> {
    let is_elf = file.starts_with(b"\x7fELF\x02\x01") && u16_at(file, 18) == 62 && usize::from(u16_at(file, 54)) == PROGRAM_HEADER_BYTES;
    if !is_elf {
        return Err(Problem::Kernel("it is no x86-64 ELF file"));
    }
    let (mut start, mut end) = (u64::MAX, 0);
    for segment in segments(file) {
        let segment = segment?;
        start = start.min(segment.addr);
        end = end.max(segment.addr + segment.memory_bytes);
    }
    let entry = u64_at(file, 24);
    if !(start..end).contains(&entry) {
        return Err(Problem::Kernel("its entry lies outside it"));
    }
    let ram = machine.claim(Place::At(start), end - start)?;
    for segment in segments(file) {
        let segment = segment?;
        let to = &mut ram.bytes[(segment.addr - start) as usize..][..segment.memory_bytes as usize];
        let (loaded, zeroed) = to.split_at_mut(segment.file.len());
        loaded.copy_from_slice(segment.file);
        zeroed.fill(0);
    }
    Ok(entry)
}
