//! What is written is read back, and what is damaged is refused.

use proptest::prelude::*;
use ukc_load_table::{BadField, KernelFormat, LoadTable, TABLE_BYTES, xxh64};

const TABLE: LoadTable<'static> = LoadTable {
    format: KernelFormat::Elf,
    kernel_offset: 2048,
    kernel_len_bytes: 1_000_000,
    kernel_hash: 0x1234_5678_9abc_def0,
    initrd_lba: 0,
    initrd_len_bytes: 0,
    disk_sectors: 1 << 20,
    command_line: b"ukc.trace",
};

/// A table in which `change` was done and the checksum is right again.
fn changed(change: impl FnOnce(&mut [u8])) -> [u8; TABLE_BYTES] {
    let mut bytes = TABLE.encode().unwrap();
    change(&mut bytes);
    let checksum = xxh64(&bytes[..2040]);
    bytes[2040..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn the_first_wrong_field_is_named() {
    let refused = |change: &dyn Fn(&mut [u8])| LoadTable::parse(&changed(change)).unwrap_err().0;
    assert_eq!(refused(&|b| b[0] = 0), "magic");
    assert_eq!(refused(&|b| b[8] = 2), "version");
    assert_eq!(refused(&|b| b[12] = 9), "format of the kernel");
    assert_eq!(refused(&|b| b[16] = 1), "offset of the kernel");
    assert_eq!(refused(&|b| b[24..32].fill(0)), "length of the kernel");
    assert_eq!(refused(&|b| b[40] = 1), "sector of the initial RAM disk");
    assert_eq!(refused(&|b| b[63] = 1), "sectors of the disk");
    assert_eq!(refused(&|b| b[66] = 1), "length of the command line");
    assert_eq!(refused(&|b| b[130] = 0), "command line");
    let mut bytes = TABLE.encode().unwrap();
    bytes[33] ^= 1;
    assert_eq!(LoadTable::parse(&bytes), Err(BadField("checksum")));
    assert_eq!(LoadTable::parse(&bytes[..100]), Err(BadField("its length")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read(len in 1u64..1 << 39, hash: u64, lba in 1u64..1 << 39, line in "[ -~]{0,1912}") {
        let table = LoadTable { kernel_len_bytes: len, kernel_hash: hash, initrd_lba: lba, initrd_len_bytes: len, command_line: line.as_bytes(), ..TABLE };
        let bytes = table.encode().unwrap();
        prop_assert_eq!(LoadTable::parse(&bytes), Ok(table));
    }

    #[test]
    fn no_input_panics(changes in prop::collection::vec((0usize..2040, any::<u8>()), 1..6)) {
        let bytes = changed(|b| changes.iter().for_each(|(at, value)| b[*at] = *value));
        if let Ok(table) = LoadTable::parse(&bytes) {
            prop_assert!(table.encode().is_ok());
        }
    }
}
