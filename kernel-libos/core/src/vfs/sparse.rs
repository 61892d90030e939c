//! A map from numbers to values for keys that come in runs: pages of a file, inodes of an image.
//!
//! Values lie in chunks of 16 neighbours, and the chunks in a sorted array: small in memory and in code (a B-tree costs several kilobytes of code per type
//! of value), and appending is cheap. A file of 1 GiB has 16384 chunks, so even an insertion in the middle moves only 256 KiB.

use alloc::boxed::Box;
use alloc::vec::Vec;

use libos_abi::{Errno, Result};

const CHUNK: usize = 16;

/// The map.
pub struct Sparse<T> {
    chunks: Vec<(u64, Box<[Option<T>; CHUNK]>)>,
    len: usize,
}

/// A chunk without values; stable Rust has no `Box::try_new`.
fn empty_chunk<T>() -> Result<Box<[Option<T>; CHUNK]>> {
    let mut values = Vec::new();
    values.try_reserve_exact(CHUNK).map_err(|_| Errno::ENOMEM)?;
    values.resize_with(CHUNK, || None);
    values.into_boxed_slice().try_into().map_err(|_| Errno::ENOMEM)
}

impl<T> Default for Sparse<T> {
    fn default() -> Self {
        Sparse::new()
    }
}

impl<T> Sparse<T> {
    /// Returns an empty map.
    pub const fn new() -> Sparse<T> {
        Sparse { chunks: Vec::new(), len: 0 }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn find(&self, key: u64) -> Result<usize, usize> {
        let chunk = key / CHUNK as u64;
        // Mostly it is the last one.
        match self.chunks.last() {
            None => Err(0),
            Some((last, _)) if *last == chunk => Ok(self.chunks.len() - 1),
            Some((last, _)) if *last < chunk => Err(self.chunks.len()),
            Some(_) => self.chunks.binary_search_by_key(&chunk, |(number, _)| *number),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: u64) -> Option<&T> {
        let at = self.find(key).ok()?;
        self.chunks[at].1[key as usize % CHUNK].as_ref()
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let at = self.find(key).ok()?;
        self.chunks[at].1[key as usize % CHUNK].as_mut()
    }

    /// Sets the value of a key and returns the old one.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn insert(&mut self, key: u64, value: T) -> Result<Option<T>> {
        let at = match self.find(key) {
            Ok(at) => at,
            Err(at) => {
                self.chunks.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                self.chunks.insert(at, (key / CHUNK as u64, empty_chunk()?));
                at
            }
        };
        let old = self.chunks[at].1[key as usize % CHUNK].replace(value);
        self.len += usize::from(old.is_none());
        Ok(old)
    }

    /// Takes the value of a key out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let at = self.find(key).ok()?;
        let old = self.chunks[at].1[key as usize % CHUNK].take()?;
        self.len -= 1;
        if self.chunks[at].1.iter().all(Option::is_none) {
            self.chunks.remove(at);
        }
        Some(old)
    }

    /// The first key at or after `from`, with its value.
    pub fn next(&self, from: u64) -> Option<(u64, &T)> {
        let at = self.find(from).unwrap_or_else(|at| at);
        self.chunks[at..].iter().find_map(|(chunk, values)| {
            let base = chunk * CHUNK as u64;
            values.iter().enumerate().find_map(|(i, value)| {
                let key = base + i as u64;
                value.as_ref().filter(|_| key >= from).map(|value| (key, value))
            })
        })
    }

    /// Takes out what `goes` says, which gets every value once.
    pub fn drain_if(&mut self, mut goes: impl FnMut(u64, &T) -> bool, out: &mut Vec<T>) {
        let mut removed = 0;
        self.chunks.retain_mut(|(chunk, values)| {
            for (i, value) in values.iter_mut().enumerate() {
                let key = *chunk * CHUNK as u64 + i as u64;
                if value.as_ref().is_some_and(|value| goes(key, value)) {
                    out.extend(value.take());
                    removed += 1;
                }
            }
            values.iter().any(Option::is_some)
        });
        self.len -= removed;
    }

    /// Takes the last value out if its key is `from` or more. Needs no memory: what gives memory back must work when there is none.
    pub fn pop_last(&mut self, from: u64) -> Option<T> {
        let (chunk, values) = self.chunks.last_mut()?;
        let at = values.iter().rposition(Option::is_some)?;
        if *chunk * CHUNK as u64 + (at as u64) < from {
            return None;
        }
        let last = values[at].take();
        self.len -= 1;
        if values[..at].iter().all(Option::is_none) {
            self.chunks.pop();
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_an_ordered_map() {
        let mut sparse = Sparse::new();
        let mut model = BTreeMap::new();
        let mut seed = 7u64;
        for step in 0..20_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = seed >> 33 & 0x1ff;
            match seed >> 60 {
                0..=6 => assert_eq!(sparse.insert(key, step), Ok(model.insert(key, step))),
                7..=11 => assert_eq!(sparse.remove(key), model.remove(&key)),
                12 if step % 50 == 0 => {
                    let out: Vec<u64> = core::iter::from_fn(|| sparse.pop_last(key)).collect();
                    assert_eq!(out, model.split_off(&key).into_values().rev().collect::<Vec<_>>());
                }
                _ => assert_eq!(sparse.next(key), model.range(key..).next().map(|(k, v)| (*k, v))),
            }
            assert_eq!((sparse.get(key), sparse.len()), (model.get(&key), model.len()));
        }
    }
}
