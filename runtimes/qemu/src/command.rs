//! The QEMU command line of a machine.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Accelerator;

/// Which board QEMU emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Board {
    /// virtio over MMIO, no firmware to speak of: the fastest to boot.
    Microvm,
    /// The i440FX machine.
    Pc,
    /// The Q35 machine.
    Q35,
}

/// How the guest gets its root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootMedium {
    /// Loaded to memory and used in place.
    Initrd,
    /// A virtio disk, read when needed.
    Disk,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A port of the host that reaches a port of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForward {
    /// Address on the host; empty is 127.0.0.1.
    pub host_address: String,
    /// Port on the host.
    pub host_port: u16,
    /// Port in the guest.
    pub guest_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A disk besides the root's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The file with its bytes.
    pub file: PathBuf,
    /// How the guest recognises it: at most 20 bytes.
    pub serial: String,
    /// Whether the guest must not write to it.
    pub is_read_only: bool,
}

/// Everything QEMU must be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The QEMU binary.
    pub qemu: PathBuf,
    /// Kernel ELF.
    pub kernel: PathBuf,
    /// Root ext4 image.
    pub rootfs: PathBuf,
    /// How the guest gets it.
    pub root_medium: RootMedium,
    /// Kernel command line.
    pub command_line: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Board.
    pub board: Board,
    /// Accelerator.
    pub accelerator: Accelerator,
    /// Whether there is a network card; forwards imply it.
    pub network: bool,
    /// Ports.
    pub forwards: Vec<PortForward>,
    /// Disks of volumes.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Further arguments, for tests and measurements.
    pub extra: Vec<String>,
}

impl Machine {
    /// Returns the arguments for QEMU. `control` is a connected socket that the child inherits.
    pub fn arguments(&self, control: RawFd) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut push = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        let accelerator = match self.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg { .. } => "tcg",
        };
        push(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max"]);
        // virtio 1.x over MMIO; QEMU offers the interface before it unless told.
        push(&["-global", "virtio-mmio.force-legacy=false"]);
        let board = match self.board {
            // No option ROMs, no ACPI tables, no RTC interrupt: what is not there need not be initialised.
            Board::Microvm => "microvm,acpi=off,x-option-roms=off,isa-serial=on",
            Board::Pc => "pc",
            Board::Q35 => "q35",
        };
        push(&["-machine", &format!("{board},accel={accelerator}")]);
        push(&["-m", &format!("{}M", self.memory_mib), "-smp", &self.cpus.to_string()]);
        push(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        push(&["-chardev", &format!("socket,id=control,fd={control}")]);
        push(&["-device", "isa-serial,iobase=0x2f8,irq=3,chardev=control"]);
        push(&["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]);
        let bus = if self.board == Board::Microvm { "device" } else { "pci" };
        push(&["-device", &format!("virtio-rng-{bus}")]);
        if self.network || !self.forwards.is_empty() {
            let mut netdev = "user,id=net0".to_owned();
            for forward in &self.forwards {
                let protocol = forward.protocol.name();
                let address = if forward.host_address.is_empty() { "127.0.0.1" } else { &forward.host_address };
                netdev += &format!(",hostfwd={protocol}:{address}:{}-:{}", forward.host_port, forward.guest_port);
            }
            push(&["-netdev", &netdev, "-device", &format!("virtio-net-{bus},netdev=net0")]);
        }
        args.extend([OsString::from("-kernel"), self.kernel.clone().into()]);
        match self.root_medium {
            RootMedium::Initrd => args.extend([OsString::from("-initrd"), self.rootfs.clone().into()]),
            RootMedium::Disk => {
                let drive = drive("root", true, &self.rootfs);
                args.extend([
                    OsString::from("-drive"),
                    drive,
                    OsString::from("-device"),
                    OsString::from(format!("virtio-blk-{bus},drive=root")),
                ]);
            }
        }
        for (i, disk) in self.disks.iter().enumerate() {
            let device = format!("virtio-blk-{bus},drive=volume{i},serial={}", disk.serial);
            let drive = drive(&format!("volume{i}"), disk.is_read_only, &disk.file);
            args.extend([OsString::from("-drive"), drive, OsString::from("-device"), OsString::from(device)]);
        }
        if !self.command_line.is_empty() {
            args.extend([OsString::from("-append"), OsString::from(&self.command_line)]);
        }
        args.extend(self.extra.iter().map(OsString::from));
        args
    }
}

fn drive(id: &str, is_read_only: bool, file: &std::path::Path) -> OsString {
    let read_only = if is_read_only { ",read-only=on" } else { "" };
    // A comma in an option's value is written twice (qemu(1), "Block device options").
    OsString::from(format!("if=none,id={id},format=raw{read_only},file={}", file.to_string_lossy().replace(',', ",,")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(board: Board, root_medium: RootMedium) -> Machine {
        Machine {
            qemu: "qemu-system-x86_64".into(),
            kernel: "/i/kernel.elf".into(),
            rootfs: "/i,j/rootfs.ext4".into(),
            root_medium,
            command_line: String::new(),
            memory_mib: 64,
            cpus: 1,
            board,
            accelerator: Accelerator::Tcg { reason: String::new() },
            network: false,
            forwards: vec![PortForward { host_address: String::new(), host_port: 8080, guest_port: 80, protocol: Protocol::Tcp }],
            disks: vec![Disk { file: "/v,1".into(), serial: "v0".into(), is_read_only: false }],
            extra: vec![],
        }
    }

    fn line(machine: &Machine) -> String {
        machine.arguments(9).iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn microvm_takes_the_root_in_memory() {
        let line = line(&machine(Board::Microvm, RootMedium::Initrd));
        assert!(line.contains("-machine microvm,acpi=off,x-option-roms=off,isa-serial=on,accel=tcg"), "{line}");
        assert!(line.contains("-initrd /i,j/rootfs.ext4"), "{line}");
        assert!(line.contains("hostfwd=tcp:127.0.0.1:8080-:80 -device virtio-net-device,netdev=net0"), "{line}");
        assert!(!line.contains("-append"), "{line}");
    }

    #[test]
    fn q35_takes_it_as_a_disk_and_escapes_commas() {
        let line = line(&machine(Board::Q35, RootMedium::Disk));
        assert!(line.contains("file=/i,,j/rootfs.ext4 -device virtio-blk-pci,drive=root"), "{line}");
        assert!(line.contains("virtio-net-pci"), "{line}");
        assert!(line.contains("-drive if=none,id=volume0,format=raw,file=/v,,1 -device virtio-blk-pci,drive=volume0,serial=v0"), "{line}");
    }
}
