//! The `struct iovec` arrays of readv(2) and writev(2).

use alloc::vec::Vec;

use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result};

/// Bytes that one call moves at most (read(2), "NOTES"): 2 GiB less one page.
pub const MAX_COUNT: usize = 0x7fff_f000;

/// Pieces of one call at most (`IOV_MAX`, readv(2)).
const IOV_MAX: usize = 1024;

/// Arrays up to this length need no memory.
const FEW: usize = 8;

/// A copied-in array of pieces of user memory.
pub struct Iov {
    few: [UserSlice<u8>; FEW],
    many: Vec<UserSlice<u8>>,
    len: usize,
}

impl Iov {
    /// Copies the array in, cut to [`MAX_COUNT`] bytes in all.
    ///
    /// # Errors
    /// `EINVAL` for more than 1024 pieces or a length that is negative as `ssize_t`; `EFAULT`; `ENOMEM`.
    pub fn read(array: UserPtr<[usize; 2]>, count: usize) -> Result<Iov> {
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let empty = UserSlice::from_parts(UserPtr::new(0), 0)?;
        let mut iov = Iov { few: [empty; FEW], many: Vec::new(), len: count };
        if count > FEW {
            iov.many.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
            iov.many.resize(count, empty);
        }
        let mut room = MAX_COUNT;
        for i in 0..count {
            let [addr, len] = array.index(i).read()?;
            if len > isize::MAX as usize {
                return Err(Errno::EINVAL);
            }
            let len = len.min(room);
            room -= len;
            let slice = UserSlice::from_parts(UserPtr::new(addr), len)?;
            if count > FEW { iov.many[i] = slice } else { iov.few[i] = slice }
        }
        Ok(iov)
    }

    /// The pieces.
    pub fn slices(&self) -> &[UserSlice<u8>] {
        if self.len > FEW { &self.many } else { &self.few[..self.len] }
    }
}
