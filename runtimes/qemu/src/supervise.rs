//! Runs QEMU as a child: passes signals on, and finds out how the guest's program ended.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{Machine, control};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest's first process ended with this status (128 + n after signal n).
    Exited(u8),
    /// The guest did not react to the stop signal in time and was ended.
    Killed,
}

/// Why there is no outcome.
#[derive(Debug)]
pub enum RunError {
    /// There is no QEMU here.
    NoQemu(String),
    /// QEMU could not be started or observed.
    Io(io::Error),
    /// QEMU ended without the guest having said how its program ended; the texts are QEMU's own messages.
    NoStatus(ExitStatus, String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::NoQemu(name) => write!(f, "`{name}` is not installed"),
            RunError::Io(e) => write!(f, "cannot run QEMU: {e}"),
            RunError::NoStatus(status, messages) => {
                write!(f, "the machine ended ({status}) without saying how its program ended")?;
                if !messages.is_empty() {
                    write!(f, "; QEMU said: {}", messages.trim_end())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(e: io::Error) -> Self {
        RunError::Io(e)
    }
}

/// How a run is stopped and fed.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Signal that the guest's first process gets when we get SIGINT, SIGTERM or SIGHUP.
    pub signal: u8,
    /// How long it may take to end after that; a second signal ends it at once.
    pub grace: Duration,
    /// Whether our standard input is the console's.
    pub interactive: bool,
}

/// Runs the machine until its program ends.
///
/// # Errors
/// [`RunError`].
pub fn run(machine: &Machine, stop: &Stop) -> Result<Outcome, RunError> {
    let (ours, theirs) = UnixStream::pair()?;
    // QEMU inherits its end of the control channel.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(io::Error::from)?;
    let mut command = Command::new(&machine.qemu);
    command.args(machine.arguments(theirs.as_raw_fd()));
    // A group of its own: the terminal's Ctrl-C reaches us, and we decide what the guest gets.
    command.process_group(0);
    command.stdin(if stop.interactive { Stdio::piped() } else { Stdio::null() });
    command.stderr(Stdio::piped());
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => RunError::NoQemu(machine.qemu.display().to_string()),
        _ => RunError::Io(e),
    })?;
    drop(theirs);

    let received = Arc::new(Mutex::new(Vec::new()));
    let control_reader = thread::spawn({
        let (mut from_guest, received) = (ours.try_clone()?, received.clone());
        move || {
            let mut chunk = [0; 256];
            while let Ok(count @ 1..) = from_guest.read(&mut chunk) {
                received.lock().unwrap_or_else(|e| e.into_inner()).extend_from_slice(&chunk[..count]);
            }
        }
    });
    let mut stderr = child.stderr.take().expect("standard error is piped");
    let messages = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    if let Some(mut to_console) = child.stdin.take() {
        // Ends with our process; nobody waits for it.
        thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut to_console));
    }
    let handle = signals.handle();
    let killed = Arc::new(Mutex::new(false));
    let child = Arc::new(Mutex::new(child));
    let forwarder = thread::spawn({
        let (mut to_guest, stop, child, killed) = (ours, stop.clone(), child.clone(), killed.clone());
        move || {
            let mut deadline: Option<Instant> = None;
            for _ in signals.forever() {
                let kill = |child: &Mutex<Child>| {
                    *killed.lock().unwrap_or_else(|e| e.into_inner()) = true;
                    let _ = child.lock().unwrap_or_else(|e| e.into_inner()).kill();
                };
                if deadline.is_some() || to_guest.write_all(control::signal_line(stop.signal).as_bytes()).is_err() {
                    kill(&child);
                    return;
                }
                deadline = Some(Instant::now() + stop.grace);
                let (child, killed, grace) = (child.clone(), killed.clone(), stop.grace);
                thread::spawn(move || {
                    thread::sleep(grace);
                    *killed.lock().unwrap_or_else(|e| e.into_inner()) = true;
                    let _ = child.lock().unwrap_or_else(|e| e.into_inner()).kill();
                });
            }
        }
    });

    // QEMU holds the other end of the channel for as long as it lives, so the end of the stream is the end of the machine. Only then is the child
    // locked for waiting; until then another thread can end it.
    let _ = control_reader.join();
    let status = child.lock().unwrap_or_else(|e| e.into_inner()).wait()?;
    handle.close();
    let _ = forwarder.join();
    let messages = messages.join().unwrap_or_default();
    let exit = control::exit_status(&received.lock().unwrap_or_else(|e| e.into_inner()));
    match exit {
        Some(code) => Ok(Outcome::Exited(code)),
        None if *killed.lock().unwrap_or_else(|e| e.into_inner()) && status.signal().is_some() => Ok(Outcome::Killed),
        None => Err(RunError::NoStatus(status, messages)),
    }
}
