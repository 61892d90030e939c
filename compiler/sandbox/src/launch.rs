//! Starts the helper, passes its output on, and understands its answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::helper::{ARGUMENT, message};
use crate::idmap::{IdMap, NoIds, no_namespace};
use crate::spec::{Answer, Job, Order};

/// How long an interruption may go unnoticed.
const TICK: Duration = Duration::from_millis(50);

/// How an order ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All jobs are done.
    Done,
    /// The process ended with this status, which is not 0.
    Exited(i32),
    /// It could not be started.
    NotStarted(i32, String),
    /// A mount of the step failed.
    Mount(usize, String),
    /// Something else went wrong: why, errno, and what to do.
    Failed(String, Option<i32>, Vec<String>),
    /// It was given up.
    Interrupted,
}

/// Starts helpers.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    /// The program to start: this one.
    pub program: PathBuf,
    /// The ids of a user who is not root.
    pub ids: Option<IdMap>,
}

enum Event {
    Answer(Answer),
    Garbage(String),
    Output(Vec<u8>),
    /// One of the two streams has ended.
    End,
}

impl Launcher {
    /// Does some jobs. `output` gets what a process prints; `is_cancelled` is asked all the time.
    pub fn run(&self, jobs: Vec<Job>, output: &mut dyn FnMut(&[u8]), is_cancelled: &dyn Fn() -> bool) -> Outcome {
        let failed = |what: &str, e: &std::io::Error| Outcome::Failed(format!("{what}: {e}"), e.raw_os_error(), vec![]);
        let order = Order { is_rootless: self.ids.is_some(), jobs };
        let order = match message(&order) {
            Ok(order) => order,
            Err(e) => return failed("paths of the store and of mounts have to be UTF-8", &e),
        };
        let mut command = Command::new(&self.program);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => return failed(&format!("cannot start `{}`", self.program.display()), &e),
        };
        let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (send, events) = channel();
        let mut last: Option<Outcome> = None;
        let kept = &mut last;
        std::thread::scope(|scope| {
            if let Some(stdout) = stdout {
                let send = send.clone();
                scope.spawn(move || {
                    for line in BufReader::new(stdout).lines() {
                        let Ok(line) = line else { break };
                        let event = serde_json::from_str(&line).map_or(Event::Garbage(line), Event::Answer);
                        let _ = send.send(event);
                    }
                    let _ = send.send(Event::End);
                });
            }
            if let Some(mut stderr) = stderr {
                scope.spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(len @ 1..) = stderr.read(&mut buffer) {
                        let _ = send.send(Event::Output(buffer[..len].to_vec()));
                    }
                    let _ = send.send(Event::End);
                });
            }
            // An order can be longer than a pipe holds, and the helper reads it before it says anything.
            if let Some(Err(e)) = stdin.as_mut().map(|stdin| stdin.write_all(&order)) {
                *kept = Some(failed("cannot talk to the helper process", &e));
            }
            let mut open = 2;
            let mut is_stopping = false;
            while open > 0 {
                match events.recv_timeout(TICK) {
                    Ok(Event::End) => open -= 1,
                    Ok(Event::Output(bytes)) => output(&bytes),
                    Ok(Event::Garbage(line)) => *kept = Some(Outcome::Failed(format!("the helper process said `{line}`"), None, vec![])),
                    Ok(Event::Answer(answer)) => {
                        if let Some(outcome) = self.answer(answer, &mut stdin) {
                            // The first failure is the reason of those after it.
                            if matches!(kept, None | Some(Outcome::Done)) {
                                *kept = Some(outcome);
                            }
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if !is_stopping && is_cancelled() {
                    is_stopping = true;
                    if let Some(stdin) = &mut stdin {
                        let _ = stdin.write_all(b"T");
                    }
                    // Without a process to signal, the end of its input ends the helper at the next job.
                    *kept = Some(Outcome::Interrupted);
                }
            }
        });
        drop(stdin);
        let status = child.wait();
        if is_cancelled() {
            return Outcome::Interrupted;
        }
        last.unwrap_or_else(|| match status {
            Ok(status) => Outcome::Failed(format!("the helper process ended without an answer ({status})"), None, vec![]),
            Err(e) => failed("cannot wait for the helper process", &e),
        })
    }

    fn answer(&self, answer: Answer, stdin: &mut Option<ChildStdin>) -> Option<Outcome> {
        let no_ids = |no: NoIds| Outcome::Failed(no.why, None, no.help);
        match answer {
            Answer::WantsMaps { pid } => {
                if let Err(no) = self.ids.as_ref().map_or(Ok(()), |ids| ids.write(pid)) {
                    // The end of its input ends it.
                    *stdin = None;
                    return Some(no_ids(no));
                }
                if let Some(stdin) = stdin {
                    let _ = stdin.write_all(b"G");
                }
                None
            }
            Answer::Done => Some(Outcome::Done),
            Answer::Ended { status: 0 } => None,
            Answer::Ended { status } => Some(Outcome::Exited(status)),
            Answer::NotStarted { status, why } => Some(Outcome::NotStarted(status, why)),
            Answer::Mount { index, why } => Some(Outcome::Mount(index, why)),
            Answer::Failed { why, errno } if why.starts_with("cannot make a user namespace") => {
                let NoIds { why, help } = no_namespace(&why);
                Some(Outcome::Failed(why, errno, help))
            }
            Answer::Failed { why, errno } => Some(Outcome::Failed(why, errno, vec![])),
        }
    }
}

/// The program that this process runs, for starting it anew.
pub(crate) fn this_program() -> PathBuf {
    // `/proc/self/exe` works also when the file was replaced or removed since.
    Path::new("/proc/self/exe").into()
}
