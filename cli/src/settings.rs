//! Settings that are not on the command line: from the environment and from configuration files, as defaults of the flags.
//!
//! ```text
//! flag  >  UKC_BUILD_TARGET  >  CONTEXT/ukc.toml  >  $XDG_CONFIG_HOME/ukc/config.toml  >  /etc/ukc/config.toml
//! ```
//!
//! Every long flag of `ukc build` and `ukc run` can be set so; there is no list of settings besides that of the flags. The command line is read twice:
//! once to learn the context, and again with what was found there as defaults. `[build]` holds for builds that `ukc run` makes, too.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use ukc_config::{Config, FILE_NAME, Setting};
use ukc_diagnostics::{Diagnostic, SourceMap, suggest};

use crate::args::Cli;
use crate::places;
use crate::report::{self, Failure, USAGE};

/// The commands with settings.
const COMMANDS: [&str; 2] = ["build", "run"];

/// The system's configuration.
const SYSTEM_FILE: &str = "/etc/ukc/config.toml";

/// Reads the command line with everything that completes it. Usage errors, `--help` and `--version` end the process here, as clap has it.
pub fn parse() -> Result<(Cli, Config), Failure> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let matches = Cli::command().get_matches_from(&words);
    let mut sources = SourceMap::default();
    let failed = |sources: &SourceMap, found: &[Diagnostic]| {
        report::diagnostics(sources, found);
        Failure { status: USAGE, message: "the configuration cannot be used".to_owned() }
    };
    let config = Config::read(&files(&matches), &mut sources).map_err(|found| failed(&sources, &found))?;
    let mut defaults = Defaults::default();
    let command =
        COMMANDS.iter().fold(Cli::command(), |command, name| command.mut_subcommand(name, |sub| defaults.apply(sub, name, &config)));
    if !defaults.found.is_empty() {
        return Err(failed(&sources, &defaults.found));
    }
    let matches = command.try_get_matches_from(&words).map_err(|error| defaults.failure(&error, &sources))?;
    // What the flags are read into fits them, or clap's own checks of the commands would have said so.
    let cli = Cli::from_arg_matches(&matches).map_err(|error| Failure::usage(error.to_string()))?;
    Ok((cli, config))
}

/// Returns the configuration files, the strongest first.
fn files(matches: &ArgMatches) -> Vec<PathBuf> {
    let context = match matches.subcommand() {
        Some(("build", sub)) => sub.get_one::<PathBuf>("path").cloned(),
        Some(("run", sub)) => sub.get_one::<String>("image").map(PathBuf::from),
        // Where the policy stands.
        Some(("diff", _)) => Some(PathBuf::from(".")),
        _ => None,
    };
    let context = context.filter(|path| path.is_dir()).map(|path| path.join(FILE_NAME));
    context.into_iter().chain(places::config().ok().map(|dir| dir.join("config.toml"))).chain([PathBuf::from(SYSTEM_FILE)]).collect()
}

/// Where a default comes from.
enum Place {
    Variable(String),
    File(Setting),
}

/// The defaults that were found, and what is wrong with them.
#[derive(Default)]
struct Defaults {
    /// By flag, as clap's errors name it: `--cpus`.
    given: Vec<(String, Place)>,
    found: Vec<Diagnostic>,
}

impl Defaults {
    /// Gives a command's flags their defaults.
    fn apply(&mut self, command: Command, name: &str, config: &Config) -> Command {
        let flags: Vec<Arg> = command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "help")).cloned().collect();
        let names: Vec<&str> = flags.iter().filter(|f| !f.is_hide_set()).filter_map(|f| f.get_long()).collect();
        for (key, setting) in config.of(name).filter(|(key, _)| !flags.iter().any(|f| f.get_long() == Some(key))) {
            let mut diagnostic =
                Diagnostic::error("configuration", format!("`ukc {name}` has no flag `--{key}`")).at(setting.span, "no such setting");
            if let Some(close) = suggest::closest(key, names.iter().copied()) {
                diagnostic = diagnostic.help(format!("did you mean `{close}`?"));
            }
            self.found.push(diagnostic);
        }
        flags.into_iter().fold(command, |command, flag| match self.of_flag(&flag, name, config) {
            Some(values) => command.mut_arg(flag.get_id().clone(), |arg| arg.default_values(values)),
            None => command,
        })
    }

    fn of_flag(&mut self, flag: &Arg, name: &str, config: &Config) -> Option<Vec<OsString>> {
        let long = flag.get_long()?;
        let is_repeated = matches!(flag.get_action(), ArgAction::Append);
        let variable = format!("UKC_{name}_{long}").to_uppercase().replace('-', "_");
        if let Some(value) = std::env::var_os(&variable).filter(|value| !value.is_empty()) {
            self.given.push((format!("--{long}"), Place::Variable(variable)));
            // Several values are words; none of these flags takes text with spaces that matter.
            return Some(match value.to_str() {
                Some(text) if is_repeated => text.split_ascii_whitespace().map(OsString::from).collect(),
                _ => vec![value],
            });
        }
        let of = |command| config.of(command).find(|(key, _)| *key == long).map(|(_, setting)| setting.clone());
        let setting = of(name).or_else(|| if name == "run" { of("build") } else { None })?;
        if setting.values.len() > 1 && !is_repeated {
            self.found
                .push(Diagnostic::error("configuration", format!("`--{long}` takes one value")).at(setting.span, "several are given"));
            return None;
        }
        let is_path = flag.get_value_parser().type_id() == TypeId::of::<PathBuf>();
        let text = |value: &String| if is_path && value != "-" { setting.directory.join(value).into_os_string() } else { value.into() };
        let values = setting.values.iter().map(text).collect();
        self.given.push((format!("--{long}"), Place::File(setting)));
        Some(values)
    }

    /// Says where a value that clap refuses comes from.
    fn failure(&self, error: &clap::Error, sources: &SourceMap) -> Failure {
        let flag = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(flag)) => flag.split_ascii_whitespace().next().unwrap_or_default(),
            _ => "",
        };
        let message = error.to_string();
        let sentence = message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        match self.given.iter().find(|(given, _)| given == flag) {
            Some((_, Place::Variable(variable))) => Failure::usage(format!("{sentence}; it comes from the variable {variable}")),
            Some((_, Place::File(setting))) => {
                report::diagnostics(sources, &[Diagnostic::error("configuration", sentence).at(setting.span, "")]);
                Failure { status: USAGE, message: "the configuration cannot be used".to_owned() }
            }
            None => error.exit(),
        }
    }
}
