//! Reading files whose bytes are pages: what read(2) does for every file system.

use libos_abi::{Errno, Result};

use crate::file::OpenFile;
use crate::io::IoDst;
use crate::mm::{PAGE_SIZE, PageSource};

/// Largest file size and offset: what a signed 64-bit offset can say.
pub const MAX_LEN_BYTES: u64 = i64::MAX as u64;

/// Moves bytes from a source's pages to the destination of a read, up to the end of the source.
///
/// # Errors
/// What the source or the destination answers, when nothing was moved before.
pub fn read_pages(source: &(impl PageSource + ?Sized), dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
    let mut at = offset;
    let mut moved = 0;
    while dst.remaining() > 0 {
        let left = source.len_bytes().saturating_sub(at);
        if left == 0 {
            break;
        }
        let in_page = at as usize % PAGE_SIZE;
        let piece = ((PAGE_SIZE - in_page) as u64).min(left) as usize;
        let result = source.page(at / PAGE_SIZE as u64, false).and_then(|frame| frame.push_to(in_page, piece, dst));
        match result {
            Ok(0) => break,
            Ok(count) => {
                moved += count;
                at += count as u64;
            }
            // The file shrank meanwhile.
            Err(Errno::ENXIO) => break,
            Err(errno) if moved == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(moved)
}

/// lseek(2) for a file of a known size: no holes are known, so all is data and the hole is at the end.
///
/// # Errors
/// `EINVAL` for a negative result or an unknown whence, `EOVERFLOW`, `ENXIO` for `SEEK_DATA` and `SEEK_HOLE` beyond the end.
pub fn default_seek(size: u64, file: &OpenFile, offset: i64, whence: u32) -> Result<u64> {
    use libos_abi::general as linux;
    let mut position = file.offset.lock();
    let base = match whence {
        linux::SEEK_SET => 0,
        linux::SEEK_CUR => *position as i64,
        linux::SEEK_END => size as i64,
        linux::SEEK_DATA | linux::SEEK_HOLE => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            if from >= size {
                return Err(Errno::ENXIO);
            }
            *position = if whence == linux::SEEK_DATA { from } else { size };
            return Ok(*position);
        }
        _ => return Err(Errno::EINVAL),
    };
    let target = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
    *position = u64::try_from(target).map_err(|_| Errno::EINVAL)?;
    Ok(*position)
}
