//! Archives as cpio(1) writes them, and what is none.

use libos_core::mm::Frame;

use super::*;
use crate::archive::{end_of_ext4, entry, next_archive};

struct Bytes(Vec<u8>);

impl Volume for Bytes {
    fn len_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()> {
        let bytes = self.0.get(offset as usize..offset as usize + dst.len()).ok_or(Errno::EIO)?;
        dst.copy_from_slice(bytes);
        Ok(())
    }

    fn frame(&self, _offset: u64) -> Option<Frame> {
        None
    }

    fn read_frames(&self, _offset: u64, _frames: &[Frame]) -> Result<()> {
        Err(Errno::EIO)
    }

    fn is_in_ram(&self) -> bool {
        false
    }

    fn name(&self) -> Vec<u8> {
        Vec::new()
    }

    fn dev(&self) -> u64 {
        1
    }
}

/// One entry without data's padding before it.
fn put(out: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let numbers = [7, mode, 1, 2, 1, 99, data.len() as u32, 0, 0, 5, 1, name.len() as u32 + 1, 0];
    out.extend_from_slice(b"070701");
    numbers.iter().for_each(|n| out.extend_from_slice(format!("{n:08X}").as_bytes()));
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[test]
fn archives_follow_each_other() {
    let mut bytes = Vec::new();
    put(&mut bytes, "etc/resolv.conf", 0o100_644, b"nameserver 1.1.1.1\n");
    put(&mut bytes, "TRAILER!!!", 0, b"");
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let second_at = bytes.len() as u64;
    put(&mut bytes, "dev/null", 0o020_666, b"");
    put(&mut bytes, "TRAILER!!!", 0, b"");
    let volume = Bytes(bytes);
    let first = entry(&volume, 0).unwrap();
    assert_eq!((&first.name[..], first.mode, first.uid, first.gid, first.mtime), (&b"etc/resolv.conf"[..], 0o100_644, 1, 2, 99));
    let mut data = vec![0; first.data.1 as usize];
    volume.read(first.data.0, &mut data).unwrap();
    assert_eq!(data, b"nameserver 1.1.1.1\n");
    let trailer = entry(&volume, first.next).unwrap();
    assert_eq!(trailer.name, b"TRAILER!!!");
    assert_eq!(next_archive(&volume, trailer.next), Some(second_at));
    assert_eq!(entry(&volume, second_at).unwrap().device, (5, 1));
}

#[test]
fn a_root_needs_a_file_system_in_memory() {
    let mut bytes = Vec::new();
    put(&mut bytes, "TRAILER!!!", 0, b"");
    // The module that offers tmpfs is another crate; guest tests unpack for real.
    let volume: Arc<dyn Volume> = Arc::new(Bytes(bytes));
    assert!(probe(&volume) && !archive::is_archive(&*volume, 4));
    assert_eq!(mount(Some(volume), b"").err(), Some(Errno::ENODEV));
}

#[test]
fn what_is_no_archive_is_refused() {
    let mut good = Vec::new();
    put(&mut good, "name", 0o100_644, b"data");
    for cut in [0, 5, 50, 109, 112, good.len() - 2] {
        assert_eq!(entry(&Bytes(good[..cut].to_vec()), 0).err(), Some(Errno::EUCLEAN), "{cut}");
    }
    let mut bad = good.clone();
    bad[20] = b'x';
    assert!(entry(&Bytes(bad), 0).is_err());
    // A size behind the end, and a name of no length.
    for (at, digits) in [(6 + 8 * 6, b"FFFFFFFF"), (6 + 8 * 11, b"00000000")] {
        let mut bad = good.clone();
        bad[at..at + 8].copy_from_slice(digits);
        assert!(entry(&Bytes(bad), 0).is_err());
    }
    assert_eq!(next_archive(&Bytes(vec![0; 4096]), 0), None);
    assert_eq!(next_archive(&Bytes(b"\0\0\0\0rubbish".to_vec()), 0), None);
}

#[test]
fn an_ext4_image_says_where_it_ends() {
    let mut bytes = vec![0; 3 * 4096];
    bytes[1024 + 4] = 2;
    bytes[1024 + 0x18] = 2;
    assert_eq!(end_of_ext4(&Bytes(bytes.clone())), None);
    bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    assert_eq!(end_of_ext4(&Bytes(bytes.clone())), Some(8192));
    assert_eq!(end_of_ext4(&Bytes(bytes[..8192].to_vec())), None);
}
