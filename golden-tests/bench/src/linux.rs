//! The peer: Debian's cloud kernel, from its package, with an initramfs that holds the same program.

use std::path::{Path, PathBuf};

use crate::cpio::Cpio;
use crate::guest::Guest;
use crate::run::{self, Result};

/// The package that depends on the newest cloud kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// The drivers that microvm's devices need; those they depend on come before them.
const DRIVERS: [&str; 2] = ["virtio_mmio", "virtio_net"];

/// Where the unpacked package is kept between runs: in the target directory, below this program.
fn unpacked() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    Ok(exe.parent().and_then(Path::parent).ok_or("this program is not in a target directory")?.join("bench/linux"))
}

/// Downloads and unpacks the package, if it is not there yet.
pub fn fetch() -> Result<()> {
    let dir = unpacked()?;
    if dir.is_dir() {
        return Ok(());
    }
    let depends = run::tool("apt-cache", ["depends", "--important", PACKAGE])?;
    let package = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: ")).ok_or("linux-image-cloud-amd64 depends on nothing")?;
    eprintln!("bench: fetching {package} with apt-get (it is not installed)");
    let work = tempfile::tempdir()?;
    run::output(std::process::Command::new("apt-get").args(["download", package]).current_dir(work.path()))?;
    let deb = std::fs::read_dir(work.path())?
        .filter_map(std::result::Result::ok)
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"));
    let deb = deb.ok_or("apt-get downloaded no package")?;
    // Unpacked beside its place and renamed, so that an interrupted run leaves nothing half done.
    let part = dir.with_extension("part");
    let _ = std::fs::remove_dir_all(&part);
    std::fs::create_dir_all(&part)?;
    run::tool("dpkg-deb", ["-x".as_ref(), deb.as_os_str(), part.as_os_str()])?;
    std::fs::rename(&part, &dir)?;
    Ok(())
}

/// The Linux guest; its initramfs holds `program` as /init.
pub fn guest(dir: &Path, program: &Path) -> Result<Guest> {
    let mut archive = Cpio::default();
    archive.file("init", &std::fs::read(program)?);
    boot(dir, &program.file_name().unwrap_or_default().to_string_lossy(), archive)
}

/// The Linux guest with its network up: `init` loads the drivers, sets the address and becomes `program`.
pub fn guest_with_network(dir: &Path, init: &Path, program: &Path) -> Result<Guest> {
    let mut archive = Cpio::default();
    archive.file("init", &std::fs::read(init)?);
    archive.file("program", &std::fs::read(program)?);
    archive.directory("modules");
    let mut order = Vec::new();
    let all = modules(&unpacked()?.join("lib/modules"))?;
    for driver in DRIVERS {
        load_order(driver, &all, &mut order)?;
    }
    for (index, path) in order.iter().enumerate() {
        archive.file(&format!("modules/{index}"), &std::fs::read(path)?);
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned() + "-net";
    Ok(Guest { has_network: true, ..boot(dir, &name, archive)? })
}

fn boot(dir: &Path, name: &str, archive: Cpio) -> Result<Guest> {
    let initrd = dir.join(format!("{name}.cpio"));
    std::fs::write(&initrd, archive.finish())?;
    let boot = unpacked()?.join("boot");
    let kernel =
        std::fs::read_dir(&boot)?.filter_map(std::result::Result::ok).find(|e| e.file_name().to_string_lossy().starts_with("vmlinuz"));
    let kernel = kernel.ok_or_else(|| format!("no vmlinuz in {}", boot.display()))?.path();
    Ok(Guest {
        // Its virtio-mmio finds devices only through ACPI (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is off).
        machine: "microvm,x-option-roms=off,isa-serial=on,accel=tcg",
        initrd: Some(initrd),
        // `reboot=t` with `panic=-1`: when init exits, QEMU ends at once. Linux measures its counter against timers that stall on a busy host, and then
        // hangs; told the frequency, it boots always, and a little faster.
        command_line: format!("console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz={}", tsc_khz()?),
        memory_kib: 256 << 10,
        ..Guest::new("Linux", kernel)
    })
}

/// The frequency of the host's time stamp counter, which QEMU hands to its guest, as far as /proc/cpuinfo tells.
fn tsc_khz() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/cpuinfo")?;
    let mhz = text.lines().find_map(|l| l.strip_prefix("cpu MHz")?.split(':').nth(1)?.trim().parse::<f64>().ok());
    Ok((mhz.ok_or("/proc/cpuinfo has no `cpu MHz`")? * 1000.0) as u64)
}

/// All kernel modules below `dir`: name and path.
fn modules(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir)? {
            let (entry, path) = entry.map(|e| (e.file_type(), e.path()))?;
            if entry?.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "ko") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
                found.push((name, path));
            }
        }
    }
    Ok(found)
}

/// Adds `name` behind the modules it depends on. (modules.dep is written by depmod at installation; the modules themselves say the same.)
fn load_order(name: &str, all: &[(String, PathBuf)], order: &mut Vec<PathBuf>) -> Result<()> {
    let (_, path) = all.iter().find(|(n, _)| n == name).ok_or_else(|| format!("the package has no module {name}"))?;
    if order.contains(path) {
        return Ok(());
    }
    for needed in depends(&std::fs::read(path)?) {
        load_order(&needed.replace('-', "_"), all, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The `depends=` entry of a module's `.modinfo` section, whose entries end in zero bytes.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_of_a_module() {
        assert_eq!(depends(b"x\0license=GPL\0depends=virtio,virtio_ring\0name=y\0"), ["virtio", "virtio_ring"]);
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
