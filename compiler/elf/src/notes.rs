//! Notes: the build id.

use crate::bytes::u32_at;
use crate::{Elf, Segment};

impl<'d> Elf<'d> {
    /// Returns the GNU build id (`NT_GNU_BUILD_ID`, type 3, owner `GNU`).
    pub fn build_id(&self) -> Option<&'d [u8]> {
        self.segments().iter().filter(|s| s.kind == Segment::NOTE).find_map(|s| {
            let data = self.segment_bytes(s);
            let align = if s.align == 8 { 8 } else { 4 };
            let mut at = 0usize;
            // A note: length of the owner, length of the contents, type, then both, each padded.
            loop {
                let (name, desc, kind) = (u32_at(data, at)? as usize, u32_at(data, at + 4)? as usize, u32_at(data, at + 8)?);
                let name_at = at + 12;
                let desc_at = name_at.checked_add(name)?.checked_next_multiple_of(align)?;
                let desc_end = desc_at.checked_add(desc)?;
                if kind == 3 && data.get(name_at..name_at + 4.min(name)) == Some(b"GNU\0") {
                    return data.get(desc_at..desc_end);
                }
                at = desc_end.checked_next_multiple_of(align)?;
            }
        })
    }
}
