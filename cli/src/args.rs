//! The flags, as clap sees them. Names and meanings follow `docker build` and `docker run`.

pub mod machines;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ukc_driver::Stage;
use ukc_driver::output::Output;

use crate::network::NetworkArgs;

const BUILD_EXAMPLES: &str = "\
Examples:
  ukc build .                                  build the Dockerfile of this directory into the local store
  ukc build -t app -f deploy/Dockerfile .      with a name and another Dockerfile
  ukc build -o out .                           write out/kernel.elf, out/rootfs.ext4 and out/image.json
  ukc build --build-context debian:12=oci-layout://base:12 .
                                               take the image debian:12 from an OCI layout
  ukc build --emit plan .                      print which kernel modules the image would get, and why";

const VERIFY_EXAMPLES: &str = "\
Examples:
  ukc verify app .                             build this directory again; exit status 5 when the image `app` differs
  ukc verify out -f deploy/Dockerfile .        the same for an image directory";

const RUN_EXAMPLES: &str = "\
Examples:
  ukc run .                                    build the Dockerfile of this directory and boot it
  ukc run -p 8080:80 app                       boot an image of the local store; its port 80 is ours at 127.0.0.1:8080
  ukc run out                                  boot an image directory that `ukc build -o out` wrote
  ukc run -e MODE=test app -- --verbose        set a variable and replace CMD
  ukc run --trace app                          print every system call on the console
  ukc run -d --name web -p 8080:80 app         in the background; see `ukc ps`, `ukc logs web`, `ukc stop web`

The program's exit status becomes ours; 125 means that ukc itself failed, 126 and 127 that the program could not be started.";

const CHECK_EXAMPLES: &str = "\
Examples:
  ukc check --program /usr/sbin/nginx          a program of this machine
  ukc check --program /app/server --root tree  a program of a root file system in a directory
  ukc check --program ./server --format json   for other programs

The status is 0; with --strict it is 3 for a program that needs a Linux kernel.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  ukc explain app                              the guest and the kernel's modules, each with its reasons
  ukc explain app syscall:socket               who makes it: program, libraries, function and offset; and who answers
  ukc explain app file:libssl.so.3             what brought the library in
  ukc explain app --size                       the kernel's bytes by crate";

const DIFF_EXAMPLES: &str = "\
Examples:
  ukc diff app:1 app:2                         system calls, modules, files, packages, ports that came and went
  ukc diff --format sarif app:1 app:2          the policy's violations, for a code host

The `growth` of `[policy]` in ./ukc.toml says what may grow; what grows against it ends the command with 1.";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  ukc completion bash > /etc/bash_completion.d/ukc
  ukc completion zsh > \"${fpath[1]}/_ukc\"
  ukc completion fish > ~/.config/fish/completions/ukc.fish
  ukc completion powershell >> $PROFILE";

/// Compiles a Dockerfile into a bootable virtual machine image with one application and the operating system it uses.
#[derive(Debug, Parser)]
#[command(
    name = "ukc",
    version,
    max_term_width = 120,
    after_help = "`ukc COMMAND --help` has examples. ukc sends nothing anywhere: there is no telemetry."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    #[command(after_help = BUILD_EXAMPLES)]
    Build(Box<BuildArgs>),
    /// Boot an image, or build a directory and boot that
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// List the images of the local store
    #[command(visible_alias = "ls")]
    Images(ImagesArgs),
    /// Remove machines that have ended, or images from the local store, by name or id
    #[command(visible_alias = "rmi")]
    Rm(RmArgs),
    /// Remove the images that have no name
    Prune,
    /// Print everything that is known about an image or a machine, as JSON
    Inspect(InspectArgs),
    /// Build an image again and say what differs first
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Box<VerifyArgs>),
    /// List the machines that run
    Ps(machines::PsArgs),
    /// Print what a machine in the background printed
    Logs(machines::LogsArgs),
    /// Ask the programs of machines to end, as their STOPSIGNAL does
    Stop(machines::StopArgs),
    /// End machines at once, or send a signal to their programs
    Kill(machines::KillArgs),
    /// Wait for machines to end, and print their programs' statuses
    Wait(machines::WaitArgs),
    /// Say which system calls a program can make, what the libOS makes of them, and which guest is right
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Say why an image has a system call, a kernel module or a library
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Compare two images: what can be reached in the new one that could not be before
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Say what this machine lacks for building and running, and how to get it
    Doctor(DoctorArgs),
    /// Print a script that completes commands and flags
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion(CompletionArgs),
    /// Write the manual as man pages
    Man(ManArgs),
    /// Watch over a machine in the background: what `ukc run -d` starts
    #[command(hide = true)]
    Supervise(machines::SuperviseArgs),
}

/// What says how to build; `run` takes it too.
#[derive(Debug, Args)]
pub struct Source {
    /// The Dockerfile, relative to the current directory; `-` reads standard input [default: PATH/Dockerfile, then PATH/Containerfile]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Stage to build, by name or number [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Value of an ARG; without one, the environment's
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// What stands for an image, a stage or a name in the Dockerfile
    #[arg(long = "build-context", value_name = "NAME=DIR|oci-layout://DIR[:TAG]|docker-image://IMAGE")]
    pub build_contexts: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Platform of base images; ukc makes linux/amd64 images
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Look up the tags of images again though they are in the local store
    #[arg(long)]
    pub pull: bool,
    #[command(flatten)]
    pub network_args: NetworkArgs,
    /// Run every RUN again
    #[arg(long)]
    pub no_cache: bool,
    /// Run the RUNs of this stage again
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// A secret for `RUN --mount=type=secret`
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub secrets: Vec<String>,
    /// An agent for `RUN --mount=type=ssh` [default socket: SSH_AUTH_SOCK]
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET]")]
    pub ssh: Vec<String>,
    /// Network of the RUNs that do not say themselves
    #[arg(long, value_name = "default|none|host")]
    pub network: Option<String>,
    /// Let RUN do more than usual
    #[arg(long = "allow", value_name = "network.host|security.insecure")]
    pub allow: Vec<String>,
    /// A further line of RUN's /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub add_hosts: Vec<String>,
    /// Certificates that programs of RUN shall trust, such as those of a proxy
    #[arg(long = "ca-bundle", value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,
    /// How to show progress on standard error
    #[arg(long, value_enum, value_name = "MODE")]
    pub progress: Option<ProgressMode>,
    /// Link this system call into the kernel though the analysis did not find it
    #[arg(long = "syscall", value_name = "NAME")]
    pub syscalls: Vec<String>,
    /// Link this kernel module though nothing asks for it
    #[arg(long = "module", value_name = "NAME")]
    pub modules: Vec<String>,
    /// What the program shall run on [default: auto]
    #[arg(long, value_enum, value_name = "GUEST")]
    pub guest: Option<Guest>,
    /// Fail, with status 3, when code that can run makes calls that the libOS does not have
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub ignored: Ignored,
}

/// See `--guest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Guest {
    /// Whichever is right by the analysis
    Auto,
    /// The libOS, whatever the analysis says
    Libos,
    /// A Linux kernel; refused in this version
    Linux,
}

impl From<Guest> for ukc_driver::GuestWish {
    fn from(guest: Guest) -> Self {
        match guest {
            Guest::Auto => Self::Auto,
            Guest::Libos => Self::Libos,
            Guest::Linux => Self::Linux,
        }
    }
}

/// Flags of `docker build` without a meaning here; each is mentioned once.
#[derive(Debug, Args)]
pub struct Ignored {
    #[arg(long, hide = true)]
    pub load: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rm: Option<String>,
    #[arg(long, hide = true)]
    pub force_rm: bool,
    #[arg(long, hide = true)]
    pub shm_size: Option<String>,
    #[arg(long, hide = true)]
    pub memory_swap: Option<String>,
    #[arg(long, hide = true)]
    pub cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    pub cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    pub ulimit: Vec<String>,
    #[arg(long, hide = true)]
    pub cgroup_parent: Option<String>,
    #[arg(long, hide = true)]
    pub isolation: Option<String>,
    #[arg(long, hide = true)]
    pub provenance: Option<String>,
    #[arg(long, hide = true)]
    pub sbom: Option<String>,
}

impl Ignored {
    /// Takes `--rm` out, which `run` knows, and returns whether it was given.
    pub fn take_rm(&mut self) -> bool {
        self.rm.take().is_some_and(|value| value != "false")
    }

    /// Returns the flags that were given, as the user wrote them.
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("--load", self.load),
            ("--rm", self.rm.is_some()),
            ("--force-rm", self.force_rm),
            ("--shm-size", self.shm_size.is_some()),
            ("--memory-swap", self.memory_swap.is_some()),
            ("--cpu-shares", self.cpu_shares.is_some()),
            ("--cpuset-cpus", self.cpuset_cpus.is_some()),
            ("--ulimit", !self.ulimit.is_empty()),
            ("--cgroup-parent", self.cgroup_parent.is_some()),
            ("--isolation", self.isolation.is_some()),
            ("--provenance", self.provenance.is_some()),
            ("--sbom", self.sbom.is_some()),
        ]
        .into_iter()
        .filter(|(_, is_given)| *is_given)
        .map(|(name, _)| name)
        .collect()
    }
}

/// See `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// One line per step
    Plain,
    /// Bars
    Tty,
    /// Nothing
    Quiet,
}

/// See `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// Build
    Build,
    /// What is wrong with the Dockerfile
    Check,
    /// Arguments, secrets and agents of the target
    Outline,
    /// Stages and their descriptions
    Targets,
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Directory with the files that the Dockerfile copies; `-` reads a Dockerfile from standard input and has no files
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    #[command(flatten)]
    pub source: Source,
    /// Name of the image in the local store
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// Write the image to this directory, or something else of it, instead of the local store
    #[arg(short = 'o', long = "output", value_name = "DIR|type=TYPE,dest=PATH")]
    pub outputs: Vec<Output>,
    /// Print the text form of a stage, and go no further than the last one asked for
    #[arg(long = "emit", value_name = "ast|graph|rootfs|facts|plan|map|image")]
    pub emit: Vec<Stage>,
    /// Print only the image's id, and no progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Only check the Dockerfile; warnings count as errors
    #[arg(long)]
    pub check: bool,
    /// Instead of building: check the Dockerfile, or list its arguments and secrets, or its targets
    #[arg(long, value_enum, value_name = "build|check|outline|targets")]
    pub call: Option<Call>,
    /// Write what came of the build to this file, as JSON: digests, names, and the image's document
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    #[arg(long, short = 'm', hide = true)]
    pub memory: Option<String>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Image in the local store, image directory, or directory to build
    #[arg(value_name = "NAME|PATH")]
    pub image: String,
    #[command(flatten)]
    pub source: Source,
    /// Let a port of this machine lead to one of the guest [default address: 127.0.0.1]
    #[arg(short = 'p', long = "publish", value_name = "[ADDR:]HOST:GUEST[/udp]")]
    pub publish: Vec<String>,
    /// Set a variable; without a value, to that of the environment
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Keep what the program writes below a path: a named volume, or a disk image with a slash or dot in front; made when missing
    #[arg(short = 'v', long = "volume", value_name = "NAME|FILE:PATH[:ro]")]
    pub volumes: Vec<String>,
    /// Size of volumes that are made, as 64m or 1g [default: 1g, of which only what is used takes room]
    #[arg(long, value_name = "SIZE")]
    pub volume_size: Option<String>,
    /// Run the machine in the background and print its id
    #[arg(short = 'd', long, conflicts_with = "interactive")]
    pub detach: bool,
    /// Name of the machine [default: one made of the image's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Connect standard input to the console
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Memory of the machine, as 64m or 1g [default: what the image needs, and room to work]
    #[arg(short = 'm', long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Processors of the machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: u32,
    /// Load the root file system to memory before boot: the default
    #[arg(long, conflicts_with = "disk")]
    pub initrd: bool,
    /// Attach the root file system as a disk
    #[arg(long)]
    pub disk: bool,
    /// Board that QEMU emulates
    #[arg(long, value_enum, default_value = "microvm")]
    pub machine: Machine,
    /// Print the program's system calls on the console
    #[arg(long)]
    pub trace: bool,
    /// No progress and no remarks, only the program's output and errors
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Print QEMU's command line and do not start it
    #[arg(long)]
    pub dry_run: bool,
    /// Arguments for the program, in place of CMD
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// See `--machine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Machine {
    Microvm,
    Pc,
    Q35,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Print only ids
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// How to print them
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// The same as `--format json`
    #[arg(long, hide = true)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names or ids; a machine's comes before an image's
    #[arg(required = true, value_name = "MACHINE|IMAGE")]
    pub names: Vec<String>,
    /// Remove an image with all its names, and a machine that runs
    #[arg(short = 'f', long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Image in the local store or image directory
    #[arg(value_name = "NAME|PATH")]
    pub image: String,
    /// The build context it was made from
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub path: PathBuf,
    #[command(flatten)]
    pub source: Source,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Image in the local store, image directory, or machine
    #[arg(value_name = "NAME|PATH")]
    pub image: String,
    /// How to print it
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "json")]
    pub format: InspectFormat,
}

/// See `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InspectFormat {
    /// The document with all that is known
    Json,
    /// A summary of an image for a pipeline's page
    Markdown,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The program, as this machine names it or as the root directory does
    #[arg(long, value_name = "FILE")]
    pub program: PathBuf,
    /// The root file system that it belongs to
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// How to print what was found
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub format: CheckFormat,
    /// End with 3 when the program needs a Linux kernel
    #[arg(long)]
    pub strict: bool,
    /// Arguments that the program is started with
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// See `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// A table and the verdict
    Text,
    /// A JSON document
    Json,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Image in the local store, or image directory
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// What to explain [default: the image]
    #[arg(value_name = "syscall:NAME|module:NAME|file:PATH")]
    pub topic: Option<String>,
    /// The kernel's bytes by the crate that they come from
    #[arg(long, conflicts_with_all = ["topic", "guest"])]
    pub size: bool,
    /// Only the choice of the guest
    #[arg(long, conflicts_with = "topic")]
    pub guest: bool,
    /// How to print it
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub format: ExplainFormat,
}

/// See `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExplainFormat {
    /// Lines for people
    Text,
    /// A JSON document
    Json,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The image before: a name in the local store, or an image directory
    #[arg(value_name = "OLD")]
    pub old: String,
    /// The image after
    #[arg(value_name = "NEW")]
    pub new: String,
    /// How to print the difference
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub format: DiffFormat,
    /// Print every name of long lists
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Do not look into the root file systems
    #[arg(long)]
    pub no_files: bool,
}

/// See `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// Lines for people
    Text,
    /// A JSON document
    Json,
    /// What breaks the policy, as SARIF 2.1.0
    Sarif,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How to print the findings
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for `ukc.1` and a page for each command [default: print `ukc.1`]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// See `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// A JSON document with all that is known
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_flags_fit_together() {
        super::Cli::command().debug_assert();
    }
}
