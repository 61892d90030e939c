//! What `ukc run` tells QEMU: an image's document and the flags → a machine. Pure, so that it can be tested without one.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ukc_boot_record::CommandLine;
use ukc_driver::image_json::Image;
use ukc_policy::Size;
use ukc_runtime_qemu::{Accelerator, Board, Machine, PortForward, Protocol, RootMedium};

use crate::args::{self, RunArgs};
use crate::report::Failure;
use crate::volumes::{self, Mounted};

const MIB: u64 = 1 << 20;

/// What a machine gets beyond the image's floor: room for the program's own memory. Pages that nobody touches cost nothing on the host.
const ROOM_BYTES: u64 = 256 * MIB;

/// QEMU's user network is always this (qemu(1), "-netdev user"); told so, the guest need not ask by DHCP.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PREFIX_LEN: u8 = 24;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Returns the machine.
pub fn machine(image: &Image, dir: &Path, args: &RunArgs, accelerator: Accelerator) -> Result<Machine, Failure> {
    let root_medium = if args.disk { RootMedium::Disk } else { RootMedium::Initrd };
    let forwards: Vec<PortForward> = args.publish.iter().map(|p| forward(p)).collect::<Result<_, _>>()?;
    let volumes = volumes::disks(image, args)?;
    Ok(Machine {
        qemu: qemu(),
        kernel: absolute(dir, "kernel.elf")?,
        rootfs: absolute(dir, "rootfs.ext4")?,
        root_medium,
        command_line: command_line(image, args, &volumes)?,
        memory_mib: memory_mib(image, root_medium, args.memory.as_deref())?,
        cpus: args.cpus,
        board: match args.machine {
            args::Machine::Microvm => Board::Microvm,
            args::Machine::Pc => Board::Pc,
            args::Machine::Q35 => Board::Q35,
        },
        accelerator,
        network: has_network(image),
        forwards,
        disks: volumes.into_iter().map(|v| v.disk).collect(),
        extra: std::env::var_os("UKC_QEMU_ARGS").map(|a| split(&a)).unwrap_or_default(),
    })
}

/// Returns QEMU's name: `UKC_QEMU` or the usual one.
pub fn qemu() -> PathBuf {
    std::env::var_os("UKC_QEMU").map_or_else(|| PathBuf::from("qemu-system-x86_64"), PathBuf::from)
}

/// Returns the machine that `ukc run` starts when it is given nothing but the image.
pub fn simple_machine(image: &Image, dir: &Path, accelerator: Accelerator) -> Result<Machine, Failure> {
    use clap::Parser as _;

    match args::Cli::try_parse_from(["ukc", "run", "image"]).map(|cli| cli.command) {
        Ok(args::Command::Run(args)) => machine(image, dir, &args, accelerator),
        _ => Err(Failure::new("`ukc run` has another form")),
    }
}

/// A machine in the background has another current directory.
fn absolute(dir: &Path, name: &str) -> Result<PathBuf, Failure> {
    std::path::absolute(dir.join(name)).map_err(|e| Failure::new(format!("`{}`: {e}", dir.display())))
}

/// Further arguments for QEMU, for measurements: words separated by spaces.
fn split(words: &OsStr) -> Vec<String> {
    words.to_string_lossy().split_ascii_whitespace().map(str::to_owned).collect()
}

/// Whether the kernel can use a network card.
fn has_network(image: &Image) -> bool {
    image.modules.iter().any(|m| m.name == "inet")
}

/// What the program is called with. docker run: arguments replace CMD and what stands behind it; ENTRYPOINT stays.
pub fn argv(image: &Image, args: &RunArgs) -> Vec<String> {
    let program = &image.program;
    if args.args.is_empty() {
        return program.argv.clone();
    }
    let kept = &program.argv[..program.command_at.min(program.argv.len())];
    kept.iter().chain(&args.args).cloned().collect()
}

fn command_line(image: &Image, args: &RunArgs, volumes: &[Mounted]) -> Result<String, Failure> {
    let mut line = CommandLine::new();
    if !args.args.is_empty() {
        let program = &image.program;
        let argv = argv(image, args);
        if program.command_at == 0 && !argv.first().is_some_and(|name| is_program(name, &program.path)) {
            line = line.program(argv[0].as_bytes());
        }
        for arg in &argv {
            line = line.arg(arg.as_bytes());
        }
    }
    for variable in &args.env {
        if variable.starts_with('=') || variable.is_empty() {
            return Err(Failure::usage(format!("`{variable}`: a variable needs a name")));
        }
        let value = match variable.contains('=') {
            true => Some(variable.clone()),
            false => std::env::var(variable).ok().map(|value| format!("{variable}={value}")),
        };
        if let Some(value) = value {
            line = line.env(value.as_bytes());
        }
    }
    if args.interactive {
        line = line.terminal();
    }
    if args.trace {
        line = line.trace();
    }
    for volume in volumes {
        line = line.mount(&volume.disk.serial, &volume.target, &volume.options);
    }
    if has_network(image) {
        line = line.ipv4(ADDRESS, PREFIX_LEN, GATEWAY, DNS);
    }
    Ok(line.finish())
}

/// Whether a name given at run means the program that the image starts anyway.
fn is_program(name: &str, path: &str) -> bool {
    name == path || !name.contains('/') && path.rsplit('/').next() == Some(name)
}

fn memory_mib(image: &Image, root_medium: RootMedium, given: Option<&str>) -> Result<u64, Failure> {
    let root = image.artefacts.iter().find(|a| a.name.as_str() == "rootfs.ext4").map_or(0, |a| a.len_bytes);
    let in_memory = if root_medium == RootMedium::Initrd { root } else { 0 };
    let floor = image.memory_floor_bytes + in_memory;
    let Some(text) = given else { return Ok((floor + ROOM_BYTES).div_ceil(MIB)) };
    let bytes = Size::parse(text)
        .map(|size| size.0)
        .ok_or_else(|| Failure::usage(format!("`{text}` is no size; sizes look like `64m` or `1g`")))?;
    if bytes < floor {
        let help = if in_memory > 0 { ", or take the root file system as a disk with `--disk`" } else { "" };
        return Err(Failure::new(format!("`--memory {text}` is too little: this image needs {} MiB{help}", floor.div_ceil(MIB))));
    }
    Ok(bytes / MIB)
}

/// Parses `[ADDR:]HOST:GUEST[/tcp|/udp]`; an IPv6 address stands in brackets.
fn forward(text: &str) -> Result<PortForward, Failure> {
    let bad = |why: &str| Failure::usage(format!("`--publish {text}`: {why}; the form is [ADDR:]HOST:GUEST[/udp], like `8080:80`"));
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(bad(&format!("there is no protocol `{other}`"))),
    };
    let (rest, guest) = ports.rsplit_once(':').ok_or_else(|| bad("two ports are needed"))?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (address, host),
        None => ("", rest),
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p != 0 && text.bytes().all(|b| b.is_ascii_digit()));
    let (Some(host_port), Some(guest_port)) = (port(host), port(guest)) else { return Err(bad("ports are numbers from 1 to 65535")) };
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(bad(&format!("`{address}` is no address")));
    }
    Ok(PortForward { host_address: address.to_owned(), host_port, guest_port, protocol })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn image(modules: &[&str]) -> Image {
        let modules: Vec<_> = modules.iter().map(|m| serde_json::json!({"name": m, "reasons": []})).collect();
        let digest = format!("sha256:{}", "0".repeat(64));
        let json = serde_json::json!({
            "format": "ukc-image", "version": 1,
            "program": {"path": "/usr/bin/app", "argv": ["app", "-d", "x"], "command_at": 1, "env": [], "cwd": "/", "stop_signal": "SIGTERM",
                "user": {"name": "", "uid": 0, "gid": 0, "groups": []}},
            "guest": {"kind": "unikernel", "reasons": []},
            "kernel": {"len_bytes": 0, "text_bytes": 0, "rodata_bytes": 0, "data_bytes": 0, "bss_bytes": 0},
            "modules": modules, "syscalls": [], "files": {"count": 0, "len_bytes": 0}, "ports": [], "volumes": [],
            "memory_floor_bytes": 6 << 20, "inputs": [],
            "artefacts": [{"kind": "rootfs", "name": "rootfs.ext4", "len_bytes": 10 << 20, "digest": digest}],
        });
        Image::parse(json.to_string().as_bytes()).unwrap()
    }

    fn args(words: &[&str]) -> RunArgs {
        let all = ["ukc", "run"].iter().chain(words);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_replace_what_cmd_gave() {
        let image = image(&[]);
        let line = |words: &[&str]| command_line(&image, &args(words), &[]).unwrap();
        assert_eq!(line(&["app"]), "");
        assert_eq!(line(&["app", "--", "a b"]), "ukc.arg=app ukc.arg=a%20b");
        assert_eq!(line(&["-e", "A=1", "--trace", "app"]), "ukc.env=A=1 ukc.trace");
        assert_eq!(line(&["-e", "UKC_TEST_SURELY_UNSET", "app"]), "");
        assert_eq!(command_line(&image, &args(&["-e", "=1", "app"]), &[]).unwrap_err().status, 2);
    }

    #[test]
    fn without_entrypoint_another_program_can_be_named() {
        let mut image = image(&["inet"]);
        image.program.command_at = 0;
        let line = |words: &[&str]| command_line(&image, &args(words), &[]).unwrap();
        let net = "ukc.ip=10.0.2.15/24:10.0.2.2:10.0.2.3";
        assert_eq!(line(&["app"]), net);
        assert_eq!(line(&["app", "--", "app", "-v"]), format!("ukc.arg=app ukc.arg=-v {net}"));
        assert_eq!(line(&["app", "--", "/bin/sh"]), format!("ukc.program=/bin/sh ukc.arg=/bin/sh {net}"));
    }

    #[test]
    fn memory_below_the_floor_is_refused_with_the_number() {
        let image = image(&[]);
        let mib = |medium, given| memory_mib(&image, medium, given);
        assert_eq!(mib(RootMedium::Initrd, None).unwrap(), 272);
        assert_eq!(mib(RootMedium::Disk, None).unwrap(), 262);
        assert_eq!(mib(RootMedium::Disk, Some("6m")).unwrap(), 6);
        let refused = mib(RootMedium::Initrd, Some("15m")).unwrap_err();
        assert!(refused.message.contains("needs 16 MiB") && refused.message.contains("--disk"), "{}", refused.message);
        assert_eq!(mib(RootMedium::Disk, Some("many")).unwrap_err().status, 2);
    }

    #[test]
    fn ports() {
        let parsed =
            |text| forward(text).map(|f| (f.host_address, f.host_port, f.guest_port, f.protocol == Protocol::Udp)).map_err(|e| e.message);
        assert_eq!(parsed("8080:80"), Ok((String::new(), 8080, 80, false)));
        assert_eq!(parsed("0.0.0.0:53:53/udp"), Ok(("0.0.0.0".into(), 53, 53, true)));
        assert_eq!(parsed("[::1]:1:2/tcp"), Ok(("[::1]".into(), 1, 2, false)));
        for bad in ["80", "a:80", "0:80", "80:65536", "8080:80/sctp", "host:1:2", "", ":80", "+1:2"] {
            assert!(parsed(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
