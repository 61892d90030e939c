//! Pseudo-terminals (pty(7), pts(4)): `/dev/ptmx` makes a master, whose other side is the terminal `/dev/pts/N`.
//!
//! What is written to the master is typed on the terminal; what programs write to the terminal is read from the master.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libos_core::abi::{general as linux, ioctl};
use libos_core::file::{FileOps, OpenFile, OpenFlags};
use libos_core::io::{IoDst, IoSrc};
use libos_core::poll::{PollEvents, PollTable};
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::task::{signal, with_current};
use libos_core::user::UserPtr;
use libos_core::vfs::registry::make_dev;
use libos_core::vfs::{NewNode, Stat, nodes};
use libos_core::{Errno, Result};

use crate::terminal::Terminal;
use crate::termios::Termios;

/// Major number of `/dev/pts/N` (Documentation/admin-guide/devices.txt).
pub const MAJOR: u32 = 136;

/// Output that waits for the master at most.
const ROOM: usize = 16384;

/// Pairs at most: one minor number each.
const MAX: usize = 256;

const DIRECTORY: &[u8] = b"/dev/pts";

static PAIRS: SpinLock<Vec<Option<Weak<Pty>>>> = SpinLock::new(Vec::new());

/// A pair.
pub struct Pty {
    pub terminal: Terminal,
    number: u32,
    /// unlockpt(3) opens it.
    is_locked: AtomicBool,
    /// Open descriptions of the terminal, and whether there ever was one.
    opens: AtomicU32,
    was_open: AtomicBool,
    is_hung_up: AtomicBool,
    output: SpinLock<VecDeque<u8>>,
    /// Output came, or went.
    moved: Arc<WaitQueue>,
}

/// The modes of a new terminal (Linux, `tty_std_termios`): unlike on the console, echo and line ends are the kernel's business.
fn modes() -> Termios {
    let mut modes = Termios::initial();
    modes.oflag |= linux::OPOST | linux::ONLCR;
    modes.lflag |= linux::ECHO | linux::ECHOE | linux::ECHOK | linux::ECHOCTL | linux::ECHOKE;
    modes
}

fn name(number: u32) -> String {
    let mut name = String::new();
    let mut buffer = [0; libos_core::arch::console::DIGITS];
    libos_core::arch::console::digits(number.into(), 10, &mut buffer).iter().for_each(|&digit| name.push(char::from(digit)));
    name
}

/// The pair of a number.
pub fn find(number: u32) -> Option<Arc<Pty>> {
    PAIRS.lock().get(number as usize)?.as_ref()?.upgrade()
}

/// The pair whose terminal is the controlling one of a session.
pub fn of_session(session: i32) -> Option<Arc<Pty>> {
    let pairs: Vec<Weak<Pty>> = PAIRS.lock().iter().flatten().cloned().collect();
    pairs.iter().filter_map(Weak::upgrade).find(|pty| pty.terminal.session.load(Ordering::Relaxed) == session)
}

/// Opens `/dev/ptmx`.
///
/// # Errors
/// `ENOSPC` when there are too many, `ENOMEM`, and as open(2) when `/dev/pts` cannot be changed.
pub fn open_master() -> Result<Arc<dyn FileOps>> {
    let mut pairs = PAIRS.lock();
    let number = pairs.iter().position(|p| p.as_ref().is_none_or(|p| p.strong_count() == 0)).unwrap_or(pairs.len());
    if number >= MAX {
        return Err(Errno::ENOSPC);
    }
    let pty = Arc::new(Pty {
        terminal: Terminal::new(modes()),
        number: number as u32,
        is_locked: AtomicBool::new(true),
        opens: 0.into(),
        was_open: AtomicBool::new(false),
        is_hung_up: AtomicBool::new(false),
        output: SpinLock::new(VecDeque::new()),
        moved: Arc::new(WaitQueue::new()),
    });
    if number == pairs.len() {
        pairs.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        pairs.push(None);
    }
    pairs[number] = Some(Arc::downgrade(&pty));
    drop(pairs);
    with_current(|task| {
        let creds = task.creds();
        let rdev = make_dev(MAJOR, pty.number);
        let node = NewNode { mode: linux::S_IFCHR | 0o620, uid: creds.fsuid, gid: creds.fsgid, rdev, target: b"" };
        nodes::add(task, DIRECTORY, name(pty.number).as_bytes(), &node)
    })?;
    Ok(Arc::new(Master(pty)))
}

/// Opens `/dev/pts/N`.
///
/// # Errors
/// `ENXIO` when there is no master, `EIO` while it is locked.
pub fn open_terminal(number: u32, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    let pty = find(number).filter(|pty| !pty.is_hung_up.load(Ordering::Relaxed)).ok_or(Errno::ENXIO)?;
    if pty.is_locked.load(Ordering::Relaxed) {
        return Err(Errno::EIO);
    }
    if !flags.contains(OpenFlags::NOCTTY) {
        with_current(|task| pty.terminal.offer(task));
    }
    Ok(Slave::open(pty))
}

impl Pty {
    /// Adds output with line ends as the modes say; returns how many bytes of `bytes` there was room for.
    fn put(&self, bytes: &[u8]) -> usize {
        let oflag = self.terminal.termios.lock().oflag;
        let adds_returns = oflag & (linux::OPOST | linux::ONLCR) == linux::OPOST | linux::ONLCR;
        let mut output = self.output.lock();
        let mut taken = 0;
        for &byte in bytes {
            if output.len() + 2 > ROOM {
                break;
            }
            if byte == b'\n' && adds_returns {
                output.push_back(b'\r');
            }
            output.push_back(byte);
            taken += 1;
        }
        drop(output);
        if taken > 0 {
            self.moved.wake_all();
        }
        taken
    }

    fn has_no_terminal(&self) -> bool {
        self.was_open.load(Ordering::Relaxed) && self.opens.load(Ordering::Relaxed) == 0
    }
}

/// The side that a terminal emulator, sshd or script(1) has.
struct Master(Arc<Pty>);

impl FileOps for Master {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        let pty = &self.0;
        let ready = || (!pty.output.lock().is_empty() || pty.has_no_terminal()).then_some(());
        if file.is_nonblocking() {
            ready().ok_or(Errno::EAGAIN)?;
        } else {
            pty.moved.wait(ready)?;
        }
        let mut bytes = Vec::new();
        {
            let mut output = pty.output.lock();
            let count = output.len().min(dst.remaining()).min(4096);
            bytes.extend(output.drain(..count));
        }
        if bytes.is_empty() && dst.remaining() > 0 {
            // Everybody closed the terminal.
            return Err(Errno::EIO);
        }
        pty.moved.wake_all();
        dst.push(&bytes)
    }

    fn write_at(&self, _file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        let mut chunk = [0; 256];
        loop {
            let count = src.pull(&mut chunk)?;
            for byte in &chunk[..count] {
                let echo = self.0.terminal.input(*byte);
                // The echo has its line ends already.
                let mut output = self.0.output.lock();
                if output.len() + echo.len() <= ROOM {
                    output.extend(echo);
                }
            }
            if count > 0 {
                self.0.moved.wake_all();
                self.0.terminal.readable().wake_all();
            }
            if count < chunk.len() {
                return Ok(src.done());
            }
        }
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.0.moved);
        let mut events = PollEvents::WRITABLE;
        if !self.0.output.lock().is_empty() {
            events |= PollEvents::READABLE;
        }
        if self.0.has_no_terminal() {
            events |= PollEvents::HUP;
        }
        events
    }

    fn ioctl(&self, _file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        let number = UserPtr::<i32>::new(arg);
        match request {
            ioctl::TIOCGPTN => number.write(self.0.number as i32)?,
            ioctl::TIOCSPTLCK => self.0.is_locked.store(number.read()? != 0, Ordering::Relaxed),
            ioctl::TIOCGPTLCK => number.write(self.0.is_locked.load(Ordering::Relaxed).into())?,
            ioctl::FIONREAD => number.write(self.0.output.lock().len() as i32)?,
            // The master asks about the terminal's session, whoever's it is.
            ioctl::TIOCGPGRP => number.write(self.0.terminal.foreground.load(Ordering::Relaxed))?,
            ioctl::TIOCGSID => number.write(self.0.terminal.session.load(Ordering::Relaxed))?,
            _ => return self.0.terminal.control(request, arg),
        }
        Ok(0)
    }

    fn stat(&self) -> Result<Stat> {
        Ok(Stat { mode: linux::S_IFCHR | 0o666, rdev: make_dev(5, 2), ..Stat::anonymous() })
    }

    fn release(&self, _file: &OpenFile) {
        let pty = &self.0;
        pty.is_hung_up.store(true, Ordering::Relaxed);
        // Its name goes, and the session hears of it (termios(3), "modem disconnect").
        nodes::remove(DIRECTORY, name(pty.number).as_bytes());
        let session = pty.terminal.session.swap(0, Ordering::Relaxed);
        for signo in [linux::SIGHUP, linux::SIGCONT] {
            pty.terminal.signal(signo);
            if session != 0 && session != pty.terminal.foreground.load(Ordering::Relaxed) {
                signal::send_to_group(session, signo);
            }
        }
        pty.moved.wake_all();
        pty.terminal.readable().wake_all();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The terminal of a pair.
pub struct Slave(Arc<Pty>);

impl Slave {
    /// Opens the terminal once more.
    pub fn open(pty: Arc<Pty>) -> Arc<dyn FileOps> {
        pty.opens.fetch_add(1, Ordering::Relaxed);
        pty.was_open.store(true, Ordering::Relaxed);
        Arc::new(Slave(pty))
    }

    fn is_hung_up(&self) -> bool {
        self.0.is_hung_up.load(Ordering::Relaxed)
    }
}

impl FileOps for Slave {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        self.0.terminal.read(file, dst, &|| self.is_hung_up())
    }

    fn write_at(&self, file: &OpenFile, src: &mut IoSrc<'_>, _offset: u64) -> Result<usize> {
        let mut chunk = [0; 256];
        loop {
            let count = src.pull(&mut chunk)?;
            let mut done = 0;
            while done < count {
                if self.is_hung_up() {
                    return Err(Errno::EIO);
                }
                done += self.0.put(&chunk[done..count]);
                if done == count {
                    break;
                }
                let waited = match file.is_nonblocking() {
                    true => Err(Errno::EAGAIN),
                    false => self.0.moved.wait(|| (self.0.output.lock().len() + 2 <= ROOM || self.is_hung_up()).then_some(())),
                };
                if let Err(errno) = waited {
                    src.unpull(count - done);
                    return if src.done() > 0 { Ok(src.done()) } else { Err(errno) };
                }
            }
            if count < chunk.len() {
                return Ok(src.done());
            }
        }
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.0.terminal.readable());
        table.add(&self.0.moved);
        let mut events = PollEvents::empty();
        let termios = *self.0.terminal.termios.lock();
        if self.0.terminal.line.lock().is_ready(&termios, 1) {
            events |= PollEvents::READABLE;
        }
        if self.0.output.lock().len() + 2 <= ROOM {
            events |= PollEvents::WRITABLE;
        }
        if self.is_hung_up() {
            events |= PollEvents::HUP | PollEvents::READABLE | PollEvents::WRITABLE;
        }
        events
    }

    fn ioctl(&self, _file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        if self.is_hung_up() {
            return Err(Errno::EIO);
        }
        self.0.terminal.control(request, arg)
    }

    fn stat(&self) -> Result<Stat> {
        Ok(Stat { mode: linux::S_IFCHR | 0o620, rdev: make_dev(MAJOR, self.0.number), ..Stat::anonymous() })
    }

    fn release(&self, _file: &OpenFile) {
        if self.0.opens.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.moved.wake_all();
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
