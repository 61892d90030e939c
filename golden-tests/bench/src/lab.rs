//! What the tables share: the programs, the images, the counter, and how long to measure.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::guest::Guest;
use crate::plugin::Counter;
use crate::run::{self, Result};
use crate::{empty, linux, network, plugin};

/// See the module.
pub struct Lab {
    dir: TempDir,
    ukc: PathBuf,
    plugin: PathBuf,
    /// Whether to take few and short samples.
    pub is_quick: bool,
}

/// An image directory written by `ukc build -o`.
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The root file system.
    pub root: PathBuf,
}

impl Image {
    /// Bytes of the kernel without its symbols: what is loaded.
    pub fn kernel_len_bytes(&self, scratch: &Path) -> Result<u64> {
        let stripped = scratch.join("stripped.elf");
        run::tool("strip", ["-o".as_ref(), stripped.as_os_str(), self.kernel.as_os_str()])?;
        Ok(std::fs::metadata(stripped)?.len())
    }

    /// Bytes of the root file system.
    pub fn root_len_bytes(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.root)?.len())
    }
}

impl Lab {
    /// Compiles what every table needs.
    pub fn new() -> Result<Lab> {
        let dir = TempDir::with_prefix("ukc-bench-")?;
        let ukc = match std::env::var_os("UKC") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?.with_file_name("ukc"),
        };
        let plugin = plugin::compile(dir.path())?;
        for program in ["hello", "http", "linux-init"] {
            compile(program, &["-static"], &dir.path().join(program))?;
        }
        std::fs::write(dir.path().join("empty.elf"), empty::elf())?;
        let lab = Lab { dir, ukc, plugin, is_quick: std::env::var_os("QUICK").is_some_and(|v| v != "0") };
        for program in ["hello", "http"] {
            let context = lab.path().join(format!("{program}-context"));
            std::fs::create_dir(&context)?;
            std::fs::copy(lab.path().join(program), context.join(program))?;
            std::fs::write(context.join("Dockerfile"), format!("FROM scratch\nCOPY {program} /{program}\nENTRYPOINT [\"/{program}\"]\n"))?;
            lab.build(&context, program)?;
        }
        Ok(lab)
    }

    /// A directory for files of this run.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// One of two values.
    pub fn pick<T>(&self, quick: T, thorough: T) -> T {
        if self.is_quick { quick } else { thorough }
    }

    /// How long a soak takes.
    pub fn soak(&self) -> Duration {
        let asked = std::env::var("SOAK").ok().and_then(|s| s.parse().ok());
        Duration::from_secs(asked.unwrap_or(self.pick(4, 40)))
    }

    /// Builds the Dockerfile of `context` as the image `name`.
    pub fn build(&self, context: &Path, name: &str) -> Result<Image> {
        let out = self.path().join(format!("{name}-image"));
        run::output(Command::new(&self.ukc).arg("build").arg("-o").arg(&out).arg(context))?;
        Ok(self.image(name))
    }

    /// An image that has been built.
    pub fn image(&self, name: &str) -> Image {
        let out = self.path().join(format!("{name}-image"));
        Image { kernel: out.join("kernel.elf"), root: out.join("rootfs.ext4") }
    }

    /// Our guest, its root in memory.
    pub fn ukc(&self, name: &str) -> Guest {
        let image = self.image(name);
        let mut guest = Guest { initrd: Some(image.root), ..Guest::new("ukc", image.kernel) };
        if name == "http" {
            guest.has_network = true;
            guest.command_line = format!("ukc.ip={}/24:10.111.0.1:10.111.0.1", network::GUEST);
        }
        guest
    }

    /// The Linux guest with the same program.
    pub fn linux(&self, name: &str) -> Result<Guest> {
        let program = self.path().join(name);
        match name {
            "http" => linux::guest_with_network(self.path(), &self.path().join("linux-init"), &program),
            _ => linux::guest(self.path(), &program),
        }
    }

    /// The same QEMU as `guest`'s with a kernel that ends at once.
    pub fn empty(&self, guest: &Guest) -> Guest {
        guest.with_kernel("empty", self.path().join("empty.elf"))
    }

    /// A counter of instructions; one guest at a time.
    pub fn counter(&self) -> Counter {
        Counter::new(&self.plugin, self.path())
    }
}

/// Builds `ukc` as users get it, unless another one is to be measured. It lands beside this program.
pub fn build_ukc() -> Result<()> {
    if std::env::var_os("UKC").is_some() {
        return Ok(());
    }
    let target = std::env::current_exe()?.ancestors().nth(2).ok_or("this program is not in a target directory")?.to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--quiet", "--package", "ukc", "--target-dir"]).arg(target);
    run::output(command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")))?;
    Ok(())
}

/// Compiles fixtures/bench/NAME.c.
pub fn compile(name: &str, flags: &[&str], out: &Path) -> Result<()> {
    let source = format!("{}/../../fixtures/bench/{name}.c", env!("CARGO_MANIFEST_DIR"));
    run::output(Command::new("gcc").args(["-O2", "-s"]).args(flags).arg("-o").arg(out).arg(source))?;
    Ok(())
}
