//! Runs QEMU as a child: passes signals on, and finds out how the guest's program ended.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
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

/// How a run is stopped.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Signal that the guest's first process gets when we get SIGINT, SIGTERM or SIGHUP.
    pub signal: u8,
    /// How long it may take to end after that; a second signal ends it at once.
    pub grace: Duration,
}

/// Where the guest's console leads.
pub enum Console {
    /// Its output goes to our standard output.
    Output,
    /// Our standard input leads to it, too.
    Terminal,
    /// Its output goes here, and nothing leads to it.
    Log(Box<dyn Write + Send>),
}

/// What is asked of a running machine, by signals to us or by lines on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Send this signal to the guest's first process.
    Signal(u8),
    /// The same, and end the machine when the process has not ended after the time.
    Stop(u8, Duration),
    /// End the machine now.
    Kill,
}

impl Request {
    /// Returns the line that asks for it on the socket.
    pub fn line(self) -> String {
        match self {
            Request::Signal(signal) => format!("signal {signal}\n"),
            Request::Stop(signal, grace) => format!("stop {signal} {}\n", grace.as_millis()),
            Request::Kill => "kill\n".to_owned(),
        }
    }

    fn parse(line: &str) -> Option<Request> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["signal", signal] => Some(Request::Signal(signal.parse().ok()?)),
            ["stop", signal, grace] => Some(Request::Stop(signal.parse().ok()?, Duration::from_millis(grace.parse().ok()?))),
            ["kill"] => Some(Request::Kill),
            _ => None,
        }
    }
}

/// What the thread that owns the child hears.
enum Event {
    Request(Request),
    /// The machine is gone.
    Ended,
}

/// Runs the machine until its program ends. `requests` is where others may ask for [`Request`]s; `started` is called with QEMU's process id once it runs.
///
/// # Errors
/// [`RunError`].
pub fn run(
    machine: &Machine,
    stop: &Stop,
    console: Console,
    requests: Option<UnixListener>,
    started: impl FnOnce(u32),
) -> Result<Outcome, RunError> {
    let (ours, theirs) = UnixStream::pair()?;
    // QEMU inherits its end of the control channel.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(io::Error::from)?;
    let mut command = Command::new(&machine.qemu);
    command.args(machine.arguments(theirs.as_raw_fd()));
    // A group of its own: the terminal's Ctrl-C reaches us, and we decide what the guest gets.
    command.process_group(0);
    command.stdin(if matches!(console, Console::Terminal) { Stdio::piped() } else { Stdio::null() });
    command.stdout(if matches!(console, Console::Log(_)) { Stdio::piped() } else { Stdio::inherit() });
    command.stderr(Stdio::piped());
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => RunError::NoQemu(machine.qemu.display().to_string()),
        _ => RunError::Io(e),
    })?;
    drop(theirs);
    started(child.id());

    let from_guest = ours.try_clone()?;
    let control_reader = thread::spawn(move || {
        let mut received = Vec::new();
        // An error is an end, too: what was received counts.
        let _ = (&from_guest).read_to_end(&mut received);
        received
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
    let log = match (console, child.stdout.take()) {
        (Console::Log(log), Some(output)) => Some(thread::spawn(move || keep(output, log))),
        _ => None,
    };

    let (events, heard) = mpsc::channel();
    let handle = signals.handle();
    listen_to_signals(signals, stop.clone(), events.clone());
    if let Some(listener) = requests {
        listen_to_requests(listener, events.clone());
    }
    let owner = thread::spawn(move || own(child, &heard, ours));

    // QEMU holds the other end of the channel for as long as it lives, so the end of the stream is the end of the machine.
    let received = control_reader.join().unwrap_or_default();
    let _ = events.send(Event::Ended);
    let (status, was_killed) = owner.join().unwrap_or_else(|_| Err(io::Error::other("the machine was lost sight of")))?;
    handle.close();
    if let Some(log) = log {
        let _ = log.join();
    }
    let messages = messages.join().unwrap_or_default();
    match control::exit_status(&received) {
        Some(code) => Ok(Outcome::Exited(code)),
        None if was_killed && status.signal().is_some() => Ok(Outcome::Killed),
        None => Err(RunError::NoStatus(status, messages)),
    }
}

/// Writes what QEMU prints to the log; when that fails (a full disk), goes on reading, so that the guest does not stand still.
fn keep(mut output: ChildStdout, mut log: Box<dyn Write + Send>) {
    let mut chunk = [0; 16 << 10];
    let mut is_whole = true;
    while let Ok(count @ 1..) = output.read(&mut chunk) {
        is_whole = is_whole && log.write_all(&chunk[..count]).is_ok();
    }
}

/// The first signal asks the guest to end, the second ends it.
fn listen_to_signals(mut signals: Signals, stop: Stop, events: Sender<Event>) {
    thread::spawn(move || {
        let mut request = Request::Stop(stop.signal, stop.grace);
        for _ in signals.forever() {
            if events.send(Event::Request(request)).is_err() {
                return;
            }
            request = Request::Kill;
        }
    });
}

/// Each connection may bring several lines; every one is answered by `ok` or `error`, so that who asks knows that it was heard.
fn listen_to_requests(listener: UnixListener, events: Sender<Event>) {
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let events = events.clone();
            thread::spawn(move || {
                let Ok(mut answers) = connection.try_clone() else { return };
                for line in BufReader::new(connection.take(1 << 10)).lines().map_while(Result::ok) {
                    let is_taken = Request::parse(&line).is_some_and(|request| events.send(Event::Request(request)).is_ok());
                    if answers.write_all(if is_taken { b"ok\n" } else { b"error\n" }).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Does what is asked for until the machine is gone; returns how QEMU ended and whether that was our doing.
fn own(mut child: Child, heard: &Receiver<Event>, mut to_guest: UnixStream) -> io::Result<(ExitStatus, bool)> {
    let mut deadline: Option<Instant> = None;
    let mut was_killed = false;
    loop {
        let event = match deadline {
            Some(time) => heard.recv_timeout(time.saturating_duration_since(Instant::now())),
            None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let mut tell = |signal: u8| to_guest.write_all(control::signal_line(signal).as_bytes()).is_ok();
        let is_time = match event {
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return Ok((child.wait()?, was_killed)),
            Ok(Event::Request(Request::Signal(signal))) => !tell(signal),
            Ok(Event::Request(Request::Stop(signal, grace))) => {
                let time = Instant::now() + grace;
                deadline = Some(deadline.map_or(time, |earlier| earlier.min(time)));
                !tell(signal)
            }
            Ok(Event::Request(Request::Kill)) | Err(RecvTimeoutError::Timeout) => true,
        };
        if is_time {
            was_killed = true;
            deadline = None;
            child.kill()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_their_lines() {
        for request in [Request::Signal(1), Request::Stop(15, Duration::from_millis(1500)), Request::Kill] {
            assert_eq!(Request::parse(&request.line()), Some(request));
        }
        for bad in ["", "signal", "signal x", "signal 256", "stop 15", "kill 9", "halt"] {
            assert_eq!(Request::parse(bad), None, "{bad}");
        }
    }
}
