//! `make bench`: measures images made by `ukc build` beside their peers and prints tables of ratios, in Markdown, on standard output.
//!
//! Every figure is taken in this run on this machine, and next to it stands the same figure of a peer: Debian's cloud kernel on the same QEMU with the
//! same program, or mke2fs on the same files. There are no limits here: the exit status only tells whether everything could be measured (1 if not).
//!
//! Environment: `QUICK=1` takes fewer and shorter samples (about two minutes instead of ten); `SOAK=SECONDS` sets how long the two soaks last;
//! `ONLY=boot,instructions,memory,root,build,http` picks tables; `UKC=FILE` measures another `ukc` than this workspace's.
//!
//! Needs: qemu-system-x86_64 (with TCG plugins, as Debian builds it), gcc, wrk, mke2fs, ip, unshare, apt-get and dpkg-deb (to fetch the peer's
//! kernel package; nothing is installed). Throughput is measured over a tap device in a network namespace of this process: as root, or as a user
//! that may create user namespaces and open `/dev/net/tun`.
//!
//! To add a table: one file in `tables/`, one line in [`TABLES`].
#![forbid(unsafe_code)]

mod cpio;
mod empty;
mod guest;
mod lab;
mod linux;
mod network;
mod plugin;
mod run;
mod table;
mod tables;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use lab::Lab;
use run::Result;

/// Takes the measurements of one table and prints it.
type Measure = fn(&Lab) -> Result<()>;

const TABLES: [(&str, Measure); 6] = [
    ("boot", tables::boot::measure),
    ("instructions", tables::instructions::measure),
    ("memory", tables::memory::measure),
    ("root", tables::root::measure),
    ("build", tables::build::measure),
    ("http", tables::http::measure),
];

/// Set in the process that runs inside the network namespace.
const INSIDE: &str = "UKC_BENCH_INSIDE";

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<bool> {
    if std::env::var_os(INSIDE).is_none() {
        // First what needs the outside world.
        linux::fetch()?;
        lab::build_ukc()?;
        let is_root = rustix::process::geteuid().is_root();
        let error = Command::new("unshare")
            .args(if is_root { &["--net", "--"][..] } else { &["--net", "--map-root-user", "--"] })
            .arg(std::env::current_exe()?)
            .env(INSIDE, "1")
            .exec();
        return Err(format!("cannot run `unshare`: {error}").into());
    }
    network::set_up()?;
    let lab = Lab::new()?;
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut is_complete = true;
    for (name, measure) in TABLES {
        if !only.is_empty() && !only.split(',').any(|o| o == name) {
            continue;
        }
        if let Err(error) = measure(&lab) {
            println!("\n{name}: could not be measured: {error}");
            is_complete = false;
        }
    }
    Ok(is_complete)
}
