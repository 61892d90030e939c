//! A guest in QEMU: its command line, its output, its end.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::run::Result;
use crate::{network, plugin};

/// What to boot, on which board.
#[derive(Debug, Clone)]
pub struct Guest {
    /// How tables call it.
    pub name: &'static str,
    /// `-machine`.
    pub machine: &'static str,
    /// `-kernel`.
    pub kernel: PathBuf,
    /// `-initrd`.
    pub initrd: Option<PathBuf>,
    /// A raw disk as the first virtio-blk device.
    pub disk: Option<PathBuf>,
    /// `-append`.
    pub command_line: String,
    /// `-m`, in KiB.
    pub memory_kib: u64,
    /// Whether there is a virtio-net device on the tap.
    pub has_network: bool,
}

/// The board that `ukc run` takes; nothing that would have to be initialised in vain.
pub const BOARD: &str = "microvm,acpi=off,x-option-roms=off,isa-serial=on,accel=tcg";

impl Guest {
    /// A guest without anything but its kernel.
    pub fn new(name: &'static str, kernel: PathBuf) -> Guest {
        let (machine, memory_kib) = (BOARD, 128 << 10);
        Guest { name, machine, kernel, initrd: None, disk: None, command_line: String::new(), memory_kib, has_network: false }
    }

    /// The same QEMU with another kernel and name.
    pub fn with_kernel(&self, name: &'static str, kernel: PathBuf) -> Guest {
        Guest { name, kernel, ..self.clone() }
    }

    /// Starts QEMU.
    pub fn start(&self) -> Result<Running> {
        self.launch(None)
    }

    /// Starts QEMU so that `counter` counts.
    pub fn start_counted(&self, counter: &plugin::Counter) -> Result<Running> {
        self.launch(Some(counter))
    }

    fn launch(&self, counter: Option<&plugin::Counter>) -> Result<Running> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max", "-machine", self.machine]);
        command.args(["-m", &format!("{}K", self.memory_kib), "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        // virtio 1.x; microvm offers the draft before it otherwise.
        command.args(["-global", "virtio-mmio.force-legacy=false"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"]).arg(&self.kernel);
        if let Some(initrd) = &self.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(disk) = &self.disk {
            command.arg("-drive").arg(format!("if=none,id=root,format=raw,read-only=on,file={}", disk.display()));
            command.args(["-device", "virtio-blk-device,drive=root"]);
        }
        if self.has_network {
            command.args(["-netdev", &format!("tap,id=net0,ifname={},script=no,downscript=no", network::TAP)]);
            command.args(["-device", "virtio-net-device,netdev=net0"]);
        }
        if !self.command_line.is_empty() {
            command.args(["-append", &self.command_line]);
        }
        if let Some(counter) = counter {
            command.args(["-plugin", &counter.argument()]);
        }
        Running::new(self.name, &mut command)
    }
}

/// QEMU at work; dropping it ends it.
pub struct Running {
    name: &'static str,
    child: Child,
    started: Instant,
    console: Arc<Mutex<Console>>,
    reader: Option<JoinHandle<()>>,
}

/// What the guest wrote so far: the time of each piece, and the bytes.
#[derive(Default)]
struct Console {
    bytes: Vec<u8>,
    /// Length of `bytes` after a read, and when it ended.
    times: Vec<(usize, Instant)>,
}

impl Running {
    fn new(name: &'static str, command: &mut Command) -> Result<Running> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| format!("cannot run qemu-system-x86_64: {error}"))?;
        let mut stdout = child.stdout.take().ok_or("QEMU has no standard output")?;
        let console = Arc::<Mutex<Console>>::default();
        let shared = Arc::clone(&console);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stdout.read(&mut buffer) {
                let now = Instant::now();
                let mut console = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                console.bytes.extend_from_slice(&buffer[..len]);
                let end = console.bytes.len();
                console.times.push((end, now));
            }
        });
        Ok(Running { name, child, started, console, reader: Some(reader) })
    }

    /// Waits until the guest has written `marker`; returns the time from the start of QEMU to its last byte.
    ///
    /// # Errors
    /// It did not within `limit`, or QEMU ended without; the text has the end of what it wrote.
    pub fn wait_for(&mut self, marker: &str, limit: Duration) -> Result<Duration> {
        let name = self.name;
        loop {
            // Asked before looking, so that output just before the end is seen.
            let has_ended = self.child.try_wait()?.is_some();
            if has_ended {
                self.join();
            }
            if let Some(at) = self.time_of(marker) {
                return Ok(at);
            }
            if has_ended || self.started.elapsed() > limit {
                return Err(format!("the guest {name} did not write {marker:?}, but: {:?}", self.tail()).into());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Waits for the end of QEMU; returns its status and the time from its start.
    pub fn wait_end(&mut self, limit: Duration) -> Result<(ExitStatus, Duration)> {
        let name = self.name;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let elapsed = self.started.elapsed();
                self.join();
                return Ok((status, elapsed));
            }
            if self.started.elapsed() > limit {
                return Err(format!("the guest {name} did not end; it wrote {:?}", self.tail()).into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// How tables call the guest.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn time_of(&self, marker: &str) -> Option<Duration> {
        let console = self.console.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let end = console.bytes.windows(marker.len()).position(|w| w == marker.as_bytes())? + marker.len();
        let (_, at) = console.times.iter().find(|(len, _)| *len >= end)?;
        Some(*at - self.started)
    }

    fn tail(&mut self) -> String {
        let mut errors = String::new();
        if let (Ok(Some(_)), Some(mut stderr)) = (self.child.try_wait(), self.child.stderr.take()) {
            let _ = stderr.read_to_string(&mut errors);
        }
        let console = self.console.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let from = console.bytes.len().saturating_sub(300);
        String::from_utf8_lossy(&console.bytes[from..]).into_owned() + &errors
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join();
    }
}
