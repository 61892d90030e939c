//! The readable, deterministic text form of facts (`--emit facts`): one fact a line, the kind first.

use std::fmt::Write;

use crate::facts::{Facts, Place, Reason};

impl Facts {
    /// Returns the text form. Of a call's sites it shows how many there are and the first; the JSON form has all.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let p = &self.program;
        let _ = writeln!(out, "program {}", p.path);
        for script in &p.scripts {
            let _ = writeln!(out, "script {script}");
        }
        let _ = writeln!(out, "executable {}", p.executable);
        let _ = writeln!(out, "argv {:?}", p.argv);
        let _ = writeln!(out, "directory {}", p.directory);
        let _ = writeln!(out, "user {}:{} groups {:?} home {}", self.user.uid, self.user.gid, self.user.groups, self.user.home);
        let f = &self.features;
        let _ = writeln!(out, "runtimes {}", f.runtimes.join(" "));
        for (kind, objects) in [
            ("writable-code", &f.writable_code),
            ("executable-stack", &f.executable_stack),
            ("threads", &f.threads),
            ("network", &f.network),
        ] {
            for object in objects {
                let _ = writeln!(out, "{kind} {object}");
            }
        }
        for rule in &self.rules {
            let _ = writeln!(out, "rule {}: {}", rule.name, rule.effect);
        }
        for object in &self.objects {
            let _ = writeln!(out, "object {} ({})", object.path, object.reason.text());
        }
        for (number, call) in &self.syscalls {
            let first = call.sites.first().map(|s| self.place(s)).unwrap_or_default();
            let _ = writeln!(out, "syscall {number} {}: {} {first}", call.name, counted(call.sites.len(), "site"));
        }
        for (kind, places) in [("legacy-entry", &f.legacy_entries), ("unknown", &self.unknown), ("dropped", &self.dropped)] {
            for place in places {
                let _ = writeln!(out, "{kind} {}", self.place(place));
            }
        }
        out
    }

    /// Returns a place as `path+0x1234 in function (note)`.
    pub fn place(&self, place: &Place) -> String {
        let mut out = format!("{}+{:#x}", self.objects.get(place.object).map_or("?", |o| o.path.as_str()), place.offset);
        if let Some(function) = &place.function {
            let _ = write!(out, " in {function}");
        }
        if let Some(note) = &place.note {
            let _ = write!(out, " ({note})");
        }
        out
    }
}

/// Returns `1 site`, `2 sites`.
fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

impl Reason {
    /// Returns the reason in words.
    pub fn text(&self) -> String {
        match self {
            Reason::Program => "the program".into(),
            Reason::ScriptInterpreter(script) => format!("runs the script {script}"),
            Reason::Argument => "named by an argument of the program".into(),
            Reason::ScriptWord(script) => format!("named in {script}"),
            Reason::Loader(program) => format!("dynamic loader of {program}"),
            Reason::Needed(by) => format!("needed by {by}"),
            Reason::Preload => "preloaded".into(),
            Reason::Hwcaps(of) => format!("variant of {of} for newer processors"),
            Reason::Plugin(rule, by) => format!("rule {rule}, because of {by}"),
            Reason::PathDirectory => "in a directory of PATH, and the image starts a shell".into(),
            Reason::LibraryDirectory => "in a directory of libraries, and the image starts a shell".into(),
        }
    }
}
