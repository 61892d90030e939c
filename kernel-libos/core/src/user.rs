//! Claims about user memory, checked when they are used.
//!
//! A program hands the kernel addresses; nothing in the kernel dereferences them. [`UserPtr`], [`UserSlice`] and [`UserStr`] copy in and out through
//! the architecture's fault-tolerant primitives, which page memory in as the program's own access would, and answer `EFAULT` for the rest.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, size_of};

use libos_abi::{Errno, Result};

use crate::arch::user as raw;

/// Plain old data: any bytes are a value, and it has no padding that matters or all of it is zeroed before use.
///
/// # Safety
/// Implement it only for `#[repr(C)]` (or primitive) types for which every bit pattern is valid, without references.
pub unsafe trait Pod: Copy + 'static {}

macro_rules! pod {
    ($($t:ty)*) => { $(
        // SAFETY: an integer, or a C structure of integers and addresses, for which all bit patterns are valid.
        unsafe impl Pod for $t {}
    )* };
}
pod! { u8 i8 u16 i16 u32 i32 u64 i64 usize isize crate::time::Timespec crate::time::Timeval }

use libos_abi::general as linux;

// Without implicit padding: <asm/stat.h>, <asm/statfs.h>, <linux/stat.h>, <linux/poll.h>, <linux/eventpoll.h> (packed), <asm/termbits.h>, <asm/termios.h>.
pod! { linux::stat linux::statfs linux::statx linux::statx_timestamp linux::pollfd linux::epoll_event linux::termios linux::winsize }

// SAFETY: an array of plain data is plain data.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// The program's claim that a `T` lies at an address. It may be null, unaligned, unmapped or in kernel space.
pub struct UserPtr<T>(usize, PhantomData<fn() -> T>);

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}

impl<T> UserPtr<T> {
    /// Returns the claim about an address.
    pub const fn new(addr: usize) -> UserPtr<T> {
        UserPtr(addr, PhantomData)
    }

    /// The address as the program gave it.
    pub fn addr(self) -> usize {
        self.0
    }

    /// Whether the program passed `NULL`.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// Returns `None` for `NULL`, for arguments that are optional.
    pub fn non_null(self) -> Option<UserPtr<T>> {
        (self.0 != 0).then_some(self)
    }

    /// The same address, claimed to hold another type.
    pub fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.0)
    }

    /// The claim about the element `index` places further.
    pub fn index(self, index: usize) -> UserPtr<T> {
        UserPtr::new(self.0.wrapping_add(index.wrapping_mul(size_of::<T>())))
    }

    /// The claim about a field `offset_bytes` further.
    pub fn field<U>(self, offset_bytes: usize) -> UserPtr<U> {
        UserPtr::new(self.0.wrapping_add(offset_bytes))
    }
}

impl<T: Pod> UserPtr<T> {
    /// Copies the value in.
    ///
    /// # Errors
    /// `EFAULT` when the program could not read there.
    pub fn read(self) -> Result<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the slice covers exactly `value`; writing bytes to uninitialised memory is fine, and nothing reads them before they are written.
        let bytes = unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
        raw::copy_from_user(bytes, self.0).map_err(|_| Errno::EFAULT)?;
        // SAFETY: all bytes were written, and every bit pattern is a `T` (`Pod`).
        Ok(unsafe { value.assume_init() })
    }

    /// Copies the value out.
    ///
    /// # Errors
    /// `EFAULT` when the program could not write there.
    pub fn write(self, value: T) -> Result<()> {
        // SAFETY: a `Pod` value's bytes may be read; padding is the implementer's promise.
        let bytes = unsafe { core::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        raw::copy_to_user(self.0, bytes).map_err(|_| Errno::EFAULT)
    }

    /// Copies the value out unless the pointer is null.
    ///
    /// # Errors
    /// As [`UserPtr::write`].
    pub fn write_if_not_null(self, value: T) -> Result<()> {
        if self.is_null() { Ok(()) } else { self.write(value) }
    }
}

/// The program's claim that `len` values of `T` lie in a row.
pub struct UserSlice<T> {
    addr: usize,
    len: usize,
    _type: PhantomData<fn() -> T>,
}

impl<T> Clone for UserSlice<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserSlice<T> {}

impl<T> UserSlice<T> {
    /// Returns the claim, or `None` when the range wraps around or leaves the user half of the address space.
    pub fn new(addr: usize, len: usize) -> Option<UserSlice<T>> {
        let end = addr.checked_add(len.checked_mul(size_of::<T>())?)?;
        (len == 0 || end <= crate::arch::addr::USER_END).then_some(UserSlice { addr, len, _type: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first element.
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// The claim about one element.
    pub fn at(&self, index: usize) -> UserPtr<T> {
        UserPtr::<T>::new(self.addr).index(index)
    }
}

impl UserSlice<u8> {
    /// Copies the first `dst.len()` bytes in.
    ///
    /// # Errors
    /// `EFAULT`. `dst` must not be longer than the slice.
    pub fn read_to(&self, dst: &mut [u8]) -> Result<()> {
        debug_assert!(dst.len() <= self.len);
        raw::copy_from_user(dst, self.addr).map_err(|_| Errno::EFAULT)
    }

    /// Copies `src` out to the start.
    ///
    /// # Errors
    /// `EFAULT`. `src` must not be longer than the slice.
    pub fn write_from(&self, src: &[u8]) -> Result<()> {
        debug_assert!(src.len() <= self.len);
        raw::copy_to_user(self.addr, src).map_err(|_| Errno::EFAULT)
    }
}

impl<T: Pod> UserSlice<T> {
    /// Copies all elements in; the caller has limited `len`.
    ///
    /// # Errors
    /// `EFAULT`, or `ENOMEM` when there is no room for the copy.
    pub fn read_vec(&self) -> Result<Vec<T>> {
        let mut out = Vec::new();
        out.try_reserve_exact(self.len).map_err(|_| Errno::ENOMEM)?;
        for i in 0..self.len {
            out.push(self.at(i).read()?);
        }
        Ok(out)
    }
}

/// The program's claim that a NUL-terminated string lies at an address.
#[derive(Clone, Copy)]
pub struct UserStr(usize);

impl UserStr {
    /// Returns the claim about an address.
    pub const fn new(addr: usize) -> UserStr {
        UserStr(addr)
    }

    /// Whether the program passed `NULL`.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address as the program gave it.
    pub fn addr(self) -> usize {
        self.0
    }

    /// Copies the string in without its NUL.
    ///
    /// # Errors
    /// `EFAULT`; `too_long` when no NUL comes within `max_bytes` bytes (`ENAMETOOLONG` for paths, `E2BIG` for arguments).
    pub fn read(self, max_bytes: usize, too_long: Errno) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut chunk = [0u8; 256];
        loop {
            let want = chunk.len().min(max_bytes - out.len());
            if want == 0 {
                return Err(too_long);
            }
            let got = raw::copy_string(&mut chunk[..want], self.0.wrapping_add(out.len())).map_err(|_| Errno::EFAULT)?;
            out.try_reserve(got).map_err(|_| Errno::ENOMEM)?;
            out.extend_from_slice(&chunk[..got]);
            // Fewer bytes than asked for means that the NUL was found.
            if got < want {
                return Ok(out);
            }
        }
    }

    /// Copies a path in: at most `PATH_MAX` - 1 bytes (path_resolution(7)).
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`.
    pub fn read_path(self) -> Result<Vec<u8>> {
        self.read(4096, Errno::ENAMETOOLONG)
    }
}
