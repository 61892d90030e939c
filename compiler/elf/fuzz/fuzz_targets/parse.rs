//! Every view of arbitrary bytes returns. Run with `cargo +nightly fuzz run parse` in `compiler/elf`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ukc_elf::Elf;

fuzz_target!(|data: &[u8]| {
    let Ok(elf) = Elf::parse(data) else { return };
    let _ = (elf.fdes(), elf.symbols(), elf.go_functions(), elf.interpreter(), elf.build_id());
    let Ok(dynamic) = elf.dynamic() else { return };
    if let Some(d) = &dynamic {
        let _ = elf.dynamic_symbols(d);
    }
    elf.relocations(dynamic.as_ref(), &mut |_| {});
});
