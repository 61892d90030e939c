//! What this crate reads from programs of the machine the tests run on equals what the `object` crate reads.

use object::{Object, ObjectSection, ObjectSymbol};
use ukc_elf::{Elf, Segment};

#[test]
fn tables_equal_those_of_object() {
    for path in ["/bin/true", "/bin/sh", "/lib/x86_64-linux-gnu/libc.so.6", "/bin/busybox"] {
        let Ok(data) = std::fs::read(path) else { continue };
        let elf = Elf::parse(&data).unwrap();
        let other = object::File::parse(&*data).unwrap();
        assert_eq!(elf.entry(), other.entry(), "{path}");
        assert_eq!(elf.build_id(), other.build_id().unwrap(), "{path}");
        assert_eq!(elf.sections().len(), other.sections().count() + 1, "{path}: object leaves the null section out");
        for s in other.sections() {
            let mine = elf.section(s.name_bytes().unwrap()).unwrap();
            assert_eq!(mine.size, s.size(), "{path}");
        }
        if let Some(dynamic) = elf.dynamic().unwrap() {
            let mine: Vec<_> = elf.dynamic_symbols(&dynamic).iter().skip(1).map(|s| (s.name.to_vec(), s.value)).collect();
            let theirs: Vec<_> = other.dynamic_symbols().map(|s| (s.name_bytes().unwrap().to_vec(), s.address())).collect();
            assert_eq!(mine, theirs, "{path}");
            let mut relocations = 0;
            elf.relocations(Some(&dynamic), &mut |r| relocations += usize::from(r.kind != 0));
            assert!(relocations > 0, "{path}");
        }
        // Every FDE lies in executable memory.
        for fde in elf.fdes() {
            let inside =
                |s: &Segment| s.is_load() && s.is_executable() && fde.start >= s.vaddr && fde.start + fde.len <= s.vaddr + s.mem_size;
            assert!(elf.segments().iter().any(inside), "{path}: {fde:x?}");
        }
    }
}

#[test]
fn function_ranges_are_found_without_section_headers() {
    let Ok(mut data) = std::fs::read("/bin/true") else { return };
    let with = Elf::parse(&data).unwrap().fdes();
    // e_shoff, e_shnum and e_shstrndx.
    data[40..48].fill(0);
    data[60..64].fill(0);
    let elf = Elf::parse(&data).unwrap();
    assert!(elf.sections().is_empty());
    assert_eq!(elf.fdes(), with);
    assert!(with.len() > 20);
}
