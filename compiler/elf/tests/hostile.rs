//! Whatever the bytes are, every view of them returns: no panic, no endless loop, no allocation that the file's length does not justify.

use proptest::prelude::*;
use ukc_elf::fixture::Fixture;
use ukc_elf::{Elf, ElfError};

/// Asks for everything the crate can tell.
fn exercise(data: &[u8]) -> Result<usize, ElfError> {
    let elf = Elf::parse(data)?;
    let mut n = elf.fdes().len() + elf.symbols().len() + elf.go_functions().len() + elf.sections().len();
    n += elf.interpreter().map_or(0, <[u8]>::len) + elf.build_id().map_or(0, <[u8]>::len);
    n += usize::from(elf.wants_executable_stack()) + usize::from(elf.has_writable_code());
    let dynamic = elf.dynamic()?;
    if let Some(d) = &dynamic {
        n += elf.dynamic_symbols(d).len();
    }
    elf.relocations(dynamic.as_ref(), &mut |_| n += 1);
    Ok(n)
}

fn sample() -> Vec<u8> {
    Fixture {
        interpreter: Some("/lib64/ld-linux-x86-64.so.2".into()),
        needed: vec!["libc.so.6".into()],
        runpath: Some("$ORIGIN/../lib".into()),
        code: vec![0x90; 64],
        functions: vec![("f".into(), 0, 16)],
        imports: vec!["syscall".into()],
        ..Fixture::default()
    }
    .build()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_behind_the_magic(tail in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut data = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec();
        data.extend(tail);
        let _ = exercise(&data);
    }

    #[test]
    fn mutated_fixture(edits in proptest::collection::vec((0usize..0x2400, any::<u8>()), 1..24), cut in 0usize..0x3000) {
        let mut data = sample();
        for (at, value) in edits {
            if let Some(b) = data.get_mut(at) { *b = value; }
        }
        let _ = exercise(&data);
        data.truncate(cut);
        let _ = exercise(&data);
    }

    #[test]
    fn mutated_host_program(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..32)) {
        let Ok(mut data) = std::fs::read("/bin/true") else { return Ok(()) };
        let len = data.len();
        for (at, value, in_head) in edits {
            let limit = if in_head { 0x1000.min(len) } else { len };
            data[at.index(limit)] = value;
        }
        let _ = exercise(&data);
    }
}

#[test]
fn a_good_fixture_is_read_back() {
    let data = sample();
    let elf = Elf::parse(&data).unwrap();
    let dynamic = elf.dynamic().unwrap().unwrap();
    assert_eq!(elf.interpreter(), Some(&b"/lib64/ld-linux-x86-64.so.2"[..]));
    assert_eq!(dynamic.needed, [b"libc.so.6"]);
    assert_eq!(dynamic.runpath, Some(&b"$ORIGIN/../lib"[..]));
    let symbols = elf.dynamic_symbols(&dynamic);
    assert_eq!(symbols.iter().map(|s| s.name).collect::<Vec<_>>(), [&b""[..], b"syscall", b"f"]);
    assert!(!symbols[1].is_defined && symbols[2].is_defined);
    let mut relocations = vec![];
    elf.relocations(Some(&dynamic), &mut |r| relocations.push((r.vaddr, r.kind, r.symbol)));
    assert_eq!(relocations, [(0x2000, 6, 1)]);
}

#[test]
fn errors_say_what_is_wrong() {
    let good = sample();
    let mut arm = good.clone();
    arm[18] = 183;
    let mut narrow = good.clone();
    (narrow[4], narrow[18]) = (1, 3);
    let mut object = good.clone();
    object[16] = 1;
    let cases: [(&[u8], &str); 6] = [
        (b"#!/bin/sh\n", "not an ELF file"),
        (&good[..40], "truncated: the ELF header ends at byte 64, but the file has 40 bytes"),
        (&good[..0x1020], "truncated: the contents of a LOAD segment ends at byte 4160, but the file has 4128 bytes"),
        (&arm, "a program for aarch64, not x86-64"),
        (&narrow, "a 32-bit program (i386)"),
        (&object, "a relocatable object file (`ET_REL`), not a program"),
    ];
    for (data, expected) in cases {
        assert_eq!(Elf::parse(data).map(|_| ()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn relr_names_the_words_of_its_bitmaps() {
    // Two words: an address, then a bitmap with bits 1 and 3 set: address + 8 and address + 24.
    let mut fixture = Fixture { is_dynamic: true, code: vec![0x90; 8], ..Fixture::default() };
    fixture.data = [0x2000u64, 0b1011, 0, 0, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
    let data = fixture.build();
    let elf = Elf::parse(&data).unwrap();
    let mut dynamic = elf.dynamic().unwrap().unwrap();
    dynamic.relr = (0x2000, 16);
    let mut seen = vec![];
    elf.relocations(Some(&dynamic), &mut |r| seen.push((r.vaddr, r.addend)));
    assert_eq!(seen, [(0x2000, 0x2000), (0x2008, 0b1011), (0x2018, 0)]);
}
