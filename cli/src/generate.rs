//! `ukc completion` and `ukc man`: what shells and man(1) need, made from the flags themselves.

use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::{Cli, CompletionArgs, ManArgs};
use crate::report::{self, Failure};

/// Prints a shell's completion script.
pub fn completion(args: &CompletionArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ukc", &mut script);
    report::output(&String::from_utf8_lossy(&script)).map(|()| 0)
}

/// Writes `ukc.1` and a page for each command to a directory, or prints the first.
pub fn man(args: &ManArgs) -> Result<u8, Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.dir else { return report::output(&page(command)?).map(|()| 0) };
    let io = |path: &Path, e: std::io::Error| Failure::new(format!("cannot write `{}`: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
    let subs: Vec<clap::Command> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help").cloned().collect();
    for sub in std::iter::once(command).chain(subs) {
        let name = sub.get_display_name().unwrap_or_else(|| sub.get_name()).replace(' ', "-");
        let path = dir.join(format!("{name}.1"));
        std::fs::write(&path, page(sub)?).map_err(|e| io(&path, e))?;
    }
    Ok(0)
}

fn page(command: clap::Command) -> Result<String, Failure> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(|e| Failure::new(e.to_string()))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
