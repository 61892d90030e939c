//! Function ranges from `.eh_frame`, which survives `strip` (LSB Core, "Exception Frames"; DWARF 5, 6.4.1).
//!
//! The table is a list of records, each with its length in front. A CIE (second word 0) holds what many functions share; an FDE (second word: how far
//! back its CIE is) holds the range of one function. How an address is stored is an encoding byte in the CIE's augmentation (`zR`).

use std::collections::BTreeMap;

use crate::bytes::Cursor;
use crate::{Elf, Segment};

/// The range of a function or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fde {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Augmentation `S`: a signal frame. glibc starts `__restore_rt`'s FDE one byte early, on padding, so that unwinders find it by return address - 1.
    pub is_signal_frame: bool,
}

#[derive(Clone, Copy)]
struct Cie {
    encoding: u8,
    is_signal_frame: bool,
}

impl Elf<'_> {
    /// Returns the FDEs in the order of the file; those with an encoding that no compiler emits for code are skipped.
    pub fn fdes(&self) -> Vec<Fde> {
        let Some((vaddr, data)) = self.eh_frame() else { return Vec::new() };
        let mut cies: BTreeMap<usize, Option<Cie>> = BTreeMap::new();
        let mut out = Vec::new();
        let mut c = Cursor { data, at: 0 };
        while let Some(length) = c.u32() {
            let length = if length == 0xffff_ffff { c.u64() } else { Some(u64::from(length)) };
            let Some(length) = length.and_then(|l| usize::try_from(l).ok()) else { break };
            if length == 0 {
                // A terminator; crtend.o puts one at the end, and some linkers leave one in the middle.
                continue;
            }
            let id_at = c.at;
            let Some(end) = id_at.checked_add(length).filter(|&e| e <= data.len()) else { break };
            let record = &data[..end];
            let mut r = Cursor { data: record, at: id_at };
            if let Some(id) = r.u32()
                && id != 0
                && let Some(cie_at) = id_at.checked_sub(id as usize)
            {
                let cie = *cies.entry(cie_at).or_insert_with(|| parse_cie(data, cie_at));
                if let Some(fde) = cie.and_then(|cie| parse_fde(&mut r, vaddr, cie)) {
                    out.push(fde);
                }
            }
            c.at = end;
        }
        out
    }

    /// Returns address and contents of `.eh_frame`: by its section, or through the pointer in `.eh_frame_hdr`.
    fn eh_frame(&self) -> Option<(u64, &[u8])> {
        if let Some(s) = self.section(b".eh_frame")
            && let Some(bytes) = self.section_bytes(s)
        {
            return Some((s.vaddr, bytes));
        }
        let header = self.segments().iter().find(|s| s.kind == Segment::GNU_EH_FRAME)?;
        let data = self.bytes_at(header.vaddr, header.file_size)?;
        // version 1, encoding of eh_frame_ptr, of the count, of the table; then eh_frame_ptr.
        let mut c = Cursor { data, at: 4 };
        let vaddr = pointer(&mut c, *data.get(1)?, header.vaddr)?;
        Some((vaddr, self.bytes_from(vaddr)?))
    }
}

/// Reads the CIE whose length field is at `at`.
fn parse_cie(data: &[u8], at: usize) -> Option<Cie> {
    let mut c = Cursor { data, at };
    let length = c.u32()?;
    if length == 0xffff_ffff {
        c.u64()?;
    }
    if c.u32()? != 0 {
        return None;
    }
    let version = c.u8()?;
    let augmentation = c.cstr()?;
    if version >= 4 {
        c.u16()?;
    }
    c.uleb128()?; // code alignment
    c.uleb128()?; // data alignment (signed, but only its length matters)
    if version == 1 { c.u8().map(u64::from) } else { c.uleb128() }?; // return address register
    let mut cie = Cie { encoding: 0, is_signal_frame: false };
    for letter in augmentation {
        match letter {
            b'z' => {
                c.uleb128()?;
            }
            b'R' => cie.encoding = c.u8()?,
            b'L' => {
                c.u8()?;
            }
            b'P' => {
                let encoding = c.u8()?;
                pointer(&mut c, encoding, 0)?;
            }
            b'S' => cie.is_signal_frame = true,
            _ => break,
        }
    }
    Some(cie)
}

fn parse_fde(c: &mut Cursor<'_>, section: u64, cie: Cie) -> Option<Fde> {
    let start = pointer(c, cie.encoding, section)?;
    // The length has the same format, without "relative to".
    let len = pointer(c, cie.encoding & 0x0f, 0)?;
    Some(Fde { start, len, is_signal_frame: cie.is_signal_frame })
}

/// Reads an encoded pointer (LSB Core, 10.5.1); `section` is the address of the cursor's first byte, for pc-relative ones.
fn pointer(c: &mut Cursor<'_>, encoding: u8, section: u64) -> Option<u64> {
    let at = section.wrapping_add(c.at as u64);
    let value = match encoding & 0x0f {
        0x00 | 0x04 | 0x0c => c.u64()?,
        0x02 => u64::from(c.u16()?),
        0x03 => u64::from(c.u32()?),
        0x0a => c.u16()? as i16 as u64,
        0x0b => c.u32()? as i32 as u64,
        _ => return None,
    };
    match encoding & 0x70 {
        0x00 => Some(value),
        0x10 => Some(value.wrapping_add(at)),
        _ => None,
    }
}
