//! Bounds-checked little-endian reads.

use crate::ElfError;

/// Returns `len` bytes at `offset`, or [`ElfError::Truncated`] naming `what`.
pub(crate) fn slice<'d>(data: &'d [u8], offset: u64, len: u64, what: &'static str) -> Result<&'d [u8], ElfError> {
    let truncated = || ElfError::Truncated { what, end: offset.saturating_add(len), len_bytes: data.len() as u64 };
    let end = offset.checked_add(len).ok_or_else(truncated)?;
    let (start, end) = (usize::try_from(offset).map_err(|_| truncated())?, usize::try_from(end).map_err(|_| truncated())?);
    data.get(start..end).ok_or_else(truncated)
}

pub(crate) fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(offset..offset.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(data: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(offset..offset.checked_add(8)?)?.try_into().ok()?))
}

/// Returns the bytes from `offset` up to the next NUL; `None` when there is no NUL.
pub(crate) fn cstr_at(data: &[u8], offset: u64) -> Option<&[u8]> {
    let rest = data.get(usize::try_from(offset).ok()?..)?;
    rest.iter().position(|&b| b == 0).map(|n| &rest[..n])
}

/// A cursor over bytes for formats of variable length (DWARF).
#[derive(Clone)]
pub(crate) struct Cursor<'d> {
    pub data: &'d [u8],
    pub at: usize,
}

impl<'d> Cursor<'d> {
    pub fn u8(&mut self) -> Option<u8> {
        let b = *self.data.get(self.at)?;
        self.at += 1;
        Some(b)
    }

    pub fn u16(&mut self) -> Option<u16> {
        let v = u16_at(self.data, self.at)?;
        self.at += 2;
        Some(v)
    }

    pub fn u32(&mut self) -> Option<u32> {
        let v = u32_at(self.data, self.at)?;
        self.at += 4;
        Some(v)
    }

    pub fn u64(&mut self) -> Option<u64> {
        let v = u64_at(self.data, self.at)?;
        self.at += 8;
        Some(v)
    }

    /// Reads an unsigned LEB128 number (DWARF 5, 7.6); bits above 64 are dropped.
    pub fn uleb128(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.u8()?;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift = shift.saturating_add(7);
        }
    }

    pub fn cstr(&mut self) -> Option<&'d [u8]> {
        let s = cstr_at(self.data, self.at as u64)?;
        self.at += s.len() + 1;
        Some(s)
    }
}
