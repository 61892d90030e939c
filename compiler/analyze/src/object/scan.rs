//! Byte scans of code: cheap ways to find the few places that are worth decoding.
//!
//! Instructions have no fixed places, so a scan looks at every byte offset and finds all real occurrences and some false ones; decoding the function
//! around a candidate tells them apart.

use rustc_hash::FxHashSet;

use super::image::Image;

/// The ways into the kernel: `syscall`, `int 0x80`, `sysenter` (Intel SDM volume 2).
const ENTRIES: [[u8; 2]; 3] = [[0x0f, 0x05], [0xcd, 0x80], [0x0f, 0x34]];

/// Returns every address at which the bytes of `syscall`, `int 0x80` or `sysenter` stand, ascending.
pub fn kernel_entries(image: &Image<'_>) -> Vec<u64> {
    let mut out = Vec::new();
    for (at, bytes) in &image.code {
        out.extend(bytes.windows(2).enumerate().filter(|(_, w)| ENTRIES.iter().any(|e| w == e)).map(|(i, _)| at + i as u64));
    }
    out
}

/// Returns every address of code from which one of `targets` may be named: a relative 32-bit displacement (call, jump, `lea`, access through the GOT), a
/// short jump, and in objects with fixed addresses an absolute 32-bit number. The address is that of the displacement, not of its instruction.
pub fn references(image: &Image<'_>, targets: &FxHashSet<u64>) -> Vec<(u64, u64)> {
    // A filter on the low 16 bits rejects nearly every offset with one load.
    let mut filter = vec![0u64; 1024];
    for t in targets {
        filter[(t & 0xffff) as usize / 64] |= 1 << (t % 64);
    }
    let hit = |t: u64| filter[(t & 0xffff) as usize / 64] >> (t % 64) & 1 != 0 && targets.contains(&t);
    let absolute = image.has_fixed_addresses();
    let mut out = Vec::new();
    for (at, bytes) in &image.code {
        for (i, w) in bytes.windows(4).enumerate() {
            let word = u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
            let here = at + i as u64;
            let relative = (here + 4).wrapping_add(word as i32 as u64);
            if hit(relative) {
                out.push((here, relative));
            }
            if absolute && hit(u64::from(word)) {
                out.push((here, u64::from(word)));
            }
        }
    }
    for &target in targets {
        let near = target.saturating_sub(130)..target.saturating_add(130);
        for here in near {
            let Some(bytes) = image.code_from(here).filter(|b| b.len() >= 2) else { continue };
            let is_short_jump = bytes[0] == 0xeb || bytes[0] & 0xf0 == 0x70 || (0xe0..=0xe3).contains(&bytes[0]);
            if is_short_jump && (here + 2).wrapping_add(bytes[1] as i8 as u64) == target {
                out.push((here + 1, target));
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Returns the PLT stubs that jump through the GOT slot `slot`: `jmp [rip + d]`, with or without `endbr64` and `bnd` in front; the address of each form's
/// first byte.
pub fn stubs(image: &Image<'_>, slots: &FxHashSet<u64>) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    for (displacement, slot) in references(image, slots) {
        let before = |n: u64| displacement.checked_sub(n).and_then(|a| image.code_from(a));
        if before(2).is_some_and(|b| b.starts_with(&[0xff, 0x25])) {
            out.push((displacement - 2, slot));
            if before(3).is_some_and(|b| b[0] == 0xf2) {
                out.push((displacement - 3, slot));
            }
            for n in [6, 7] {
                if before(n).is_some_and(|b| b.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa])) {
                    out.push((displacement - n, slot));
                }
            }
        }
    }
    out
}
