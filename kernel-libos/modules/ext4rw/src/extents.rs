//! The map of a file as a sorted list of extents, and how many tree blocks such a list needs. Pure.

use alloc::vec::Vec;

use libos_core::{Errno, Result};
use ukc_ext4_layout::extent::{BLOCK_ENTRIES, Extent, MAX_EXTENT, ROOT_ENTRIES};

/// Blocks of a file that lie in a row, or a hole (`physical` is `None`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub len: u64,
    pub physical: Option<u64>,
    /// Allocated, but reads as zeros.
    pub is_unwritten: bool,
}

/// Longest extent of a kind: an unwritten one is a block shorter, because its length is stored with an offset.
fn max_len(is_unwritten: bool) -> u32 {
    u32::from(MAX_EXTENT) - u32::from(is_unwritten)
}

fn end(extent: &Extent) -> u64 {
    u64::from(extent.logical) + u64::from(extent.len)
}

/// What is at a block of the file, and for how many blocks on.
pub fn at(extents: &[Extent], logical: u64) -> Run {
    let next = extents.partition_point(|e| end(e) <= logical);
    match extents.get(next) {
        Some(e) if u64::from(e.logical) <= logical => {
            let skip = logical - u64::from(e.logical);
            Run { len: u64::from(e.len) - skip, physical: Some(e.physical + skip), is_unwritten: e.is_unwritten }
        }
        Some(e) => Run { len: u64::from(e.logical) - logical, physical: None, is_unwritten: false },
        None => Run { len: u64::MAX - logical, physical: None, is_unwritten: false },
    }
}

/// Adds blocks where the list has a hole, joining what lies in a row.
///
/// # Errors
/// `ENOMEM`.
pub fn insert(extents: &mut Vec<Extent>, new: Extent) -> Result<()> {
    let place = extents.partition_point(|e| e.logical < new.logical);
    if let Some(before) = place.checked_sub(1).and_then(|i| extents.get_mut(i))
        && joins(before, &new)
    {
        before.len += new.len;
        let joined = *before;
        if let Some(after) = extents.get(place)
            && joins(&joined, after)
        {
            let more = after.len;
            extents.remove(place);
            extents[place - 1].len += more;
        }
        return Ok(());
    }
    if let Some(after) = extents.get_mut(place)
        && joins(&new, after)
    {
        *after = Extent { len: new.len + after.len, ..new };
        return Ok(());
    }
    extents.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    extents.insert(place, new);
    Ok(())
}

fn joins(a: &Extent, b: &Extent) -> bool {
    a.is_unwritten == b.is_unwritten
        && end(a) == u64::from(b.logical)
        && a.physical + u64::from(a.len) == b.physical
        && a.len + b.len <= max_len(a.is_unwritten)
}

/// Takes the blocks `from .. to` out of the list; `gone` gets each run on the disk.
///
/// # Errors
/// `ENOMEM`; nothing is changed then.
pub fn cut(extents: &mut Vec<Extent>, from: u64, to: u64, gone: &mut dyn FnMut(u64, u32)) -> Result<()> {
    // Cutting in the middle of one makes two of it.
    extents.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    let mut i = extents.partition_point(|e| end(e) <= from);
    while let Some(&e) = extents.get(i) {
        let first = u64::from(e.logical);
        if first >= to {
            break;
        }
        let (cut_from, cut_to) = (from.max(first), to.min(end(&e)));
        gone(e.physical + (cut_from - first), (cut_to - cut_from) as u32);
        let left = Extent { len: (cut_from - first) as u32, ..e };
        let right = Extent {
            logical: cut_to as u32,
            len: (end(&e) - cut_to) as u32,
            physical: e.physical + (cut_to - first),
            is_unwritten: e.is_unwritten,
        };
        match (left.len > 0, right.len > 0) {
            (true, true) => {
                extents[i] = left;
                extents.insert(i + 1, right);
                break;
            }
            (true, false) => {
                extents[i] = left;
                i += 1;
            }
            (false, true) => {
                extents[i] = right;
                break;
            }
            (false, false) => {
                extents.remove(i);
            }
        }
    }
    Ok(())
}

/// Marks allocated blocks `from .. to` as written.
///
/// # Errors
/// `ENOMEM`.
pub fn mark_written(extents: &mut Vec<Extent>, from: u64, to: u64) -> Result<()> {
    let mut at_block = from;
    while at_block < to {
        let run = at(extents, at_block);
        let len = run.len.min(to - at_block);
        if let (Some(physical), true) = (run.physical, run.is_unwritten) {
            // Room for both changes first, so that no block is lost between them.
            extents.try_reserve(2).map_err(|_| Errno::ENOMEM)?;
            cut(extents, at_block, at_block + len, &mut |_, _| ())?;
            insert(extents, Extent { logical: at_block as u32, len: len as u32, physical, is_unwritten: false })?;
        }
        at_block += len;
    }
    Ok(())
}

/// Tree blocks below the root for so many extents.
pub fn tree_blocks(extents: usize) -> usize {
    let mut total = 0;
    let mut level = extents;
    while level > ROOT_ENTRIES {
        level = level.div_ceil(BLOCK_ENTRIES);
        total += level;
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCKS: usize = 64;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_list_is_the_map(steps in prop::collection::vec((0u64..64, 1u64..20, 0u8..3), 1..60)) {
            let mut list = Vec::new();
            // Physical block and whether it is unwritten, by file block.
            let mut map = [None::<(u64, bool)>; BLOCKS];
            let mut next = 1000;
            for (from, len, what) in steps {
                let to = (from + len).min(BLOCKS as u64);
                match what {
                    0 => {
                        for block in from..to {
                            if map[block as usize].is_none() {
                                map[block as usize] = Some((next, block % 3 == 0));
                                insert(&mut list, Extent { logical: block as u32, len: 1, physical: next, is_unwritten: block % 3 == 0 }).unwrap();
                                next += 1;
                            }
                        }
                        next += 1;
                    }
                    1 => {
                        let mut gone = Vec::new();
                        cut(&mut list, from, to, &mut |p, n| gone.extend(p..p + u64::from(n))).unwrap();
                        let expected: Vec<u64> = map[from as usize..to as usize].iter().flatten().map(|(p, _)| *p).collect();
                        prop_assert_eq!(gone, expected);
                        map[from as usize..to as usize].fill(None);
                    }
                    _ => {
                        mark_written(&mut list, from, to).unwrap();
                        map[from as usize..to as usize].iter_mut().flatten().for_each(|m| m.1 = false);
                    }
                }
                for (block, expected) in map.iter().enumerate() {
                    let run = at(&list, block as u64);
                    prop_assert_eq!(run.physical.map(|p| (p, run.is_unwritten)), *expected);
                }
                prop_assert!(list.windows(2).all(|w| end(&w[0]) <= u64::from(w[1].logical) && !joins(&w[0], &w[1])));
            }
        }
    }

    #[test]
    fn trees_grow_by_levels() {
        assert_eq!([0, 4, 5, 1360, 1361].map(tree_blocks), [0, 0, 1, 4, 6]);
    }
}
