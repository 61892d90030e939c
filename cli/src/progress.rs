//! Progress on standard error: a spinner above finished steps on a terminal, one line per step elsewhere, or nothing.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ukc_driver::Progress;

use crate::args::ProgressMode;
use crate::interrupt::Interrupt;
use crate::units;

/// Plain lines mention a step's time from here on.
const NOTABLE: Duration = Duration::from_millis(100);

/// Shows steps.
pub struct Display<'a> {
    kind: Kind,
    current: Option<(String, Instant)>,
    started: Instant,
    interrupt: &'a Interrupt,
}

enum Kind {
    Quiet,
    Plain,
    Bar(ProgressBar),
}

impl<'a> Display<'a> {
    /// Chooses a form: the flag, then `BUILDKIT_PROGRESS`, then what standard error is.
    pub fn new(mode: Option<ProgressMode>, is_quiet: bool, interrupt: &'a Interrupt) -> Display<'a> {
        let from_environment = || match std::env::var("BUILDKIT_PROGRESS").as_deref() {
            Ok("plain") => ProgressMode::Plain,
            Ok("tty") => ProgressMode::Tty,
            Ok("quiet") => ProgressMode::Quiet,
            _ => ProgressMode::Auto,
        };
        let mode = if is_quiet { ProgressMode::Quiet } else { mode.unwrap_or_else(from_environment) };
        let is_terminal =
            std::io::stderr().is_terminal() && std::env::var_os("CI").is_none() && std::env::var("TERM").as_deref() != Ok("dumb");
        let kind = match mode {
            ProgressMode::Quiet => Kind::Quiet,
            ProgressMode::Plain => Kind::Plain,
            ProgressMode::Auto if !is_terminal => Kind::Plain,
            ProgressMode::Auto | ProgressMode::Tty => {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                Kind::Bar(bar)
            }
        };
        let now = Instant::now();
        Display { kind, current: None, started: now, interrupt }
    }

    /// Ends the step that runs. Returns how long everything took.
    pub fn finish(&mut self) -> Duration {
        self.end_step();
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
        self.started.elapsed()
    }

    /// Prints a line that belongs to the progress.
    pub fn say(&self, text: &str) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Plain => drop(writeln!(std::io::stderr(), "{text}")),
            Kind::Bar(bar) => bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}"))),
        }
    }

    fn end_step(&mut self) {
        let Some((head, since)) = self.current.take() else { return };
        let time = since.elapsed();
        match &self.kind {
            Kind::Quiet => {}
            // The step was printed when it began.
            Kind::Plain if time < NOTABLE => {}
            Kind::Plain => {
                let number = head.split(' ').next().unwrap_or_default();
                self.say(&format!("{number} took {}", units::duration(time)));
            }
            Kind::Bar(_) => self.say(&format!("{head}  {}", units::duration(time))),
        }
    }
}

impl Progress for Display<'_> {
    fn begin(&mut self, number: usize, total: usize, what: &str) -> bool {
        self.end_step();
        let head = format!("[{number}/{total}] {what}");
        match &self.kind {
            Kind::Quiet => {}
            Kind::Plain => self.say(&head),
            Kind::Bar(bar) => bar.set_message(head.clone()),
        }
        self.current = Some((head, Instant::now()));
        !self.interrupt.is_set()
    }
}
