//! The flags of the commands for machines that run. Names and meanings follow docker's.

use clap::Args;

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Machines that have ended, too
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Print only ids
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// How to print them
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: super::Format,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name or id
    #[arg(value_name = "MACHINE")]
    pub machine: String,
    /// Go on printing until the machine ends
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only the last lines, and what follows [default: all]
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<usize>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Names or ids
    #[arg(required = true, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// How long the program may take to end before the machine is ended
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 10)]
    pub time: u32,
    /// Signal to send in place of the image's STOPSIGNAL
    #[arg(short = 's', long, value_name = "SIGNAL")]
    pub signal: Option<String>,
}

#[derive(Debug, Args)]
pub struct KillArgs {
    /// Names or ids
    #[arg(required = true, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Signal for the program; KILL ends the machine
    #[arg(short = 's', long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Names or ids
    #[arg(required = true, value_name = "MACHINE")]
    pub machines: Vec<String>,
}

#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// Id
    pub machine: String,
}
