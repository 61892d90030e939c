//! A terminal: modes, input, size, session and foreground group. What a byte of output does is the owner's business: the serial port, or a master.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, Ordering};

use libos_core::abi::{general as linux, ioctl};
use libos_core::file::OpenFile;
use libos_core::io::IoDst;
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::task::{signal, table, with_current};
use libos_core::time::monotonic_ns;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::line::{Effect, Line, raw_limits};
use crate::termios::Termios;

/// The state of a terminal.
pub struct Terminal {
    pub termios: SpinLock<Termios>,
    pub line: SpinLock<Line>,
    /// Rows, columns and pixels of `struct winsize`; 0 is unknown, as on any serial line.
    size: SpinLock<[u16; 4]>,
    /// Session whose controlling terminal it is, and its foreground process group; 0 is none.
    pub session: AtomicI32,
    pub foreground: AtomicI32,
    /// Woken when there is something to read.
    readable: SpinLock<Option<Arc<WaitQueue>>>,
}

impl Terminal {
    pub const fn new(termios: Termios) -> Terminal {
        Terminal {
            termios: SpinLock::new(termios),
            line: SpinLock::new(Line::new()),
            size: SpinLock::new([0; 4]),
            session: AtomicI32::new(0),
            foreground: AtomicI32::new(0),
            readable: SpinLock::new(None),
        }
    }

    /// Woken when there is something to read.
    pub fn readable(&self) -> Arc<WaitQueue> {
        self.readable.lock().get_or_insert_with(|| Arc::new(WaitQueue::new())).clone()
    }

    /// Takes a byte that was typed; signals are sent, and what is to be shown is returned.
    pub fn input(&self, byte: u8) -> Vec<u8> {
        let termios = *self.termios.lock();
        let Effect { echo, signal } = self.line.lock().input(byte, &termios);
        if let Some(signo) = signal {
            self.signal(signo);
        }
        echo
    }

    /// Sends a signal to the foreground group.
    pub fn signal(&self, signo: u32) {
        let group = self.foreground.load(Ordering::Relaxed);
        if group != 0 {
            signal::send_to_group(group, signo);
        }
    }

    /// A session leader without a controlling terminal gets it as that (tty(4)).
    pub fn offer(&self, task: &Task) {
        let session = task.process.session();
        if self.session.load(Ordering::Relaxed) == 0 && session == task.pid() && !crate::has_terminal(session) {
            self.take(task);
        }
    }

    fn take(&self, task: &Task) {
        self.session.store(task.process.session(), Ordering::Relaxed);
        self.foreground.store(task.process.group(), Ordering::Relaxed);
    }

    /// Stops a background process that reads (termios(3), SIGTTIN).
    fn check_foreground(&self, task: &Task) -> Result<()> {
        let foreground = self.foreground.load(Ordering::Relaxed);
        let is_ours = self.session.load(Ordering::Relaxed) == task.process.session();
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

    /// read(2); `is_hung_up` says that nothing will come any more.
    pub fn read(&self, file: &OpenFile, dst: &mut IoDst<'_>, is_hung_up: &dyn Fn() -> bool) -> Result<usize> {
        with_current(|task| self.check_foreground(task))?;
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let termios = *self.termios.lock();
        let is_raw = !termios.local(linux::ICANON);
        let (min, tenths) = raw_limits(&termios);
        let is_ready = || {
            let is_ready = self.line.lock().is_ready(&self.termios.lock(), min.min(dst.remaining()));
            (is_ready || is_hung_up()).then_some(())
        };
        if is_ready().is_none() {
            if file.is_nonblocking() {
                return Err(Errno::EAGAIN);
            }
            // With a minimum of 0 a read ends when the time is up; no time is at once.
            let deadline = (is_raw && min == 0).then(|| monotonic_ns() + tenths * 100_000_000);
            self.readable().wait_until(deadline, is_ready)?;
        }
        let mut bytes = Vec::new();
        self.line.lock().read(&termios, dst.remaining().min(4096), &mut bytes);
        dst.push(&bytes)
    }

    /// Whether it is the caller's controlling terminal.
    fn check_controlling(&self, task: &Task) -> Result<()> {
        let owner = self.session.load(Ordering::Relaxed);
        if owner != 0 && owner == task.process.session() { Ok(()) } else { Err(Errno::ENOTTY) }
    }

    /// ioctl_tty(2).
    ///
    /// # Errors
    /// As ioctl_tty(2).
    pub fn control(&self, request: u32, arg: usize) -> Result<usize> {
        let words = UserPtr::<[u32; 9]>::new(arg);
        let number = UserPtr::<i32>::new(arg);
        match request {
            ioctl::TCGETS => words.write(self.termios.lock().to_words())?,
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                let new = Termios::from_words(words.read()?);
                self.set_termios(new, request == ioctl::TCSETSF);
            }
            ioctl::TCGETS2 => {
                let termios = self.termios.lock().to_words();
                words.write(termios)?;
                // `struct termios2` goes on with the two speeds.
                words.field::<[u32; 2]>(36).write([38400; 2])?;
            }
            ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
                let new = Termios::from_words(words.read()?);
                self.set_termios(new, request == ioctl::TCSETSF2);
            }
            ioctl::TIOCGWINSZ => UserPtr::<[u16; 4]>::new(arg).write(*self.size.lock())?,
            ioctl::TIOCSWINSZ => {
                let new = UserPtr::<[u16; 4]>::new(arg).read()?;
                let old = core::mem::replace(&mut *self.size.lock(), new);
                let group = self.foreground.load(Ordering::Relaxed);
                if old != new && group != 0 {
                    signal::send_to_group(group, linux::SIGWINCH);
                }
            }
            ioctl::TIOCGPGRP => {
                with_current(|task| self.check_controlling(task))?;
                number.write(self.foreground.load(Ordering::Relaxed))?;
            }
            ioctl::TIOCSPGRP => {
                let group = number.read()?;
                with_current(|task| {
                    self.check_controlling(task)?;
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
                self.foreground.store(group, Ordering::Relaxed);
            }
            ioctl::TIOCGSID => {
                with_current(|task| self.check_controlling(task))?;
                number.write(self.session.load(Ordering::Relaxed))?;
            }
            ioctl::TIOCSCTTY => with_current(|task| {
                let owner = self.session.load(Ordering::Relaxed);
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
                self.take(task);
                Ok(())
            })?,
            ioctl::TIOCNOTTY => with_current(|task| {
                self.check_controlling(task)?;
                if task.process.session() == task.pid() {
                    self.session.store(0, Ordering::Relaxed);
                    self.foreground.store(0, Ordering::Relaxed);
                }
                Ok(())
            })?,
            ioctl::FIONREAD => {
                let termios = *self.termios.lock();
                number.write(self.line.lock().available(&termios) as i32)?;
            }
            // Output is never queued.
            ioctl::TIOCOUTQ => number.write(0)?,
            ioctl::TCFLSH => match arg {
                // TCIFLUSH, TCIOFLUSH, and TCOFLUSH, for which there is nothing to do.
                0 | 2 => self.line.lock().flush(),
                1 => {}
                _ => return Err(Errno::EINVAL),
            },
            ioctl::TCSBRK | ioctl::TCSBRKP | ioctl::TCXONC => {}
            ioctl::TIOCGETD => number.write(0)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    fn set_termios(&self, new: Termios, flushes: bool) {
        if flushes {
            self.line.lock().flush();
        }
        *self.termios.lock() = new;
        // What was typed may count in the new mode.
        self.readable().wake_all();
    }
}
