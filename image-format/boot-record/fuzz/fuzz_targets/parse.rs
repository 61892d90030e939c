//! Every record of arbitrary bytes is read or refused. Run with `cargo +nightly fuzz run parse` in `image-format/boot-record`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ukc_boot_record::BootRecord;

fuzz_target!(|data: &[u8]| {
    if let Ok(r) = BootRecord::parse(data) {
        let _ = (r.args().count(), r.env().count(), r.groups().count(), r.mounts().count(), r.dns().count(), r.ports().count());
    }
});
