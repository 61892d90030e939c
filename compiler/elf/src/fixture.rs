//! Small ELF files made on the spot, for tests of the stages that read ELF files.
//!
//! [`Fixture::build`] lays out one file with everything in three LOAD segments:
//!
//! ```text
//! file 0x0000  headers, interpreter path, dynamic symbols, strings, relocations   vaddr base + 0x0000  R
//! file 0x1000  code                                                                vaddr base + 0x1000  R X
//! file code_end.page  dynamic table, then data                                     vaddr base + that    R W
//! ```
//!
//! It is not a linker: code is given as bytes and must be right for the addresses above.

/// What to build; `Fixture::default()` is a static program with no code.
#[derive(Debug, Clone, Default)]
pub struct Fixture {
    /// `ET_EXEC` at 0x400000 instead of `ET_DYN` at 0.
    pub is_exec: bool,
    /// `PT_INTERP`.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`.
    pub needed: Vec<String>,
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_RPATH`.
    pub rpath: Option<String>,
    /// `DT_RUNPATH`.
    pub runpath: Option<String>,
    /// Whether there is a dynamic table even if nothing above asks for one.
    pub is_dynamic: bool,
    /// Bytes at [`Fixture::CODE`].
    pub code: Vec<u8>,
    /// Functions: name, offset in the code, size.
    pub functions: Vec<(String, u64, u64)>,
    /// Imported functions; the n-th has its `GLOB_DAT` slot at [`Fixture::got`]`(n)`.
    pub imports: Vec<String>,
    /// Bytes behind the GOT slots, writable.
    pub data: Vec<u8>,
    /// `e_machine`, 0 for x86-64.
    pub machine: u16,
    /// `PT_GNU_STACK` with `PF_X`.
    pub has_executable_stack: bool,
}

impl Fixture {
    /// Offset and relative address of the code.
    pub const CODE: u64 = 0x1000;

    /// Returns the address of everything's first byte.
    pub fn base(&self) -> u64 {
        if self.is_exec { 0x40_0000 } else { 0 }
    }

    fn data_at(&self) -> u64 {
        (Self::CODE + self.code.len() as u64).next_multiple_of(0x1000)
    }

    /// Returns the address of the GOT slot of the n-th import.
    pub fn got(&self, n: usize) -> u64 {
        self.base() + self.data_at() + 8 * n as u64
    }

    /// Returns the file.
    pub fn build(&self) -> Vec<u8> {
        let dynamic = self.is_dynamic
            || !self.needed.is_empty()
            || self.soname.is_some()
            || self.rpath.is_some()
            || self.runpath.is_some()
            || !self.imports.is_empty();
        let base = self.base();
        let mut strings = vec![0u8];
        let mut intern = |s: &str| {
            let at = strings.len() as u64;
            strings.extend_from_slice(s.as_bytes());
            strings.push(0);
            at
        };
        let mut tags: Vec<(u64, u64)> = self.needed.iter().map(|n| (1, intern(n))).collect();
        for (tag, value) in [(14, &self.soname), (15, &self.rpath), (29, &self.runpath)] {
            tags.extend(value.as_ref().map(|v| (tag, intern(v))));
        }
        let mut symbols = vec![[0u8; 24]];
        let mut symbol = |name: u64, value: u64, size: u64, section: u16| {
            let mut raw = [0u8; 24];
            raw[..4].copy_from_slice(&(name as u32).to_le_bytes());
            raw[4] = 1 << 4 | 2; // STB_GLOBAL, STT_FUNC
            raw[6..8].copy_from_slice(&section.to_le_bytes());
            raw[8..16].copy_from_slice(&value.to_le_bytes());
            raw[16..].copy_from_slice(&size.to_le_bytes());
            symbols.push(raw);
        };
        for import in &self.imports {
            symbol(intern(import), 0, 0, 0);
        }
        for (name, offset, size) in &self.functions {
            symbol(intern(name), base + Self::CODE + offset, *size, 1);
        }
        let mut relocations = Vec::new();
        for n in 0..self.imports.len() {
            relocations.extend_from_slice(&self.got(n).to_le_bytes());
            relocations.extend_from_slice(&6u32.to_le_bytes());
            relocations.extend_from_slice(&(n as u32 + 1).to_le_bytes());
            relocations.extend_from_slice(&0u64.to_le_bytes());
        }

        // Headers take 64 + 7 * 56 bytes at most; the tables follow at 0x400.
        let mut file = vec![0u8; 0x400];
        let place = |file: &mut Vec<u8>, bytes: &[u8]| {
            let at = file.len().next_multiple_of(8);
            file.resize(at, 0);
            file.extend_from_slice(bytes);
            at as u64
        };
        let interpreter = self.interpreter.as_ref().map(|i| (place(&mut file, format!("{i}\0").as_bytes()), i.len() as u64 + 1));
        let symtab = place(&mut file, &symbols.concat());
        let strtab = place(&mut file, &strings);
        let rela = place(&mut file, &relocations);
        assert!(file.len() as u64 <= Self::CODE, "the fixture's tables are larger than a page");
        let head_len = file.len() as u64;
        file.resize(Self::CODE as usize, 0);
        file.extend_from_slice(&self.code);
        let data_at = self.data_at();
        file.resize(data_at as usize + 8 * self.imports.len(), 0);
        file.extend_from_slice(&self.data);
        let dynamic_at = (file.len() as u64).next_multiple_of(8);
        file.resize(dynamic_at as usize, 0);
        if dynamic {
            tags.extend([(5, base + strtab), (10, strings.len() as u64), (6, base + symtab), (11, 24)]);
            tags.extend([(7, base + rela), (8, relocations.len() as u64), (9, 24)]);
            // A classic hash table with no buckets would be wrong; the string table right behind the symbols gives their count.
            tags.push((0, 0));
            for (tag, value) in &tags {
                file.extend_from_slice(&tag.to_le_bytes());
                file.extend_from_slice(&value.to_le_bytes());
            }
        }

        let mut headers: Vec<[u64; 7]> = vec![
            // type, flags, offset, vaddr, file size, memory size, align
            [1, 4, 0, base, head_len, head_len, 0x1000],
            [1, 5, Self::CODE, base + Self::CODE, self.code.len() as u64, self.code.len() as u64, 0x1000],
            [1, 6, data_at, base + data_at, file.len() as u64 - data_at, file.len() as u64 - data_at, 0x1000],
        ];
        if dynamic {
            let len = file.len() as u64 - dynamic_at;
            headers.push([2, 6, dynamic_at, base + dynamic_at, len, len, 8]);
        }
        if let Some((at, len)) = interpreter {
            headers.push([3, 4, at, base + at, len, len, 1]);
        }
        headers.push([0x6474_e551, if self.has_executable_stack { 7 } else { 6 }, 0, 0, 0, 0, 16]);

        file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        let kind: u16 = if self.is_exec { 2 } else { 3 };
        file[16..18].copy_from_slice(&kind.to_le_bytes());
        file[18..20].copy_from_slice(&(if self.machine == 0 { 62 } else { self.machine }).to_le_bytes());
        file[20..24].copy_from_slice(&1u32.to_le_bytes());
        file[24..32].copy_from_slice(&(base + Self::CODE).to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[52..54].copy_from_slice(&64u16.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        for (i, [kind, flags, offset, vaddr, file_size, mem_size, align]) in headers.into_iter().enumerate() {
            let h = &mut file[64 + 56 * i..][..56];
            h[..4].copy_from_slice(&(kind as u32).to_le_bytes());
            h[4..8].copy_from_slice(&(flags as u32).to_le_bytes());
            for (at, value) in [(8, offset), (16, vaddr), (24, vaddr), (32, file_size), (40, mem_size), (48, align)] {
                h[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        file
    }
}
