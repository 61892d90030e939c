//! What a program finds on its stack: arguments, environment and auxiliary vector (System V psABI for x86-64, 3.4.1).
//!
//! ```text
//! high   0 (8 bytes)
//!        path of the program, "NAME=value" strings, argument strings
//!        "x86_64", 16 random bytes
//!        (alignment)
//!        auxiliary vector: pairs of (type, value), ends with AT_NULL
//!        pointers to the environment strings, NULL
//!        pointers to the argument strings, NULL
//! rsp -> number of arguments                       (rsp is a multiple of 16)
//! ```

use alloc::vec::Vec;
use core::ops::Range;

use libos_abi::{Errno, Result, auxvec};

/// Longest argument or environment string, its NUL included (execve(2), "Limits on size of arguments and environment": 32 pages).
pub const STRING_MAX: usize = 32 * 4096;

/// Most bytes for all strings and pointers: three quarters of the default stack limit (`_STK_LIM / 4 * 3`).
const TOTAL_MAX: usize = 6 << 20;

/// Argument or environment strings: each with its NUL, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// Adds a string (without NUL).
    ///
    /// # Errors
    /// `E2BIG` when it is too long, `ENOMEM`.
    pub fn push(&mut self, string: &[u8]) -> Result<()> {
        if string.len() >= STRING_MAX || self.bytes.len() + string.len() > TOTAL_MAX {
            return Err(Errno::E2BIG);
        }
        self.bytes.try_reserve(string.len() + 1).map_err(|_| Errno::ENOMEM)?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// Collects strings.
    ///
    /// # Errors
    /// As [`Strings::push`].
    pub fn collect<'a>(strings: impl IntoIterator<Item = &'a [u8]>) -> Result<Strings> {
        let mut out = Strings::default();
        strings.into_iter().try_for_each(|s| out.push(s))?;
        Ok(out)
    }

    /// Number of strings.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The strings.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|b| *b == 0).map(|s| &s[..s.len() - 1])
    }

    /// Fails when strings and pointers together exceed what a stack limit allows.
    ///
    /// # Errors
    /// `E2BIG`.
    pub fn check_total(&self, other: &Strings, stack_limit: u64) -> Result<()> {
        // At least 32 pages are always there (execve(2)).
        let limit = (stack_limit / 4).min(TOTAL_MAX as u64).max(STRING_MAX as u64);
        let total = self.bytes.len() + other.bytes.len() + (self.count + other.count) * size_of::<usize>();
        if total as u64 > limit { Err(Errno::E2BIG) } else { Ok(()) }
    }
}

/// The finished picture of a stack.
#[derive(Debug, PartialEq, Eq)]
pub struct StackImage {
    /// Address of the first byte: the stack pointer.
    pub start: usize,
    /// Contents up to the top.
    pub bytes: Vec<u8>,
    /// Where the argument strings lie.
    pub args: Range<usize>,
    /// Where the environment strings lie.
    pub env: Range<usize>,
    /// The auxiliary vector, `AT_NULL` included.
    pub auxv: Vec<(usize, usize)>,
}

/// Builds a stack whose highest byte lies below `top`, a multiple of 16. `auxv` gets the entries that point into the stack added.
///
/// # Errors
/// `ENOMEM`.
pub fn build(
    top: usize,
    args: &Strings,
    env: &Strings,
    path: &[u8],
    random: &[u8; 16],
    mut auxv: Vec<(usize, usize)>,
) -> Result<StackImage> {
    let path_at = top - 8 - (path.len() + 1);
    let env_at = path_at - env.bytes.len();
    let args_at = env_at - args.bytes.len();
    let platform = b"x86_64\0";
    let platform_at = args_at - platform.len();
    let random_at = platform_at - random.len();
    auxv.try_reserve(5).map_err(|_| Errno::ENOMEM)?;
    auxv.push((auxvec::AT_RANDOM as usize, random_at));
    auxv.push((auxvec::AT_PLATFORM as usize, platform_at));
    auxv.push((auxvec::AT_EXECFN as usize, path_at));
    auxv.push((auxvec::AT_NULL as usize, 0));

    let words = 1 + args.count + 1 + env.count + 1 + auxv.len() * 2;
    let start = (random_at - words * size_of::<usize>()) & !15;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(top - start).map_err(|_| Errno::ENOMEM)?;
    let mut word = |value: usize| bytes.extend_from_slice(&value.to_le_bytes());
    word(args.count);
    for (strings, at) in [(args, args_at), (env, env_at)] {
        let mut at = at;
        for string in strings.iter() {
            word(at);
            at += string.len() + 1;
        }
        word(0);
    }
    for (kind, value) in &auxv {
        word(*kind);
        word(*value);
    }
    bytes.resize(random_at - start, 0);
    for part in [random.as_slice(), platform, &args.bytes, &env.bytes, path] {
        bytes.extend_from_slice(part);
    }
    bytes.resize(top - start, 0);
    Ok(StackImage { start, bytes, args: args_at..env_at, env: env_at..path_at, auxv })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_where_its_pointer_says() {
        let args = Strings::collect([b"prog".as_slice(), b"", b"-x"]).unwrap();
        let env = Strings::collect([b"A=1".as_slice()]).unwrap();
        let image = build(0x7fff_0000, &args, &env, b"/bin/prog", &[7; 16], vec![(6, 4096)]).unwrap();
        assert_eq!(image.start % 16, 0);
        assert_eq!(image.start + image.bytes.len(), 0x7fff_0000);
        let word = |i: usize| usize::from_le_bytes(image.bytes[i * 8..i * 8 + 8].try_into().unwrap());
        let string = |addr: usize| image.bytes[addr - image.start..].split(|b| *b == 0).next().unwrap();
        assert_eq!(word(0), 3);
        assert_eq!([string(word(1)), string(word(2)), string(word(3))], [b"prog".as_slice(), b"", b"-x"]);
        assert_eq!((word(4), string(word(5)), word(6)), (0, b"A=1".as_slice(), 0));
        assert_eq!((word(7), word(8)), (6, 4096));
        let aux = |kind: u32| image.auxv.iter().find(|e| e.0 == kind as usize).unwrap().1;
        assert_eq!(string(aux(auxvec::AT_EXECFN)), b"/bin/prog");
        assert_eq!(string(aux(auxvec::AT_PLATFORM)), b"x86_64");
        let random = aux(auxvec::AT_RANDOM) - image.start;
        assert_eq!(image.bytes[random..random + 16], [7; 16]);
        assert_eq!(image.args.len(), 9);
        assert_eq!(&image.bytes[image.env.start - image.start..image.env.end - image.start], b"A=1\0");
        assert_eq!(word(7 + 2 * (image.auxv.len() - 1)), 0);
    }

    #[test]
    fn sizes_are_limited() {
        let mut strings = Strings::default();
        assert_eq!(strings.push(&vec![b'a'; STRING_MAX]), Err(Errno::E2BIG));
        assert_eq!(strings.push(&vec![b'a'; STRING_MAX - 1]), Ok(()));
        let none = Strings::default();
        assert_eq!(strings.check_total(&none, 8 << 20), Ok(()));
        strings.push(b"x").unwrap();
        // A tiny stack limit leaves 32 pages.
        assert_eq!(strings.check_total(&none, 4096), Err(Errno::E2BIG));
    }
}
