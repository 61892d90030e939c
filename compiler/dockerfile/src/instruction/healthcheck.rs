//! HEALTHCHECK.

use super::flags::{Flags, Kind, Spec};
use super::{Cursor, broken_exec_form};
use crate::ast::{Command, Healthcheck};
use crate::value::duration;
use std::time::Duration;
use ukc_diagnostics::{Diagnostic, suggest};

const FLAGS: [Spec; 5] = [
    Spec::new("interval", Kind::One),
    Spec::new("timeout", Kind::One),
    Spec::new("start-period", Kind::One),
    Spec::new("start-interval", Kind::One),
    Spec::new("retries", Kind::One),
];

pub(super) fn parse(cursor: &mut Cursor) -> Option<Healthcheck> {
    let flags = cursor.flags("HEALTHCHECK", &FLAGS);
    let rest = cursor.raw.rest.clone();
    let line = cursor.str(rest.clone());
    let kind_end = rest.start + line.find(char::is_whitespace).unwrap_or(line.len());
    let command_start = rest.end - cursor.str(kind_end..rest.end).trim_start().len();
    let kind = cursor.word(rest.start..kind_end);
    match kind.value.to_ascii_uppercase().as_str() {
        "NONE" => {
            if command_start < rest.end {
                let span = cursor.text.span(command_start..rest.end);
                cursor.error("too-many-arguments", span, "HEALTHCHECK NONE takes no arguments");
            }
            Some(Healthcheck::None)
        }
        "CMD" => {
            let command = cursor.command(command_start..rest.end);
            let is_empty = match &command {
                Command::Exec(argv) => argv.is_empty(),
                Command::Shell(text) => text.value.is_empty(),
            };
            if is_empty {
                cursor.error("missing-argument", kind.span, "a command is missing after HEALTHCHECK CMD");
            }
            if let Command::Shell(text) = &command
                && let Some(why) = broken_exec_form(text)
            {
                let message = "this looks like an exec form, but is run by the shell as it stands";
                cursor.problems.push(Diagnostic::warning("broken-exec-form", message).at(text.span, why));
            }
            Some(Healthcheck::Cmd {
                command,
                interval: time(cursor, &flags, "interval"),
                timeout: time(cursor, &flags, "timeout"),
                start_period: time(cursor, &flags, "start-period"),
                start_interval: time(cursor, &flags, "start-interval"),
                retries: retries(cursor, &flags),
            })
        }
        "" => {
            let span = cursor.line_span();
            cursor.error("missing-argument", span, "HEALTHCHECK needs `CMD command` or `NONE`");
            None
        }
        upper => {
            let help = match suggest::closest(upper, ["CMD", "NONE"]) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("write `CMD {}`", cursor.rest().value),
            };
            cursor.error("invalid-healthcheck", kind.span, format!("`{}` is neither `CMD` nor `NONE`", kind.value)).help.push(help);
            None
        }
    }
}

/// Zero means the default; anything else must be a millisecond at least (Docker's `MinimumDuration`).
fn time(cursor: &mut Cursor, flags: &Flags, name: &str) -> Option<Duration> {
    let word = flags.one(name)?;
    if word.value.is_empty() {
        return None;
    }
    match duration::parse(&word.value) {
        Ok(Duration::ZERO) => None,
        Ok(time) if time < Duration::from_millis(1) => {
            cursor.error("invalid-duration", word.span, format!("`--{name}` cannot be less than 1ms"));
            None
        }
        Ok(time) => Some(time),
        Err(message) => {
            cursor.error("invalid-duration", word.span, message);
            None
        }
    }
}

fn retries(cursor: &mut Cursor, flags: &Flags) -> Option<u32> {
    let word = flags.one("retries").filter(|w| !w.value.is_empty())?;
    match word.value.parse::<i32>() {
        Ok(n) if n >= 0 => Some(n as u32),
        Ok(_) => {
            cursor.error("invalid-flag-value", word.span, "`--retries` cannot be negative");
            None
        }
        Err(_) => {
            cursor.error("invalid-flag-value", word.span, format!("`--retries` is a number, not `{}`", word.value));
            None
        }
    }
}
