//! One machine: as its supervisor holds it, and as everybody else sees it.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::log::PARTS;
use crate::{Description, Log, MachineError, Request, tail};

/// How often a log that is followed is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// A machine that we supervise: locked as long as this lives.
#[derive(Debug)]
pub struct Held {
    dir: PathBuf,
    /// What it is.
    pub description: Description,
    lock: File,
}

impl Held {
    /// Locks the folder's machine, writing the description when it is not there.
    pub(crate) fn take(dir: &Path, description: Description) -> Result<Held, MachineError> {
        let path = dir.join("lock");
        let lock = File::options().create(true).append(true).open(&path).map_err(MachineError::io(&path))?;
        lock_soon(&lock).map_err(MachineError::io(&path))?;
        let path = dir.join("machine.json");
        if !path.exists() {
            let json = serde_json::to_string_pretty(&description).map_err(|e| MachineError::io(&path)(e.into()))?;
            fs::write(&path, json + "\n").map_err(MachineError::io(&path))?;
        }
        Ok(Held { dir: dir.to_owned(), description, lock })
    }

    pub(crate) fn moved_to(self, dir: PathBuf) -> Held {
        Held { dir, ..self }
    }

    /// Unlocks it for another supervisor and returns its id.
    pub fn release(self) -> String {
        self.description.id
    }

    /// Opens the socket where others ask for [`Request`]s.
    ///
    /// # Errors
    /// [`MachineError::Io`].
    pub fn requests(&self) -> Result<UnixListener, MachineError> {
        short_path(&self.dir, |path| UnixListener::bind(path)).map_err(MachineError::io(&self.dir))
    }

    /// Lets the child that is started next inherit the lock: as long as it lives the machine does, whatever becomes of us.
    ///
    /// # Errors
    /// [`MachineError::Io`].
    pub fn share_lock(&self) -> Result<(), MachineError> {
        rustix::io::fcntl_setfd(&self.lock, rustix::io::FdFlags::empty()).map_err(|e| MachineError::io(&self.dir)(e.into()))
    }

    /// Notes QEMU's process id, for the case that only it is left.
    pub fn note_qemu(&self, pid: u32) {
        // Without the note the machine runs as well; only a supervisor that dies makes it needed.
        let _ = fs::write(self.dir.join("qemu"), pid.to_string());
    }

    /// Begins the log.
    ///
    /// # Errors
    /// [`MachineError::Io`].
    pub fn log(&self) -> Result<Log, MachineError> {
        Log::create(&self.dir).map_err(MachineError::io(&self.dir))
    }

    /// Notes how it ended: a status, or a sentence. A machine that is not to stay is removed.
    pub fn end(self, how: &Result<u8, String>) {
        if !self.description.is_detached || self.description.is_removed_at_end {
            remove(&self.dir);
            return;
        }
        let text = match how {
            Ok(status) => status.to_string(),
            Err(sentence) => sentence.clone(),
        };
        let _ = fs::write(self.dir.join("exit"), text);
        let _ = fs::remove_file(self.dir.join("requests"));
    }
}

/// How a machine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// Its program ended with this status.
    Exited(u8),
    /// It ended without a status; why.
    Failed(String),
}

/// A machine as others see it.
#[derive(Debug, Clone)]
pub struct Known {
    pub(crate) dir: PathBuf,
    /// What it is.
    pub description: Description,
    /// How it was doing when it was looked at.
    pub state: State,
}

impl Known {
    /// Returns the folder's machine, if it is one.
    pub(crate) fn read(dir: &Path) -> Option<Known> {
        let description = serde_json::from_slice(&fs::read(dir.join("machine.json")).ok()?).ok()?;
        let lock = File::open(dir.join("lock")).ok()?;
        let state = match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Err(_) => State::Running,
            Ok(()) => match fs::read_to_string(dir.join("exit")) {
                Ok(text) => text.parse().map_or(State::Failed(text), State::Exited),
                Err(_) => State::Failed("its supervisor was killed".to_owned()),
            },
        };
        Some(Known { dir: dir.to_owned(), description, state })
    }

    fn name(&self) -> String {
        self.description.name.clone()
    }

    /// Asks its supervisor for something; returns when the supervisor has heard it. When only QEMU is left, every request ends the machine.
    ///
    /// # Errors
    /// [`MachineError::NotRunning`], [`MachineError::Refused`].
    pub fn ask(&self, request: Request) -> Result<(), MachineError> {
        if self.state != State::Running {
            return Err(MachineError::NotRunning { name: self.name() });
        }
        let Ok(mut socket) = short_path(&self.dir, |path| UnixStream::connect(path)) else { return self.kill_qemu() };
        let mut answer = String::new();
        let asked = socket.write_all(request.line().as_bytes()).and_then(|()| BufReader::new(socket).read_line(&mut answer));
        if asked.is_ok() && answer == "ok\n" { Ok(()) } else { Err(MachineError::Refused { name: self.name() }) }
    }

    /// Ends a machine whose supervisor is gone. Its lock is held, so QEMU lives, and the process id is its.
    fn kill_qemu(&self) -> Result<(), MachineError> {
        let refused = || MachineError::Refused { name: self.name() };
        let pid = fs::read_to_string(self.dir.join("qemu")).ok().and_then(|text| Pid::from_raw(text.parse().ok()?)).ok_or_else(refused)?;
        kill_process(pid, Signal::KILL).map_err(|_| refused())
    }

    /// Waits until it has ended, and returns how.
    pub fn wait(&self) -> State {
        if let Ok(lock) = File::open(self.dir.join("lock")) {
            while flock(&lock, FlockOperation::LockShared) == Err(rustix::io::Errno::INTR) {}
        }
        // A machine that removes itself leaves nothing to read.
        Known::read(&self.dir).map_or(State::Exited(0), |known| known.state)
    }

    /// Writes its log: the last `lines` lines or all; with `follow`, what comes until it has ended, too.
    ///
    /// # Errors
    /// Of writing; a log that cannot be read is empty.
    pub fn write_log(&self, out: &mut dyn io::Write, lines: Option<usize>, follow: bool) -> io::Result<()> {
        let mut file = File::open(self.dir.join(PARTS[1])).ok();
        match (lines, &mut file) {
            (Some(lines), Some(file)) => out.write_all(&tail(file, lines)?)?,
            (None, _) => {
                if let Ok(mut older) = File::open(self.dir.join(PARTS[0])) {
                    io::copy(&mut older, out)?;
                }
            }
            _ => {}
        }
        loop {
            // Looked at before the file: what is printed until then is shown, and what comes after the end is nothing.
            let is_over = !follow || Known::read(&self.dir).is_none_or(|m| m.state != State::Running);
            if let Some(file) = &mut file {
                io::copy(file, out)?;
                out.flush()?;
            }
            if is_over {
                return Ok(());
            }
            thread::sleep(FOLLOW_INTERVAL);
            // The log begins anew when it has grown long; the old one was read to its end, but for what came since.
            if let Ok(current) = File::open(self.dir.join(PARTS[1])) {
                let is_same = file.as_ref().is_some_and(|f| same_file(f, &current));
                if !is_same {
                    if let Some(file) = &mut file {
                        io::copy(file, out)?;
                    }
                    file = Some(current);
                }
            }
        }
    }

    /// Removes it; one that runs is ended first if `force` says so.
    ///
    /// # Errors
    /// [`MachineError::Running`], and as [`Known::ask`].
    pub fn remove(&self, force: bool) -> Result<(), MachineError> {
        if self.state == State::Running {
            if !force {
                return Err(MachineError::Running { name: self.name() });
            }
            match self.ask(Request::Kill) {
                // It may just have ended by itself.
                Ok(()) | Err(MachineError::Refused { .. }) => {}
                Err(e) => return Err(e),
            }
            self.wait();
        }
        remove(&self.dir);
        Ok(())
    }
}

/// Locks for ourselves. Those who look at a machine hold its lock for a moment, so one refusal means nothing.
fn lock_soon(lock: &File) -> io::Result<()> {
    const TRIES: usize = 100;
    for _ in 1..TRIES {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(10)),
            other => return other.map_err(Into::into),
        }
    }
    Ok(flock(lock, FlockOperation::NonBlockingLockExclusive)?)
}

/// Takes the folder out of sight, then apart.
fn remove(dir: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let hidden = dir.with_file_name(format!(".gone-{name}"));
    if fs::rename(dir, &hidden).is_ok() {
        let _ = fs::remove_dir_all(hidden);
    }
}

fn same_file(a: &File, b: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    matches!((a.metadata(), b.metadata()), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Names the socket through a descriptor of its folder: a socket's path has room for 107 bytes only (unix(7)), and homes can be deep.
fn short_path<T>(dir: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = File::open(dir)?;
    with(&PathBuf::from(format!("/proc/self/fd/{}/requests", folder.as_raw_fd())))
}
