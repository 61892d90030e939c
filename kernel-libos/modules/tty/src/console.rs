//! The console: the serial port as a terminal.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

use libos_core::abi::{general as linux, ioctl};
use libos_core::arch::{console, irq::Trigger};
use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::task::with_current;
use libos_core::vfs::Stat;
use libos_core::vfs::registry::make_dev;
use libos_core::{Errno, Result};

use crate::terminal::Terminal;
use crate::termios::Termios;

/// The serial port's terminal.
pub static TERMINAL: Terminal = Terminal::new(Termios::initial());

/// Makes the device interrupt, when somebody first wants to read.
fn listen() {
    static IS_LISTENING: AtomicBool = AtomicBool::new(false);
    if IS_LISTENING.swap(true, Ordering::Relaxed) {
        return;
    }
    // Made here, because the interrupt must not allocate.
    TERMINAL.readable();
    // Without an interrupt nothing ever arrives: there is no serial port then.
    let registered = libos_core::irq::register_gsi(console::SERIAL_GSI, Trigger::Edge, Arc::new(receive));
    if registered.is_ok() {
        console::enable_receive_interrupt();
        // What came before the interrupt was on.
        receive();
    }
}

/// Takes all bytes that arrived; also in interrupt context.
fn receive() {
    let mut has_input = false;
    while let Some(byte) = console::read_byte() {
        console::write_bytes(&TERMINAL.input(byte));
        has_input = true;
    }
    if has_input {
        TERMINAL.readable().wake_all();
    }
}

/// Opens the console; a session leader without a controlling terminal gets it as that, unless `O_NOCTTY`.
pub fn open(is_dev_tty: bool, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    with_current(|task| {
        let session = task.process.session();
        let owner = TERMINAL.session.load(Ordering::Relaxed);
        if is_dev_tty && (owner == 0 || owner != session) {
            // No controlling terminal (tty(4)).
            return Err(Errno::ENXIO);
        }
        if !flags.contains(OpenFlags::NOCTTY) {
            TERMINAL.offer(task);
        }
        Ok(Arc::new(Console { is_dev_tty }) as Arc<dyn FileOps>)
    })
}

struct Console {
    is_dev_tty: bool,
}

/// Bytes moved to the device at once.
const CHUNK: usize = 512;

impl FileOps for Console {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        listen();
        TERMINAL.read(file, dst, &|| false)
    }

    fn write_at(&self, _file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        let oflag = TERMINAL.termios.lock().oflag;
        let adds_returns = oflag & (linux::OPOST | linux::ONLCR) == linux::OPOST | linux::ONLCR;
        let mut chunk = [0; CHUNK];
        loop {
            let count = src.pull(&mut chunk)?;
            if adds_returns {
                for line in chunk[..count].split_inclusive(|&b| b == b'\n') {
                    match line.strip_suffix(b"\n") {
                        Some(text) => {
                            console::write_bytes(text);
                            console::write_bytes(b"\r\n");
                        }
                        None => console::write_bytes(line),
                    }
                }
            } else {
                console::write_bytes(&chunk[..count]);
            }
            if count < chunk.len() {
                return Ok(src.done());
            }
        }
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        listen();
        table.add(&TERMINAL.readable());
        let mut events = PollEvents::WRITABLE;
        let termios = *TERMINAL.termios.lock();
        if TERMINAL.line.lock().is_ready(&termios, 1) {
            events |= PollEvents::READABLE;
        }
        events
    }

    fn ioctl(&self, _file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        if request == ioctl::FIONREAD {
            listen();
        }
        TERMINAL.control(request, arg)
    }

    fn stat(&self) -> Result<Stat> {
        let rdev = make_dev(5, u32::from(!self.is_dev_tty));
        Ok(Stat { mode: linux::S_IFCHR | 0o620, rdev, ..Stat::anonymous() })
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(String::from("/dev/console"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
