//! What is in the image, where, and with which bytes.

mod common;

use common::{ABS64, Obj, PC32, PLT32, address, archive, at, errors, input, linked};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, SectionKind, elf};
use ukc_link::{KERNEL_BASE, PHYSICAL_START, Segment, link};

const START: u64 = KERNEL_BASE + PHYSICAL_START;

/// A five-byte call whose displacement is at offset 1.
const CALL: [u8; 5] = [0xe8, 0, 0, 0, 0];

fn displacement(linked: &ukc_link::Linked, place: u64) -> u64 {
    let bytes = at(linked, place, 4);
    let value = i32::from_le_bytes(bytes.try_into().unwrap());
    (place + 4).wrapping_add_signed(i64::from(value))
}

#[test]
fn only_what_the_roots_reach_is_linked() {
    let members = [
        ("a.o", Obj::new().text("linux64_start", &CALL, &[(1, PLT32, "helper", -4)]).text("unused", &[0xc3], &[]).build()),
        ("b.o", Obj::new().text("helper", &[0xc3], &[]).text("bait", &CALL, &[(1, PLT32, "nowhere", -4)]).build()),
        ("c.o", Obj::new().text("other", &[0xc3], &[]).build()),
    ];
    let l = linked(&members, &["linux64_start"]);
    assert_eq!(l.sections.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), [".text.linux64_start", ".text.helper"]);
    assert_eq!(l.sections[1].parent, Some((0, "helper".to_owned())));
    assert_eq!(l.stats.objects, (3, 2));
    assert_eq!(displacement(&l, START + 1), address(&l, ".text.helper"));
    assert!(l.map.contains("`helper` in .text.linux64_start of a.o; root `linux64_start`"), "{}", l.map);
    assert_eq!(at(&l, START + 5, 3), [0xcc; 3], "int3 between functions");
}

#[test]
fn the_layout_is_what_loaders_expect() {
    let note = [4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, b'X', b'e', b'n', 0, 0, 0, 0, 0];
    let object = Obj::new()
        .text("late", &[0xc3], &[])
        .def(".boot.text", SectionKind::Text, "linux64_start", &[0x90; 16], &[(0, ABS64, "table", 0), (8, ABS64, "late", 0)])
        .def(
            ".note.pvh",
            SectionKind::Note,
            "note",
            &note,
            &[(16, elf::R_X86_64_32, "linux64_start", 0u64.wrapping_sub(KERNEL_BASE) as i64)],
        )
        .flags(elf::SHF_ALLOC)
        .def(".rodata.table", SectionKind::ReadOnlyData, "table", &[0; 16], &[(0, ABS64, "variable", 4), (8, ABS64, "zeroed", 0)])
        .def(".data.variable", SectionKind::Data, "variable", &[1, 2, 3, 4, 5, 6, 7, 8], &[(0, ABS64, "__kernel_end", 0)])
        .bss("zeroed", 10_000, 16)
        .build();
    let members = archive(&[("k.o", object)]);
    let mut input = input(&members, &["linux64_start"]);
    input.keep = vec![".note.p*".to_owned()];
    let l = link(&input).unwrap();

    let header = elf::FileHeader64::<Endianness>::parse(&*l.elf).unwrap();
    let e = header.endian().unwrap();
    assert_eq!(header.e_entry.get(e), PHYSICAL_START, "boot text comes first, and the entry is physical");
    let headers = header.program_headers(e, &*l.elf).unwrap();
    let summary: Vec<_> = headers.iter().map(|h| (h.p_type(e), h.p_flags(e))).collect();
    let (load, note) = (elf::PT_LOAD, elf::PT_NOTE);
    assert_eq!(summary, [(note, 4), (load, 5), (load, 4), (load, 6)]);
    for h in headers {
        assert_eq!(h.p_vaddr(e), h.p_paddr(e) + KERNEL_BASE);
        if h.p_type(e) == load {
            assert_eq!((h.p_vaddr(e) % 4096, h.p_align(e)), (0, 1));
        }
    }
    assert_eq!(headers[0].p_filesz(e), 20);
    let offset = headers[0].p_offset(e) as usize;
    assert_eq!(l.elf[offset + 16..offset + 20], (PHYSICAL_START as u32).to_le_bytes(), "the note's physical entry");
    assert!(headers[3].p_memsz(e) >= headers[3].p_filesz(e) + 10_000);
    let end = (headers[3].p_vaddr(e) + headers[3].p_memsz(e)).next_multiple_of(4096);
    assert_eq!(at(&l, address(&l, ".data.variable"), 8), end.to_le_bytes());
    let table = address(&l, ".rodata.table");
    assert_eq!(at(&l, table, 8), (address(&l, ".data.variable") + 4).to_le_bytes());
    assert_eq!(at(&l, table + 8, 8), address(&l, ".bss").to_le_bytes());
    assert_eq!(l.stats.bss_bytes, 10_000);
    assert_eq!(l, link(&input).unwrap(), "equal inputs, equal images");
}

#[test]
fn alignments_and_bounds_are_kept() {
    let refs = [(0, ABS64, "stack", 0), (8, ABS64, "__text_end", 0), (16, ABS64, "__rodata_end", 0), (24, ABS64, "__bss_end", 0)];
    let stack = Obj::new().bss("stack", 100, 16384).text("main", &[0; 32], &refs).build();
    let l = linked(&[("m.o", stack)], &["main"]);
    let word = |i| u64::from_le_bytes(at(&l, START + i, 8).try_into().unwrap());
    assert_eq!(word(0) % 16384, 0);
    assert_eq!((word(8), word(16), word(24)), (START + 4096, START + 4096, word(0) + 100));
    let too_much = Obj::new().text("main", &[0; 8], &[(0, ABS64, "z", 0)]).bss("z", 1, 4 << 20).build();
    assert_eq!(errors(&[("m.o", too_much)], &["main"]), "cannot link `m.o`: section `.bss` has alignment 4194304");
}

#[test]
fn strong_beats_weak_in_any_order() {
    let caller = || ("m.o", Obj::new().text("main", &CALL, &[(1, PLT32, "f", -4)]).build());
    let weak = || ("w.o", Obj::new().weak("f", &[0x11; 4]).build());
    let strong = || ("s.o", Obj::new().text("f", &[0x22; 4], &[]).build());
    for members in [[caller(), weak(), strong()], [caller(), strong(), weak()]] {
        let l = linked(&members, &["main"]);
        assert_eq!(at(&l, address(&l, ".text.f"), 4), [0x22; 4]);
    }
    let l = linked(&[caller(), weak()], &["main"]);
    assert_eq!(at(&l, address(&l, ".text.f"), 4), [0x11; 4]);
}

#[test]
fn a_weak_reference_keeps_nothing() {
    let optional = || Obj::new().text("optional", &[0xc3], &[]).build();
    let main = |refs: &[common::Ref<'_>]| {
        Obj::new().weak_reference("optional").def(".data.main", SectionKind::Data, "main", &[0xff; 16], refs).build()
    };
    let reference = (0, ABS64, "optional", 0);
    let l = linked(&[("m.o", main(&[reference])), ("o.o", optional())], &["main"]);
    assert_eq!(at(&l, address(&l, ".data.main"), 8), [0; 8]);
    let l = linked(&[("m.o", main(&[reference])), ("o.o", optional())], &["main", "optional"]);
    assert_eq!(at(&l, address(&l, ".data.main"), 8), address(&l, ".text.optional").to_le_bytes());
    let l = linked(&[("m.o", main(&[reference]))], &["main"]);
    assert_eq!(at(&l, address(&l, ".data.main"), 8), [0; 8]);
}

#[test]
fn local_symbols_stay_in_their_object() {
    let object = |byte: u8, name: &str| Obj::new().local("helper", &[byte; 4]).text(name, &CALL, &[(1, PC32, "helper", -4)]).build();
    let main = Obj::new().text("main", &[0; 16], &[(0, ABS64, "a", 0), (8, ABS64, "b", 0)]).build();
    let l = linked(&[("m.o", main), ("a.o", object(1, "a")), ("b.o", object(2, "b"))], &["main"]);
    for (function, byte) in [(".text.a", 1), (".text.b", 2)] {
        let target = displacement(&l, address(&l, function) + 1);
        assert_eq!(at(&l, target, 4), [byte; 4]);
    }
}

#[test]
fn one_comdat_group_of_a_name_is_linked() {
    let main = Obj::new().text("main", &[0; 16], &[(0, ABS64, "a", 0), (8, ABS64, "b", 0)]).build();
    let object = |byte: u8, name: &str| Obj::new().comdat("shared", &[byte; 4]).text(name, &CALL, &[(1, PC32, "shared", -4)]).build();
    let l = linked(&[("m.o", main), ("a.o", object(1, "a")), ("b.o", object(2, "b"))], &["main"]);
    let shared = address(&l, ".text.shared");
    assert_eq!(at(&l, shared, 4), [1; 4]);
    assert_eq!(displacement(&l, address(&l, ".text.a") + 1), shared);
    assert_eq!(displacement(&l, address(&l, ".text.b") + 1), shared);
}

#[test]
fn loads_through_the_table_become_direct_where_the_relocation_allows() {
    let mov = [0x48, 0x8b, 0x05, 0, 0, 0, 0];
    let code = [&mov[..], &mov, &[0xff, 0x15, 0, 0, 0, 0], &[0xff, 0x25, 0, 0, 0, 0]].concat();
    let refs = [
        (3, elf::R_X86_64_REX_GOTPCRELX, "f", -4),
        (10, elf::R_X86_64_GOTPCREL, "f", -4),
        (16, elf::R_X86_64_GOTPCRELX, "f", -4),
        (22, elf::R_X86_64_GOTPCRELX, "f", -4),
    ];
    let l = linked(&[("m.o", Obj::new().text("main", &code, &refs).text("f", &[0xc3], &[]).build())], &["main"]);
    let (main, f) = (address(&l, ".text.main"), address(&l, ".text.f"));
    assert_eq!((l.stats.relaxed, l.stats.got_slots), (3, 1));
    assert_eq!(at(&l, main, 3), [0x48, 0x8d, 0x05]);
    assert_eq!(displacement(&l, main + 3), f);
    assert_eq!(at(&l, main + 7, 3), [0x48, 0x8b, 0x05]);
    assert_eq!(at(&l, displacement(&l, main + 10), 8), f.to_le_bytes(), "the slot holds the address");
    assert_eq!(at(&l, main + 14, 2), [0x67, 0xe8]);
    assert_eq!(displacement(&l, main + 16), f);
    assert_eq!(at(&l, main + 20, 1), [0xe9]);
    assert_eq!(displacement(&l, main + 21), f);
    assert_eq!(at(&l, main + 25, 1), [0x90]);
}

#[test]
fn bounds_of_sections_keep_them_and_put_them_side_by_side() {
    let list = |name: &str, byte: u8| Obj::new().def("drivers", SectionKind::ReadOnlyData, name, &[byte; 16], &[]);
    let refs = [(0, ABS64, "__start_drivers", 0), (8, ABS64, "__stop_drivers", 0), (16, ABS64, "b", 0), (24, ABS64, "__stop_none", 0)];
    let main = list("one", 1).def(".rodata.x", SectionKind::ReadOnlyData, "x", &[9; 16], &[]).text("main", &[0; 32], &refs).build();
    let other = list("two", 2).text("b", &[0; 8], &[(0, ABS64, "x", 0)]).build();
    let l = linked(&[("m.o", main), ("b.o", other), ("c.o", list("three", 3).build())], &["main"]);
    let main = at(&l, address(&l, ".text.main"), 32);
    let number = |i: usize| u64::from_le_bytes(main[i..i + 8].try_into().unwrap());
    assert_eq!(number(8) - number(0), 32, "of loaded objects only\n{}", l.map);
    assert_eq!(at(&l, number(0), 32), [[1; 16], [2; 16]].concat());
}

#[test]
fn symbols_are_there_for_debuggers_when_asked_for() {
    use object::{Object as _, ObjectSymbol as _};
    let members =
        archive(&[("m.o", Obj::new().text("main", &CALL, &[(1, PLT32, "f", -4)]).text("f", &[0xc3], &[]).text("dead", &[1], &[]).build())]);
    let mut input = input(&members, &["main"]);
    assert_eq!(object::File::parse(&*link(&input).unwrap().elf).unwrap().symbols().count(), 0);
    input.has_symbol_table = true;
    let l = link(&input).unwrap();
    let file = object::File::parse(&*l.elf).unwrap();
    let names: Vec<_> = file.symbols().filter(|s| !s.name().unwrap().starts_with("__")).map(|s| (s.name().unwrap(), s.address())).collect();
    assert_eq!(names, [("main", START), ("f", address(&l, ".text.f"))]);
    assert!(file.symbols().any(|s| s.name() == Ok("__kernel_start") && s.address() == START));
    assert_eq!(l.sections[0].segment, Segment::Text);
}

#[test]
fn the_application_object_holds_its_tables() {
    let app = ukc_link::AppObject {
        handlers: &[(1, "sys_write".to_owned()), (60, "sys_exit".to_owned())],
        stub: "sys_enosys",
        module_inits: &["init_b".to_owned(), "init_a".to_owned()],
        boot_record: b"record",
    };
    let kernel =
        ["sys_write", "sys_exit", "sys_enosys", "init_a", "init_b", "unused"].iter().fold(Obj::new(), |o, n| o.text(n, &[0xc3], &[]));
    let refs = [
        (0, ABS64, "ukc_syscall_table", 0),
        (8, ABS64, "ukc_module_inits", 0),
        (16, ABS64, "ukc_boot_record", 0),
        (24, ABS64, "ukc_boot_record_len", 0),
    ];
    let kernel = archive(&[("k.o", kernel.text("main", &[0; 32], &refs).build())]);
    let mut input = input(&kernel, &["main"]);
    input.extra_objects = vec![ukc_link::app_object(&app).unwrap()];
    let l = link(&input).unwrap();
    let word = |address: u64| u64::from_le_bytes(at(&l, address, 8).try_into().unwrap());
    let main = address(&l, ".text.main");
    let (table, inits, record, len) = (word(main), word(main + 8), word(main + 16), word(main + 24));
    assert_eq!(word(table + 8), address(&l, ".text.sys_write"));
    assert_eq!(word(table + 60 * 8), address(&l, ".text.sys_exit"));
    for number in [0, 2, 511] {
        assert_eq!(word(table + number * 8), address(&l, ".text.sys_enosys"));
    }
    assert_eq!([word(inits), word(inits + 8), word(inits + 16)], [address(&l, ".text.init_b"), address(&l, ".text.init_a"), 0]);
    assert_eq!((word(len), at(&l, record, 6)), (6, b"record".to_vec()));
    assert!(!l.map.contains("unused"));
    assert_eq!(ukc_link::app_object(&app), ukc_link::app_object(&app));
}

#[test]
fn the_application_object_refuses_impossible_tables() {
    let make = |handlers: &[(u32, String)]| {
        ukc_link::app_object(&ukc_link::AppObject { handlers, stub: "s", module_inits: &[], boot_record: b"" })
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert_eq!(make(&[(512, "f".to_owned())]), Err("system call 512 (`f`) is beyond the table of 512".to_owned()));
    assert_eq!(make(&[(1, "f".to_owned()), (1, "g".to_owned())]), Err("system call 1 has two handlers, `f` and `g`".to_owned()));
    assert_eq!(make(&[(1, "f".to_owned()), (1, "f".to_owned())]), Ok(()));
}

#[test]
fn all_problems_are_reported_at_once() {
    let members = [
        (
            "m.o",
            Obj::new()
                .text(
                    "main",
                    &[0; 32],
                    &[(1, PLT32, "gone", -4), (8, ABS64, "twice", 0), (16, PLT32, "missing", -4), (24, ABS64, "gone", 0)],
                )
                .build(),
        ),
        ("a.o", Obj::new().text("twice", &[1], &[]).build()),
        ("b.o", Obj::new().text("twice", &[2], &[]).build()),
    ];
    assert_eq!(
        errors(&members, &["main", "absent"]),
        "undefined root symbol `absent`\n\
         undefined symbol `gone`, referred to by m.o:(.text.main+0x1) in `main`, m.o:(.text.main+0x18) in `main`\n\
         undefined symbol `missing`, referred to by m.o:(.text.main+0x10) in `main`\n\
         duplicate symbol `twice`, defined at a.o:(.text.twice+0x0) in `twice` and b.o:(.text.twice+0x0) in `twice`"
    );
}

#[test]
fn duplicates_that_nobody_refers_to_are_no_error() {
    let object = |name: &str| Obj::new().text("twice", &[1], &[]).text(name, &[2], &[]).build();
    let main = Obj::new().text("main", &[0; 16], &[(0, ABS64, "a", 0), (8, ABS64, "b", 0)]).build();
    linked(&[("m.o", main), ("a.o", object("a")), ("b.o", object("b"))], &["main"]);
}

#[test]
fn values_that_do_not_fit_are_reported_with_the_value() {
    let members = [(
        "m.o",
        Obj::new().text("main", &[0; 8], &[(0, elf::R_X86_64_32, "f", 0), (4, elf::R_X86_64_16, "f", 0)]).text("f", &[0xc3], &[]).build(),
    )];
    assert_eq!(
        errors(&members, &["main"]),
        "relocation R_X86_64_32 against `f` does not fit: 0xffffffff80200010 at m.o:(.text.main+0x0) in `main`\n\
         relocation R_X86_64_16 against `f` does not fit: -0x7fdffff0 at m.o:(.text.main+0x4) in `main`"
    );
}

#[test]
fn what_a_kernel_must_not_contain_is_refused() {
    let tls = Obj::new().text("main", &[0; 8], &[(0, ABS64, "t", 0)]).def(".tdata", SectionKind::Tls, "t", &[0; 8], &[]).build();
    assert_eq!(errors(&[("m.o", tls)], &["main"]), "thread-local data in the kernel: m.o:(.tdata+0x0) in `t`");
    let flags = elf::SHF_ALLOC | elf::SHF_WRITE | elf::SHF_EXECINSTR;
    let wx = Obj::new().def(".wx", SectionKind::Text, "main", &[0xc3], &[]).flags(flags).build();
    assert_eq!(errors(&[("m.o", wx)], &["main"]), "section is writable and executable: m.o:(.wx+0x0) in `main`");
    let outside = Obj::new().text("main", &[0; 8], &[(4, ABS64, "main", 0)]).build();
    assert_eq!(errors(&[("m.o", outside)], &["main"]), "a relocation outside its section at m.o:(.text.main+0x4) in `main`");
    let huge = Obj::new().text("main", &[0; 8], &[(0, ABS64, "z", 0)]).bss("z", 2 << 30, 16).build();
    assert!(errors(&[("m.o", huge)], &["main"]).starts_with("the kernel would be 214748"));
    let other = errors(&[("m.o", b"\x7fELF\x01garbage".to_vec())], &["main"]);
    assert!(other.starts_with("cannot link `m.o`: "), "{other}");
    assert!(link(&input(b"not an archive", &["main"])).unwrap_err().to_string().starts_with("cannot read the module archive: "));
}
