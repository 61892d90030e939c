//! Truncated and mutated archives are errors or images, never panics.

mod common;

use common::{ABS64, Obj, PLT32, archive, input};
use object::{SectionKind, elf};
use proptest::prelude::*;
use ukc_link::link;

fn sample() -> Vec<u8> {
    let refs = [(1, PLT32, "helper", -4), (8, ABS64, "__start_list", 0), (19, elf::R_X86_64_REX_GOTPCRELX, "table", -4)];
    let mut code = [0x90; 32];
    code[16..19].copy_from_slice(&[0x48, 0x8b, 0x05]);
    let main = Obj::new().text("main", &code, &refs).comdat("shared", &[1; 4]).def("list", SectionKind::ReadOnlyData, "item", &[7; 8], &[]);
    let other = Obj::new()
        .comdat("shared", &[2; 4])
        .text("helper", &[0; 16], &[(0, elf::R_X86_64_32S, "zeroed", 0), (8, elf::R_X86_64_GOTPCREL, "shared", -4)])
        .def(".data.rel.ro.table", SectionKind::ReadOnlyDataWithRel, "table", &[0; 8], &[(0, ABS64, "main", 0)])
        .bss("zeroed", 64, 16);
    archive(&[("main.o", main.build()), ("other.o", other.build())])
}

#[test]
fn the_sample_links() {
    let l = link(&input(&sample(), &["main"])).unwrap();
    assert_eq!(l.stats.objects, (2, 2));
}

#[test]
fn every_truncation_is_survived() {
    let sample = sample();
    for len in 0..sample.len() {
        let _ = link(&input(&sample[..len], &["main"]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_mutation_is_survived(mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), has_symbol_table in any::<bool>()) {
        let mut bytes = sample();
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut input = input(&bytes, &["main"]);
        input.keep = vec!["list".to_owned()];
        input.has_symbol_table = has_symbol_table;
        if let Ok(l) = link(&input) {
            prop_assert!(object::File::parse(&*l.elf).is_ok());
        }
    }
}
