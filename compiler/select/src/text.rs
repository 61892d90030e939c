//! The readable, deterministic text form of a plan (`--emit plan`).

use std::fmt::Write;

use crate::catalogue::State;
use crate::plan::{Guest, ModuleReason, Plan};

impl Plan {
    /// Returns the text form.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let guest = match self.guest {
            Guest::LibOs => "libos",
        };
        let _ = writeln!(out, "guest {guest}");
        if let Some(why) = &self.widened {
            let _ = writeln!(out, "widened {why}");
        }
        for m in &self.modules {
            let reasons: Vec<String> = m.reasons.iter().map(ModuleReason::text).collect();
            let _ = writeln!(out, "module {} ({})", m.name, reasons.join("; "));
        }
        for init in &self.inits {
            let _ = writeln!(out, "init {init}");
        }
        for h in &self.handlers {
            let state = match h.state {
                State::Full => String::new(),
                other => format!(" [{}: {}]", other.word(), h.note),
            };
            let _ = writeln!(out, "syscall {} {} -> {} in {}{state}: {}", h.nr, h.name, h.symbol, h.module, h.evidence);
        }
        for m in &self.missing {
            let _ = writeln!(out, "missing {} {}{}: {}", m.nr, m.name, if m.by_application { "" } else { " (C library only)" }, m.evidence);
        }
        out
    }
}

impl ModuleReason {
    /// Returns the reason in words.
    pub fn text(&self) -> String {
        match self {
            ModuleReason::Always => "always".to_owned(),
            ModuleReason::Calls(names) => format!("handles {}", names.join(", ")),
            ModuleReason::NeededBy(names) => format!("needed by {}", names.join(", ")),
            ModuleReason::Feature(name) => format!("asked for by {name}"),
        }
    }
}
