//! Progress on standard error: a spinner above finished steps on a terminal, one line per step elsewhere, or nothing.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use ukc_driver::Progress;
use ukc_driver::sandbox::RunEvent;

use crate::args::ProgressMode;
use crate::interrupt::Interrupt;
use crate::network::Transfers;
use crate::units;

/// Plain lines mention a step's time from here on.
const NOTABLE: Duration = Duration::from_millis(100);

/// Lines of a RUN are shown in pieces from here on.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Shows steps.
pub struct Display<'a> {
    kind: Kind,
    current: Option<(String, Instant)>,
    started: Instant,
    /// What a RUN printed since its last line ended.
    partial: Vec<u8>,
    is_cached: bool,
    interrupt: &'a Interrupt,
    transfers: Transfers,
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
        let transfers = Transfers::default();
        let kind = match mode {
            ProgressMode::Quiet => Kind::Quiet,
            ProgressMode::Plain => Kind::Plain,
            ProgressMode::Auto if !is_terminal => Kind::Plain,
            ProgressMode::Auto | ProgressMode::Tty => {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {transfers} {elapsed}") {
                    let transfers = transfers.clone();
                    let show = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = out.write_str(&transfers.summary());
                    };
                    bar.set_style(style.with_key("transfers", show));
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                Kind::Bar(bar)
            }
        };
        match &kind {
            Kind::Quiet => {}
            Kind::Plain => transfers.show_lines(),
            Kind::Bar(bar) => transfers.show_above(bar),
        }
        let now = Instant::now();
        Display { kind, current: None, started: now, partial: vec![], is_cached: false, interrupt, transfers }
    }

    /// Returns what shows blobs on their way.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
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

    /// Shows what a RUN prints, each whole line behind the step's number.
    fn output(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.line(&line);
        }
        // A program that never ends a line is no reason to keep all it says.
        if self.partial.len() > MAX_LINE_BYTES {
            let line = std::mem::take(&mut self.partial);
            self.line(&line);
        }
    }

    fn line(&self, line: &[u8]) {
        let number = self.current.as_ref().and_then(|(head, _)| head.split(' ').next()).unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        // Of a line that overwrites itself, as progress bars do, the last state counts. Other control characters could harm the terminal.
        let text = text.trim_end_matches(['\n', '\r']);
        let text = text.rsplit('\r').next().unwrap_or_default();
        let shown: String = without_escapes(text).chars().filter(|c| !c.is_control() || *c == '\t').collect();
        self.say(&format!("{number} {shown}"));
    }

    fn end_step(&mut self) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.line(&line);
        }
        let Some((head, since)) = self.current.take() else { return };
        if std::mem::take(&mut self.is_cached) {
            match &self.kind {
                Kind::Quiet => {}
                Kind::Plain => self.say(&format!("{} CACHED", head.split(' ').next().unwrap_or_default())),
                Kind::Bar(_) => self.say(&format!("{head}  CACHED")),
            }
            return;
        }
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
        self.partial.clear();
        !self.interrupt.is_set()
    }

    fn ran(&mut self, event: RunEvent<'_>) {
        match event {
            RunEvent::Cached => self.is_cached = true,
            RunEvent::Output(bytes) => self.output(bytes),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.interrupt.is_set()
    }
}

/// Removes terminal sequences: `ESC [ parameters letter` (ECMA-48, "control sequence") and two-character ones.
fn without_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match after.strip_prefix('[') {
            Some(sequence) => sequence.find(|c: char| ('@'..='~').contains(&c)).map_or("", |end| &sequence[end + 1..]),
            None => after.char_indices().nth(1).map_or("", |(next, _)| &after[next..]),
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_are_removed() {
        for (text, expected) in
            [("plain", "plain"), ("\u{1b}[1;31mred\u{1b}[0m", "red"), ("a\u{1b}(b", "ab"), ("a\u{1b}", "a"), ("a\u{1b}[1", "a")]
        {
            assert_eq!(super::without_escapes(text), expected, "{text:?}");
        }
    }
}
