//! A comparison for people: a line for each part that changed, and below it what came (`+`), went (`-`) and is different (`~`).
//!
//! ```text
//! image      1.2 MB → 1.4 MB (+0.2 MB)
//! syscalls   +1 -0
//!   + ptrace
//! ```

use std::fmt::{self, Write as _};

use ukc_image_json::GuestKind;

use crate::{Change, Comparison, Names};

/// How many names of a part are printed unless all are asked for.
const SHOWN: usize = 20;

impl Comparison {
    /// Returns the text; `is_whole` prints all names of long parts.
    pub fn to_text(&self, is_whole: bool) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out, is_whole);
        out
    }

    fn write(&self, out: &mut String, is_whole: bool) -> fmt::Result {
        if self.is_empty() {
            return writeln!(out, "no difference");
        }
        if self.guest.old != self.guest.new {
            writeln!(out, "{:<14} {} → {}", "guest", guest(self.guest.old), guest(self.guest.new))?;
        }
        size(out, "image", self.image_bytes)?;
        size(out, "kernel", self.kernel_bytes)?;
        let parts = [
            ("syscalls", &self.syscalls),
            ("modules", &self.modules),
            ("ports", &self.ports),
            ("setuid", &self.setuid),
            ("capabilities", &self.capabilities),
            ("packages", &self.packages),
        ];
        for (head, names) in parts {
            self::names(out, head, names, is_whole)?;
        }
        let versions: Vec<String> =
            self.package_versions.iter().map(|p| format!("{} {} → {}", p.name, p.version.old, p.version.new)).collect();
        changed(out, "versions", &versions, is_whole)?;
        if let Some(files) = &self.files {
            names(out, "files", &files.names, is_whole)?;
            let lines: Vec<String> = files.changed.iter().map(|f| format!("{} ({})", f.path, f.what.join(", "))).collect();
            changed(out, "changed files", &lines, is_whole)?;
        }
        Ok(())
    }
}

fn guest(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Unikernel => "libos",
        GuestKind::Linux => "linux",
    }
}

fn size(out: &mut String, head: &str, change: Change<u64>) -> fmt::Result {
    if change.old == change.new {
        return Ok(());
    }
    let difference = i128::from(change.new) - i128::from(change.old);
    writeln!(out, "{head:<14} {} → {} bytes ({difference:+})", change.old, change.new)
}

fn names(out: &mut String, head: &str, names: &Names, is_whole: bool) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    writeln!(out, "{head:<14} +{} -{}", names.added.len(), names.removed.len())?;
    lines(out, '+', &names.added, is_whole)?;
    lines(out, '-', &names.removed, is_whole)
}

fn changed(out: &mut String, head: &str, all: &[String], is_whole: bool) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(out, "{head:<14} ~{}", all.len())?;
    lines(out, '~', all, is_whole)
}

fn lines(out: &mut String, sign: char, all: &[String], is_whole: bool) -> fmt::Result {
    let shown = if is_whole { all.len() } else { all.len().min(SHOWN) };
    for name in &all[..shown] {
        writeln!(out, "  {sign} {name}")?;
    }
    if all.len() > shown { writeln!(out, "  {sign} and {} more (--all prints them)", all.len() - shown) } else { Ok(()) }
}
