//! The `ukc` binary: flags, terminal output, exit status; no logic of its own.
//!
//! Results go to standard output, progress and messages to standard error. Exit status: 0 done, 1 the build or command failed, 2 usage, 4 a
//! registry or the network failed, 130 interrupted; `ukc run` passes the program's, and has 125 for its own failures.
#![forbid(unsafe_code)]

mod args;
mod build;
mod check;
mod containers;
mod diff;
mod doctor;
mod explain;
mod generate;
mod image_commands;
mod interrupt;
mod launch;
mod machine_commands;
mod markdown;
mod network;
mod outputs;
mod places;
mod probe;
mod progress;
mod report;
mod run;
mod settings;
mod steps;
mod supervise;
mod table;
mod units;
mod verify;
mod volumes;

use std::process::ExitCode;

use args::Command;
use report::Failure;

fn main() -> ExitCode {
    // A step of a build runs in processes that are this program again; nothing else may happen in them.
    if let Some(code) = ukc_driver::sandbox::dispatch() {
        return code;
    }
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(Failure { status, message }) => {
            if !message.is_empty() {
                report::error(&message);
            }
            ExitCode::from(status)
        }
    }
}

fn run() -> Result<u8, Failure> {
    let (cli, config) = settings::parse()?;
    match cli.command {
        Command::Build(args) => build::command(*args, &config),
        Command::Run(args) => run::command(*args, &config),
        Command::Images(args) => image_commands::images(&args),
        Command::Rm(args) => image_commands::rm(&args),
        Command::Prune => image_commands::prune(),
        Command::Inspect(args) => image_commands::inspect(&args),
        Command::Verify(args) => verify::command(&args, &config),
        Command::Ps(args) => machine_commands::ps(&args),
        Command::Logs(args) => machine_commands::logs(&args),
        Command::Stop(args) => machine_commands::stop(&args),
        Command::Kill(args) => machine_commands::kill(&args),
        Command::Wait(args) => machine_commands::wait(&args),
        Command::Check(args) => check::command(&args, &config),
        Command::Diff(args) => diff::command(&args, &config),
        Command::Explain(args) => explain::command(&args),
        Command::Doctor(args) => doctor::command(&args),
        Command::Completion(args) => generate::completion(&args),
        Command::Man(args) => generate::man(&args),
        Command::Supervise(args) => supervise::command(&args),
    }
}
