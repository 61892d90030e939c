//! What the two boot protocols say, read from guest memory.
//!
//! - `hvm_start_info`: Xen's `docs/misc/pvh.pandoc` and `public/arch-x86/hvm/start_info.h`. All little endian:
//!
//!   ```text
//!   0 magic "xEn3" with the top bit | 4 version | 8 flags | 12 modules | 16 module list | 24 command line | 32 RSDP | 40 memory map | 48 entries
//!   module: 0 address, 8 bytes, 16 its command line      memory map entry: 0 address, 8 bytes, 16 type
//!   ```
//! - `boot_params`: Linux `Documentation/arch/x86/boot.rst` and `zero-page.rst`.

use super::Entry;
use super::memory::MemoryMap;

const PVH_MAGIC: u32 = 0x336e_c578;
/// Type of RAM in both maps.
const RAM: u32 = 1;
/// Longest command line that is believed.
const CMDLINE_MAX_BYTES: usize = 64 * 1024;

/// What was found; addresses are physical.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Initrd address and bytes; 0 bytes is none.
    pub initrd: (u64, u64),
    /// Command line address and bytes without NUL.
    pub cmdline: (u64, usize),
    /// RSDP or 0.
    pub rsdp: u64,
}

/// Why the information cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// `hvm_start_info` without its magic number.
    NotPvh,
    /// No memory map (PVH version 0).
    NoMemoryMap,
}

/// Guest-physical memory; reading maps it first.
pub trait Physical {
    /// Fills `dst` from an address.
    fn read(&mut self, addr: u64, dst: &mut [u8]);

    /// A 32-bit value.
    fn u32(&mut self, addr: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// A 64-bit value.
    fn u64(&mut self, addr: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Length of a NUL-terminated string, limited.
    fn string_len(&mut self, addr: u64) -> usize {
        let mut byte = [0];
        (0..CMDLINE_MAX_BYTES)
            .find(|&i| {
                self.read(addr + i as u64, &mut byte);
                byte[0] == 0
            })
            .unwrap_or(CMDLINE_MAX_BYTES)
    }
}

/// Reads what the protocol passed at `info` and adds the RAM to `map`.
///
/// # Errors
/// [`Unusable`].
pub fn read<const N: usize>(entry: Entry, info: u64, memory: &mut impl Physical, map: &mut MemoryMap<N>) -> Result<Found, Unusable> {
    match entry {
        Entry::Pvh => read_pvh(info, memory, map),
        Entry::Linux64 => Ok(read_linux(info, memory, map)),
    }
}

fn read_pvh<const N: usize>(info: u64, memory: &mut impl Physical, map: &mut MemoryMap<N>) -> Result<Found, Unusable> {
    if memory.u32(info) != PVH_MAGIC {
        return Err(Unusable::NotPvh);
    }
    let entries = if memory.u32(info + 4) >= 1 { memory.u32(info + 48) } else { 0 };
    if entries == 0 {
        return Err(Unusable::NoMemoryMap);
    }
    let table = memory.u64(info + 40);
    for i in 0..u64::from(entries) {
        let entry = table + i * 24;
        if memory.u32(entry + 16) == RAM {
            let (start, len) = (memory.u64(entry), memory.u64(entry + 8));
            map.add_ram(start, len);
        }
    }
    let mut found = Found { rsdp: memory.u64(info + 32), ..Found::default() };
    if memory.u32(info + 12) > 0 {
        let module = memory.u64(info + 16);
        found.initrd = (memory.u64(module), memory.u64(module + 8));
    }
    let cmdline = memory.u64(info + 24);
    if cmdline != 0 {
        found.cmdline = (cmdline, memory.string_len(cmdline));
    }
    Ok(found)
}

fn read_linux<const N: usize>(info: u64, memory: &mut impl Physical, map: &mut MemoryMap<N>) -> Found {
    // Number of entries at 0x1e8, table at 0x2d0: 20 bytes each, at most 128.
    let entries = (memory.u32(info + 0x1e8) & 0xff).min(128);
    for i in 0..u64::from(entries) {
        let entry = info + 0x2d0 + i * 20;
        if memory.u32(entry + 16) == RAM {
            let (start, len) = (memory.u64(entry), memory.u64(entry + 8));
            map.add_ram(start, len);
        }
    }
    // The header has the low halves, ext_* of the zero page the high ones.
    let mut wide = |low: u64, high: u64| u64::from(memory.u32(info + low)) | u64::from(memory.u32(info + high)) << 32;
    let initrd = (wide(0x218, 0xc0), wide(0x21c, 0xc4));
    let cmdline = wide(0x228, 0xc8);
    let rsdp = memory.u64(info + 0x70);
    let cmdline = if cmdline == 0 { (0, 0) } else { (cmdline, memory.string_len(cmdline)) };
    Found { initrd, cmdline, rsdp }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from address 0.
    struct Bytes(Vec<u8>);

    impl Physical for Bytes {
        fn read(&mut self, addr: u64, dst: &mut [u8]) {
            dst.copy_from_slice(&self.0[addr as usize..addr as usize + dst.len()]);
        }
    }

    impl Bytes {
        fn new() -> Bytes {
            Bytes(vec![0; 0x3000])
        }
        fn put(&mut self, addr: usize, bytes: &[u8]) -> &mut Bytes {
            self.0[addr..addr + bytes.len()].copy_from_slice(bytes);
            self
        }
        fn put64(&mut self, addr: usize, value: u64) -> &mut Bytes {
            self.put(addr, &value.to_le_bytes())
        }
        fn put32(&mut self, addr: usize, value: u32) -> &mut Bytes {
            self.put(addr, &value.to_le_bytes())
        }
    }

    #[test]
    fn pvh() {
        let mut memory = Bytes::new();
        let (info, table, module, cmdline) = (0x100, 0x200, 0x300, 0x400);
        memory
            .put32(info, PVH_MAGIC)
            .put32(info + 4, 1)
            .put32(info + 12, 1)
            .put64(info + 16, module as u64)
            .put64(info + 24, cmdline as u64);
        memory.put64(info + 32, 0xe0000).put64(info + 40, table as u64).put32(info + 48, 2);
        memory.put64(table, 0x10_0000).put64(table + 8, 0x70_0000).put32(table + 16, 1);
        memory.put64(table + 24, 0xfec0_0000).put64(table + 32, 0x1000).put32(table + 40, 2);
        memory.put64(module, 0x40_0000).put64(module + 8, 0x1234).put(cmdline, b"a=b c\0");
        let mut map = MemoryMap::<4>::new();
        let found = read(Entry::Pvh, info as u64, &mut memory, &mut map).unwrap();
        assert_eq!(found, Found { initrd: (0x40_0000, 0x1234), cmdline: (0x400, 5), rsdp: 0xe0000 });
        assert_eq!(map.regions().len(), 1);
        memory.put32(info + 4, 0);
        assert_eq!(read(Entry::Pvh, info as u64, &mut memory, &mut map), Err(Unusable::NoMemoryMap));
        memory.put32(info, 0);
        assert_eq!(read(Entry::Pvh, info as u64, &mut memory, &mut map), Err(Unusable::NotPvh));
    }

    #[test]
    fn linux() {
        let mut memory = Bytes::new();
        let info = 0x1000;
        memory.put(info + 0x1e8, &[1]).put64(info + 0x2d0, 0).put64(info + 0x2d8, 0x8_0000).put32(info + 0x2e0, 1);
        memory.put32(info + 0x218, 0x40_0000).put32(info + 0xc0, 1).put32(info + 0x21c, 77).put32(info + 0x228, 0x2000).put(0x2000, b"x\0");
        let mut map = MemoryMap::<4>::new();
        let found = read(Entry::Linux64, info as u64, &mut memory, &mut map).unwrap();
        assert_eq!(found, Found { initrd: (0x1_0040_0000, 77), cmdline: (0x2000, 1), rsdp: 0 });
        assert_eq!(map.regions()[0].len, 0x8_0000);
    }
}
