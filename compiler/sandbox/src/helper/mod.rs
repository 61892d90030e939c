//! The helper process: does the jobs of an [`Order`], in a user namespace of its own if it has to.
//!
//! It is started anew (`ukc __run`) and has one thread, because namespaces belong to threads and a program with threads cannot enter a user namespace
//! (unshare(2)). A run needs one process more (`ukc __run init`), the first one of the new pid namespace.
//!
//! It ends when its standard input does: whoever ordered it is gone then, and what runs is killed.

mod init;
mod lo;
mod mount;
mod scan;
mod write;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid, chown};
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::thread::UnshareFlags;

use crate::record;
use crate::spec::{Answer, Job, NodeSpec, Order, RunSpec};

/// First argument of the helper.
pub(crate) const ARGUMENT: &str = "__run";
/// Second argument of the process that becomes the command.
pub(crate) const INIT: &str = "init";
/// Exit status after an [`Answer`] that is a failure.
const FAILED: u8 = 125;
/// How long a process that handles a signal has to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a job failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    why: String,
    errno: Option<i32>,
}

impl Trouble {
    pub(crate) fn new(why: impl Into<String>) -> Trouble {
        Trouble { why: why.into(), errno: None }
    }

    pub(crate) fn io(what: impl std::fmt::Display, error: &io::Error) -> Trouble {
        Trouble { why: format!("{what}: {error}"), errno: error.raw_os_error() }
    }

    /// Trouble with a path below `root`; `owner` is who should have got it.
    pub(crate) fn at(root: &Path, path: &[u8], error: &io::Error, owner: Option<(u32, u32)>) -> Trouble {
        let shown = format!("/{}", path.escape_ascii());
        let mut trouble = Trouble::io(format!("`{shown}` (in `{}`)", root.display()), error);
        // An id without a mapping cannot be given to a file (user_namespaces(7)).
        if let (Some(22), Some((uid, gid))) = (trouble.errno, owner) {
            trouble.why =
                format!("`{shown}` belongs to {uid}:{gid}, and there is no such id in this user's ranges (/etc/subuid, /etc/subgid)");
        }
        trouble
    }
}

/// Calls the helper if this process was started to be one.
pub fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let result = match arguments.next() {
        None => serve(),
        Some(word) if word == INIT => init::run(),
        Some(_) => Err(Trouble::new("`__run` is for ukc itself")),
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble { why, errno }) => {
            answer(&Answer::Failed { why, errno });
            ExitCode::from(FAILED)
        }
    })
}

/// Writes an answer; when nobody reads it any more there is nobody to tell.
fn answer(answer: &Answer) {
    answer_to(&mut io::stdout().lock(), answer);
}

fn answer_to(out: &mut impl Write, answer: &Answer) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// Reads one message: its length and its bytes.
fn read_message<T: serde::de::DeserializeOwned>() -> Result<T, Trouble> {
    let fail = |e: io::Error| Trouble::io("cannot read the order", &e);
    // Not through the buffer of `io::stdin`, which would swallow what comes after.
    let mut input = fs::File::from(rustix::io::dup(rustix::stdio::stdin()).map_err(|e| fail(e.into()))?);
    let mut len = [0; 4];
    input.read_exact(&mut len).map_err(fail)?;
    let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
    input.read_exact(&mut bytes).map_err(fail)?;
    serde_json::from_slice(&bytes).map_err(|e| Trouble::new(format!("cannot understand the order: {e}")))
}

pub(crate) fn message<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let len = u32::try_from(json.len()).map_err(|_| io::Error::other("an order of more than 4 GiB"))?;
    Ok([len.to_le_bytes().as_slice(), &json].concat())
}

fn serve() -> Result<(), Trouble> {
    // Out of the terminal's process group: Ctrl-C is for the parent, who decides what it means.
    let _ = rustix::process::setsid();
    let order: Order = read_message()?;
    if order.is_rootless {
        enter_user_namespace()?;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut before = None;
    for job in &order.jobs {
        // After its order the parent says something only to end the work; the end of the input means the same.
        let mut input = [PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN)];
        if poll(&mut input, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
            return Err(Trouble::new("given up"));
        }
        match job {
            Job::Probe { dir } => probe(dir)?,
            Job::Materialise { record, dir } => {
                let base = record.parent().unwrap_or(record);
                let changes = record::read(record, base).map_err(|e| Trouble::io("cannot read what to write", &e))?;
                write::materialise(dir, &changes)?;
            }
            Job::MakeDir { path, node } => make_dir(path, node)?,
            Job::Give { path, node } => give(path, node)?,
            Job::Run(spec) => {
                if let crate::spec::RootSpec::Plain(root) = &spec.root {
                    before = Some(scan::remember(root)?);
                }
                if !run(spec)? {
                    return Ok(());
                }
            }
            Job::Scan { root, record, own_dir, hidden } => {
                let changes = scan::scan(root, before.as_ref(), own_dir, hidden, order.is_rootless)?;
                let base = record.parent().unwrap_or(record);
                record::write(record, base, &changes).map_err(|e| Trouble::io("cannot write what was changed", &e))?;
            }
            Job::Remove { path } => remove(path)?,
        }
    }
    answer(&Answer::Done);
    Ok(())
}

fn make_dir(path: &Path, node: &NodeSpec) -> Result<(), Trouble> {
    match fs::create_dir(path) {
        Ok(()) => give(path, node),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Trouble::io(format!("cannot make `{}`", path.display()), &e)),
    }
}

fn give(path: &Path, node: &NodeSpec) -> Result<(), Trouble> {
    chown(path, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))
        .map_err(io::Error::from)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(node.mode)))
        .map_err(|e| Trouble::io(format!("cannot give `{}` to {}:{}", path.display(), node.uid, node.gid), &e))
}

/// Removes a file or a directory; one without permissions is no obstacle to whoever owns the user namespace.
fn remove(path: &Path) -> Result<(), Trouble> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    match if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) } {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Trouble::io(format!("cannot remove `{}`", path.display()), &e)),
        _ => Ok(()),
    }
}

/// Leaves namespaces. The file descriptor table is not among them, which is what could break the rules of safe code (rustix, `unshare_unsafe`).
#[allow(deprecated)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flags)?)
}

fn enter_user_namespace() -> Result<(), Trouble> {
    unshare(UnshareFlags::NEWUSER).map_err(|e| Trouble::io("cannot make a user namespace", &e))?;
    answer(&Answer::WantsMaps { pid: rustix::process::getpid().as_raw_nonzero().get() });
    let mut go = [0];
    let read = rustix::io::read(rustix::stdio::stdin(), &mut go).map_err(|e| Trouble::io("cannot read the answer", &e.into()))?;
    if read != 1 || go != *b"G" {
        return Err(Trouble::new("the identity maps were not written"));
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .and_then(|()| rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT))
        .map_err(|e| Trouble::io("cannot become root in the user namespace", &e.into()))
}

/// Mounts an overlay, with the options that runs use, in a mount namespace that ends with this process.
fn probe(dir: &Path) -> Result<(), Trouble> {
    let fail = |e: io::Error| Trouble::io("overlay mounts do not work here", &e);
    unshare(UnshareFlags::NEWNS).map_err(fail)?;
    mount::make_private().map_err(fail)?;
    for name in ["lower", "upper", "work", "root"] {
        fs::create_dir(dir.join(name)).map_err(fail)?;
    }
    let lower = [dir.join("lower")];
    mount::overlay(dir, &lower, Some((&dir.join("upper"), &dir.join("work"))), &dir.join("root"), true).map_err(fail)?;
    // Some file systems can be mounted over but not keep what was removed.
    fs::create_dir(dir.join("root/x")).map_err(fail)?;
    mount::detach(&dir.join("root")).map_err(fail)
}

/// Runs the process and says how it ended; `false` when it did not succeed.
fn run(spec: &RunSpec) -> Result<bool, Trouble> {
    let mut flags = UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if spec.is_offline {
        flags |= UnshareFlags::NEWNET;
    }
    unshare(flags).map_err(|e| Trouble::io("cannot make namespaces", &e))?;
    if spec.is_offline {
        lo::up().map_err(|e| Trouble::io("cannot bring the loopback interface up", &e))?;
    }
    let fail = |e: io::Error| Trouble::io("cannot start the first process", &e);
    let mut child = Command::new("/proc/self/exe").args([ARGUMENT, INIT]).stdin(Stdio::piped()).spawn().map_err(fail)?;
    let sent = message(spec).and_then(|bytes| child.stdin.take().expect("it is piped").write_all(&bytes));
    if let Err(e) = sent {
        let _ = child.kill();
        let _ = child.wait();
        return Err(fail(e));
    }
    watch(&child).map_err(|e| Trouble::io("cannot watch the process", &e)).inspect_err(|_| drop(child.kill()))?;
    // When the first process of a pid namespace is gone, so are all others of it (pid_namespaces(7)).
    let status = child.wait().map_err(fail)?;
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    answer(&Answer::Ended { status });
    Ok(status == 0)
}

/// Returns when the process has ended, which it has to when the parent says so or is gone.
fn watch(child: &Child) -> io::Result<()> {
    let pid = rustix::process::Pid::from_child(child);
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let stdin = rustix::stdio::stdin();
    let mut kill_at: Option<Instant> = None;
    let mut is_alone = false;
    loop {
        let mut events = vec![PollFd::new(&process, PollFlags::IN)];
        if !is_alone {
            events.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        let timeout = kill_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match poll(&mut events, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        if !events[0].revents().is_empty() {
            return Ok(());
        }
        if events.get(1).is_some_and(|e| !e.revents().is_empty()) {
            let mut byte = [0];
            let signal = match rustix::io::read(stdin, &mut byte) {
                Ok(1) if byte == *b"I" => Signal::INT,
                Ok(1) if byte == *b"T" => Signal::TERM,
                Err(rustix::io::Errno::INTR) => continue,
                _ => {
                    is_alone = true;
                    Signal::KILL
                }
            };
            // The first process of a namespace gets no signal that it has no handler for (pid_namespaces(7)).
            if signal == Signal::KILL || !handles(pid, signal) {
                kill_process(pid, Signal::KILL)?;
            } else {
                kill_process(pid, signal)?;
                kill_at = Some(kill_at.unwrap_or(Instant::now() + PATIENCE));
            }
        }
        if kill_at.is_some_and(|at| at <= Instant::now()) {
            kill_process(pid, Signal::KILL)?;
            kill_at = None;
        }
    }
}

/// Whether a process has a handler for a signal (proc(5), `SigCgt`).
fn handles(pid: rustix::process::Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}
