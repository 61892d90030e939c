//! The smallest program there is: it ends with status 0. `ukc doctor` runs it in a build and in a machine to see whether these work here.

/// Where the file lies in memory: the usual place of programs that are not position-independent.
const BASE: u64 = 0x40_0000;

/// mov eax, 231 (exit_group); xor edi, edi; syscall
const CODE: [u8; 9] = [0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];

/// Sizes of the ELF header and of one program header (gABI, "ELF Header").
const EHDR_BYTES: u16 = 64;
const PHDR_BYTES: u16 = 56;

/// Returns the program as an ELF file: a header, one segment that is the whole file, and nine bytes of code.
pub fn program() -> Vec<u8> {
    let entry = u64::from(EHDR_BYTES + PHDR_BYTES);
    let len = entry + CODE.len() as u64;
    let mut elf = Vec::with_capacity(len as usize);
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little-endian, version 1
    elf.extend([2u16, 62].iter().flat_map(|half| half.to_le_bytes())); // ET_EXEC, EM_X86_64
    elf.extend(1u32.to_le_bytes()); // version
    elf.extend([BASE + entry, u64::from(EHDR_BYTES), 0].iter().flat_map(|word| word.to_le_bytes())); // entry, program headers, no sections
    elf.extend(0u32.to_le_bytes()); // flags
    elf.extend([EHDR_BYTES, PHDR_BYTES, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes())); // PT_LOAD, readable and executable
    elf.extend([0, BASE, BASE, len, len, 0x1000].iter().flat_map(|word| word.to_le_bytes())); // offset, addresses, sizes, alignment
    elf.extend(CODE);
    elf
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_runs_on_linux() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probe");
        std::fs::write(&path, super::program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(std::process::Command::new(path).status().unwrap().success());
    }
}
