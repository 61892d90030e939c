//! Runs a machine and keeps it known while it runs: in the foreground, or in a process of its own for the background.
//!
//! ```text
//! ukc run -d app ── creates the machine, starts `ukc supervise <id>`, waits for its word, prints the id
//!                       └─ a session of its own: holds the machine, runs QEMU, writes the log, answers stop and kill, notes the end
//! ```

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ukc_machines::{Description, Held, MachineError, Machines};
use ukc_runtime_qemu::{Console, Outcome, RunError, Stop, run};

use crate::args::machines::SuperviseArgs;
use crate::machine_commands::machines;
use crate::report::{self, Failure};

/// How long a program may take to end after the stop signal (docker stop's default).
const GRACE: Duration = Duration::from_secs(10);

/// What a killed program ends with: 128 + SIGKILL.
const KILLED: u8 = 137;

/// QEMU finds out about a port that is taken and the like within milliseconds; what still runs then has started.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// The word of a supervisor whose machine runs.
const STARTED: &str = "started\n";

/// Runs a machine and returns its program's status.
pub fn foreground(description: Description, is_interactive: bool) -> Result<u8, Failure> {
    let console = if is_interactive { Console::Terminal } else { Console::Output };
    let is_named = !description.name.is_empty();
    match machines().and_then(|m| Ok(m.create(description.clone())?)) {
        Ok(held) => {
            let ended = supervised(&held, console);
            held.end(&ended.as_ref().map(|s| *s).map_err(|f| f.message.clone()));
            ended
        }
        Err(failure) if is_named => Err(failure),
        // Nowhere to note it: it runs as well, but `ukc ps` does not show it.
        Err(_) => outcome(run(&description.machine, &stop(&description), console, None, |_| {})),
    }
}

fn supervised(held: &Held, console: Console) -> Result<u8, Failure> {
    let requests = held.requests()?;
    held.share_lock()?;
    outcome(run(&held.description.machine, &stop(&held.description), console, Some(requests), |pid| held.note_qemu(pid)))
}

fn stop(description: &Description) -> Stop {
    Stop { signal: description.stop_signal, grace: GRACE }
}

fn outcome(result: Result<Outcome, RunError>) -> Result<u8, Failure> {
    match result {
        Ok(Outcome::Exited(status)) => Ok(status),
        Ok(Outcome::Killed) => Ok(KILLED),
        Err(RunError::NoQemu(name)) => Err(Failure::new(format!(
            "`{name}` is not installed; install it with `apt install qemu-system-x86` (Debian, Ubuntu), `dnf install qemu-system-x86` (Fedora) or `brew install qemu`"
        ))),
        Err(e) => Err(Failure::new(e.to_string())),
    }
}

/// Starts a machine in the background and prints its id.
pub fn background(description: Description) -> Result<u8, Failure> {
    let machines = machines()?;
    let id = machines.create(description)?.release();
    let started = start(&id);
    match started {
        Ok(word) if word.ends_with(STARTED) => report::output(&format!("{id}\n")).map(|()| 0),
        failed => {
            // Docker keeps a container that did not start; here there is nothing in it to look at.
            if let Ok(known) = machines.find(&id) {
                let _ = known.remove(true);
            }
            Err(Failure::new(match failed {
                Ok(word) if word.is_empty() => "the process that supervises the machine ended without a word".to_owned(),
                Ok(word) => word.trim_end().to_owned(),
                Err(e) => format!("cannot start the process that supervises the machine: {e}"),
            }))
        }
    }
}

/// Starts the supervisor and returns what it says.
fn start(id: &str) -> std::io::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.args(["supervise", id]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut word = String::new();
    child.stdout.take().expect("standard output is piped").read_to_string(&mut word)?;
    Ok(word)
}

/// The supervisor's side of standard output: one word, then it is closed.
#[derive(Clone, Default)]
struct Parent {
    was_told: Arc<AtomicBool>,
}

impl Parent {
    fn tell(&self, word: &str) {
        if self.was_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut out = std::io::stdout();
        let _ = out.write_all(word.as_bytes()).and_then(|()| out.flush());
        if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&null);
        }
    }
}

/// Runs the command: is a supervisor.
pub fn command(args: &SuperviseArgs) -> Result<u8, Failure> {
    let parent = Parent::default();
    // The terminal's signals are not for us any more.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let ended = machines().and_then(|machines| supervise(&machines, &args.machine, &parent));
    match &ended {
        Ok(_) => parent.tell(STARTED),
        Err(failure) => parent.tell(&format!("{}\n", failure.message)),
    }
    ended.map(|_| 0)
}

fn supervise(machines: &Machines, id: &str, parent: &Parent) -> Result<u8, Failure> {
    let held = machines.hold(id).map_err(|e| match e {
        MachineError::Io { error, .. } if error.kind() == std::io::ErrorKind::WouldBlock => {
            Failure::new(format!("the machine {id} runs already"))
        }
        other => other.into(),
    })?;
    let log = held.log()?;
    thread::spawn({
        let parent = parent.clone();
        move || {
            thread::sleep(SETTLED_AFTER);
            parent.tell(STARTED);
        }
    });
    let ended = supervised(&held, Console::Log(Box::new(log)));
    held.end(&ended.as_ref().map(|s| *s).map_err(|f| f.message.clone()));
    ended
}
