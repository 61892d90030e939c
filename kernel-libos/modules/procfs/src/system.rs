//! Files about the machine.

use libos_core::arch::cpu::cpuid;
use libos_core::mm::{self, PAGE_SIZE};
use libos_core::task::{current, table};
use libos_core::vfs::mount::{MountFlags, mounts};
use libos_core::vfs::{self, registry};
use libos_core::{start, time};

use crate::net;
use crate::text::Text;

/// A name in a directory.
pub struct Entry {
    pub name: &'static str,
    pub kind: Kind,
}

/// What it is.
#[derive(Clone, Copy)]
pub enum Kind {
    Dir(&'static [Entry]),
    Text(fn(&mut Text)),
    /// One line that never changes.
    Fixed(&'static str),
    Link(fn(&mut Text)),
}

const fn dir(name: &'static str, entries: &'static [Entry]) -> Entry {
    Entry { name, kind: Kind::Dir(entries) }
}

const fn text(name: &'static str, make: fn(&mut Text)) -> Entry {
    Entry { name, kind: Kind::Text(make) }
}

const fn fixed(name: &'static str, line: &'static str) -> Entry {
    Entry { name, kind: Kind::Fixed(line) }
}

const fn link(name: &'static str, target: fn(&mut Text)) -> Entry {
    Entry { name, kind: Kind::Link(target) }
}

/// /proc.
pub static ROOT: Entry = dir(
    "/",
    &[
        text("cmdline", |t| {
            t.bytes(start::command_line());
            t.bytes(b"\n");
        }),
        text("cpuinfo", cpuinfo),
        text("filesystems", filesystems),
        text("loadavg", loadavg),
        text("meminfo", meminfo),
        link("mounts", |t| t.bytes(b"self/mounts")),
        dir("net", &[text("dev", net::dev), text("if_inet6", net::if_inet6), text("route", net::route)]),
        link("self", |t| t.part(format_args!("{}", current().pid()))),
        text("stat", stat),
        fixed("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"),
        dir("sys", SYS),
        link("thread-self", |t| t.part(format_args!("{}/task/{}", current().pid(), current().tid()))),
        text("uptime", uptime),
        text("version", |t| t.line(format_args!("Linux version {RELEASE} (ukc) {VERSION}"))),
        text("vmstat", vmstat),
    ],
);

/// What uname(2) says.
const RELEASE: &str = "6.1.0-ukc";
const VERSION: &str = "#1 SMP ukc";

/// /proc/sys: limits as Linux has them by default (proc(5), Documentation/admin-guide/sysctl).
const SYS: &[Entry] = &[
    dir(
        "fs",
        &[
            fixed("aio-max-nr", "65536"),
            fixed("file-max", "1048576"),
            text("file-nr", |t| t.line(format_args!("{}\t0\t1048576", open_files()))),
            dir("inotify", &[fixed("max_queued_events", "16384"), fixed("max_user_instances", "128"), fixed("max_user_watches", "65536")]),
            fixed("nr_open", "1048576"),
            fixed("pipe-max-size", "1048576"),
            fixed("protected_hardlinks", "0"),
            fixed("protected_symlinks", "0"),
        ],
    ),
    dir(
        "kernel",
        &[
            fixed("cap_last_cap", "40"),
            fixed("core_pattern", "core"),
            fixed("domainname", "(none)"),
            text("hostname", |t| {
                t.bytes(start::boot_record().map_or(b"localhost", |r| r.hostname));
                t.bytes(b"\n");
            }),
            fixed("msgmax", "8192"),
            fixed("msgmnb", "16384"),
            fixed("ngroups_max", "65536"),
            fixed("osrelease", RELEASE),
            fixed("ostype", "Linux"),
            fixed("overflowgid", "65534"),
            fixed("overflowuid", "65534"),
            fixed("perf_event_paranoid", "3"),
            fixed("pid_max", "32768"),
            dir(
                "random",
                &[
                    text("boot_id", boot_id),
                    fixed("entropy_avail", "256"),
                    fixed("poolsize", "256"),
                    text("uuid", |t| uuid(t, random_bytes())),
                ],
            ),
            fixed("randomize_va_space", "2"),
            fixed("sched_child_runs_first", "0"),
            fixed("sem", "32000\t1024000000\t500\t32000"),
            fixed("shmall", "18446744073692774399"),
            fixed("shmmax", "18446744073692774399"),
            fixed("shmmni", "4096"),
            fixed("tainted", "0"),
            text("threads-max", |t| t.line(format_args!("{}", table::max_tasks()))),
            fixed("version", VERSION),
            dir("yama", &[fixed("ptrace_scope", "1")]),
        ],
    ),
    dir(
        "net",
        &[
            dir("core", &[fixed("rmem_max", "212992"), fixed("somaxconn", "4096"), fixed("wmem_max", "212992")]),
            dir(
                "ipv4",
                &[
                    fixed("ip_local_port_range", "32768\t60999"),
                    fixed("ip_unprivileged_port_start", "1024"),
                    fixed("tcp_fin_timeout", "60"),
                    fixed("tcp_keepalive_time", "7200"),
                    fixed("tcp_max_syn_backlog", "1024"),
                    fixed("tcp_rmem", "4096\t131072\t6291456"),
                    fixed("tcp_wmem", "4096\t16384\t4194304"),
                ],
            ),
            dir("ipv6", &[dir("conf", &[dir("all", &[fixed("disable_ipv6", "0")])])]),
        ],
    ),
    dir(
        "vm",
        &[
            fixed("max_map_count", "65530"),
            fixed("min_free_kbytes", "64"),
            fixed("mmap_min_addr", "65536"),
            fixed("nr_hugepages", "0"),
            fixed("overcommit_memory", "1"),
            fixed("overcommit_ratio", "50"),
            fixed("swappiness", "60"),
        ],
    ),
];

fn open_files() -> usize {
    table::processes().iter().filter_map(|p| p.main_thread()).map(|task| task.files().descriptors().len()).sum()
}

/// Online CPUs.
pub const CPUS: usize = 1;

fn cpuinfo(text: &mut Text) {
    let (max_leaf, b, c, d) = cpuid(0, 0);
    let mut vendor = [0; 12];
    for (bytes, word) in vendor.chunks_exact_mut(4).zip([b, d, c]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let (signature, _, features_c, features_d) = cpuid(1, 0);
    let family = signature >> 8 & 0xf;
    let family = if family == 0xf { family + (signature >> 20 & 0xff) } else { family };
    let model = signature >> 4 & 0xf | signature >> 12 & 0xf0;
    let mut name = [0; 48];
    if cpuid(0x8000_0000, 0).0 >= 0x8000_0004 {
        for (i, bytes) in name.chunks_exact_mut(16).enumerate() {
            let (a, b, c, d) = cpuid(0x8000_0002 + i as u32, 0);
            for (bytes, word) in bytes.chunks_exact_mut(4).zip([a, b, c, d]) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    let (_, extended_b, _, _) = if max_leaf >= 7 { cpuid(7, 0) } else { (0, 0, 0, 0) };
    for cpu in 0..CPUS {
        text.line(format_args!("processor\t: {cpu}"));
        text.part(format_args!("vendor_id\t: "));
        text.bytes(&vendor);
        text.line(format_args!("\ncpu family\t: {family}\nmodel\t\t: {model}"));
        text.part(format_args!("model name\t: "));
        text.bytes(name.trim_ascii());
        text.line(format_args!("\nstepping\t: {}", signature & 0xf));
        text.line(format_args!("physical id\t: 0\nsiblings\t: {CPUS}\ncore id\t\t: {cpu}\ncpu cores\t: {CPUS}\nfpu\t\t: yes"));
        text.part(format_args!("flags\t\t:"));
        for (word, bits) in [(features_d, FEATURES_D), (features_c, FEATURES_C), (extended_b, FEATURES_B)] {
            for (bit, flag) in bits.iter().filter(|(bit, _)| word >> bit & 1 == 1) {
                let _ = bit;
                text.part(format_args!(" {flag}"));
            }
        }
        text.line(format_args!("\nclflush size\t: 64\ncache_alignment\t: 64\n"));
    }
}

/// Names of CPUID bits (Intel SDM volume 2A, CPUID): leaf 1 edx and ecx, leaf 7 ebx. Those that programs look for.
const FEATURES_D: &[(u32, &str)] = &[
    (0, "fpu"),
    (4, "tsc"),
    (5, "msr"),
    (6, "pae"),
    (8, "cx8"),
    (9, "apic"),
    (15, "cmov"),
    (19, "clflush"),
    (23, "mmx"),
    (24, "fxsr"),
    (25, "sse"),
    (26, "sse2"),
];
const FEATURES_C: &[(u32, &str)] = &[
    (0, "pni"),
    (1, "pclmulqdq"),
    (9, "ssse3"),
    (12, "fma"),
    (13, "cx16"),
    (19, "sse4_1"),
    (20, "sse4_2"),
    (22, "movbe"),
    (23, "popcnt"),
    (25, "aes"),
    (26, "xsave"),
    (28, "avx"),
    (29, "f16c"),
    (30, "rdrand"),
    (31, "hypervisor"),
];
const FEATURES_B: &[(u32, &str)] =
    &[(0, "fsgsbase"), (3, "bmi1"), (5, "avx2"), (7, "smep"), (8, "bmi2"), (9, "erms"), (18, "rdseed"), (19, "adx"), (20, "smap")];

fn filesystems(text: &mut Text) {
    for fs_type in registry::types() {
        text.line(format_args!("{}\t{}", if fs_type.needs_volume { "" } else { "nodev" }, fs_type.name));
    }
}

fn loadavg(text: &mut Text) {
    let tasks = table::tasks();
    let running = tasks.iter().filter(|task| task.sched.state().letter() == b'R').count();
    text.line(format_args!("0.00 0.00 0.00 {running}/{} {}", tasks.len(), table::created().1));
}

fn meminfo(text: &mut Text) {
    let (free, total) = mm::frame::count();
    let kib = |pages: usize| pages * PAGE_SIZE / 1024;
    let lines = [
        ("MemTotal", kib(total)),
        ("MemFree", kib(free)),
        ("MemAvailable", kib(free)),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", kib(total - free)),
        ("Inactive", 0),
        ("Active(anon)", kib(total - free)),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", kib(total - free)),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("CommitLimit", kib(total)),
        ("Committed_AS", kib(total - free)),
        ("VmallocTotal", 0),
        ("VmallocUsed", 0),
    ];
    for (name, kib) in lines {
        text.part(format_args!("{name}:"));
        // Values are right-aligned to column 24, as tools that cut columns expect.
        let width = 23usize.saturating_sub(name.len());
        text.line(format_args!("{kib:>width$} kB"));
    }
    text.line(format_args!("HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB"));
}

/// Clock ticks of 10 ms (`sysconf(_SC_CLK_TCK)` is 100).
pub const TICK_NS: u64 = 10_000_000;

fn stat(text: &mut Text) {
    let processes = table::processes();
    let (mut user, mut system) = (0, 0);
    for process in &processes {
        let (u, s) = process.cpu_time_ns();
        user += u;
        system += s;
    }
    let uptime = time::monotonic_ns();
    let idle = uptime.saturating_sub(user + system);
    let ticks = |ns: u64| ns / TICK_NS;
    for name in ["cpu ", "cpu0"] {
        text.line(format_args!("{name} {} 0 {} {} 0 0 0 0 0 0", ticks(user), ticks(system), ticks(idle)));
    }
    let boot = time::realtime_ns().saturating_sub(uptime) / 1_000_000_000;
    let tasks = table::tasks();
    let running = tasks.iter().filter(|task| task.sched.state().letter() == b'R').count();
    text.line(format_args!("intr 0\nctxt {}\nbtime {boot}", libos_core::task::cpu::switch_count()));
    text.line(format_args!("processes {}\nprocs_running {running}\nprocs_blocked 0", table::created().0));
}

fn uptime(text: &mut Text) {
    let up = time::monotonic_ns() / TICK_NS;
    let busy: u64 = table::processes().iter().map(|p| p.cpu_time_ns()).map(|(u, s)| u + s).sum::<u64>() / TICK_NS;
    let idle = up.saturating_sub(busy);
    text.line(format_args!("{}.{:02} {}.{:02}", up / 100, up % 100, idle / 100, idle % 100));
}

fn vmstat(text: &mut Text) {
    text.line(format_args!("nr_free_pages {}", mm::frame::count().0));
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    libos_core::random::fill(&mut bytes);
    bytes
}

/// A random UUID (RFC 9562, version 4).
fn uuid(text: &mut Text, mut bytes: [u8; 16]) {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.bytes(b"-");
        }
        text.part(format_args!("{byte:02x}"));
    }
    text.bytes(b"\n");
}

fn boot_id(text: &mut Text) {
    static ID: libos_core::sync::SpinLock<Option<[u8; 16]>> = libos_core::sync::SpinLock::new(None);
    let new = random_bytes();
    let id = *ID.lock().get_or_insert(new);
    uuid(text, id);
}

/// Options of a mount as /proc/mounts shows them.
fn options(flags: MountFlags, is_read_only: bool) -> &'static str {
    match (is_read_only, flags.contains(MountFlags::NOSUID), flags.contains(MountFlags::NODEV), flags.contains(MountFlags::NOEXEC)) {
        (true, true, true, true) => "ro,nosuid,nodev,noexec,noatime",
        (false, true, true, true) => "rw,nosuid,nodev,noexec,noatime",
        (true, true, ..) => "ro,nosuid,noatime",
        (false, true, ..) => "rw,nosuid,noatime",
        (true, ..) => "ro,noatime",
        (false, ..) => "rw,noatime",
    }
}

/// What must be escaped in a field.
const SPECIAL: &[u8] = b" \t\n\\";

/// /proc/PID/mounts.
pub fn mount_table(text: &mut Text) {
    for mount in mounts() {
        text.escaped(&mount.source, SPECIAL);
        text.bytes(b" ");
        text.escaped(&vfs::path_bytes(&mount.covers().unwrap_or_else(|| mount.top())), SPECIAL);
        let is_read_only = mount.check_writable().is_err();
        text.line(format_args!(" {} {} 0 0", mount.fs.type_name(), options(mount.flags(), is_read_only)));
    }
}

/// /proc/PID/mountinfo.
pub fn mount_info(text: &mut Text) {
    for mount in mounts() {
        let parent = mount.covers().map_or(0, |place| place.mount.id);
        text.part(format_args!("{} {parent} 0:{} / ", mount.id, mount.id));
        text.escaped(&vfs::path_bytes(&mount.covers().unwrap_or_else(|| mount.top())), SPECIAL);
        let is_read_only = mount.check_writable().is_err();
        text.part(format_args!(" {} - {} ", options(mount.flags(), is_read_only), mount.fs.type_name()));
        text.escaped(&mount.source, SPECIAL);
        text.line(format_args!(" {}", if is_read_only { "ro" } else { "rw" }));
    }
}
