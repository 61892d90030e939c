//! The shapes in which programs make system calls, each as a few bytes of machine code: what the number analysis must get right.

use ukc_analyze::object::{Summary, summarize};
use ukc_elf::fixture::Fixture;

/// Builds an object in which each function is a name and its code, 16 bytes aligned, and summarises it.
fn object(functions: &[(&str, &[u8])]) -> Summary {
    summarize(&fixture(functions, Fixture { soname: Some("libtest.so".into()), ..Fixture::default() }).build(), &[]).unwrap()
}

fn fixture(functions: &[(&str, &[u8])], mut fixture: Fixture) -> Fixture {
    for (name, code) in functions {
        while !fixture.code.len().is_multiple_of(16) {
            fixture.code.push(0xcc);
        }
        fixture.functions.push((name.to_string(), fixture.code.len() as u64, code.len() as u64));
        fixture.code.extend_from_slice(code);
    }
    fixture
}

fn numbers(s: &Summary) -> Vec<u32> {
    let mut out: Vec<u32> = s.sites.iter().flat_map(|s| s.numbers.iter().copied()).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// `syscall; ret`
const ENTER: [u8; 3] = [0x0f, 0x05, 0xc3];

fn one(code: &[u8]) -> Summary {
    object(&[("f", &[code, &ENTER].concat())])
}

#[test]
fn constants_in_all_their_forms() {
    for (code, expected, what) in [
        (&[0xb8, 39, 0, 0, 0][..], &[39][..], "mov eax, 39"),
        (&[0x31, 0xc0], &[0], "xor eax, eax"),
        (&[0x31, 0xc0, 0xb0, 56], &[56], "xor eax, eax; mov al, 56"),
        (&[0x48, 0xc7, 0xc0, 15, 0, 0, 0], &[15], "mov rax, 15"),
        (&[0x6a, 60, 0x58], &[60], "push 60; pop rax"),
        (&[0xbb, 3, 0, 0, 0, 0x89, 0xd8], &[3], "mov ebx, 3; mov eax, ebx"),
        (&[0xb9, 200, 0, 0, 0, 0x8d, 0x41, 2], &[202], "mov ecx, 200; lea eax, [rcx + 2]"),
        // mov qword [rsp - 8], 7; mov rax, [rsp - 8]
        (&[0x48, 0xc7, 0x44, 0x24, 0xf8, 7, 0, 0, 0, 0x48, 0x8b, 0x44, 0x24, 0xf8], &[7], "a number spilled to the stack"),
        // xor eax, eax; cmp rdi, 1; adc eax, 19
        (&[0x31, 0xc0, 0x48, 0x83, 0xff, 1, 0x83, 0xd0, 19], &[19, 20], "readv or writev selected by carry"),
        // mov eax, 44; mov ecx, 45; test rdi, rdi; cmove eax, ecx
        (&[0xb8, 44, 0, 0, 0, 0xb9, 45, 0, 0, 0, 0x48, 0x85, 0xff, 0x0f, 0x44, 0xc1], &[44, 45], "conditional move"),
        // mov eax, 1; test rdi, rdi; je +5; mov eax, 2
        (&[0xb8, 1, 0, 0, 0, 0x48, 0x85, 0xff, 0x74, 5, 0xb8, 2, 0, 0, 0], &[1, 2], "two ways to one entry"),
        // test rax, rax; je +1; ret  (musl's __stdio_read: the number is 0 because the comparison said so)
        (&[0x48, 0x85, 0xc0, 0x74, 1, 0xc3], &[0], "a number known by comparison"),
    ] {
        let s = one(code);
        assert_eq!(numbers(&s), expected, "{what}");
        assert_eq!(s.unknown, [], "{what}");
    }
}

#[test]
fn the_entry_clobbers_only_three_registers() {
    // mov r9d, 202; mov eax, r9d; syscall; mov eax, r9d; syscall; ret
    let s = object(&[("f", &[0x41, 0xb9, 202, 0, 0, 0, 0x44, 0x89, 0xc8, 0x0f, 5, 0x44, 0x89, 0xc8, 0x0f, 5, 0xc3])]);
    assert_eq!(s.sites.len(), 2);
    assert!(s.sites.iter().all(|s| s.numbers == [202]));
    // A second entry without a new number has the first one's result.
    let s = object(&[("f", &[0xb8, 1, 0, 0, 0, 0x0f, 5, 0x0f, 5, 0xc3])]);
    assert_eq!((numbers(&s), s.unknown.len()), (vec![1], 1));
    assert_eq!(s.unknown[0].reason, "the number comes from another call");
}

#[test]
fn a_number_from_memory_is_unknown() {
    // mov eax, [rdi]
    let s = one(&[0x8b, 0x07]);
    assert!(numbers(&s).is_empty());
    assert_eq!(s.unknown[0].reason, "the number comes from memory");
    assert_eq!(s.unknown[0].function.as_deref(), Some("f"));
}

#[test]
fn wrappers_are_resolved_at_their_callers() {
    // wrapper: mov rax, rdi; syscall; ret.  caller: mov edi, 12; call wrapper; ret.  another tail-calls it.
    let wrapper = [&[0x48, 0x89, 0xf8][..], &ENTER].concat();
    // Functions start at 0x00, 0x10 and 0x20.
    let call = [0xbf, 12, 0, 0, 0, 0xe8, 0xe6, 0xff, 0xff, 0xff, 0xc3];
    let jump = [0xbf, 13, 0, 0, 0, 0xe9, 0xd6, 0xff, 0xff, 0xff];
    let s = object(&[("wrapper", &wrapper), ("caller", &call), ("tail", &jump)]);
    assert_eq!(numbers(&s), [12, 13]);
    assert_eq!(s.unknown, []);
    let via: Vec<_> = s.sites.iter().map(|s| (s.function.as_deref(), s.via.as_deref())).collect();
    assert_eq!(via, [(Some("caller"), Some("wrapper")), (Some("tail"), Some("wrapper"))]);
    assert_eq!(s.wrappers.len(), 1, "it is exported, so other objects may call it");
    assert_eq!((s.wrappers[0].names.as_slice(), s.wrappers[0].param), (&["wrapper".to_owned()][..], 7));
}

#[test]
fn a_call_to_libc_syscall_through_the_got() {
    // mov edi, 186; call [rip + got]; ret
    let mut f = fixture(&[], Fixture { imports: vec!["syscall".into()], ..Fixture::default() });
    let code_end = 0x1000 + 11;
    let displacement = (0x2000u64 - code_end) as u32;
    let code = [&[0xbf, 186, 0, 0, 0, 0xff, 0x15][..], &displacement.to_le_bytes(), &[0xc3]].concat();
    f = fixture(&[("f", &code)], f);
    assert_eq!(f.got(0), 0x2000);
    let s = summarize(&f.build(), &[]).unwrap();
    assert_eq!(numbers(&s), [186]);

    // The address taken into a register first, as Rust's std does: mov rbp, [rip + got]; mov edi, 318; call rbp
    let displacement = (0x2000u64 - 0x1007) as u32;
    let code = [&[0x48, 0x8b, 0x2d][..], &displacement.to_le_bytes(), &[0xbf, 0x3e, 1, 0, 0, 0xff, 0xd5, 0xc3]].concat();
    let f = fixture(&[("f", &code)], Fixture { imports: vec!["syscall".into()], ..Fixture::default() });
    assert_eq!(numbers(&summarize(&f.build(), &[]).unwrap()), [318]);
}

#[test]
fn bytes_inside_other_instructions_are_no_entries() {
    // mov eax, 0x050f050f; ret
    let s = object(&[("f", &[0xb8, 0x0f, 5, 0x0f, 5, 0xc3])]);
    assert_eq!((s.sites.len(), s.unknown.len()), (0, 0));
}

#[test]
fn data_between_functions_of_covered_code_is_dropped() {
    let mut f =
        fixture(&[("f", &[&[0x90; 400][..], &[0xc3]].concat())], Fixture { soname: Some("libtest.so".into()), ..Fixture::default() });
    f.code.extend_from_slice(&[0xff, 0xff, 0x0f, 5, 0x11, 0x22]);
    let s = summarize(&f.build(), &[]).unwrap();
    assert_eq!((s.sites.len(), s.unknown.len(), s.dropped.len()), (0, 0, 1));
}

#[test]
fn the_32_bit_entry_is_named() {
    // mov eax, 1; int 0x80; ret
    let s = object(&[("f", &[0xb8, 1, 0, 0, 0, 0xcd, 0x80, 0xc3])]);
    assert_eq!((s.sites.len(), s.legacy.len()), (0, 1));
}

#[test]
fn code_without_any_table_is_swept() {
    // An ET_EXEC file without symbols: two functions, the second one called by the first with its number in rdi.
    let first = [0xbf, 60, 0, 0, 0, 0xe8, 0x06, 0, 0, 0, 0xf4, 0x90, 0x90, 0x90, 0x90, 0x90];
    let second = [&[0x48, 0x89, 0xf8][..], &ENTER].concat();
    let f = Fixture { is_exec: true, code: [&first[..], &second].concat(), ..Fixture::default() };
    let s = summarize(&f.build(), &[]).unwrap();
    assert_eq!((numbers(&s), s.unknown.len()), (vec![60], 0));
}

#[test]
fn credentials_of_all_threads_are_a_pattern() {
    // glibc: mov rax, [rbx]; mov rdi, [rbx + 8]; mov rsi, [rbx + 16]; mov rdx, [rbx + 24]
    let s = one(&[0x48, 0x8b, 0x03, 0x48, 0x8b, 0x7b, 8, 0x48, 0x8b, 0x73, 16, 0x48, 0x8b, 0x53, 24]);
    assert_eq!(numbers(&s), [105, 106, 113, 114, 116, 117, 119]);
    assert_eq!(s.sites[0].via.as_deref(), Some("setxid"));
}

#[test]
fn calls_that_do_not_return_do_not_flow_on() {
    // die: ud2.  f: mov r9d, 202 ; jmp over ; call die ; (loop head) mov eax, r9d; syscall; ret
    let die = [0x0f, 0x0b];
    // at 0x10: mov r9d, 202; test rdi, rdi; jne +5; call die (0x00); mov eax, r9d; syscall; ret
    let f = [0x41, 0xb9, 202, 0, 0, 0, 0x48, 0x85, 0xff, 0x75, 5, 0xe8, 0xe0, 0xff, 0xff, 0xff, 0x44, 0x89, 0xc8, 0x0f, 5, 0xc3];
    let s = object(&[("die", &die), ("f", &f)]);
    assert_eq!((numbers(&s), s.unknown.len()), (vec![202], 0));
}

#[test]
fn summaries_are_a_function_of_the_bytes() {
    let Ok(bytes) = std::fs::read("/lib/x86_64-linux-gnu/libc.so.6") else { return };
    let a = summarize(&bytes, &[]).unwrap();
    assert_eq!(a, summarize(&bytes, &[]).unwrap());
    assert!(a.sites.len() > 300 && a.unknown.is_empty(), "{:?}", a.unknown);
    for expected in [0, 1, 56, 59, 257, 435] {
        assert!(numbers(&a).contains(&expected), "{expected}");
    }
    assert!(numbers(&a).iter().all(|n| *n < 512));
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_code_is_summarised(code in proptest::collection::vec(any::<u8>(), 0..2000), is_exec in any::<bool>(), covered in any::<bool>()) {
            let mut f = Fixture { is_exec, code, ..Fixture::default() };
            if covered {
                f.functions.push(("f".into(), 0, f.code.len() as u64));
            }
            // Kernel entries in the middle of noise.
            for at in (10..f.code.len().saturating_sub(2)).step_by(97) {
                f.code[at..at + 2].copy_from_slice(&[0x0f, 0x05]);
            }
            let bytes = f.build();
            prop_assert_eq!(summarize(&bytes, &[]).unwrap(), summarize(&bytes, &[]).unwrap());
        }

        #[test]
        fn a_damaged_program_is_summarised_or_refused(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..64)) {
            let Ok(mut data) = std::fs::read("/bin/ls") else { return Ok(()) };
            for (at, value) in edits {
                let i = at.index(data.len());
                data[i] = value;
            }
            let _ = summarize(&data, &[]);
        }
    }
}
