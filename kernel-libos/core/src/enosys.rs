//! System calls that are not in this kernel: `ENOSYS`, and one line on the console per call.

use core::sync::atomic::{AtomicU64, Ordering};

use libos_abi::syscall::{NAMES, TABLE_LEN};
use libos_arch::console::Hex;

/// The names, packed: for each its number (two bytes), its length and its letters. A table of `&str` would take four times the space.
static PACKED: [u8; packed_len()] = pack();

const fn packed_len() -> usize {
    let (mut len, mut i) = (0, 0);
    while i < NAMES.len() {
        len += 3 + NAMES[i].1.len();
        i += 1;
    }
    len
}

const fn pack() -> [u8; packed_len()] {
    let mut out = [0; packed_len()];
    let (mut at, mut i) = (0, 0);
    while i < NAMES.len() {
        let (number, name) = NAMES[i];
        let name = name.as_bytes();
        out[at] = number as u8;
        out[at + 1] = (number >> 8) as u8;
        out[at + 2] = name.len() as u8;
        let mut j = 0;
        while j < name.len() {
            out[at + 3 + j] = name[j];
            j += 1;
        }
        at += 3 + name.len();
        i += 1;
    }
    out
}

/// The name of a system call.
pub fn name_of(number: usize) -> Option<&'static str> {
    let mut rest: &[u8] = &PACKED;
    while let [low, high, len, tail @ ..] = rest {
        let (name, tail) = tail.split_at_checked(usize::from(*len))?;
        if usize::from(u16::from_le_bytes([*low, *high])) == number {
            return core::str::from_utf8(name).ok();
        }
        rest = tail;
    }
    None
}

/// Calls that were reported.
static REPORTED: [AtomicU64; TABLE_LEN / 64] = [const { AtomicU64::new(0) }; TABLE_LEN / 64];

/// Says, once per call, that a program used a call that is not linked: which, from which program and address, and how to link it.
pub(crate) fn report(task: &crate::Task, number: usize, address: usize) {
    let Some(word) = REPORTED.get(number / 64) else { return };
    if word.fetch_or(1 << (number % 64), Ordering::Relaxed) >> (number % 64) & 1 == 1 {
        return;
    }
    let (program, pid, address) = (task.name_bytes(), task.pid() as u64, Hex(address as u64));
    match name_of(number) {
        Some(name) => crate::arch::report!(
            "ukc: ",
            &program[..],
            " (pid ",
            pid,
            ") calls ",
            name,
            " at ",
            address,
            ", which this kernel does not have: ENOSYS; `ukc build --syscall ",
            name,
            "` links it, if any kernel of this version has it",
        ),
        None => crate::arch::report!(
            "ukc: ",
            &program[..],
            " (pid ",
            pid,
            ") calls number ",
            number as u64,
            " at ",
            address,
            ", which Linux does not have: ENOSYS",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_from_the_packed_form() {
        for (number, name) in NAMES {
            assert_eq!(name_of(usize::from(*number)), Some(*name));
        }
        assert_eq!(name_of(400), None);
    }
}
