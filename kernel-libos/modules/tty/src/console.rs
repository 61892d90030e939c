//! The console: the serial port as a terminal.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use libos_core::abi::{general as linux, ioctl};
use libos_core::arch::{console, irq::Trigger};
use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::task::{signal, table, with_current};
use libos_core::time::monotonic_ns;
use libos_core::user::UserPtr;
use libos_core::vfs::Stat;
use libos_core::vfs::registry::make_dev;
use libos_core::{Errno, Result, Task};

use crate::line::{Line, raw_limits};
use crate::termios::Termios;

/// The state of the one terminal.
struct Terminal {
    termios: SpinLock<Termios>,
    line: SpinLock<Line>,
    /// Rows, columns and pixels of `struct winsize`; 0 is unknown, as on any serial line.
    size: SpinLock<[u16; 4]>,
    /// Session whose controlling terminal it is, and its foreground process group; 0 is none.
    session: AtomicI32,
    foreground: AtomicI32,
    /// Whether the device was asked to interrupt; done by the first who reads.
    is_listening: AtomicBool,
}

static TERMINAL: Terminal = Terminal {
    termios: SpinLock::new(Termios::initial()),
    line: SpinLock::new(Line::new()),
    size: SpinLock::new([0; 4]),
    session: AtomicI32::new(0),
    foreground: AtomicI32::new(0),
    is_listening: AtomicBool::new(false),
};

static READABLE: SpinLock<Option<Arc<WaitQueue>>> = SpinLock::new(None);

/// Woken when there is something to read.
fn readable() -> Arc<WaitQueue> {
    READABLE.lock().get_or_insert_with(|| Arc::new(WaitQueue::new())).clone()
}

/// Makes the device interrupt, when somebody first wants to read.
fn listen() {
    if TERMINAL.is_listening.swap(true, Ordering::Relaxed) {
        return;
    }
    readable();
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
        let termios = *TERMINAL.termios.lock();
        let effect = TERMINAL.line.lock().input(byte, &termios);
        console::write_bytes(&effect.echo);
        if let Some(signo) = effect.signal {
            let group = TERMINAL.foreground.load(Ordering::Relaxed);
            if group != 0 {
                signal::send_to_group(group, signo);
            }
        }
        has_input = true;
    }
    if has_input {
        readable().wake_all();
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
        if owner == 0 && session == task.pid() && !flags.contains(OpenFlags::NOCTTY) {
            take(task);
        }
        Ok(Arc::new(Console { is_dev_tty }) as Arc<dyn FileOps>)
    })
}

fn take(task: &Task) {
    TERMINAL.session.store(task.process.session(), Ordering::Relaxed);
    TERMINAL.foreground.store(task.process.group(), Ordering::Relaxed);
}

struct Console {
    is_dev_tty: bool,
}

/// Bytes moved to the device at once.
const CHUNK: usize = 512;

impl Console {
    /// Stops a background process that reads (termios(3), SIGTTIN).
    fn check_foreground(task: &Task) -> Result<()> {
        let foreground = TERMINAL.foreground.load(Ordering::Relaxed);
        let is_ours = TERMINAL.session.load(Ordering::Relaxed) == task.process.session();
        let group = task.process.group();
        if !is_ours || foreground == 0 || group == foreground {
            return Ok(());
        }
        let ttin = linux::SIGTTIN;
        let is_ignored = task.process.handlers().get(ttin).ignores(ttin);
        let is_blocked = task.signals.blocked().0 >> (ttin - 1) & 1 == 1;
        if is_ignored || is_blocked {
            return Err(Errno::EIO);
        }
        signal::send_to_group(group, ttin);
        Err(Errno::ERESTARTSYS)
    }
}

impl FileOps for Console {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        listen();
        with_current(Console::check_foreground)?;
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let termios = *TERMINAL.termios.lock();
        let is_raw = !termios.local(linux::ICANON);
        let (min, tenths) = raw_limits(&termios);
        let is_ready = || TERMINAL.line.lock().is_ready(&TERMINAL.termios.lock(), min.min(dst.remaining())).then_some(());
        if is_ready().is_none() {
            if file.is_nonblocking() {
                return Err(Errno::EAGAIN);
            }
            // With a minimum of 0 a read ends when the time is up; no time is at once.
            let deadline = (is_raw && min == 0).then(|| monotonic_ns() + tenths * 100_000_000);
            readable().wait_until(deadline, is_ready)?;
        }
        let mut bytes = Vec::new();
        TERMINAL.line.lock().read(&termios, dst.remaining().min(4096), &mut bytes);
        dst.push(&bytes)
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
        table.add(&readable());
        let mut events = PollEvents::WRITABLE;
        let termios = *TERMINAL.termios.lock();
        if TERMINAL.line.lock().is_ready(&termios, 1) {
            events |= PollEvents::READABLE;
        }
        events
    }

    fn ioctl(&self, _file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        control(request, arg)
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

/// Whether the console is the caller's controlling terminal.
fn check_controlling(task: &Task) -> Result<()> {
    let owner = TERMINAL.session.load(Ordering::Relaxed);
    if owner != 0 && owner == task.process.session() { Ok(()) } else { Err(Errno::ENOTTY) }
}

/// ioctl_tty(2).
fn control(request: u32, arg: usize) -> Result<usize> {
    let words = UserPtr::<[u32; 9]>::new(arg);
    let number = UserPtr::<i32>::new(arg);
    match request {
        ioctl::TCGETS => words.write(TERMINAL.termios.lock().to_words())?,
        ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
            let new = Termios::from_words(words.read()?);
            set_termios(new, request == ioctl::TCSETSF);
        }
        ioctl::TCGETS2 => {
            let termios = TERMINAL.termios.lock().to_words();
            words.write(termios)?;
            // `struct termios2` goes on with the two speeds.
            words.field::<[u32; 2]>(36).write([38400; 2])?;
        }
        ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
            let new = Termios::from_words(words.read()?);
            set_termios(new, request == ioctl::TCSETSF2);
        }
        ioctl::TIOCGWINSZ => UserPtr::<[u16; 4]>::new(arg).write(*TERMINAL.size.lock())?,
        ioctl::TIOCSWINSZ => {
            let new = UserPtr::<[u16; 4]>::new(arg).read()?;
            let old = core::mem::replace(&mut *TERMINAL.size.lock(), new);
            let group = TERMINAL.foreground.load(Ordering::Relaxed);
            if old != new && group != 0 {
                signal::send_to_group(group, linux::SIGWINCH);
            }
        }
        ioctl::TIOCGPGRP => {
            with_current(check_controlling)?;
            number.write(TERMINAL.foreground.load(Ordering::Relaxed))?;
        }
        ioctl::TIOCSPGRP => {
            let group = number.read()?;
            with_current(|task| {
                check_controlling(task)?;
                if group < 0 {
                    return Err(Errno::EINVAL);
                }
                // The group must be of the caller's session.
                let members = table::group(group);
                match members.first() {
                    None => Err(Errno::ESRCH),
                    Some(process) if process.session() != task.process.session() => Err(Errno::EPERM),
                    Some(_) => Ok(()),
                }
            })?;
            TERMINAL.foreground.store(group, Ordering::Relaxed);
        }
        ioctl::TIOCGSID => {
            with_current(check_controlling)?;
            number.write(TERMINAL.session.load(Ordering::Relaxed))?;
        }
        ioctl::TIOCSCTTY => with_current(|task| {
            let owner = TERMINAL.session.load(Ordering::Relaxed);
            if task.process.session() != task.pid() {
                return Err(Errno::EPERM);
            }
            if owner != 0 && owner != task.process.session() && table::process(owner).is_ok() {
                // Stealing needs an argument of 1 and CAP_SYS_ADMIN.
                if arg != 1 {
                    return Err(Errno::EPERM);
                }
                task.require(linux::CAP_SYS_ADMIN)?;
            }
            take(task);
            Ok(())
        })?,
        ioctl::TIOCNOTTY => with_current(|task| {
            check_controlling(task)?;
            if task.process.session() == task.pid() {
                TERMINAL.session.store(0, Ordering::Relaxed);
                TERMINAL.foreground.store(0, Ordering::Relaxed);
            }
            Ok(())
        })?,
        ioctl::FIONREAD => {
            listen();
            let termios = *TERMINAL.termios.lock();
            number.write(TERMINAL.line.lock().available(&termios) as i32)?;
        }
        // Output is never queued.
        ioctl::TIOCOUTQ => number.write(0)?,
        ioctl::TCFLSH => match arg {
            // TCIFLUSH, TCIOFLUSH, and TCOFLUSH, for which there is nothing to do.
            0 | 2 => TERMINAL.line.lock().flush(),
            1 => {}
            _ => return Err(Errno::EINVAL),
        },
        ioctl::TCSBRK | ioctl::TCSBRKP | ioctl::TCXONC => {}
        ioctl::TIOCGETD => number.write(0)?,
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

fn set_termios(new: Termios, flushes: bool) {
    if flushes {
        TERMINAL.line.lock().flush();
    }
    *TERMINAL.termios.lock() = new;
    // What was typed may count in the new mode.
    readable().wake_all();
}
