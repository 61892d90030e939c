//! The empty guest: a kernel that ends QEMU with its first instructions. What QEMU takes for it is what no guest can save.

/// Where the one segment is loaded; any address that is RAM on every board.
const LOAD: u32 = 0x20_0000;

/// `mov $0xf4, %dx; xor %eax, %eax; out %eax, (%dx); hlt; jmp .-1` in 32-bit mode: isa-debug-exit ends QEMU with status 1.
const CODE: [u8; 10] = [0x66, 0xba, 0xf4, 0x00, 0x31, 0xc0, 0xef, 0xf4, 0xeb, 0xfd];

/// Returns the ELF file: header, PT_NOTE and PT_LOAD, a PVH note (name "Xen", type 18, the 32-bit entry), and [`CODE`].
pub fn elf() -> Vec<u8> {
    const HEADERS: u32 = 64 + 2 * 56;
    const NOTE: u32 = 12 + 4 + 4;
    let entry = LOAD + HEADERS + NOTE;
    let end = u64::from(HEADERS + NOTE) + CODE.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // ET_EXEC, EM_X86_64, version 1
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [u64::from(entry), 64, 0] {
        file.extend(word.to_le_bytes());
    }
    // flags; sizes of the ELF header and of a program header, their number; no sections
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, flags: u32, offset: u64, len: u64, align: u64| {
        let address = u64::from(LOAD) + offset;
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [offset, address, address, len, len, align] {
            file.extend(word.to_le_bytes());
        }
    };
    segment(4, 4, u64::from(HEADERS), u64::from(NOTE), 4);
    segment(1, 5, 0, end, 4096);
    for word in [4_u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0");
    file.extend(entry.to_le_bytes());
    file.extend(CODE);
    file
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSegment as _};

    #[test]
    fn the_note_points_at_the_code() {
        let file = super::elf();
        let elf = object::File::parse(&*file).expect("an ELF file");
        let entry = elf.entry();
        let segment = elf.segments().next().expect("one PT_LOAD");
        let code = segment.data_range(entry, super::CODE.len() as u64).expect("inside the file");
        assert_eq!(code, Some(&super::CODE[..]));
        assert_eq!(&file[file.len() - super::CODE.len() - 4..][..4], &u32::try_from(entry).expect("low").to_le_bytes());
    }
}
