//! The vDSO's bytes: a shared object that the kernel maps into every program (vdso(7)).
//!
//! It is one page of ELF written as assembly, headers and tables included, so that no tool is needed to make it: an ELF header, two program headers
//! (`PT_LOAD`, `PT_DYNAMIC`), the dynamic section with symbol, string, hash and version tables (System V gABI, chapter 5; LSB, "Symbol Versioning"), and
//! five functions. What libcs look up is `__vdso_clock_gettime` and so on, version `LINUX_2.6`; musl wants `DT_HASH`.
//!
//! The page behind it holds [`Data`], which the kernel writes and programs read:
//!
//! ```text
//! 0   sequence    u32   odd while it changes, 0: not usable, make the system call
//! 4   shift       u32
//! 8   base_tsc    u64
//! 16  base_ns     u64
//! 24  wall_offset u64   realtime minus monotonic clock in nanoseconds; 0: not known yet, make the system call
//! 32  mult        u32
//! ```
//!
//! `ns = base_ns + ((tsc - base_tsc) * mult >> shift)`, as [`TscParams`] has it.

use crate::time::TscParams;

/// Bytes of the image: one page, the data come behind it.
pub const IMAGE_BYTES: usize = 4096;

/// Bytes of [`Data::to_bytes`].
pub const DATA_BYTES: usize = 40;

/// What the code reads.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Even, not 0, and another one than before.
    pub sequence: u32,
    /// Scale of the counter.
    pub params: TscParams,
    /// Realtime minus monotonic clock; 0 when unknown.
    pub wall_offset_ns: u64,
}

impl Data {
    /// Returns the bytes as the code expects them.
    pub fn to_bytes(&self) -> [u8; DATA_BYTES] {
        let mut bytes = [0; DATA_BYTES];
        bytes[0..4].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.params.shift.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.params.base_tsc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.params.base_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.wall_offset_ns.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.params.mult.to_le_bytes());
        bytes
    }
}

/// Returns the image; what is missing to a page is zeros.
pub fn image() -> &'static [u8] {
    unsafe extern "C" {
        static ukc_vdso_start: u8;
        static ukc_vdso_end: u8;
    }
    let start = &raw const ukc_vdso_start;
    // SAFETY: both symbols are defined below, around bytes that are never written.
    unsafe { core::slice::from_raw_parts(start, (&raw const ukc_vdso_end as usize) - start as usize) }
}

// Tables first, then code. Labels are local to this piece; differences of labels are constants, so there is nothing to relocate. `.L` names keep them out
// of the symbol table.
core::arch::global_asm!(
    r#"
    .pushsection .rodata.ukc_vdso, "a", @progbits
    .balign 16
    .globl ukc_vdso_start
    .globl ukc_vdso_end
    .hidden ukc_vdso_start
    .hidden ukc_vdso_end
ukc_vdso_start:
    # ELF header: 64-bit, little-endian, ET_DYN, x86-64, two program headers, no sections.
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .short 3, 62
    .long 1
    .quad 0
    .quad .Lvdso_phdrs - ukc_vdso_start
    .quad 0
    .long 0
    .short 64, 56, 2, 64, 0, 0
.Lvdso_phdrs:
    # PT_LOAD, R and X, everything.
    .long 1, 5
    .quad 0, 0, 0
    .quad ukc_vdso_end - ukc_vdso_start
    .quad ukc_vdso_end - ukc_vdso_start
    .quad 4096
    # PT_DYNAMIC, R.
    .long 2, 4
    .quad .Lvdso_dynamic - ukc_vdso_start
    .quad .Lvdso_dynamic - ukc_vdso_start
    .quad .Lvdso_dynamic - ukc_vdso_start
    .quad .Lvdso_dynamic_end - .Lvdso_dynamic
    .quad .Lvdso_dynamic_end - .Lvdso_dynamic
    .quad 8
.Lvdso_dynamic:
    .quad 14, .Lvdso_soname - .Lvdso_strings          # DT_SONAME
    .quad 4, .Lvdso_hash - ukc_vdso_start             # DT_HASH
    .quad 5, .Lvdso_strings - ukc_vdso_start          # DT_STRTAB
    .quad 6, .Lvdso_symbols - ukc_vdso_start          # DT_SYMTAB
    .quad 10, .Lvdso_strings_end - .Lvdso_strings     # DT_STRSZ
    .quad 11, 24                                      # DT_SYMENT
    .quad 0x6ffffff0, .Lvdso_versym - ukc_vdso_start  # DT_VERSYM
    .quad 0x6ffffffc, .Lvdso_verdef - ukc_vdso_start  # DT_VERDEF
    .quad 0x6ffffffd, 2                               # DT_VERDEFNUM
    .quad 0, 0                                        # DT_NULL
.Lvdso_dynamic_end:
.Lvdso_symbols:
    .zero 24
    # name, STB_GLOBAL | STT_FUNC, visibility, section (any but 0), value, size
    .macro ukc_vdso_symbol name
    .long .Lvdso_name_\name - .Lvdso_strings
    .byte 0x12, 0
    .short 1
    .quad .Lvdso_\name - ukc_vdso_start
    .quad .Lvdso_end_\name - .Lvdso_\name
    .endm
    ukc_vdso_symbol clock_gettime
    ukc_vdso_symbol gettimeofday
    ukc_vdso_symbol time
    ukc_vdso_symbol clock_getres
    ukc_vdso_symbol getcpu
    .purgem ukc_vdso_symbol
    # The version itself: an absolute object.
    .long .Lvdso_version - .Lvdso_strings
    .byte 0x11, 0
    .short 0xfff1
    .quad 0, 0
.Lvdso_hash:
    # One bucket, seven symbols in a chain.
    .long 1, 7, 1
    .long 0, 2, 3, 4, 5, 6, 0
.Lvdso_versym:
    .short 0, 2, 2, 2, 2, 2, 2
    .balign 8
.Lvdso_verdef:
    # version 1, VER_FLG_BASE, index 1, one name, elf_hash(soname), offset of the name, offset of the next
    .short 1, 1, 1, 1
    .long 0x0deebfa1, 20, 28
    .long .Lvdso_soname - .Lvdso_strings, 0
    .short 1, 0, 2, 1
    .long 0x03ae75f6, 20, 0
    .long .Lvdso_version - .Lvdso_strings, 0
.Lvdso_strings:
    .byte 0
.Lvdso_soname: .asciz "linux-vdso.so.1"
.Lvdso_version: .asciz "LINUX_2.6"
.Lvdso_name_clock_gettime: .asciz "__vdso_clock_gettime"
.Lvdso_name_gettimeofday: .asciz "__vdso_gettimeofday"
.Lvdso_name_time: .asciz "__vdso_time"
.Lvdso_name_clock_getres: .asciz "__vdso_clock_getres"
.Lvdso_name_getcpu: .asciz "__vdso_getcpu"
.Lvdso_strings_end:

    .balign 16
    # Returns the monotonic clock in rax, and the wall offset in r10; carry set when the system call must be made. Keeps rdi, rsi.
.Lvdso_read:
    lea r8, [rip + ukc_vdso_start + {page}]
2:  mov r9d, [r8]
    test r9d, r9d
    jz 4f
    test r9d, 1
    jnz 3f
    lfence
    rdtsc
    shl rdx, 32
    or rax, rdx
    xor edx, edx
    sub rax, [r8 + 8]
    cmovb rax, rdx
    mov edx, [r8 + 32]
    mul rdx
    mov ecx, [r8 + 4]
    shrd rax, rdx, cl
    add rax, [r8 + 16]
    mov r10, [r8 + 24]
    cmp r9d, [r8]
    jne 2b
    clc
    ret
3:  pause
    jmp 2b
4:  stc
    ret

    .balign 16
    # int clock_gettime(clockid_t edi, struct timespec *rsi)
.Lvdso_clock_gettime:
    # REALTIME 0, MONOTONIC 1, MONOTONIC_RAW 4, REALTIME_COARSE 5, MONOTONIC_COARSE 6, BOOTTIME 7.
    cmp edi, 7
    ja 5f
    mov eax, 0xf3
    bt eax, edi
    jnc 5f
    call .Lvdso_read
    jc 5f
    # The wall clocks are 0 and 5.
    mov ecx, 0x21
    bt ecx, edi
    jnc 6f
    test r10, r10
    jz 5f
    add rax, r10
6:  xor edx, edx
    mov ecx, 1000000000
    div rcx
    mov [rsi], rax
    mov [rsi + 8], rdx
    xor eax, eax
    ret
5:  mov eax, 228
    syscall
    ret
.Lvdso_end_clock_gettime:

    .balign 16
    # int gettimeofday(struct timeval *rdi, struct timezone *rsi)
.Lvdso_gettimeofday:
    test rsi, rsi
    jnz 7f
    test rdi, rdi
    jz 7f
    call .Lvdso_read
    jc 7f
    test r10, r10
    jz 7f
    add rax, r10
    xor edx, edx
    mov ecx, 1000000000
    div rcx
    mov [rdi], rax
    mov eax, edx
    xor edx, edx
    mov ecx, 1000
    div ecx
    mov [rdi + 8], rax
    xor eax, eax
    ret
7:  mov eax, 96
    syscall
    ret
.Lvdso_end_gettimeofday:

    .balign 16
    # time_t time(time_t *rdi)
.Lvdso_time:
    call .Lvdso_read
    jc 8f
    test r10, r10
    jz 8f
    add rax, r10
    xor edx, edx
    mov ecx, 1000000000
    div rcx
    test rdi, rdi
    jz 9f
    mov [rdi], rax
9:  ret
8:  mov eax, 201
    syscall
    ret
.Lvdso_end_time:

    .balign 16
    # int clock_getres(clockid_t edi, struct timespec *rsi)
.Lvdso_clock_getres:
    mov eax, 229
    syscall
    ret
.Lvdso_end_clock_getres:

    .balign 16
    # int getcpu(unsigned *rdi, unsigned *rsi, void *rdx)
.Lvdso_getcpu:
    mov eax, 309
    syscall
    ret
.Lvdso_end_getcpu:
ukc_vdso_end:
    .popsection
    "#,
    page = const IMAGE_BYTES,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn word(image: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
    }

    fn text(image: &[u8], at: usize) -> &str {
        core::str::from_utf8(image[at..].split(|b| *b == 0).next().unwrap()).unwrap()
    }

    fn elf_hash(name: &str) -> u32 {
        name.bytes().fold(0u32, |h, b| {
            let h = (h << 4).wrapping_add(u32::from(b));
            let top = h & 0xf000_0000;
            (h ^ top >> 24) & !top
        })
    }

    #[test]
    fn tables_lead_to_all_five_functions() {
        let image = image();
        assert!(image.len() <= IMAGE_BYTES);
        assert_eq!(&image[..4], b"\x7fELF");
        let headers = word(image, 32) as usize;
        let dynamic = word(image, headers + 56 + 16) as usize;
        let entry =
            |tag: u64| (0..).map(|i| dynamic + 16 * i).find(|at| word(image, *at) == tag).map(|at| word(image, at + 8) as usize).unwrap();
        let (strings, symbols, versions) = (entry(5), entry(6), entry(0x6fff_fff0));
        assert_eq!(text(image, strings + entry(14)), "linux-vdso.so.1");
        let names: Vec<&str> = (1..6)
            .map(|i| {
                let at = symbols + 24 * i;
                let (name, value) = (u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize, word(image, at + 8) as usize);
                assert!(value < image.len() && word(image, at + 16) > 0);
                assert_eq!(image[versions + 2 * i], 2);
                text(image, strings + name)
            })
            .collect();
        assert_eq!(names, ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_clock_getres", "__vdso_getcpu"]);
        // The hash table: one chain through all symbols.
        let hash = entry(4);
        let hash_word = |i: usize| u32::from_le_bytes(image[hash + 4 * i..hash + 4 * i + 4].try_into().unwrap()) as usize;
        let (mut at, mut seen) = (hash_word(2), 0);
        while at != 0 {
            seen += 1;
            at = hash_word(3 + at);
        }
        assert_eq!((hash_word(0), hash_word(1), seen), (1, 7, 6));
        let definitions = entry(0x6fff_fffc);
        let definition = |at: usize| u32::from_le_bytes(image[at + 8..at + 12].try_into().unwrap());
        assert_eq!(definition(definitions), elf_hash("linux-vdso.so.1"));
        assert_eq!(definition(definitions + 28), elf_hash("LINUX_2.6"));
    }

    #[test]
    fn data_lie_where_the_code_reads_them() {
        let params = TscParams { mult: 0x1111, shift: 22, base_tsc: 0x2222, base_ns: 0x3333 };
        let bytes = Data { sequence: 2, params, wall_offset_ns: 0x4444 }.to_bytes();
        assert_eq!((bytes[0], bytes[4], word(&bytes, 8), word(&bytes, 16)), (2, 22, 0x2222, 0x3333));
        assert_eq!((word(&bytes, 24), word(&bytes, 32)), (0x4444, 0x1111));
    }
}
