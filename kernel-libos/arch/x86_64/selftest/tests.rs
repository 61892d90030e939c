//! The tests.

use core::sync::atomic::Ordering;

use libos_arch::addr::{PhysAddr, USER_END, VirtAddr, phys_to_virt};
use libos_arch::boot::image;
use libos_arch::fpu::FpuState;
use libos_arch::paging::{Flags, PageTable};
use libos_arch::{BootInfo, Fault, UserFrame, console, cpu, irq, kprintln, rng, time, user};

use crate::heap::TABLES;
use crate::hooks::{
    self, BEFORE_USER, BREAK_RIP, CODE, DEVICE, End, INPUT, KERNEL_FAULTS, LAZY, LAZY_END, PERIOD, READ_ONLY, STACK_TOP, TICKS, Task,
};
use crate::programs;

pub fn all(boot: &'static BootInfo) {
    let features = cpu::features();
    kprintln!("{:?} {} memory regions, {:?}", boot.entry, boot.memory.len(), features);
    test("boot_information", || boot_information(boot));
    test("mem_functions", mem_functions);
    test("write_xor_execute", write_xor_execute);
    test("direct_map_shows_all_ram", || direct_map(boot));
    test("clock", clock);
    test("timer", timer);
    test("interrupts_in_kernel_mode", interrupts_in_kernel_mode);
    test("user_registers", || exits(programs::registers(), 0, 0));
    test("user_registers_by_iret", || exits(programs::iret(), 0, 0));
    test("demand_paging", || exits(programs::lazy(), 0, 0));
    test("fpu_state_of_two_tasks", || fpu_of_two(features.xsave));
    test("faults", faults);
    test("wild_return_address", wild_return_address);
    test("user_copies", user_copies);
    test("user_strings", user_strings);
    test("user_atomics", user_atomics);
    test("tables_are_freed", tables_are_freed);
    test("fpu_bytes", fpu_bytes);
    test("random", random);
    test("console_input", || console_input(&boot.cmdline[9..] == b"input"));
}

fn test(name: &str, f: impl FnOnce()) {
    f();
    kprintln!("ok {name}");
}

fn boot_information(boot: &BootInfo) {
    assert!(boot.cmdline.starts_with(b"selftest "), "{:?}", boot.cmdline);
    let usable: u64 = boot.memory.iter().filter(|r| r.usable).map(|r| r.len).sum();
    assert!(usable > 8 << 20, "{usable}");
    for pair in boot.memory.windows(2) {
        assert!(pair[0].end() <= pair[1].start, "{pair:?}");
    }
    let overlaps = |start: u64, end: u64| boot.memory.iter().any(|r| r.usable && r.start < end && start < r.end());
    assert!(!overlaps(boot.kernel.0.0, boot.kernel.1.0) && !overlaps(0, 4096));
    let name = &boot.cmdline[9..];
    assert_eq!(boot.initrd.is_some(), name == b"initrd" || name == b"linux64");
    if let Some((start, len)) = boot.initrd {
        assert!(!overlaps(start.0, start.0 + len as u64));
        // SAFETY: RAM in the direct map.
        assert_eq!(unsafe { *phys_to_virt(start).cast::<[u8; 4]>() }, *b"\x7fELF");
    }
}

fn mem_functions() {
    let mut a = [0u8; 300];
    let mut b = [0u8; 300];
    for (i, byte) in a.iter_mut().enumerate() {
        *byte = (i * 7 + 1) as u8;
    }
    for len in (0..40).chain([127, 128, 129, 135, 136, 137, 200, 255]) {
        for from in [0, 1, 7, 13] {
            b.fill(0xaa);
            b[3..3 + len].copy_from_slice(&a[from..from + len]);
            assert!((0..300).all(|i| b[i] == if (3..3 + len).contains(&i) { a[from + i - 3] } else { 0xaa }), "memcpy {len}");
            assert!(b[3..3 + len] == a[from..from + len]);
            if len > 0 {
                b[3 + len - 1] ^= 0x80;
                assert!(b[3..3 + len] != a[from..from + len]);
                assert_eq!(b[3..3 + len].cmp(&a[from..from + len]), b[3 + len - 1].cmp(&a[from + len - 1]), "memcmp {len}");
            }
            for to in [from, from + 1, from + 5, from + 8, from + 30, from.saturating_sub(1), from.saturating_sub(9)] {
                let mut c = a;
                c.copy_within(from..from + len, to);
                assert!(
                    (0..300).all(|i| c[i] == if (to..to + len).contains(&i) { a[from + i - to] } else { a[i] }),
                    "memmove {from} {to} {len}"
                );
            }
            b.fill(1);
            b[from..from + len].fill(0xee);
            assert!((0..300).all(|i| b[i] == if (from..from + len).contains(&i) { 0xee } else { 1 }), "memset {len}");
        }
    }
}

/// Calls `f(address, bytes, writable, executable)` for every page of the active table.
fn for_each_mapping(f: &mut dyn FnMut(u64, u64, bool, bool)) {
    let root: u64;
    // SAFETY: reads a control register.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) root) };
    walk(root & !0xfff, 3, 0, true, true, f);
}

fn walk(table: u64, level: u32, base: u64, write: bool, exec: bool, f: &mut dyn FnMut(u64, u64, bool, bool)) {
    // SAFETY: a table of the active set, in the direct map.
    let entries = unsafe { &*phys_to_virt(PhysAddr(table)).cast::<[u64; 512]>() };
    let size = 4096u64 << (9 * level);
    for (i, entry) in entries.iter().enumerate().filter(|(_, e)| *e & 1 != 0) {
        let mut at = base + i as u64 * size;
        if level == 3 && i >= 256 {
            at |= 0xffff << 48;
        }
        let (write, exec) = (write && entry & 2 != 0, exec && entry >> 63 == 0);
        if level == 0 || entry & 0x80 != 0 {
            f(at, size, write, exec);
        } else {
            walk(entry & 0xf_ffff_ffff_f000, level - 1, at, write, exec, f);
        }
    }
}

fn write_xor_execute() {
    let text = image::text_range();
    let (mut pages, mut executable) = (0, 0);
    for_each_mapping(&mut |at, bytes, write, exec| {
        pages += 1;
        assert!(!(write && exec), "{at:#x} is writable and executable");
        assert!(at >= 0xffff_8000_0000_0000, "{at:#x}: nothing is mapped in the lower half");
        if exec {
            executable += bytes;
            assert!(text.contains(&(at as usize)), "{at:#x} is executable");
        }
        // Text is writable nowhere, also not in the direct map.
        let alias = at as usize >= 0xffff_8000_0000_0000 && (at as usize) < 0xffff_9000_0000_0000;
        if alias && write {
            let phys = at as usize - 0xffff_8000_0000_0000;
            let (start, end) = (text.start - 0xffff_ffff_8000_0000, text.end - 0xffff_ffff_8000_0000);
            assert!(phys + bytes as usize <= start || phys >= end, "{at:#x} shows text writable");
        }
    });
    assert_eq!(executable as usize, text.len());
    assert!(pages > 100);
}

fn direct_map(boot: &BootInfo) {
    for region in boot.memory.iter().filter(|r| r.usable && r.start >= 1 << 20) {
        // The last word of each region can be written and read (it is nobody's yet: the heap grows from below).
        let last = phys_to_virt(PhysAddr(region.end() - 8)).cast::<u64>();
        // SAFETY: see above.
        unsafe {
            last.write_volatile(region.start);
            assert_eq!(last.read_volatile(), region.start);
        }
    }
    if &boot.cmdline[9..12] == b"big" {
        assert!(boot.memory.iter().any(|r| r.usable && r.end() > 4 << 30));
    }
}

fn clock() {
    let start = time::monotonic_ns();
    let params = time::tsc_params();
    kprintln!("clock: {start} ns after start; {params:?}");
    let mut last = start;
    // Goes through the refinements, without a step backwards.
    while last < start + 150_000_000 {
        let now = time::monotonic_ns();
        assert!(now >= last, "{now} after {last}");
        assert!(now < last + 1_000_000_000, "{now} after {last}");
        last = now;
    }
    let refined = time::tsc_params();
    kprintln!("clock: {refined:?}, wall {}", time::wall_clock_at_boot_ns());
    let ratio = u64::from(params.mult) << 20 >> params.shift;
    let better = u64::from(refined.mult) << 20 >> refined.shift;
    assert!(ratio.abs_diff(better) <= ratio / 8, "the first calibration was off by more than 12 %");
    assert_ne!(time::tsc_generation(), 0, "settled after 150 ms");
}

fn timer() {
    cpu::interrupts_enable();
    let start = time::monotonic_ns();
    let ticks = TICKS.load(Ordering::Relaxed);
    time::set_timer(Some(start + 20_000_000));
    while TICKS.load(Ordering::Relaxed) == ticks {
        cpu::halt();
    }
    let took = time::monotonic_ns() - start;
    assert!((19_000_000..500_000_000).contains(&took), "20 ms took {took} ns");
    // Cancelled timers stay silent; deadlines in the past fire at once.
    time::set_timer(Some(time::monotonic_ns() + 5_000_000));
    time::set_timer(None);
    let ticks = TICKS.load(Ordering::Relaxed);
    let until = time::monotonic_ns() + 20_000_000;
    while time::monotonic_ns() < until {
        cpu::relax();
    }
    assert_eq!(TICKS.load(Ordering::Relaxed), ticks);
    time::set_timer(Some(0));
    while TICKS.load(Ordering::Relaxed) == ticks {
        cpu::halt();
    }
}

/// Registers, xmm and the red zone survive 600 interrupts in kernel mode.
fn interrupts_in_kernel_mode() {
    PERIOD.store(100_000, Ordering::Relaxed);
    time::set_timer(Some(0));
    let until = TICKS.load(Ordering::Relaxed) + 600;
    let bad: u64;
    // SAFETY: writes only below the stack pointer, which code with a red zone may (and inline assembly without `nostack` must not rely on; here the point
    // is to see whether anything writes there in between; it is empty, as this function's own data lies above).
    unsafe {
        core::arch::asm!(
            "mov r8, 0x1111",
            "movq xmm0, r8",
            "movq xmm15, r8",
            "2: mov [rsp - 8], r8",
            "mov [rsp - 64], r8",
            "mov [rsp - 128], r8",
            "mov r9d, 1000",
            "3: dec r9d",
            "jnz 3b",
            "mov {bad}, 1",
            "cmp [rsp - 8], r8",
            "jne 4f",
            "cmp [rsp - 64], r8",
            "jne 4f",
            "cmp [rsp - 128], r8",
            "jne 4f",
            "mov {bad}, 2",
            "movq r9, xmm0",
            "cmp r9, r8",
            "jne 4f",
            "movq r9, xmm15",
            "cmp r9, r8",
            "jne 4f",
            "mov {bad}, 0",
            "cmp [{ticks}], {until}",
            "jb 2b",
            "4:",
            bad = out(reg) bad,
            ticks = in(reg) TICKS.as_ptr(),
            until = in(reg) until,
            out("r8") _,
            out("r9") _,
            out("xmm0") _,
            out("xmm15") _,
        );
    }
    assert_eq!(bad, 0, "1 is the red zone, 2 an xmm register");
}

fn frame(rdi: u64, rsi: u64) -> UserFrame {
    let mut frame = UserFrame::new_user(CODE, STACK_TOP);
    frame.rdi = rdi;
    frame.rsi = rsi;
    frame
}

fn end_of(code: &[u8], rdi: u64, rsi: u64) -> End {
    let mut task = Task::new(code, frame(rdi, rsi));
    hooks::run(&mut task, None);
    task.end.expect("ended")
}

fn exits(code: &[u8], rdi: u64, rsi: u64) {
    let before = BEFORE_USER.load(Ordering::Relaxed);
    assert_eq!(end_of(code, rdi, rsi), End::Exit(0));
    assert!(BEFORE_USER.load(Ordering::Relaxed) > before);
}

fn fpu_of_two(avx: bool) {
    // `qemu64` has no AVX; with XSAVE but without AVX the component is absent.
    let avx = u64::from(avx && libos_arch::fpu::xfeatures() & 4 != 0);
    let mut one = Task::new(programs::fpu(), frame(avx, 0x1357));
    let mut two = Task::new(programs::fpu(), frame(avx, 0x2468));
    hooks::run(&mut one, Some(&mut two));
    assert_eq!((one.end, two.end), (Some(End::Exit(0)), Some(End::Exit(0))));
}

fn faults() {
    let fault = |n: u64| match end_of(programs::faults(), n, 0) {
        End::Fault(fault, _) => fault,
        other => panic!("{n}: {other:?}"),
    };
    let page = |addr, present, write, exec| Fault::PageFault { addr, present, write, exec };
    assert_eq!(fault(0), page(0, false, true, false));
    assert_eq!(fault(1), Fault::InvalidOpcode);
    assert_eq!(fault(2), Fault::DivideError);
    assert_eq!(fault(3), Fault::GeneralProtection { code: 0 });
    assert_eq!(fault(4), Fault::Breakpoint);
    assert_eq!(fault(5), page(0xffff_ffff_8020_0000, true, false, false));
    let jump = fault(6);
    assert!(matches!(jump, Fault::PageFault { present: true, exec: true, .. } | Fault::PageFault { present: false, .. }), "{jump:?}");
    assert!(matches!(fault(7), Fault::GeneralProtection { .. } | Fault::PageFault { .. }));
    // QEMU's emulation raises no SSE exceptions and runs into the `ud2` behind.
    let simd = fault(8);
    assert!(matches!(simd, Fault::Simd { mxcsr } if mxcsr & 1 != 0) || simd == Fault::InvalidOpcode, "{simd:?}");
    assert!(matches!(fault(9), Fault::Fpu { status, .. } if status & 1 != 0));
    assert!(matches!(fault(10), Fault::GeneralProtection { .. }));
    assert!(matches!(fault(11), Fault::PageFault { present: true, write: true, .. }));
    assert_eq!(fault(12), Fault::Debug);
}

/// A return address that is not canonical is the program's fault, not the kernel's.
fn wild_return_address() {
    BREAK_RIP.store(true, Ordering::Relaxed);
    let end = end_of(programs::iret(), 0, 0);
    assert_eq!(end, End::Fault(Fault::GeneralProtection { code: 0 }, 0x8000_0000_0000));
}

/// Makes the lower half of `task` visible to the copies below.
fn with_user_memory(f: impl FnOnce()) {
    let task = Task::new(&[0x90; 4096], frame(0, 0));
    cpu::interrupts_disable();
    cpu::set_current((&raw const task).cast());
    task.table.activate();
    cpu::interrupts_enable();
    f();
    cpu::interrupts_disable();
    libos_arch::paging::activate_kernel();
    cpu::set_current(core::ptr::null());
    cpu::interrupts_enable();
}

fn user_copies() {
    with_user_memory(|| {
        let mut buffer = [0u8; 9000];
        for (i, byte) in buffer.iter_mut().enumerate() {
            *byte = (i % 251) as u8;
        }
        let faults = KERNEL_FAULTS.load(Ordering::Relaxed);
        // Over three pages that appear.
        for len in [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 136, 137, 4096, 8999] {
            for offset in [0, 1, 5, 4090] {
                let at = LAZY + offset;
                assert_eq!(user::clear_user(LAZY, offset + len + 9), Ok(()));
                assert_eq!(user::copy_to_user(at, &buffer[..len]), Ok(()), "{len} {offset}");
                let mut back = [0u8; 9000];
                assert_eq!(user::copy_from_user(&mut back[..len], at), Ok(()));
                assert!(back[..len] == buffer[..len], "{len} {offset}");
                let mut around = [1u8];
                assert_eq!(user::copy_from_user(&mut around, at + len), Ok(()));
                assert_eq!(around, [0], "{len} {offset}");
            }
        }
        assert!(KERNEL_FAULTS.load(Ordering::Relaxed) >= faults + 3);
        // Up to the very byte before memory that does not exist, in words and in bytes.
        for before in [0, 1, 3, 8, 13, 20, 40, 56, 64, 200, 300] {
            for len in [before + 1, before + 8, before + 400] {
                let at = LAZY_END - before;
                let mut back = [0u8; 1000];
                assert_eq!(user::copy_from_user(&mut back[..len], at), Err(user::Fault { done: before }), "{before} {len}");
                assert_eq!(user::copy_to_user(at, &buffer[..len]), Err(user::Fault { done: before }));
                assert_eq!(user::clear_user(at, len), Err(user::Fault { done: before }));
            }
        }
        assert_eq!(user::copy_to_user(READ_ONLY, &[1]), Err(user::Fault { done: 0 }));
        assert_eq!(user::copy_from_user(&mut [0; 16], READ_ONLY), Ok(()));
        for bad in [0usize, 8, USER_END - 4, USER_END, usize::MAX - 15, 0xffff_8000_0000_0000, 0xffff_ffff_8020_0000, 0x8000_0000_0000] {
            assert!(user::copy_from_user(&mut [0; 16], bad).is_err(), "{bad:#x}");
            assert!(user::copy_to_user(bad, &[0; 16]).is_err(), "{bad:#x}");
            assert!(user::load_u32(bad).is_err() && user::store_u32(bad, 0).is_err() && user::cmpxchg_u32(bad, 0, 0).is_err(), "{bad:#x}");
            assert!(user::copy_string(&mut [0; 16], bad).is_err(), "{bad:#x}");
        }
    });
}

fn user_strings() {
    with_user_memory(|| {
        for len in [0usize, 1, 7, 8, 9, 16, 100] {
            let text = [b'x'; 128];
            assert_eq!(user::copy_to_user(LAZY + 3, &text[..len]), Ok(()));
            assert_eq!(user::copy_to_user(LAZY + 3 + len, &[0]), Ok(()));
            let mut back = [0xffu8; 128];
            assert_eq!(user::copy_string(&mut back, LAZY + 3), Ok(len));
            assert!(back[..len] == text[..len]);
            assert_eq!(user::copy_string(&mut back[..len], LAZY + 3), Ok(len));
            // Right at the end of memory, with and without its NUL.
            let at = LAZY_END - len - 1;
            assert_eq!(user::copy_to_user(at, &text[..len]), Ok(()));
            assert_eq!(user::copy_to_user(LAZY_END - 1, &[0]), Ok(()));
            assert_eq!(user::copy_string(&mut back, at), Ok(len));
            assert_eq!(user::copy_to_user(LAZY_END - 1, b"y"), Ok(()));
            assert_eq!(user::copy_string(&mut back, at), Err(user::Fault { done: len + 1 }));
        }
    });
}

fn user_atomics() {
    with_user_memory(|| {
        assert_eq!(user::store_u32(LAZY + 0x2000, 5), Ok(()));
        assert_eq!(user::load_u32(LAZY + 0x2000), Ok(5));
        assert_eq!(user::cmpxchg_u32(LAZY + 0x2000, 4, 9), Ok(5));
        assert_eq!(user::cmpxchg_u32(LAZY + 0x2000, 5, 9), Ok(5));
        assert_eq!(user::load_u32(LAZY + 0x2000), Ok(9));
        assert!(user::cmpxchg_u32(READ_ONLY, 0, 1).is_err());
        assert!(user::store_u32(READ_ONLY, 1).is_err());
        assert_eq!(user::load_u32(READ_ONLY), Ok(0));
    });
}

fn tables_are_freed() {
    let before = TABLES.load(Ordering::Relaxed);
    let mut table = PageTable::new().unwrap();
    for i in 0..8 {
        table.map(VirtAddr(i << 40), PhysAddr(0x1000), Flags::USER).unwrap();
    }
    table.activate();
    assert!(TABLES.load(Ordering::Relaxed) >= before + 8);
    drop(table);
    assert_eq!(TABLES.load(Ordering::Relaxed), before);
}

/// Signal frames: the state goes out as bytes and comes back, however broken.
fn fpu_bytes() {
    let mut frame = frame(0, 0);
    frame.xmm[9] = 12345;
    let mut state = FpuState::new_default();
    state.save_user(&frame);
    frame.xmm[9] = 0;
    FpuState::from_bytes(state.as_bytes()).unwrap().load_user(&mut frame);
    assert_eq!(frame.xmm[9], 12345);
    FpuState::from_bytes(&[0xff; 4096]).unwrap().restore();
    FpuState::from_bytes(&[0xff; 512]).unwrap().restore();
    FpuState::new_default().restore();
}

fn random() {
    assert_ne!(rng::entropy_mix(), rng::entropy_mix());
    if cpu::features().rdrand {
        assert_ne!(rng::rdrand().unwrap(), rng::rdrand().unwrap());
    }
    if cpu::features().rdseed {
        assert!(rng::rdseed().is_some());
    }
}

/// The serial port's line interrupt, through the I/O APIC. With `input`, somebody types.
fn console_input(is_typed: bool) {
    let vector = irq::allocate_vector().unwrap();
    assert!(irq::enable_gsi(console::SERIAL_GSI, vector, irq::Trigger::Edge));
    assert!(console::enable_receive_interrupt());
    assert!(!irq::enable_gsi(200, vector, irq::Trigger::Edge), "no such line");
    if is_typed {
        // Bytes that came before are taken here: their edge is past.
        let mut early = 0u64;
        while let Some(byte) = console::read_byte() {
            early = early << 8 | u64::from(byte);
        }
        let deadline = time::monotonic_ns() + 10_000_000_000;
        while INPUT.load(Ordering::Relaxed) & 0xffff != u64::from(u16::from_be_bytes(*b"!\n")) && time::monotonic_ns() < deadline {
            cpu::halt();
        }
        assert_eq!((early, INPUT.load(Ordering::Relaxed), DEVICE.load(Ordering::Relaxed)), (0, 0x0068_6921_0a, u64::from(vector)));
    }
}
