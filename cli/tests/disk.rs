//! `-o type=disk` and its relatives: disks are booted by the firmware they are for, in QEMU without acceleration; broken ones say what is wrong.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, did};

const OVMF: &str = "/usr/share/OVMF/OVMF_CODE.fd";

/// Compiles a program that prints a line into an image in every form.
fn forms(sandbox: &Place) -> PathBuf {
    let context = sandbox.path("context");
    std::fs::write(context.join("hello.c"), "#include <stdio.h>\nint main(void) { puts(\"hello from the disk\"); return 0; }\n").unwrap();
    let compiler = Command::new("gcc").args(["-static", "-o", "hello", "hello.c"]).current_dir(&context).status().unwrap();
    assert!(compiler.success());
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY hello /hello\nENTRYPOINT [\"/hello\"]\n").unwrap();
    build(sandbox, "out")
}

/// Builds all forms of the context into a folder.
fn build(sandbox: &Place, name: &str) -> PathBuf {
    let (context, out) = (sandbox.path("context"), sandbox.path(name));
    let mut build = sandbox.command(&["build", "-q"]);
    for (kind, name) in [
        ("disk", "disk.raw"),
        ("qcow2", "disk.qcow2"),
        ("vhd", "disk.vhd"),
        ("kernel", "kernel.elf"),
        ("initrd", "root.img"),
        ("fc", "fc"),
        ("ch", "ch"),
        ("xen", "xen"),
    ] {
        build.arg("-o").arg(format!("type={kind},dest={}", out.join(name).display()));
    }
    did(build.arg(&context)).status(0);
    out
}

/// Boots a machine until it ends, says what is expected, or a minute has passed; returns its console.
fn boot(expected: &str, arguments: &[&str]) -> String {
    let console = tempfile::NamedTempFile::new().unwrap();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial"])
        .arg(format!("file:{}", console.path().display()))
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut text = String::new();
    while start.elapsed() < Duration::from_secs(60) {
        let has_ended = qemu.try_wait().unwrap().is_some();
        text = String::from_utf8_lossy(&std::fs::read(console.path()).unwrap()).into_owned();
        if has_ended || text.contains(expected) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = qemu.kill();
    qemu.wait().unwrap();
    text
}

fn drive(path: &Path, format: &str, interface: &str) -> String {
    format!("file={},format={format},if={interface},id=disk,snapshot=on", path.display())
}

#[test]
fn every_form_boots() {
    const HELLO: &str = "hello from the disk";
    let sandbox = Place::new();
    let out = forms(&sandbox);
    let at = |name: &str| out.join(name);
    let raw = drive(&at("disk.raw"), "raw", "virtio");
    let unattached = drive(&at("disk.raw"), "raw", "none");
    let (kernel, root) = (at("kernel.elf"), at("root.img"));
    let firmware = format!("if=pflash,format=raw,readonly=on,file={OVMF}");
    let cases: &[(&str, &[&str])] = &[
        ("pc, BIOS", &["-machine", "pc", "-drive", &raw]),
        ("q35, BIOS", &["-machine", "q35", "-drive", &raw]),
        ("q35, UEFI", &["-machine", "q35", "-drive", &firmware, "-drive", &raw]),
        ("modern virtio", &["-machine", "q35", "-drive", &unattached, "-device", "virtio-blk-pci,drive=disk,disable-legacy=on"]),
        ("transitional virtio", &["-machine", "pc", "-drive", &unattached, "-device", "virtio-blk-pci-transitional,drive=disk"]),
        ("qcow2", &["-machine", "pc", "-drive", &drive(&at("disk.qcow2"), "qcow2", "virtio")]),
        ("vhd", &["-machine", "pc", "-drive", &drive(&at("disk.vhd"), "vpc", "virtio")]),
        ("root in memory", &["-machine", "pc", "-drive", &drive(&at("xen/disk.raw"), "raw", "ide")]),
        (
            "kernel and disk over MMIO",
            &[
                "-machine",
                "microvm,acpi=off",
                "-global",
                "virtio-mmio.force-legacy=false",
                "-kernel",
                kernel.to_str().unwrap(),
                "-drive",
                &unattached,
                "-device",
                "virtio-blk-device,drive=disk",
            ],
        ),
        ("kernel and initrd", &["-machine", "microvm,acpi=off", "-kernel", kernel.to_str().unwrap(), "-initrd", root.to_str().unwrap()]),
    ];
    for (name, arguments) in cases {
        let console = boot(HELLO, arguments);
        assert!(console.contains(HELLO), "{name}: {console}");
    }
}

#[test]
fn what_cannot_boot_says_why() {
    let sandbox = Place::new();
    let out = forms(&sandbox);
    let whole = std::fs::read(out.join("disk.raw")).unwrap();
    let broken = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let path = out.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    // The kernel begins 2 KiB behind the load table's magic.
    let table = (0..whole.len()).step_by(512).find(|at| whole[*at..].starts_with(b"UKCLOAD\0")).expect("a load table");
    let truncated = broken("truncated", &|b| b.truncate(b.len() - 100 * 1024));
    let kernel = broken("kernel", &|b| b[table + 2048 + 5000] ^= 1);
    let load_table = broken("table", &|b| b[table + 24] ^= 1);
    let partitions = broken("partitions", &|b| b[1024 + 16] ^= 1);
    let loader = broken("loader", &|b| b[40 * 512 + 100] ^= 1);
    let good = out.join("disk.raw");
    let firmware = format!("if=pflash,format=raw,readonly=on,file={OVMF}");
    let virtio = |path: &Path| drive(path, "raw", "virtio");
    for (expected, path, further) in [
        ("the disk is cut short", &truncated, &[][..]),
        ("the kernel on this disk is damaged: its checksum is wrong", &kernel, &[]),
        ("the load table is damaged: checksum", &load_table, &[]),
        ("the partition table is damaged: checksum of the GPT entries", &partitions, &[]),
        ("the boot loader on this disk is damaged", &loader, &[]),
        ("this processor has no 64-bit mode", &good, &["-cpu", "qemu32"]),
        ("the kernel on this disk is damaged: its checksum is wrong", &kernel, &["-machine", "q35", "-drive", &firmware]),
    ] {
        let console = boot(expected, &[further, &["-drive", &virtio(path)]].concat());
        assert!(console.contains(expected), "{expected}: {console}");
    }
    let expected = "there is neither an initrd nor a disk";
    let console = boot(expected, &["-drive", &drive(&good, "raw", "ide")]);
    assert!(console.contains(expected), "{console}");
}

#[test]
fn equal_builds_make_equal_disks_of_little_more_than_their_parts() {
    let sandbox = Place::new();
    let one = forms(&sandbox);
    let two = build(&sandbox, "second");
    for name in ["disk.raw", "disk.qcow2", "disk.vhd", "xen/disk.raw", "xen/xl.cfg", "fc/firecracker.json", "ch/cloud-hypervisor.json"] {
        assert!(std::fs::read(one.join(name)).unwrap() == std::fs::read(two.join(name)).unwrap(), "{name}");
    }
    let len = |name: &str| std::fs::metadata(one.join(name)).unwrap().len();
    let added = len("disk.raw") - len("root.img");
    assert!(added <= 1 << 20, "kernel, loaders and tables are {added} bytes");
}

/// Fields that a configuration may have, by JSON pointer with `0` for any element, and their types; `!` marks those that must be there.
fn check_fields(config: &serde_json::Value, at: &str, fields: &[(&str, &str)]) {
    let kind = match config {
        serde_json::Value::Object(entries) => {
            for (name, value) in entries {
                check_fields(value, &format!("{at}/{name}"), fields);
            }
            "object"
        }
        serde_json::Value::Array(elements) => {
            elements.iter().for_each(|e| check_fields(e, &format!("{at}/0"), fields));
            "array"
        }
        serde_json::Value::String(_) => "string",
        serde_json::Value::Bool(_) => "boolean",
        serde_json::Value::Number(_) => "integer",
        serde_json::Value::Null => "null",
    };
    let known = fields.iter().find(|(path, _)| *path == at).map(|(_, kind)| kind.trim_end_matches('!'));
    assert_eq!(known, Some(kind), "`{at}`");
}

fn check_config(path: &Path, fields: &[(&str, &str)]) {
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    check_fields(&config, "", fields);
    for (at, _) in fields.iter().filter(|(_, kind)| kind.ends_with('!')) {
        assert!(config.pointer(at).is_some(), "`{at}` is missing");
    }
}

#[test]
fn configurations_are_what_the_published_schemas_say() {
    let sandbox = Place::new();
    let out = forms(&sandbox);
    // firecracker: src/firecracker/swagger/firecracker.yaml and docs of `--config-file`.
    check_config(
        &out.join("fc/firecracker.json"),
        &[
            ("", "object!"),
            ("/boot-source", "object!"),
            ("/boot-source/kernel_image_path", "string!"),
            ("/boot-source/boot_args", "string"),
            ("/boot-source/initrd_path", "string"),
            ("/drives", "array!"),
            ("/drives/0", "object"),
            ("/drives/0/drive_id", "string!"),
            ("/drives/0/is_root_device", "boolean!"),
            ("/drives/0/path_on_host", "string!"),
            ("/drives/0/is_read_only", "boolean"),
            ("/entropy", "object"),
            ("/machine-config", "object!"),
            ("/machine-config/vcpu_count", "integer!"),
            ("/machine-config/mem_size_mib", "integer!"),
            ("/machine-config/smt", "boolean"),
        ],
    );
    // cloud-hypervisor: vmm/src/api/openapi/cloud-hypervisor.yaml, `VmConfig`.
    check_config(
        &out.join("ch/cloud-hypervisor.json"),
        &[
            ("", "object!"),
            ("/payload", "object!"),
            ("/payload/kernel", "string!"),
            ("/payload/cmdline", "string"),
            ("/cpus", "object"),
            ("/cpus/boot_vcpus", "integer!"),
            ("/cpus/max_vcpus", "integer!"),
            ("/memory", "object"),
            ("/memory/size", "integer!"),
            ("/disks", "array"),
            ("/disks/0", "object"),
            ("/disks/0/path", "string!"),
            ("/disks/0/readonly", "boolean"),
            ("/rng", "object"),
            ("/rng/src", "string!"),
            ("/serial", "object"),
            ("/serial/mode", "string!"),
            ("/console", "object"),
            ("/console/mode", "string!"),
        ],
    );
}
