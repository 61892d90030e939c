//! Where the bytes of read(2) go and the bytes of write(2) come from: user memory in one or several pieces, or kernel memory.
//!
//! A file implementation pushes or pulls and never learns which; data moves once, between its own buffer (a page-cache frame, a pipe's ring, a
//! packet) and the program's memory.

use alloc::vec::Vec;

use libos_abi::{Errno, Result};

use crate::user::UserSlice;

/// Where the bytes of a read go.
pub struct IoDst<'a> {
    segments: Segments<'a, &'a mut [u8]>,
    done: usize,
    /// Bytes moved in all at most.
    max: usize,
}

/// Where the bytes of a write come from.
pub struct IoSrc<'a> {
    segments: Segments<'a, &'a [u8]>,
    done: usize,
    /// Bytes moved in all at most.
    max: usize,
}

enum Segments<'a, K> {
    User(&'a [UserSlice<u8>]),
    One(UserSlice<u8>),
    Kernel(K),
}

macro_rules! common {
    ($t:ident, $kernel:ty) => {
        impl<'a> $t<'a> {
            /// One piece of user memory.
            pub fn user(slice: UserSlice<u8>) -> $t<'a> {
                $t { segments: Segments::One(slice), done: 0, max: usize::MAX }
            }

            /// Several pieces of user memory, as readv(2) and writev(2) have them.
            pub fn user_vec(slices: &'a [UserSlice<u8>]) -> $t<'a> {
                $t { segments: Segments::User(slices), done: 0, max: usize::MAX }
            }

            /// Kernel memory.
            pub fn kernel(bytes: $kernel) -> $t<'a> {
                $t { segments: Segments::Kernel(bytes), done: 0, max: usize::MAX }
            }

            /// Bytes moved so far.
            pub fn done(&self) -> usize {
                self.done
            }

            /// Bytes still wanted.
            pub fn remaining(&self) -> usize {
                self.total() - self.done
            }

            /// Moves no more than `count` bytes from here on.
            pub fn limit(&mut self, count: usize) {
                self.max = self.max.min(self.done.saturating_add(count));
            }

            fn total(&self) -> usize {
                let all = match &self.segments {
                    Segments::User(slices) => slices.iter().map(UserSlice::len).sum(),
                    Segments::One(slice) => slice.len(),
                    Segments::Kernel(bytes) => bytes.len(),
                };
                all.min(self.max)
            }

            /// The user memory that comes next: address and length in bytes.
            fn next_user(&self) -> Option<(usize, usize)> {
                match &self.segments {
                    Segments::One(slice) => (self.done < slice.len()).then(|| (slice.addr() + self.done, slice.len() - self.done)),
                    Segments::User(slices) => {
                        let mut skip = self.done;
                        for slice in slices.iter() {
                            if skip < slice.len() {
                                return Some((slice.addr() + skip, slice.len() - skip));
                            }
                            skip -= slice.len();
                        }
                        None
                    }
                    Segments::Kernel(_) => None,
                }
            }
        }
    };
}
common!(IoDst, &'a mut [u8]);
common!(IoSrc, &'a [u8]);

impl IoDst<'_> {
    /// Moves as much of `bytes` as is wanted and returns how much that was.
    ///
    /// # Errors
    /// `EFAULT` when nothing could be moved because the program's memory is not writable. After a partial move the count is returned instead, as
    /// Linux does.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize> {
        self.fill(bytes.len(), |dst, from, len| match dst {
            Target::Kernel(dst) => {
                dst.copy_from_slice(&bytes[from..from + len]);
                true
            }
            Target::User(addr) => crate::arch::user::copy_to_user(addr, &bytes[from..from + len]).is_ok(),
        })
    }

    /// Moves `len` zero bytes, or as many as are wanted.
    ///
    /// # Errors
    /// As [`IoDst::push`].
    pub fn push_zeros(&mut self, len: usize) -> Result<usize> {
        self.fill(len, |dst, _, len| match dst {
            Target::Kernel(dst) => {
                dst.fill(0);
                true
            }
            Target::User(addr) => crate::arch::user::clear_user(addr, len).is_ok(),
        })
    }

    fn fill(&mut self, len: usize, mut copy: impl FnMut(Target<'_>, usize, usize) -> bool) -> Result<usize> {
        let mut moved = 0;
        while moved < len && self.remaining() > 0 {
            let piece = if let Segments::Kernel(dst) = &mut self.segments {
                let piece = (dst.len().min(self.max) - self.done).min(len - moved);
                let done = self.done;
                copy(Target::Kernel(&mut dst[done..done + piece]), moved, piece);
                piece
            } else {
                let remaining = self.remaining();
                let (addr, avail) = self.next_user().expect("something remains");
                let piece = avail.min(len - moved).min(remaining);
                if !copy(Target::User(addr), moved, piece) {
                    return if moved > 0 || self.done > 0 { Ok(moved) } else { Err(Errno::EFAULT) };
                }
                piece
            };
            moved += piece;
            self.done += piece;
        }
        Ok(moved)
    }
}

enum Target<'a> {
    Kernel(&'a mut [u8]),
    User(usize),
}

impl IoSrc<'_> {
    /// Moves the next bytes into `dst` and returns how many there were.
    ///
    /// # Errors
    /// `EFAULT` when nothing could be moved because the program's memory is not readable.
    pub fn pull(&mut self, dst: &mut [u8]) -> Result<usize> {
        let mut moved = 0;
        while moved < dst.len() && self.remaining() > 0 {
            let piece = if let Segments::Kernel(src) = &self.segments {
                let piece = (src.len().min(self.max) - self.done).min(dst.len() - moved);
                dst[moved..moved + piece].copy_from_slice(&src[self.done..self.done + piece]);
                piece
            } else {
                let (addr, avail) = self.next_user().expect("something remains");
                let piece = avail.min(dst.len() - moved).min(self.remaining());
                if crate::arch::user::copy_from_user(&mut dst[moved..moved + piece], addr).is_err() {
                    return if moved > 0 || self.done > 0 { Ok(moved) } else { Err(Errno::EFAULT) };
                }
                piece
            };
            moved += piece;
            self.done += piece;
        }
        Ok(moved)
    }

    /// Moves everything that remains into a vector; the caller has limited the length.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn pull_all(&mut self) -> Result<Vec<u8>> {
        let len = self.remaining();
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        out.resize(len, 0);
        let moved = self.pull(&mut out)?;
        if moved < len {
            return Err(Errno::EFAULT);
        }
        Ok(out)
    }

    /// Takes back the last `count` bytes pulled, when they could not be stored after all.
    pub fn unpull(&mut self, count: usize) {
        self.done -= count;
    }
}
