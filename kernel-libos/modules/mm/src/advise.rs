//! madvise(2), mincore(2), msync(2).

use libos_core::abi::general as linux;
use libos_core::mm::{Advice, PAGE_SIZE, VmaFlags};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

/// What a number means; `EINVAL` for those that a kernel without page merging and huge pages does not know.
fn advice(number: u32) -> Result<Advice> {
    let set = |set| Advice::Flags { set, clear: VmaFlags::empty() };
    let clear = |clear| Advice::Flags { set: VmaFlags::empty(), clear };
    Ok(match number {
        linux::MADV_NORMAL | linux::MADV_SEQUENTIAL => clear(VmaFlags::RANDOM),
        linux::MADV_RANDOM => set(VmaFlags::RANDOM),
        linux::MADV_DONTNEED => Advice::Drop,
        linux::MADV_FREE => Advice::Free,
        linux::MADV_REMOVE => Advice::Discard,
        linux::MADV_DONTFORK => set(VmaFlags::DONT_FORK),
        linux::MADV_DOFORK => clear(VmaFlags::DONT_FORK),
        linux::MADV_WIPEONFORK => set(VmaFlags::WIPE_ON_FORK),
        linux::MADV_KEEPONFORK => clear(VmaFlags::WIPE_ON_FORK),
        linux::MADV_DONTDUMP => set(VmaFlags::DONT_DUMP),
        linux::MADV_DODUMP => clear(VmaFlags::DONT_DUMP),
        linux::MADV_POPULATE_READ => Advice::PopulateRead,
        linux::MADV_POPULATE_WRITE => Advice::PopulateWrite,
        linux::MADV_WILLNEED | linux::MADV_COLD | linux::MADV_PAGEOUT | linux::MADV_HUGEPAGE | linux::MADV_NOHUGEPAGE => Advice::Hint,
        _ => return Err(Errno::EINVAL),
    })
}

pub(crate) fn sys_madvise(task: &Task, addr: usize, len: usize, number: u32) -> Result<usize> {
    task.mm().advise(addr, len, advice(number)?).map(|()| 0)
}

/// Pages looked at in one go, so that the answer needs little memory however large the range is.
const CHUNK_PAGES: usize = 1024;

pub(crate) fn sys_mincore(task: &Task, addr: usize, len: usize, vec: UserPtr<u8>) -> Result<usize> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    UserSlice::<u8>::new(addr, len).ok_or(Errno::ENOMEM)?;
    let pages = len.div_ceil(PAGE_SIZE);
    let out = UserSlice::from_parts(vec, pages)?;
    let mut done = 0;
    while done < pages {
        let count = CHUNK_PAGES.min(pages - done);
        let residency = task.mm().residency(addr + done * PAGE_SIZE, count)?;
        UserSlice::from_parts(out.at(done), count)?.write_from(&residency)?;
        done += count;
    }
    Ok(0)
}

pub(crate) fn sys_msync(task: &Task, addr: usize, len: usize, flags: u32) -> Result<usize> {
    const BOTH: u32 = linux::MS_ASYNC | linux::MS_SYNC;
    if flags & !(BOTH | linux::MS_INVALIDATE) != 0 || flags & BOTH == BOTH || !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    task.mm().sync(addr, len, flags & linux::MS_SYNC != 0, flags & linux::MS_INVALIDATE != 0).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_advice_is_refused() {
        assert_eq!(advice(linux::MADV_DONTNEED), Ok(Advice::Drop));
        for number in [5, 7, linux::MADV_MERGEABLE, linux::MADV_HWPOISON, 1000] {
            assert_eq!(advice(number), Err(Errno::EINVAL), "{number}");
        }
    }
}
