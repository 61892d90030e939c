//! What a finished image directory becomes for the monitors and clouds that people have: disks, single artefacts, configurations.
//!
//! | form | is |
//! |---|---|
//! | `disk`, `qcow2`, `vhd` | one bootable file ([`crate::disk`]) |
//! | `kernel`, `initrd` | one artefact as it is, for `-kernel` and `-initrd` |
//! | `fc` | a directory for Firecracker: kernel, root, `firecracker.json` for `--config-file` |
//! | `ch` | a directory for Cloud Hypervisor: kernel, root, `cloud-hypervisor.json` for `ch-remote create` |
//! | `xen` | a directory for Xen: a disk with `xl.cfg` for `xl create`; the disk's loader brings the root to memory, because the kernel has no Xen drivers |
//!
//! Paths in configurations are relative: start the monitor in the directory. To add one: a variant of [`Form`] and a function here.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ukc_image_json::{ArtefactKind, FILE_NAME, GuestKind, Image};

use crate::directory::Replacement;
use crate::disk;
pub use crate::disk::Loaders;
use crate::{ImageError, KERNEL_NAME, ROOTFS_NAME};

/// File name of a disk in a directory.
pub const DISK_NAME: &str = "disk.raw";
/// Firecracker's configuration.
pub const FIRECRACKER_NAME: &str = "firecracker.json";
/// Cloud Hypervisor's.
pub const CLOUD_HYPERVISOR_NAME: &str = "cloud-hypervisor.json";
/// Xen's.
pub const XEN_NAME: &str = "xl.cfg";

const MIB: u64 = 1 << 20;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A raw disk.
    Disk,
    /// A disk of QEMU's.
    Qcow2,
    /// A fixed VHD.
    Vhd,
    /// The kernel's file.
    Kernel,
    /// The root file system as an initrd.
    Initrd,
    /// For Firecracker.
    Firecracker,
    /// For Cloud Hypervisor.
    CloudHypervisor,
    /// For Xen.
    Xen,
}

/// An image directory and what its forms need besides.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The directory.
    pub dir: &'a Path,
    /// Its document.
    pub image: &'a Image,
    /// The boot loaders.
    pub loaders: Loaders<'a>,
    /// Whether the loader of a disk brings the root to memory.
    pub is_root_in_memory: bool,
}

/// Writes one form of an image to `dest`, which appears whole or not at all. Returns its size in bytes.
///
/// # Errors
/// [`ImageError`].
pub fn write(form: Form, source: &Source<'_>, dest: &Path) -> Result<u64, ImageError> {
    match form {
        Form::Disk => one_file(dest, |file| source.raw(file, dest, 4096, source.is_root_in_memory).map(drop)),
        Form::Vhd => one_file(dest, |file| {
            let disk = source.raw(file, dest, ukc_vhd::ALIGN, source.is_root_in_memory)?;
            disk::append_vhd_footer(&disk, file, dest)
        }),
        Form::Qcow2 => one_file(dest, |file| {
            let raw = tempfile::tempfile_in(parent(dest)).map_err(|e| failed(dest, e))?;
            let disk = source.raw(&raw, dest, 4096, source.is_root_in_memory)?;
            disk::write_qcow2(&raw, disk.len_bytes, file, dest)
        }),
        Form::Kernel => one_file(dest, |file| copy(&source.kernel()?, file, dest)),
        Form::Initrd => one_file(dest, |file| copy(&source.rootfs()?, file, dest)),
        Form::Firecracker => source.directory(dest, FIRECRACKER_NAME, &pretty(&source.firecracker())),
        Form::CloudHypervisor => source.directory(dest, CLOUD_HYPERVISOR_NAME, &pretty(&source.cloud_hypervisor())),
        Form::Xen => source.xen_directory(dest),
    }
}

impl Source<'_> {
    fn artefact(&self, kind: ArtefactKind) -> Result<PathBuf, ImageError> {
        let missing =
            || failed(&self.dir.join(FILE_NAME), io::Error::new(io::ErrorKind::InvalidData, format!("no artefact of kind `{kind:?}`")));
        self.image.artefact(kind).map(|a| self.dir.join(a.name.as_str())).ok_or_else(missing)
    }

    fn kernel(&self) -> Result<PathBuf, ImageError> {
        self.artefact(ArtefactKind::Kernel)
    }

    fn rootfs(&self) -> Result<PathBuf, ImageError> {
        self.artefact(ArtefactKind::Rootfs)
    }

    fn raw(&self, out: &File, dest: &Path, align_bytes: u64, is_root_in_memory: bool) -> Result<disk::Written, ImageError> {
        let kernel_path = self.kernel()?;
        let kernel = fs::read(&kernel_path).map_err(|source| ImageError::Read { path: kernel_path, source })?;
        // The document has the digests of kernel and root; with how they are booted, it is all that a disk depends on.
        let identity = Sha256::new().chain_update(self.image.to_json()).chain_update([u8::from(is_root_in_memory)]).finalize().into();
        let root = self.rootfs()?;
        let command_line = self.command_line(if is_root_in_memory { "/dev/ram0" } else { "PARTUUID={root}" });
        let parts = disk::Parts {
            kernel: &kernel,
            command_line: &command_line,
            root: &root,
            is_root_in_memory,
            loaders: self.loaders,
            identity,
            align_bytes,
        };
        disk::write_raw(&parts, out, dest)
    }

    /// What the kernel is told: nothing for the libOS, which has its boot record and finds its root.
    fn command_line(&self, root: &str) -> String {
        match self.image.guest.kind {
            GuestKind::Unikernel => String::new(),
            GuestKind::Linux => format!("console=ttyS0 panic=-1 reboot=t root={root} rw"),
        }
    }

    /// Memory to give, in MiB: the floor with room for the program's own data.
    fn memory_mib(&self) -> u64 {
        (self.image.memory_floor_bytes.div_ceil(MIB) + 64).next_power_of_two().max(128)
    }

    /// Firecracker's `--config-file` (firecracker: src/firecracker/swagger/firecracker.yaml).
    fn firecracker(&self) -> Value {
        json!({
            "boot-source": { "kernel_image_path": KERNEL_NAME, "boot_args": self.command_line("/dev/vda") },
            "drives": [{ "drive_id": "root", "path_on_host": ROOTFS_NAME, "is_root_device": false, "is_read_only": true }],
            "entropy": {},
            "machine-config": { "vcpu_count": 1, "mem_size_mib": self.memory_mib() },
        })
    }

    /// Cloud Hypervisor's `VmConfig` (cloud-hypervisor: vmm/src/api/openapi/cloud-hypervisor.yaml).
    fn cloud_hypervisor(&self) -> Value {
        let mut payload = json!({ "kernel": KERNEL_NAME });
        let command_line = self.command_line("/dev/vda");
        if !command_line.is_empty() {
            payload["cmdline"] = command_line.into();
        }
        json!({
            "payload": payload,
            "cpus": { "boot_vcpus": 1, "max_vcpus": 1 },
            "memory": { "size": self.memory_mib() * MIB },
            "disks": [{ "path": ROOTFS_NAME, "readonly": true }],
            "rng": { "src": "/dev/urandom" },
            "serial": { "mode": "Tty" },
            "console": { "mode": "Off" },
        })
    }

    /// xl.cfg(5): a machine with a BIOS and a serial port, which starts from the disk.
    fn xen(&self, root_bytes: u64) -> String {
        let memory = (self.memory_mib() + root_bytes.div_ceil(MIB)).next_multiple_of(4);
        format!(
            "# xl create -c {XEN_NAME}\nname = \"ukc\"\ntype = \"hvm\"\nmemory = {memory}\nvcpus = 1\n\
             disk = [ \"format=raw, vdev=xvda, access=ro, target={DISK_NAME}\" ]\n\
             boot = \"c\"\nserial = \"pty\"\nvga = \"none\"\non_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n"
        )
    }

    /// Kernel, root and a configuration.
    fn directory(&self, dest: &Path, config_name: &str, config: &str) -> Result<u64, ImageError> {
        let target = Replacement::new(dest)?;
        let mut len = config.len() as u64;
        for (from, name) in [(self.kernel()?, KERNEL_NAME), (self.rootfs()?, ROOTFS_NAME)] {
            let path = target.path().join(name);
            let file = File::create_new(&path).map_err(|e| failed(&path, e))?;
            copy(&from, &file, &path)?;
            len += file.metadata().and_then(|m| file.sync_all().map(|()| m.len())).map_err(|e| failed(&path, e))?;
        }
        text(&target.path().join(config_name), config)?;
        target.commit()?;
        Ok(len)
    }

    fn xen_directory(&self, dest: &Path) -> Result<u64, ImageError> {
        let target = Replacement::new(dest)?;
        let path = target.path().join(DISK_NAME);
        let file = File::create_new(&path).map_err(|e| failed(&path, e))?;
        let disk = self.raw(&file, &path, 4096, true)?;
        file.sync_all().map_err(|e| failed(&path, e))?;
        text(&target.path().join(XEN_NAME), &self.xen(disk.len_bytes))?;
        target.commit()?;
        Ok(disk.len_bytes)
    }
}

fn failed(path: &Path, source: io::Error) -> ImageError {
    ImageError::Write { path: path.to_owned(), source }
}

fn pretty(value: &Value) -> String {
    // Writing a value to a string cannot fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn text(path: &Path, text: &str) -> Result<(), ImageError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| failed(path, e))
}

fn copy(from: &Path, to: &File, to_path: &Path) -> Result<(), ImageError> {
    let source = File::open(from).map_err(|source| ImageError::Read { path: from.to_owned(), source })?;
    disk::copy_file(&source, to).map_err(|e| failed(to_path, e))
}

fn parent(dest: &Path) -> &Path {
    dest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file beside its place and moves it there when it is whole.
fn one_file(dest: &Path, write: impl FnOnce(&File) -> Result<(), ImageError>) -> Result<u64, ImageError> {
    use std::os::unix::fs::PermissionsExt as _;
    let fail = |e| failed(dest, e);
    if dest.is_dir() {
        return Err(fail(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory; name a file")));
    }
    fs::create_dir_all(parent(dest)).map_err(fail)?;
    let mut builder = tempfile::Builder::new();
    // Less the umask, as any file that a command makes.
    let temporary = builder.prefix(".ukc-").permissions(fs::Permissions::from_mode(0o666)).tempfile_in(parent(dest)).map_err(fail)?;
    write(temporary.as_file())?;
    let len = temporary.as_file().metadata().and_then(|m| temporary.as_file().sync_all().map(|()| m.len())).map_err(fail)?;
    temporary.persist(dest).map_err(|e| fail(e.error))?;
    Ok(len)
}
