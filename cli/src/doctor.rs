//! `ukc doctor`: what this machine lacks for building and running, and how to get it.
//!
//! What can be tried is tried: a RUN with a tiny program, and a boot of it. What cannot (a registry's answer) is left to the command that needs it.
//!
//! To add a check: a function that returns a [`Finding`], and a line in [`command`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use ukc_config::Config;
use ukc_diagnostics::SourceMap;
use ukc_driver::fetch::Cancel;
use ukc_driver::{Progress, Stage, compile};
use ukc_runtime_qemu::{Accelerator, Console, Outcome, Stop, run};

use crate::args::{Cli, Command as Sub, DoctorArgs, Format};
use crate::build::Prepared;
use crate::network::Transfers;
use crate::report::{self, FAILED, Failure};
use crate::{launch, places, probe, table, units};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// All is well.
    Ok,
    /// It works, but not as well as it could.
    Limited,
    /// Something that ukc is for does not work here.
    Missing,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// One sentence.
    finding: String,
    /// What to do, when something can be done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    help: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, finding: impl Into<String>) -> Finding {
        Finding { check, verdict, finding: finding.into(), help: vec![] }
    }

    fn help(mut self, text: impl Into<String>) -> Finding {
        self.help.push(text.into());
        self
    }
}

/// Runs the command.
pub fn command(args: &DoctorArgs) -> Result<u8, Failure> {
    let place = tempfile::tempdir().map_err(|e| Failure::new(format!("cannot make a temporary directory: {e}")))?;
    let accelerator = Accelerator::detect();
    let mut found = vec![store("cache", places::cache()), store("images", places::data()), build(place.path()), overlay()];
    let qemu = qemu();
    let has_qemu = qemu.verdict == Verdict::Ok;
    found.extend([qemu, virtualisation(&accelerator)]);
    if has_qemu {
        found.push(boot(place.path(), accelerator));
    }
    found.extend([certificates(), git()]);
    let out = match args.format {
        Format::Json => report::json(&found)?,
        Format::Table => {
            let word = |verdict| match verdict {
                Verdict::Ok => "ok",
                Verdict::Limited => "limited",
                Verdict::Missing => "missing",
            };
            let mut rows = Vec::new();
            for f in &found {
                rows.push(vec![word(f.verdict).to_owned(), f.check.to_owned(), f.finding.clone()]);
                rows.extend(f.help.iter().map(|help| vec![String::new(), String::new(), format!("→ {help}")]));
            }
            table::aligned(&rows)
        }
    };
    report::output(&out)?;
    Ok(if found.iter().any(|f| f.verdict == Verdict::Missing) { FAILED } else { 0 })
}

/// Whether a directory of ours can be written, and how much room there is.
fn store(check: &'static str, dir: Result<PathBuf, Failure>) -> Finding {
    /// A base image, its tree and an image of it fit into this.
    const ROOM_BYTES: u64 = 2 << 30;
    let dir = match dir {
        Ok(dir) => dir,
        Err(failure) => return Finding::new(check, Verdict::Missing, failure.message).help("set HOME"),
    };
    let shown = dir.display().to_string();
    if let Err(e) = std::fs::create_dir_all(&dir).and_then(|()| tempfile::tempfile_in(&dir)) {
        return Finding::new(check, Verdict::Missing, format!("`{shown}` cannot be written: {e}"));
    }
    match rustix::fs::statvfs(&dir) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let verdict = if free < ROOM_BYTES { Verdict::Limited } else { Verdict::Ok };
            let finding = Finding::new(check, verdict, format!("`{shown}` can be written, {} are free", units::size(free)));
            if free < ROOM_BYTES { finding.help("`ukc prune` removes what is not used") } else { finding }
        }
        Err(e) => Finding::new(check, Verdict::Limited, format!("`{shown}` can be written, its free space is not known: {e}")),
    }
}

/// Hears a build that says nothing.
struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _number: usize, _total: usize, _what: &str) -> bool {
        true
    }
}

/// Returns the request that builds the probe's image, with a store of its own.
fn request(place: &Path, dockerfile: &str) -> Result<Prepared, Failure> {
    use clap::Parser as _;

    let context = place.join("context");
    let io = |e: std::io::Error| Failure::new(format!("`{}`: {e}", context.display()));
    std::fs::create_dir_all(&context).map_err(io)?;
    std::fs::write(context.join("Dockerfile"), dockerfile).map_err(io)?;
    std::fs::write(context.join("probe"), probe::program()).map_err(io)?;
    let Ok(Cli { command: Sub::Build(args) }) = Cli::try_parse_from(["ukc".as_ref(), "build".as_ref(), context.as_os_str()]) else {
        return Err(Failure::new("the probe cannot be built"));
    };
    let mut prepared = Prepared::new(&context, &args.source, &Config::default(), Cancel::default(), &Transfers::default())?;
    prepared.request.store = place.join("content");
    prepared.request.analysis_cache = None;
    Ok(prepared)
}

/// Tries a RUN.
fn build(place: &Path) -> Finding {
    const DOCKERFILE: &str = "FROM scratch\nCOPY --chmod=755 probe /probe\nRUN [\"/probe\"]\n";
    let who = if rustix::process::geteuid().is_root() { "as root" } else { "without root" };
    let mut prepared = match request(place, DOCKERFILE) {
        Ok(prepared) => prepared,
        Err(failure) => return Finding::new("build", Verdict::Missing, failure.message),
    };
    prepared.request.last = Stage::Rootfs;
    match compile(&prepared.request, &mut SourceMap::default(), &mut Silent) {
        Ok(_) => Finding::new("build", Verdict::Ok, format!("RUN works {who}, in namespaces of its own")),
        Err(found) => {
            let first = found.iter().find(|d| d.is_error());
            let mut finding =
                Finding::new("build", Verdict::Missing, first.map_or_else(|| "RUN does not work".to_owned(), |d| d.message.clone()));
            finding.help = first.map(|d| d.notes.iter().chain(&d.help).cloned().collect()).unwrap_or_default();
            finding
        }
    }
}

fn overlay() -> Finding {
    let is_there = std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.lines().any(|line| line.trim().ends_with("overlay")));
    match is_there {
        true => Finding::new("overlayfs", Verdict::Ok, "the kernel has it: RUN starts without copying the root file system"),
        false => Finding::new("overlayfs", Verdict::Limited, "the kernel does not have it: every RUN copies the root file system first")
            .help("`modprobe overlay`, or a kernel with CONFIG_OVERLAY_FS"),
    }
}

fn qemu() -> Finding {
    let name = launch::qemu();
    let shown = name.display();
    match Command::new(&name).arg("--version").output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
            Finding::new("qemu", Verdict::Ok, text)
        }
        Ok(output) => {
            Finding::new("qemu", Verdict::Missing, format!("`{shown}` does not work: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(_) => Finding::new("qemu", Verdict::Missing, format!("`{shown}` is not installed, so images can be built but not run"))
            .help("`apt install qemu-system-x86` (Debian, Ubuntu), `dnf install qemu-system-x86` (Fedora), `brew install qemu`"),
    }
}

fn virtualisation(accelerator: &Accelerator) -> Finding {
    match accelerator {
        Accelerator::Kvm => Finding::new("kvm", Verdict::Ok, "machines run on the processor itself"),
        Accelerator::Tcg { reason } => Finding::new("kvm", Verdict::Limited, format!("machines are emulated, many times slower: {reason}")),
    }
}

/// Tries a boot.
fn boot(place: &Path, accelerator: Accelerator) -> Finding {
    match booted(place, accelerator) {
        Ok(time) => Finding::new("boot", Verdict::Ok, format!("a machine started, ran a program and ended in {}", units::duration(time))),
        Err(failure) => Finding::new("boot", Verdict::Missing, format!("a machine does not boot: {}", failure.message)),
    }
}

fn booted(place: &Path, accelerator: Accelerator) -> Result<Duration, Failure> {
    let prepared = request(place, "FROM scratch\nCOPY --chmod=755 probe /probe\nENTRYPOINT [\"/probe\"]\n")?;
    let compiled = compile(&prepared.request, &mut SourceMap::default(), &mut Silent);
    let image = compiled.ok().and_then(|c| c.image).ok_or_else(|| Failure::new("its image cannot be built"))?;
    let dir = place.join("image");
    let document = image.write(&dir, &|| false).map_err(|e| Failure::new(e.to_string()))?;
    let machine = launch::simple_machine(&document, &dir, accelerator)?;
    let start = Instant::now();
    let stop = Stop { signal: 15, grace: Duration::ZERO };
    match run(&machine, &stop, Console::Log(Box::new(std::io::sink())), None, |_| {}) {
        Ok(Outcome::Exited(0)) => Ok(start.elapsed()),
        Ok(other) => Err(Failure::new(format!("the program ended with {other:?}"))),
        Err(e) => Err(Failure::new(e.to_string())),
    }
}

fn certificates() -> Finding {
    const PLACES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    match given.into_iter().chain(PLACES.map(PathBuf::from)).find(|path| path.is_file()) {
        Some(path) => Finding::new("certificates", Verdict::Ok, format!("`{}` says which registries are trusted", path.display())),
        None => Finding::new("certificates", Verdict::Limited, "there are no certificates of authorities, so registries cannot be trusted")
            .help("`apt install ca-certificates`, or set SSL_CERT_FILE"),
    }
}

fn git() -> Finding {
    match Command::new("git").arg("--version").output() {
        Ok(output) if output.status.success() => {
            Finding::new("git", Verdict::Ok, String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => Finding::new("git", Verdict::Limited, "it is not installed: repositories cannot be build contexts, nor sources of ADD")
            .help("`apt install git`"),
    }
}
