//! What is written is read back; what is damaged is refused, and the first wrong field named.

use proptest::prelude::*;
use ukc_gpt::{Disk, Error, Guid, Partition, Problem, SECTOR, TYPE_BIOS_BOOT, TYPE_ESP, TYPE_ROOT_X86_64, find};

fn disk() -> Disk {
    let partition = |kind, n: u8, sectors, name: &str| Partition { kind, guid: Guid([n; 16]), sectors, name: name.to_owned() };
    Disk {
        guid: Guid::from_hash([7; 16]),
        sectors: 4096,
        partitions: vec![partition(TYPE_BIOS_BOOT, 1, 34..64, "boot"), partition(TYPE_ROOT_X86_64, 2, 2048..4063, "root")],
    }
}

fn image() -> Vec<u8> {
    let disk = disk();
    let (head, tail) = disk.encode(b"code").unwrap();
    let mut image = head;
    image.resize(disk.sectors as usize * SECTOR - tail.len(), 0);
    image.extend(tail);
    image
}

fn look(image: &[u8], kind: Guid) -> Result<Option<std::ops::Range<u64>>, Error<&'static str>> {
    find(kind, &mut |lba, sector| {
        let at = usize::try_from(lba).ok().and_then(|lba| lba.checked_mul(SECTOR)).ok_or("number")?;
        let bytes = image.get(at..).and_then(|b| b.first_chunk()).ok_or("beyond the end")?;
        *sector = *bytes;
        Ok(())
    })
}

#[test]
fn partitions_are_found() {
    let image = image();
    assert_eq!(look(&image, TYPE_ROOT_X86_64), Ok(Some(2048..4063)));
    assert_eq!(look(&image, TYPE_BIOS_BOOT), Ok(Some(34..64)));
    assert_eq!(look(&image, TYPE_ESP), Ok(None));
    assert_eq!(&image[..4], b"code");
    assert_eq!(image[510..512], [0x55, 0xaa]);
}

#[test]
fn the_backup_is_the_same_table_seen_from_the_end() {
    let image = image();
    let (first, last) = (&image[512..1024], &image[4095 * 512..]);
    assert_eq!(first[24..32], last[32..40], "own and other copy change places");
    assert_eq!(first[32..40], last[24..32]);
    assert_eq!(first[88..92], last[88..92]);
    assert_eq!(image[1024..34 * 512], image[4063 * 512..4095 * 512]);
}

#[test]
fn the_first_wrong_field_is_named() {
    let refused = |at: usize, value: u8| {
        let mut image = image();
        image[at] ^= value;
        match look(&image, TYPE_ROOT_X86_64) {
            Err(Error::Table(problem)) => problem,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(512, 1), Problem::Signature);
    assert_eq!(refused(512 + 13, 0x80), Problem::Header("header size"));
    assert_eq!(refused(512 + 60, 1), Problem::HeaderChecksum);
    assert_eq!(refused(1024 + 16, 1), Problem::EntriesChecksum);
    assert_eq!(refused(1024 + 128 + 45, 1), Problem::Entry(1));
    assert_eq!(look(&[0; 100], TYPE_ESP), Err(Error::Read("beyond the end")));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut outside = disk();
    outside.partitions[1].sectors = 2048..4064;
    assert!(outside.encode(&[]).is_err());
    assert!(Disk { sectors: 40, partitions: vec![], ..disk() }.encode(&[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_input_panics_and_no_answer_lies_outside(changes in prop::collection::vec((0usize..34 * 512, any::<u8>()), 1..8), fix in any::<bool>()) {
        let mut image = image();
        for (at, value) in changes {
            image[at] = value;
        }
        if fix {
            // With right checksums, what the fields say decides.
            let crc = ukc_gpt::Crc32::of(&image[1024..34 * 512]).to_le_bytes();
            image[512 + 88..512 + 92].copy_from_slice(&crc);
            image[512 + 16..512 + 20].fill(0);
            let crc = ukc_gpt::Crc32::of(&image[512..512 + 92]).to_le_bytes();
            image[512 + 16..512 + 20].copy_from_slice(&crc);
        }
        if let Ok(Some(range)) = look(&image, TYPE_ROOT_X86_64) {
            prop_assert!(range.start < range.end);
        }
    }
}
