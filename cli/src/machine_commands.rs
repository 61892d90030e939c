//! `ukc ps`, `logs`, `stop`, `kill`, `wait`: what can be asked of machines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ukc_driver::signal_number;
use ukc_machines::{Known, MachineError, Machines, Request, State};

use crate::args::Format;
use crate::args::machines::{KillArgs, LogsArgs, PsArgs, StopArgs, WaitArgs};
use crate::report::{self, FAILED, Failure};
use crate::{places, table, units};

/// Opens the machines of this user.
pub fn machines() -> Result<Machines, Failure> {
    Ok(Machines::open(places::state()?.join("machines"))?)
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Failure {
        Failure::new(error.to_string())
    }
}

/// Lists machines.
pub fn ps(args: &PsArgs) -> Result<u8, Failure> {
    let all = machines()?.all().into_iter().filter(|m| args.all || m.state == State::Running);
    if args.quiet {
        return report::output(&all.map(|m| m.description.id + "\n").collect::<String>()).map(|()| 0);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let out = match args.format {
        Format::Json => report::json(&all.map(|m| document(&m)).collect::<Vec<_>>())?,
        Format::Table => {
            let mut rows = vec![["ID", "IMAGE", "PROGRAM", "CREATED", "STATUS", "PORTS", "NAME"].map(str::to_owned).to_vec()];
            rows.extend(all.map(|m| row(&m, now)));
            table::aligned(&rows)
        }
    };
    report::output(&out).map(|()| 0)
}

fn row(known: &Known, now: Duration) -> Vec<String> {
    let m = &known.description;
    let age = now.saturating_sub(Duration::from_secs(m.created));
    vec![
        m.id.clone(),
        m.image.clone(),
        units::shortened(&m.argv.join(" "), 30),
        format!("{} ago", units::rough(age)),
        status(&known.state),
        ports(known).join(", "),
        m.name.clone(),
    ]
}

fn status(state: &State) -> String {
    match state {
        State::Running => "running".to_owned(),
        State::Exited(status) => format!("exited ({status})"),
        State::Failed(_) => "failed".to_owned(),
    }
}

/// Returns `127.0.0.1:8080->80/tcp` for each port.
fn ports(known: &Known) -> Vec<String> {
    let forwards = known.description.machine.forwards.iter();
    forwards
        .map(|f| {
            let address = if f.host_address.is_empty() { "127.0.0.1" } else { &f.host_address };
            format!("{address}:{}->{}/{}", f.host_port, f.guest_port, f.protocol.name())
        })
        .collect()
}

/// Returns all that is known about a machine.
pub fn document(known: &Known) -> serde_json::Value {
    let m = &known.description;
    let (state, status, reason) = match &known.state {
        State::Running => ("running", None, None),
        State::Exited(status) => ("exited", Some(*status), None),
        State::Failed(why) => ("failed", None, Some(why)),
    };
    serde_json::json!({
        "id": m.id, "name": m.name, "image": m.image, "argv": m.argv, "created": m.created, "state": state, "exit_status": status, "reason": reason,
        "ports": ports(known), "memory_mib": m.machine.memory_mib, "cpus": m.machine.cpus, "kernel": m.machine.kernel, "rootfs": m.machine.rootfs,
        "command_line": m.machine.command_line,
    })
}

/// Prints what a machine in the background printed.
pub fn logs(args: &LogsArgs) -> Result<u8, Failure> {
    let known = machines()?.find(&args.machine)?;
    if !known.description.is_detached {
        return Err(Failure::new(format!("`{}` runs in the foreground: its output is where it was started", args.machine)));
    }
    match known.write_log(&mut std::io::stdout().lock(), args.tail, args.follow) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(FAILED),
        Err(e) => Err(Failure::new(format!("cannot print the log: {e}"))),
        Ok(()) => Ok(0),
    }
}

/// Does the same for several machines, going on after one that fails; prints the names of those where it went well, as they were given.
fn each(texts: &[String], what: impl Fn(&Known) -> Result<String, MachineError>) -> Result<u8, Failure> {
    let machines = machines()?;
    let mut status = 0;
    for text in texts {
        match machines.find(text).and_then(|known| what(&known)) {
            Ok(word) => report::output(&format!("{}\n", if word.is_empty() { text } else { &word }))?,
            Err(e) => {
                status = FAILED;
                report::error(&e.to_string());
            }
        }
    }
    Ok(status)
}

fn signal(text: &str) -> Result<u8, Failure> {
    signal_number(text).ok_or_else(|| Failure::usage(format!("there is no signal `{text}`; signals look like `TERM`, `SIGTERM` or `15`")))
}

/// Asks programs to end, and waits until they have.
pub fn stop(args: &StopArgs) -> Result<u8, Failure> {
    let given = args.signal.as_deref().map(signal).transpose()?;
    each(&args.machines, |known| {
        let asked = known.ask(Request::Stop(given.unwrap_or(known.description.stop_signal), Duration::from_secs(args.time.into())));
        match asked {
            // docker stop: what has ended is stopped.
            Ok(()) | Err(MachineError::NotRunning { .. } | MachineError::Refused { .. }) => {}
            Err(e) => return Err(e),
        }
        known.wait();
        Ok(String::new())
    })
}

/// Sends a signal, or ends machines.
pub fn kill(args: &KillArgs) -> Result<u8, Failure> {
    const SIGKILL: u8 = 9;
    let signal = signal(&args.signal)?;
    each(&args.machines, |known| {
        if signal == SIGKILL {
            known.ask(Request::Kill)?;
            known.wait();
        } else {
            known.ask(Request::Signal(signal))?;
        }
        Ok(String::new())
    })
}

/// Waits for machines to end and prints their programs' statuses.
pub fn wait(args: &WaitArgs) -> Result<u8, Failure> {
    each(&args.machines, |known| match known.wait() {
        State::Exited(status) => Ok(status.to_string()),
        // docker wait: 137 for what was killed; there is no status of a machine that failed.
        State::Failed(why) => Err(MachineError::Ended { name: known.description.name.clone(), why }),
        State::Running => Ok(String::new()),
    })
}
